/*
 * session.c
 *		What this session holds: finding it, using it, and when it ends.
 *
 * The session's holds are in a list, the innermost first; acquire.c adds them.
 * A hold leaves the list before anything is reported about it, and the registry
 * is told before that: whatever a slow client or an error does then, the
 * connection is already on its way to the next holder.
 */
#include "postgres.h"

#include "access/xact.h"
#include "foreign/foreign.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "utils/timestamp.h"

#include "await.h"
#include "compat.h"
#include "fate.h"
#include "hold.h"
#include "registry.h"
#include "result.h"
#include "session.h"
#include "taken.h"
#include "talk.h"

/* how often to look for the end of a recovery, where the news of it got lost */
#define RECOVERY_LOOK_MS	100

static dlist_head holds = DLIST_STATIC_INIT(holds);

/* ended while calls on the stack were using them; freed with the transaction */
static dlist_head buried = DLIST_STATIC_INIT(buried);

/* ---- the end of holds ---- */

static void
bury(PgmcHold *hold)
{
	dlist_delete(&hold->node);
	hold->ended = true;
	if (hold->users > 0)
		dlist_push_head(&buried, &hold->node);
	else
		pgmc_hold_free(hold);
}

static void
free_buried(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &buried)
	{
		PgmcHold   *hold = dlist_container(PgmcHold, node, iter.cur);

		if (hold->users > 0)
			continue;
		dlist_delete(&hold->node);
		pgmc_hold_free(hold);
	}
}

static bool
is_clean(const PgmcHold *hold)
{
	return !hold->in_flight && !hold->aborting && hold->xact == PGMC_XACT_IDLE;
}

/* Has the loopback a transaction that a rollback would take something from? */
static bool
has_transaction(const PgmcHold *hold)
{
	if (hold->scope == PGMC_SCOPE_CALL)
		return false;
	if (hold->in_flight || hold->aborting)
		return !hold->autocommit;
	return hold->xact == PGMC_XACT_INTRANS || hold->xact == PGMC_XACT_INERROR ||
		hold->xact == PGMC_XACT_ACTIVE || hold->xact == PGMC_XACT_UNKNOWN;
}

/* what is left to do when a hold has ended */
typedef struct Aftermath
{
	NameData	srvname;
	int			slot;
	uint64		recovery;		/* the worker's, 0: none */
	bool		dirty;			/* there was a transaction to roll back */
} Aftermath;

/* Give the connection back without waiting or failing, and forget the hold. */
static Aftermath
give_back(PgmcHold *hold, PgmcRelease clean_way, PgmcRelease dirty_way,
		  PgmcEnd why)
{
	bool		lost = hold->xact == PGMC_XACT_UNKNOWN;
	Aftermath	after;

	after.srvname = hold->srvname;
	after.slot = hold->slot;
	after.dirty = has_transaction(hold);
	after.recovery =
		pgmc_registry_release(hold->slot, hold->epoch,
							  is_clean(hold) ? clean_way : dirty_way,
							  why, after.dirty && !lost);
	bury(hold);
	return after;
}

/* The same after an error, or not: some servers' connections are closed by one. */
static bool
give_back_after(PgmcHold *hold, bool error)
{
	PgmcEnd		why = error ? PGMC_END_ABORT : PGMC_END_RELEASE;

	if (error && hold->close_on_error)
		return give_back(hold, PGMC_RELEASE_CLOSE, PGMC_RELEASE_CLOSE, why).dirty;
	return give_back(hold, PGMC_RELEASE_CLEAN, PGMC_RELEASE_DIRTY, why).dirty;
}

static void
warn_rolled_back(const char *srvname)
{
	ereport(WARNING,
			(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
			 errmsg("open transaction on server \"%s\" is rolled back", srvname)));
}

typedef bool (*HoldFilter) (const PgmcHold *hold, SubTransactionId subid);

/*
 * End all holds that the filter picks, then warn of what that rolled back.
 * For abort paths, where the reason is noted for whoever misses them.
 */
static int
end_holds(HoldFilter filter, SubTransactionId subid, bool aborted, bool warn)
{
	dlist_mutable_iter iter;
	NameData	dirty[16];
	int			ndirty = 0;
	int			ended = 0;
	bool		innermost = true;

	dlist_foreach_modify(iter, &holds)
	{
		PgmcHold   *hold = dlist_container(PgmcHold, node, iter.cur);
		NameData	srvname = hold->srvname;

		if (!filter(hold, subid))
			continue;
		if (aborted && hold->scope != PGMC_SCOPE_CALL)
		{
			pgmc_taken_note(&srvname, subid != InvalidSubTransactionId, innermost);
			innermost = false;
		}
		if (give_back_after(hold, aborted) &&
			ndirty < (int) lengthof(dirty))
			dirty[ndirty++] = srvname;
		ended++;
	}
	for (int i = 0; warn && i < ndirty; i++)
		warn_rolled_back(NameStr(dirty[i]));
	return ended;
}

void
pgmc_session_check_unrestricted(void)
{
	if (InSecurityRestrictedOperation())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("functions of pgmc cannot be called within a security-restricted operation")));
}

static bool
any_hold(const PgmcHold *hold, SubTransactionId subid)
{
	return true;
}

static bool
hold_of_subxact(const PgmcHold *hold, SubTransactionId subid)
{
	return hold->subid == subid;
}

int
pgmc_session_release_all(void)
{
	return end_holds(any_hold, InvalidSubTransactionId, false, true);
}

/* Wait for the end of it, for a moment; false: it takes longer. */
static bool
await_rollback(const Aftermath *after)
{
	return pgmc_session_await_recovery(after->slot, after->recovery);
}

/* ---- transactions ---- */

/* A transaction-scoped hold ends here, clean; a dirty one fails the COMMIT. */
static void
before_commit(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &holds)
	{
		PgmcHold   *hold = dlist_container(PgmcHold, node, iter.cur);

		if (hold->scope != PGMC_SCOPE_XACT)
			continue;
		if (has_transaction(hold))
		{
			PgmcChannelState state = pgmc_talk_state(hold);
			Aftermath	after;
			bool		ended;

			if (state != PGMC_CHANNEL_OK)
				pgmc_await_raise(hold, state);
			after = give_back(hold, PGMC_RELEASE_CLEAN, PGMC_RELEASE_DIRTY,
							  PGMC_END_RELEASE);
			ended = await_rollback(&after);
			ereport(ERROR,
					(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
					 errmsg("transaction on server \"%s\" was still open at the end of its hold",
							NameStr(after.srvname)),
					 ended ?
					 errdetail("It has been rolled back.") :
					 errdetail("It is being rolled back."),
					 errhint("Call pgmc.commit() or pgmc.rollback() before the transaction ends.")));
		}
		(void) give_back(hold, PGMC_RELEASE_CLEAN, PGMC_RELEASE_DIRTY,
						 PGMC_END_RELEASE);
	}
}

/* What is held now has outlived the transaction that acquired it. */
static void
after_commit(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &holds)
		dlist_container(PgmcHold, node, iter.cur)->subid = InvalidSubTransactionId;
	free_buried();
}

static void
xact_callback(XactEvent event, void *arg)
{
	if (dlist_is_empty(&holds) && dlist_is_empty(&buried))
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			before_commit();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
			after_commit();
			break;
		case XACT_EVENT_ABORT:
			(void) end_holds(any_hold, InvalidSubTransactionId, true,
							 !proc_exit_inprogress);
			free_buried();
			break;
		case XACT_EVENT_PARALLEL_PRE_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
		case XACT_EVENT_PARALLEL_ABORT:
			break;
	}
}

static void
subxact_callback(SubXactEvent event, SubTransactionId mine,
				 SubTransactionId parent, void *arg)
{
	dlist_iter	iter;

	if (dlist_is_empty(&holds))
		return;
	switch (event)
	{
		case SUBXACT_EVENT_ABORT_SUB:
			(void) end_holds(hold_of_subxact, mine, true, !proc_exit_inprogress);
			break;
		case SUBXACT_EVENT_COMMIT_SUB:
			dlist_foreach(iter, &holds)
			{
				PgmcHold   *hold = dlist_container(PgmcHold, node, iter.cur);

				if (hold->subid == mine)
					hold->subid = parent;
			}
			break;
		case SUBXACT_EVENT_START_SUB:
		case SUBXACT_EVENT_PRE_COMMIT_SUB:
			break;
	}
}

void
pgmc_session_init(void)
{
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
}

/* ---- adding and finding ---- */

void
pgmc_session_add(PgmcHold *hold)
{
	dlist_push_head(&holds, &hold->node);
	if (hold->scope != PGMC_SCOPE_CALL)
		pgmc_taken_forget(&hold->srvname);
}

PgmcHold *
pgmc_session_innermost(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &holds)
	{
		PgmcHold   *hold = dlist_container(PgmcHold, node, iter.cur);

		if (hold->scope != PGMC_SCOPE_CALL)
			return hold;
	}
	return NULL;
}

PgmcHold *
pgmc_session_find(const PgmcServer *server)
{
	dlist_iter	iter;

	dlist_foreach(iter, &holds)
	{
		PgmcHold   *hold = dlist_container(PgmcHold, node, iter.cur);

		if (hold->scope != PGMC_SCOPE_CALL && pgmc_same_key(&hold->key, &server->key))
			return hold;
	}
	return NULL;
}

/*
 * Any hold of the server, whoever it belongs to, but rather one's own; the
 * server may have got another name since.
 */
static PgmcHold *
find_by_oid(Oid serverid)
{
	PgmcHold   *found = NULL;
	dlist_iter	iter;

	dlist_foreach(iter, &holds)
	{
		PgmcHold   *hold = dlist_container(PgmcHold, node, iter.cur);

		if (hold->scope == PGMC_SCOPE_CALL || hold->key.serverid != serverid)
			continue;
		if (hold->userid == GetUserId())
			return hold;
		if (found == NULL)
			found = hold;
	}
	return found;
}

/* any hold of a server that had this name, also where it was dropped since */
static PgmcHold *
find_by_name(const char *srvname)
{
	dlist_iter	iter;

	dlist_foreach(iter, &holds)
	{
		PgmcHold   *hold = dlist_container(PgmcHold, node, iter.cur);

		if (hold->scope != PGMC_SCOPE_CALL &&
			strcmp(NameStr(hold->srvname), srvname) == 0)
			return hold;
	}
	return NULL;
}

static PGMC_NORETURN void
raise_no_hold(const char *srvname)
{
	const PgmcTaken *taken = pgmc_taken_find(srvname);

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 srvname == NULL ?
			 errmsg("this session holds no managed connection") :
			 errmsg("this session holds no managed connection of server \"%s\"",
					srvname),
			 taken == NULL ? 0 : taken->subxact ?
			 errdetail("The hold of server \"%s\" ended at %s, when the subtransaction it was acquired in was aborted.",
					   NameStr(taken->srvname), timestamptz_to_str(taken->at)) :
			 errdetail("The hold of server \"%s\" ended at %s, when the transaction it was used in was aborted.",
					   NameStr(taken->srvname), timestamptz_to_str(taken->at)),
			 errhint("Call pgmc.acquire() first.")));
	pg_unreachable();
}

/* The hold is of that server, but not of the current user's key. */
static PGMC_NORETURN void
raise_not_yours(const PgmcHold *hold, const PgmcServer *server)
{
	if (hold->userid == GetUserId())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("login role or user mapping of server \"%s\" has changed since it was acquired",
						NameStr(server->srvname)),
				 strcmp(NameStr(hold->key.login), NameStr(server->key.login)) == 0 ?
				 errdetail("It was acquired for login role \"%s\" by another user mapping than there is now.",
						   NameStr(hold->key.login)) :
				 errdetail("It was acquired for login role \"%s\", and the login role is \"%s\" now.",
						   NameStr(hold->key.login), NameStr(server->key.login)),
				 errhint("Release it and acquire it again.")));
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("hold of server \"%s\" belongs to another role",
					NameStr(server->srvname)),
			 errdetail("It was acquired for login role \"%s\".",
					   NameStr(hold->key.login))));
	pg_unreachable();
}

/* A hold that the current role has the right to, by its key. */
static PgmcHold *
find_hold(const char *srvname, const PgmcServer **server)
{
	PgmcHold   *hold;

	if (srvname == NULL)
	{
		hold = pgmc_session_innermost();
		if (hold == NULL)
			raise_no_hold(NULL);
		*server = pgmc_server_resolve_oid(hold->key.serverid,
										  NameStr(hold->srvname));
		if (!pgmc_same_key(&hold->key, &(*server)->key))
			raise_not_yours(hold, *server);
		return hold;
	}
	*server = pgmc_server_resolve(srvname);
	hold = pgmc_session_find(*server);
	if (hold == NULL)
	{
		hold = find_by_oid((*server)->key.serverid);
		if (hold != NULL)
			raise_not_yours(hold, *server);
		raise_no_hold(srvname);
	}
	return hold;
}

/*
 * A hold of one's own can be ended whatever has become of its server and of
 * the right to it since.
 */
PgmcHold *
pgmc_session_hold_to_release(const char *srvname)
{
	PgmcHold   *hold;
	const PgmcServer *server;

	if (srvname == NULL)
		hold = pgmc_session_innermost();
	else
	{
		hold = find_by_oid(get_foreign_server_oid(srvname, true));
		if (hold == NULL)
			hold = find_by_name(srvname);
	}
	if (hold != NULL && hold->userid == GetUserId())
		return hold;
	return find_hold(srvname, &server);
}

PgmcHold *
pgmc_session_hold_to_look_at(void)
{
	const PgmcServer *server;

	return find_hold(NULL, &server);
}

/*
 * The key may be the same for several roles, and yet not all of them may use
 * the connection without a password of their own.
 */
PgmcHold *
pgmc_session_hold(const char *srvname)
{
	const PgmcServer *server;
	PgmcHold   *hold = find_hold(srvname, &server);

	if (hold->userid != GetUserId())
	{
		pgmc_server_check_password(server);
		pgmc_server_check_connection(server, hold->used_password,
									 hold->same_cluster);
	}
	return hold;
}

bool
pgmc_hold_own_database(const PgmcHold *hold)
{
	return hold->own_database;
}

/* ---- using ---- */

static PGMC_NORETURN void
raise_copy(const PgmcHold *hold, const PgmcOutcome *outcome)
{
	const char *fate = pgmc_fate_detail(hold, outcome);

	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("COPY to or from the client is not supported on server \"%s\"",
					NameStr(hold->srvname)),
			 fate != NULL ? errdetail_internal("%s", fate) : 0,
			 errhint("COPY to or from a file of the server works, and so does INSERT.")));
	pg_unreachable();
}

static void
check_outcome(PgmcHold *hold, const PgmcOutcome *outcome, const char *command)
{
	if (outcome->flags & PGMC_DONE_COPY)
		raise_copy(hold, outcome);
	if (outcome->lost)
		pgmc_await_raise_lost(hold, pgmc_result_sqlstate(&outcome->error),
							  outcome->error.message);
	if (outcome->failed)
		pgmc_report(ERROR, &outcome->error, NameStr(hold->srvname), command);
	if (outcome->flags & PGMC_DONE_LEFT_OPEN)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("command left a transaction open on server \"%s\"",
						NameStr(hold->srvname)),
				 errdetail("It has been rolled back.")));
}

/* A commit that is proved is no error, whatever became of the connection. */
static void
warn_if_lost(const PgmcHold *hold, const PgmcOutcome *outcome)
{
	if (outcome->flags & PGMC_DONE_LOST)
		ereport(WARNING,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("connection of server \"%s\" was lost right after the transaction was committed",
						NameStr(hold->srvname))));
}

void
pgmc_session_execute(PgmcHold *hold, const PgmcExecute *exec, uint8 flags,
					 PgmcSink *sink, PgmcDone *done)
{
	PgmcOutcome outcome;

	pgmc_talk_execute(hold, exec, flags, sink, &outcome);
	check_outcome(hold, &outcome, exec->command);
	warn_if_lost(hold, &outcome);
	if (sink != NULL)
		pgmc_fate_end_sink(hold, sink, &outcome);
	*done = outcome.done;
}

uint8
pgmc_session_exec_flags(const PgmcHold *hold)
{
	return hold->autocommit ? PGMC_EXEC_AUTOCOMMIT : PGMC_EXEC_BEGIN;
}

void
pgmc_session_execute_many(PgmcHold *hold, const PgmcExecute *exec, uint8 flags,
						  PgmcSource *source, PgmcDone *done)
{
	PgmcOutcome outcome;

	pgmc_talk_many(hold, exec, flags | PGMC_EXEC_MANY, source, &outcome);
	check_outcome(hold, &outcome, exec->command);
	warn_if_lost(hold, &outcome);
	*done = outcome.done;
}

/* A connection that is lost or revoked raises, even where there is nothing to do. */
void
pgmc_session_check_usable(PgmcHold *hold)
{
	PgmcChannelState state;

	pgmc_await_settle(hold);
	state = pgmc_talk_state(hold);
	if (state != PGMC_CHANNEL_OK)
		pgmc_await_raise(hold, state);
}

void
pgmc_session_commit(PgmcHold *hold)
{
	PgmcOutcome outcome;

	pgmc_session_check_usable(hold);
	if (hold->xact == PGMC_XACT_IDLE)
		return;
	pgmc_talk_simple(hold, PGMC_REQUEST_COMMIT, &outcome);
	check_outcome(hold, &outcome, NULL);
	warn_if_lost(hold, &outcome);
	if (outcome.flags & PGMC_DONE_NOT_COMMITTED)
		ereport(ERROR,
				(errcode(ERRCODE_IN_FAILED_SQL_TRANSACTION),
				 errmsg("transaction on server \"%s\" had failed and could not be committed",
						NameStr(hold->srvname)),
				 errdetail("It has been rolled back.")));
}

void
pgmc_session_rollback(PgmcHold *hold)
{
	PgmcOutcome outcome;

	pgmc_session_check_usable(hold);
	if (hold->xact == PGMC_XACT_IDLE)
		return;
	pgmc_talk_simple(hold, PGMC_REQUEST_ROLLBACK, &outcome);
	check_outcome(hold, &outcome, NULL);
}

void
pgmc_session_set_autocommit(PgmcHold *hold, bool enabled)
{
	pgmc_session_check_usable(hold);
	if (hold->xact != PGMC_XACT_IDLE)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("autocommit cannot be changed inside a transaction on server \"%s\"",
						NameStr(hold->srvname)),
				 errhint("Call pgmc.commit() or pgmc.rollback() first.")));
	hold->autocommit = enabled;
}

/* ---- releasing ---- */

void
pgmc_session_end_call(PgmcHold *hold, bool failed)
{
	(void) give_back_after(hold, failed);
}

/* The hold's connection is lost or revoked: there is less to do. */
static void
release_broken(PgmcHold *hold)
{
	Aftermath	after = give_back(hold, PGMC_RELEASE_CLEAN, PGMC_RELEASE_DIRTY,
								  PGMC_END_RELEASE);

	if (after.dirty)
		warn_rolled_back(NameStr(after.srvname));
}

void
pgmc_session_release(PgmcHold *hold, bool close)
{
	Aftermath	after;
	bool		ended;

	if (pgmc_talk_state(hold) != PGMC_CHANNEL_OK ||
		pgmc_await_settled(hold) != PGMC_CHANNEL_OK)
	{
		release_broken(hold);
		return;
	}
	after = give_back(hold, close ? PGMC_RELEASE_CLOSE : PGMC_RELEASE_CLEAN,
					  close ? PGMC_RELEASE_CLOSE : PGMC_RELEASE_DIRTY,
					  PGMC_END_RELEASE);
	if (!after.dirty && !close)
		return;
	ended = await_rollback(&after);
	if (after.dirty)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("server \"%s\" was released with a transaction open",
						NameStr(after.srvname)),
				 ended ?
				 errdetail("The transaction has been rolled back and the hold has ended.") :
				 errdetail("The transaction is being rolled back and the hold has ended."),
				 errhint("Call pgmc.commit() or pgmc.rollback() before pgmc.release().")));
}

bool
pgmc_session_await_recovery(int slot, uint64 recovery)
{
	static uint32 event = 0;
	ConditionVariable *cv = pgmc_registry_news_cv();
	TimestampTz give_up;
	bool		ended;

	if (recovery == 0 || pgmc_registry_recovery(slot) != recovery)
		return true;
	if (event == 0)
		event = pgmc_wait_event_new("PgmcRecovery");
	give_up = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
										  PGMC_RECOVERY_PATIENCE_MS);
	ConditionVariablePrepareToSleep(cv);
	for (;;)
	{
		ended = pgmc_registry_recovery(slot) != recovery;
		if (ended || GetCurrentTimestamp() >= give_up)
			break;
		ConditionVariableTimedSleep(cv, RECOVERY_LOOK_MS, event);
	}
	ConditionVariableCancelSleep();
	return ended;
}

PgmcXactStatus
pgmc_session_status(PgmcHold *hold)
{
	if (pgmc_talk_state(hold) != PGMC_CHANNEL_OK)
		return PGMC_XACT_CLOSED;
	if (hold->in_flight)
		return PGMC_XACT_ACTIVE;
	if (pgmc_await_settled(hold) != PGMC_CHANNEL_OK)
		return PGMC_XACT_CLOSED;
	return hold->xact;
}

/*
 * Close this one if it is the server's: its state, as far as it matters.  What
 * is on its way to idle is awaited; what doesn't get there is in use.
 */
static PgmcConnState
close_slot(int slot, Oid serverid)
{
	uint64		awaited = 0;
	uint64		recovery;
	PgmcConnState state;

	for (;;)
	{
		state = pgmc_registry_close_of(slot, MyDatabaseId, serverid, &recovery);
		if (state != PGMC_CONN_RECOVERING && state != PGMC_CONN_CLOSING)
			break;
		if (awaited != 0 || !pgmc_session_await_recovery(slot, recovery))
			return state == PGMC_CONN_CLOSING ? PGMC_CONN_FREE : PGMC_CONN_HELD;
		awaited = recovery;
	}
	if (state == PGMC_CONN_IDLE)
		(void) pgmc_session_await_recovery(slot, recovery);
	return state;
}

int
pgmc_session_close_idle(Oid serverid, int *held)
{
	int			closed = 0;

	for (int i = 0; i < pgmc_registry_slots(); i++)
	{
		PgmcConnState state = close_slot(i, serverid);

		if (state == PGMC_CONN_IDLE)
			closed++;
		else if (state == PGMC_CONN_HELD)
			(*held)++;
	}
	return closed;
}
