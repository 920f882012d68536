/*
 * await.c
 *		Waiting for the worker's part of a request, and being interrupted in it.
 *
 * An interrupt of what may commit is kept until its outcome is known (fate.c).
 * Where no reply will come any more, the outcome is looked for in the registry.
 */
#include "postgres.h"

#include "access/transam.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/procarray.h"
#include "storage/procsignal.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "await.h"
#include "compat.h"
#include "fate.h"
#include "moment.h"
#include "registry.h"
#include "spin.h"
#include "transfer.h"

/* how long a process that shall end waits for the outcome of a commit */
#define DIE_PATIENCE_MS	5000

/* how often to ask what became of a transaction that is still in progress */
#define RESOLVE_EVERY_MS	10

/*
 * A latch that is set again and again for other reasons shall neither keep the
 * search for deadlocks from its turn nor count as a gain.
 */
#define POLLS_OF_A_WAIT	4

static void
wait_latch(long timeout)
{
	static uint32 event = 0;

	if (event == 0)
		event = pgmc_wait_event_new("PgmcReply");
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH |
					 (timeout >= 0 ? WL_TIMEOUT : 0), timeout, event);
	ResetLatch(MyLatch);
}

/* ---- errors of the hold itself ---- */

/* A hold of one call ends with it: there is nothing to release. */
static int
hint_at_release(const PgmcHold *hold)
{
	return hold->scope == PGMC_SCOPE_CALL ? 0 :
		errhint("Release it and acquire it again.");
}

static PGMC_NORETURN void
raise_revoked(const PgmcHold *hold, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_IDLE_IN_TRANSACTION_SESSION_TIMEOUT),
			 errmsg("hold of server \"%s\" was revoked", NameStr(hold->srvname)),
			 detail != NULL ? errdetail("%s", detail) : 0,
			 hint_at_release(hold)));
	pg_unreachable();
}

void
pgmc_await_raise_lost(const PgmcHold *hold, int sqlstate, const char *why)
{
	bool		in_doubt = sqlstate == ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN;

	ereport(ERROR,
			(errcode(sqlstate),
			 in_doubt ?
			 errmsg("connection of server \"%s\" was lost while committing",
					NameStr(hold->srvname)) :
			 errmsg("connection of server \"%s\" was lost",
					NameStr(hold->srvname)),
			 why != NULL && why[0] != '\0' ?
			 errdetail_internal("%s", pgmc_transfer_clean(why)) : 0,
			 in_doubt ?
			 errhint("It is not known whether the transaction was committed.") :
			 hint_at_release(hold)));
	pg_unreachable();
}

/* The same for a reason that stands in the registry. */
static PGMC_NORETURN void
raise_lost(const PgmcHold *hold, int sqlstate)
{
	PgmcSlot	slot;

	pgmc_registry_slot(hold->slot, &slot);
	pgmc_await_raise_lost(hold, sqlstate, slot.last_error);
}

void
pgmc_await_raise(const PgmcHold *hold, PgmcChannelState state)
{
	if (state == PGMC_CHANNEL_FENCED)
		raise_revoked(hold, NULL);
	raise_lost(hold, ERRCODE_CONNECTION_FAILURE);
}

/*
 * The worker has gone, or the hold was revoked, and nothing else is known: no
 * reply will come any more to what may have committed.
 */
static PGMC_NORETURN void
raise_in_doubt(const PgmcHold *hold, PgmcChannelState state)
{
	if (state == PGMC_CHANNEL_FENCED)
		raise_revoked(hold, pgmc_fate_text(PGMC_FATE_UNKNOWN));
	raise_lost(hold, ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN);
}

/* ---- interrupts ---- */

bool
pgmc_await_interrupted(void)
{
	return InterruptPending && InterruptHoldoffCount == 0 &&
		CritSectionCount == 0 &&
		(ProcDiePending || (QueryCancelPending && QueryCancelHoldoffCount == 0));
}

/*
 * Before each sleep.  An interrupt of something that may commit is passed on
 * to the loopback statement and kept until its outcome is known; only a
 * process that is told to end doesn't wait for it for ever.
 */
static void
heed_interrupts_first(PgmcHold *hold)
{
	if (!hold->committing)
	{
		CHECK_FOR_INTERRUPTS();
		return;
	}
	if (pgmc_await_interrupted())
	{
		if (ProcSignalBarrierPending)
			ProcessProcSignalBarrier();
		if (!hold->interrupted)
		{
			(void) pgmc_channel_ask_cancel(pgmc_hold_channel(hold),
										   hold->epoch, hold->seq);
			pgmc_registry_wake_worker();
		}
		hold->interrupted = true;
		if (ProcDiePending && hold->patience == 0)
			hold->patience = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
														 DIE_PATIENCE_MS);
		if (hold->patience != 0 && GetCurrentTimestamp() >= hold->patience)
			pgmc_fate_process_interrupts(PGMC_FATE_UNKNOWN);
	}
	else
		pgmc_fate_process_interrupts(PGMC_FATE_UNKNOWN);
}

/*
 * The same for one who has looked already and sleeps next.  Where the client
 * has been checked (client_connection_check_interval), that took the latch's
 * news, and there must be another look.
 */
static void
heed_interrupts(PgmcHold *hold)
{
	TimestampTz checked = get_timeout_start_time(CLIENT_CONNECTION_CHECK_TIMEOUT);

	heed_interrupts_first(hold);
	if (get_timeout_start_time(CLIENT_CONNECTION_CHECK_TIMEOUT) != checked)
		SetLatch(MyLatch);
}

/* ---- the end of the connection ---- */

/*
 * No reply will come any more to what may have committed.  The transaction's
 * number, where the worker has left it, tells what became of it as soon as it
 * is no longer in progress: its backend was told to end.
 */
static void
resolve_doubt(PgmcHold *hold)
{
	PgmcSlot	slot;

	pgmc_registry_slot(hold->slot, &slot);
	if (slot.epoch != hold->epoch || !TransactionIdIsValid(slot.commit_xid))
		return;
	while (TransactionIdIsInProgress(slot.commit_xid))
	{
		heed_interrupts(hold);
		wait_latch(RESOLVE_EVERY_MS);
	}
	hold->fate = TransactionIdDidCommit(slot.commit_xid) ?
		PGMC_FATE_COMMITTED : PGMC_FATE_NOT_COMMITTED;
}

/*
 * The connection ended, and all replies are read.  Also where the commit is
 * proved, this ends by an error, which talk() knows how to take.
 */
void
pgmc_await_end(PgmcHold *hold, PgmcChannelState state)
{
	if (!hold->committing)
	{
		hold->in_flight = false;
		pgmc_await_raise(hold, state);
	}
	if (state == PGMC_CHANNEL_UNHEARD)
		hold->fate = PGMC_FATE_NOT_COMMITTED;
	else if (state == PGMC_CHANNEL_BROKEN)
		resolve_doubt(hold);
	hold->in_flight = false;
	hold->xact = PGMC_XACT_CLOSED;
	if (hold->fate == PGMC_FATE_NOT_COMMITTED)
		pgmc_await_raise(hold, state);
	raise_in_doubt(hold, state);
}

/* ---- waiting ---- */

static void
check_deadline(PgmcHold *hold)
{
	if (hold->deadline == 0 || GetCurrentTimestamp() < hold->deadline)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("timed out while a connection of server \"%s\" was being opened",
					NameStr(hold->srvname))));
}

static long
time_left(TimestampTz a, TimestampTz b)
{
	TimestampTz at = pgmc_sooner(a, b);

	return at == 0 ? -1 : TimestampDifferenceMilliseconds(GetCurrentTimestamp(), at);
}

/*
 * Wait until something may have changed.  An opening has no backend yet that
 * could be part of a deadlock, but the time limits of its own.  A command that
 * is being cancelled, because of a deadlock or another error, isn't in one: that
 * would be found again and again until the worker has done so.
 */
void
pgmc_await_worker(PgmcHold *hold, PgmcWait *wait)
{
	static PgmcSpinGain gain;
	long		timeout;

	check_deadline(hold);
	heed_interrupts(hold);
	if (!wait->stream && wait->polls < POLLS_OF_A_WAIT)
	{
		wait->polls++;
		if (pgmc_spin(&gain, NULL, NULL))
			return;
	}
	timeout = time_left(hold->deadline, hold->patience);
	if (!hold->doomed)
	{
		long		check = pgmc_deadlock_check(wait);

		timeout = timeout < 0 ? check : Min(timeout, check);
	}
	wait_latch(timeout);
}

PgmcChannelState
pgmc_await_settled(PgmcHold *hold)
{
	PgmcChannelState state;
	bool		aborting;

	if (hold->in_flight)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("server \"%s\" is running a command of this session",
						NameStr(hold->srvname))));
	while (hold->aborting)
	{
		CHECK_FOR_INTERRUPTS();
		state = pgmc_channel_check(pgmc_hold_channel(hold), hold->epoch,
								   &aborting);
		if (state != PGMC_CHANNEL_OK)
			return state;
		if (aborting)
		{
			wait_latch(-1);
			continue;
		}
		hold->aborting = false;
		hold->xact = pgmc_registry_xact_status(hold->slot);
	}
	return PGMC_CHANNEL_OK;
}

void
pgmc_await_settle(PgmcHold *hold)
{
	PgmcChannelState state = pgmc_await_settled(hold);

	if (state != PGMC_CHANNEL_OK)
		pgmc_await_raise(hold, state);
}
