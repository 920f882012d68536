/*
 * acquire.c
 *		How this session gets a connection: granted, waited for, opened.
 *
 * First a slot, from the registry or its queue; then the connection in it, the
 * one that is open or a new one.  Whatever fails on the way, a slot that has
 * been handed over is given back: before its hold is in the session's list that
 * is done here, and from then on like any other end of a hold.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/inval.h"
#include "utils/timestamp.h"

#include "acquire.h"
#include "await.h"
#include "compat.h"
#include "deadlock.h"
#include "hold.h"
#include "launch.h"
#include "moment.h"
#include "registry.h"
#include "result.h"
#include "settings.h"
#include "talk.h"
#include "transfer.h"

/* how often one that waits looks whether its pool may have become larger */
#define LOOK_EVERY_MS	1000

static bool exit_registered = false;

/* ---- saying why not ---- */

static char *
describe_holder(const PgmcHolder *holder, int place)
{
	long		secs;
	int			usecs;
	char	   *role;

	if (holder->pid == 0)
		return psprintf("No session holds it at the moment; this session is number %d in the queue.",
						place);
	TimestampDifference(holder->since, GetCurrentTimestamp(), &secs, &usecs);
	role = GetUserNameFromId(holder->userid, true);
	return psprintf("Process %d (role \"%s\", application \"%s\") has held it for %ld.%03d s; this session is number %d in the queue.",
					holder->pid, role ? role : "?", holder->appname,
					secs, usecs / 1000, place);
}

static PGMC_NORETURN void
raise_timeout(const char *srvname, const PgmcHolder *holder, int place)
{
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("timed out while waiting for server \"%s\"", srvname),
			 errdetail_internal("%s", describe_holder(holder, place))));
	pg_unreachable();
}

static PGMC_NORETURN void
raise_timeout_for_room(const PgmcServer *server)
{
	pgmc_registry_count(&server->key, PGMC_COUNT_TIMEOUTS);
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("timed out while waiting for server \"%s\"",
					NameStr(server->srvname)),
			 errdetail("All %d managed connections are in use or being made ready for others.",
					   pgmc_max_connections)));
	pg_unreachable();
}

static PGMC_NORETURN void
raise_not_connected(const char *srvname, int sqlstate, const char *reason)
{
	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg("could not connect to server \"%s\"", srvname),
			 errdetail_internal("%s", pgmc_transfer_clean(reason)),
			 sqlstate == ERRCODE_TOO_MANY_CONNECTIONS ?
			 errhint("Raise the limit that was reached (\"max_connections\" of the server it connects to, or CONNECTION LIMIT of the role or the database there), or close other connections.") : 0));
	pg_unreachable();
}

static PGMC_NORETURN void
raise_refused(const PgmcServer *server, PgmcAcquireResult why, bool extra)
{
	const char *name = NameStr(server->srvname);

	switch (why)
	{
		case PGMC_NO_ROOM:
		case PGMC_NO_ROOM_YET:
			ereport(ERROR,
					(errcode(ERRCODE_TOO_MANY_CONNECTIONS),
					 errmsg("all %d managed connections are in use",
							pgmc_max_connections),
					 errhint("Raise \"pgmc.max_connections\".")));
			break;
		case PGMC_HELD_BY_ANCESTOR:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("server \"%s\" is held by the session that this one works for",
							name),
					 errdetail("Waiting for it would be waiting for oneself."),
					 errhint("A larger option pool_size of the server lets pgmc.autonomous() take another connection.")));
			break;
		default:
			if (extra)
				ereport(ERROR,
						(errcode(ERRCODE_OBJECT_IN_USE),
						 errmsg("this session holds every connection of server \"%s\" already",
								name),
						 errhint("Raise the option pool_size of the server, or use the hold.")));
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("this session holds server \"%s\" already", name)));
			break;
	}
	pg_unreachable();
}

/* ---- waiting for a turn ---- */

/* Say who holds what we wait for. */
static void
tell_long_wait(const PgmcServer *server)
{
	PgmcHolder	holder;
	int			place = pgmc_registry_place(&holder);

	if (place > 0)
		ereport(NOTICE,
				(errmsg("still waiting for server \"%s\"", NameStr(server->srvname)),
				 errdetail_internal("%s", describe_holder(&holder, place))));
}

/*
 * What is to be done once in a while by one who waits: say so, once, when it has
 * taken pgmc.log_waits, and find out whether more connections are allowed by
 * now.  True where anything was done, and a connection may be ours since.
 */
static bool
look_around(const PgmcServer *server, TimestampTz *notice_at, uint64 *as_of)
{
	int			pool_size;

	if (*notice_at != 0 && GetCurrentTimestamp() >= *notice_at)
	{
		*notice_at = 0;
		tell_long_wait(server);
		return true;
	}
	if (!pgmc_server_pool_size(server, as_of, &pool_size))
		return false;
	pgmc_registry_resize(pool_size);
	return true;
}

/* Keep the error that has struck; without memory for that, the connection goes back. */
static void
keep_error(PgmcHold *hold, const PgmcGrant *grant)
{
	PG_TRY();
	{
		hold->struck = CopyErrorData();
	}
	PG_CATCH();
	{
		(void) pgmc_registry_release(grant->slot, grant->epoch,
									 PGMC_RELEASE_DIRTY, PGMC_END_ABORT, false);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/*
 * Wait for the turn that the registry has queued us for.  On every way out of
 * here we are out of the queue, and a connection that was handed over just
 * then is not lost: it is returned, or given back.  Where the command has gone
 * out by then, an error waits for its outcome, in hold->struck.
 */
static PgmcAcquireResult
wait_in_queue(const PgmcServer *server, PgmcHold *hold, TimestampTz deadline,
			  PgmcGrant *grant, PgmcFailure *failure)
{
	static uint32 event = 0;
	volatile PgmcAcquireResult result = PGMC_QUEUED;
	MemoryContext caller = CurrentMemoryContext;
	PgmcWait	wait = {.key = &server->key};
	uint64		as_of = server->as_of;
	TimestampTz notice_at = pgmc_log_waits < 0 ? 0 :
	TimestampTzPlusMilliseconds(GetCurrentTimestamp(), pgmc_log_waits);

	if (event == 0)
		event = pgmc_wait_event_new("PgmcAcquire");
	PG_TRY();
	{
		for (;;)
		{
			TimestampTz until;
			long		timeout;
			long		check;

			/*
			 * one whose command has gone out meanwhile is interrupted
			 * elsewhere
			 */
			if (pgmc_await_interrupted())
			{
				result = pgmc_registry_leave(grant, failure);
				if (result == PGMC_GRANTED && grant->mailed)
					break;
			}
			CHECK_FOR_INTERRUPTS();

			/* not before that: the check of the client takes the latch's news */
			result = pgmc_registry_poll(grant, failure);
			if (result != PGMC_QUEUED)
				break;
			if (deadline != 0 && GetCurrentTimestamp() >= deadline)
				break;
			if (look_around(server, &notice_at, &as_of))
				continue;
			check = Min(pgmc_deadlock_check(&wait), LOOK_EVERY_MS);
			until = pgmc_sooner(deadline, notice_at);
			timeout = until == 0 ? -1 :
				TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);
			timeout = timeout < 0 ? check : Min(timeout, check);
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 timeout, event);
			ResetLatch(MyLatch);
		}
	}
	PG_CATCH();
	{
		result = pgmc_registry_leave(grant, failure);

		if (result != PGMC_GRANTED || !grant->mailed)
		{
			if (result == PGMC_GRANTED)
				pgmc_registry_release(grant->slot, grant->epoch,
									  PGMC_RELEASE_CLEAN, PGMC_END_ABORT, false);
			PG_RE_THROW();
		}

		/* the command has gone out; then it is no deadlock any more */
		MemoryContextSwitchTo(caller);
		if (geterrcode() != ERRCODE_T_R_DEADLOCK_DETECTED)
			keep_error(hold, grant);
		FlushErrorState();
	}
	PG_END_TRY();
	pgmc_deadlock_end(&wait);
	return result;
}

/* Queue and wait.  False: time is up, which only try is not an error. */
static bool
queue_up(const PgmcServer *server, PgmcHold *hold, bool try,
		 TimestampTz deadline, PgmcGrant *grant)
{
	PgmcFailure failure;
	PgmcHolder	holder;
	int			place;

	switch (wait_in_queue(server, hold, deadline, grant, &failure))
	{
		case PGMC_GRANTED:
			return true;
		case PGMC_FAILED:
			raise_not_connected(NameStr(server->srvname), failure.sqlstate,
								failure.message);
		default:
			break;
	}
	place = pgmc_registry_place(&holder);
	switch (pgmc_registry_leave(grant, &failure))
	{
		case PGMC_GRANTED:
			return true;
		case PGMC_FAILED:
			raise_not_connected(NameStr(server->srvname), failure.sqlstate,
								failure.message);
		default:
			break;
	}
	if (try)
		return false;
	pgmc_registry_count(&server->key, PGMC_COUNT_TIMEOUTS);
	raise_timeout(NameStr(server->srvname), &holder, place);
}

static void
fill_acquire(const PgmcServer *server, PgmcAcquireMode mode,
			 PgmcAcquire *acquire)
{
	memset(acquire, 0, sizeof(*acquire));
	acquire->key = server->key;
	acquire->srvname = server->srvname;
	acquire->pool_size = server->options.pool_size;
	acquire->max_connections = pgmc_max_connections;
	acquire->hold_timeout = server->options.hold_timeout;
	acquire->idle_hold_timeout = server->options.idle_hold_timeout;
	acquire->options_hash = server->options_hash;
	acquire->mode = mode;
}

/*
 * As pgmc_registry_acquire, but what is only lacking at the moment is waited
 * for: a worker, and room.  Nobody is queued for room, nor is it promised to
 * anybody, so that wait has a limit, as others for a recovery have.
 */
static PgmcAcquireResult
ask_registry(const PgmcAcquire *request, TimestampTz deadline, PgmcGrant *grant)
{
	static uint32 event = 0;
	ConditionVariable *cv = pgmc_registry_news_cv();
	int			patience = request->mode == PGMC_ACQUIRE_TRY ?
	PGMC_TRY_PATIENCE_MS : PGMC_RECOVERY_PATIENCE_MS;
	TimestampTz until = 0;
	PgmcAcquireResult result;

	for (;;)
	{
		TimestampTz now;

		result = pgmc_registry_acquire(request, grant);
		if (result == PGMC_NO_WORKER)
		{
			pgmc_launch_worker(deadline);
			continue;
		}
		if (result != PGMC_NO_ROOM_YET)
			break;
		if (event == 0)
			event = pgmc_wait_event_new("PgmcRecovery");
		now = GetCurrentTimestamp();
		if (until == 0)
			until = pgmc_sooner(deadline, TimestampTzPlusMilliseconds(now, patience));
		if (now >= until)
			break;
		(void) ConditionVariableTimedSleep(cv,
										   TimestampDifferenceMilliseconds(now, until),
										   event);
	}
	ConditionVariableCancelSleep();
	return result;
}

/* Get a slot, open or not.  False: busy, and we won't wait. */
static bool
get_slot(const PgmcServer *server, PgmcHold *hold, bool try,
		 TimestampTz deadline, const PgmcMail *mail, PgmcGrant *grant)
{
	PgmcAcquire request;
	PgmcAcquireResult result;
	bool		call = hold->scope == PGMC_SCOPE_CALL;
	PgmcAcquireMode mode = call ? PGMC_ACQUIRE_EXTRA :
	try ? PGMC_ACQUIRE_TRY : PGMC_ACQUIRE_HOLD;

	fill_acquire(server, mode, &request);
	request.mail = mail;
	result = ask_registry(&request, try ? 0 : deadline, grant);
	if (result == PGMC_BUSY)
		return false;

	/* nobody's, but still being cleaned up: that is not somebody else's */
	if (result == PGMC_QUEUED && try)
		deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
											   PGMC_TRY_PATIENCE_MS);
	if (result == PGMC_QUEUED)
		return queue_up(server, hold, try, deadline, grant);
	if (result == PGMC_NO_ROOM_YET && !try && deadline != 0 &&
		GetCurrentTimestamp() >= deadline)
		raise_timeout_for_room(server);
	if (result != PGMC_GRANTED)
		raise_refused(server, result, call);
	return true;
}

/* ---- making it usable ---- */

static PgmcHold *
make_hold(const PgmcServer *server, PgmcScope scope)
{
	PgmcHold   *hold = pgmc_hold_new();

	hold->key = server->key;
	hold->srvname = server->srvname;
	hold->userid = GetUserId();
	hold->close_on_error = server->options.close_on_error;
	hold->scope = scope;
	hold->subid = GetCurrentSubTransactionId();
	hold->reader.hold = hold;
	return hold;
}

/* A name of a host isn't known: nor will it be to those who are queued behind us. */
static PGMC_NORETURN void
fail_opening(const PgmcHold *hold, const char *reason)
{
	PgmcFailure failure;

	failure.sqlstate = ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION;
	strlcpy(failure.message, reason, sizeof(failure.message));
	pgmc_registry_not_opened(hold->slot, hold->epoch, &failure);
	raise_not_connected(NameStr(hold->srvname), failure.sqlstate, reason);
}

/* Open it, and note in the grant what that has found out. */
static void
connect_hold(PgmcHold *hold, const PgmcServer *server, PgmcGrant *grant)
{
	PgmcConninfo info;
	PgmcOpen	open;
	PgmcOutcome outcome;
	const char *reason = pgmc_server_lookup_hosts(server, &info);

	if (reason != NULL)
		fail_opening(hold, reason);
	open.session = pgmc_registry_session();
	open.options_hash = server->options_hash;
	open.connect_timeout = server->connect_timeout;
	open.idle_timeout = server->options.idle_timeout;
	open.max_lifetime = server->options.max_lifetime;
	open.npairs = info.n;
	open.keywords = info.keywords;
	open.values = info.values;
	open.reset_query = server->options.reset_query;

	pgmc_launch_worker(hold->deadline);
	pgmc_channel_prepare(pgmc_registry_channel(hold->slot), hold->slot,
						 hold->epoch);
	pgmc_talk_open(hold, &open, &outcome);
	if (outcome.failed)
		raise_not_connected(NameStr(hold->srvname),
							pgmc_result_sqlstate(&outcome.error),
							outcome.error.message);
	hold->xact = PGMC_XACT_IDLE;

	/* as the reply has it: by now the connection may be lost again */
	grant->used_password = (outcome.flags & PGMC_DONE_PASSWORD) != 0;
	grant->same_cluster = (outcome.flags & PGMC_DONE_OWN_CLUSTER) != 0;
}

/*
 * While we waited for our turn, somebody may have dropped what we want to
 * connect to: then nothing is opened any more.
 */
static void
check_not_dropped(const PgmcServer *server)
{
	AcceptInvalidationMessages();
	if (pgmc_server_key_dropped(&server->key))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("server \"%s\" or its user mapping was dropped while this session waited for a connection",
						NameStr(server->srvname))));
}

/* The hold is in the list; make its connection usable, or end it. */
static void
make_usable(PgmcHold *hold, const PgmcServer *server, PgmcGrant *grant,
			TimestampTz deadline)
{
	PG_TRY();
	{
		hold->deadline = deadline;
		if (!grant->open || grant->options_hash != server->options_hash)
		{
			check_not_dropped(server);
			connect_hold(hold, server, grant);
		}
		else
		{
			pgmc_channel_prepare(pgmc_registry_channel(hold->slot), hold->slot,
								 hold->epoch);
			hold->xact = PGMC_XACT_IDLE;
		}
		hold->deadline = 0;
		hold->own_database = server->own_database && grant->same_cluster;
		hold->used_password = grant->used_password;
		hold->same_cluster = grant->same_cluster;
		pgmc_server_check_connection(server, grant->used_password,
									 grant->same_cluster);
	}
	PG_CATCH();
	{
		if (geterrcode() == ERRCODE_LOCK_NOT_AVAILABLE)
			pgmc_registry_count(&server->key, PGMC_COUNT_TIMEOUTS);
		pgmc_session_end_call(hold, false);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/*
 * The same where the command has gone out with the acquire: whoever handed the
 * connection over has seen that it is open and may be used, and by now it may
 * be somebody else's.  Only the way to the reply is needed.
 */
static void
prepare_for_reply(PgmcHold *hold, uint16 seq)
{
	hold->seq = seq;
	hold->mailed = hold->in_flight = true;
	PG_TRY();
	{
		pgmc_channel_prepare(pgmc_registry_channel(hold->slot), hold->slot,
							 hold->epoch);
	}
	PG_CATCH();
	{
		pgmc_session_end_call(hold, false);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/* ---- acquiring ---- */

static void
at_exit(int code, Datum arg)
{
	pgmc_registry_session_exit();
}

static void
check_registry(void)
{
	pgmc_registry_attach();
	pgmc_registry_check_current();
	if (!exit_registered)
		before_shmem_exit(at_exit, (Datum) 0);
	exit_registered = true;
}

/*
 * Close what is of no use to anybody any more, its server or mapping having been
 * dropped by a session that hasn't loaded the library (see hooks.c).
 */
static void
close_dropped(void)
{
	if (!pgmc_server_perhaps_dropped())
		return;
	for (int i = 0; i < pgmc_registry_slots(); i++)
	{
		PgmcSlot	slot;

		pgmc_registry_slot(i, &slot);
		if (slot.state == PGMC_CONN_IDLE && pgmc_server_key_dropped(&slot.key))
			pgmc_registry_close_idle(i, &slot.key, PGMC_CLOSE_DROPPED);
	}
}

static TimestampTz
deadline_of(int64 timeout)
{
	int64		least = timeout;

	if (pgmc_acquire_timeout > 0 && (least == 0 || pgmc_acquire_timeout < least))
		least = pgmc_acquire_timeout;
	if (LockTimeout > 0 && (least == 0 || LockTimeout < least))
		least = LockTimeout;
	return least == 0 ? 0 :
		TimestampTzPlusMilliseconds(GetCurrentTimestamp(), least);
}

static PgmcHold *
acquire(const PgmcServer *server, PgmcScope scope, bool try, int64 timeout,
		const PgmcMail *mail)
{
	TimestampTz deadline = deadline_of(timeout);
	PgmcHold   *hold;
	PgmcGrant	grant;
	volatile bool granted = false;

	pgmc_server_check_password(server);
	check_registry();
	close_dropped();

	/* the registry doesn't know of one that was revoked */
	if (scope != PGMC_SCOPE_CALL && pgmc_session_find(server) != NULL)
		raise_refused(server, PGMC_HELD_BY_SELF, false);
	hold = make_hold(server, scope);
	PG_TRY();
	{
		granted = get_slot(server, hold, try, deadline, mail, &grant);
	}
	PG_CATCH();
	{
		pgmc_hold_free(hold);
		PG_RE_THROW();
	}
	PG_END_TRY();
	if (!granted)
	{
		pgmc_hold_free(hold);
		return NULL;
	}
	hold->slot = grant.slot;
	hold->epoch = grant.epoch;
	hold->seq = (uint16) (grant.epoch * 257);	/* not the last holder's */
	pgmc_session_add(hold);
	if (mail != NULL && grant.mailed)
		prepare_for_reply(hold, mail->seq);
	else
		make_usable(hold, server, &grant, deadline);
	return hold;
}

PgmcHold *
pgmc_acquire_hold(const PgmcServer *server, PgmcScope scope, bool try,
				  int64 timeout)
{
	return acquire(server, scope, try, timeout, NULL);
}

PgmcHold *
pgmc_acquire_for_call(const PgmcServer *server, const PgmcExecute *exec,
					  uint8 flags)
{
	PgmcMail	mail;

	pgmc_talk_write_mail(exec, flags, &mail);
	mail.options_hash = server->options_hash;
	mail.anyhow = server->trusted;
	mail.with_password = server->has_password;
	mail.own_cluster = server->as_oneself;
	return acquire(server, PGMC_SCOPE_CALL, false, 0, &mail);
}
