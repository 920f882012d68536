/*
 * registry_worker.c
 *		The worker in the registry: that it exists, and what it does there.
 *
 * Who starts it, when it runs and when it is gone for everybody; then what
 * becomes of the connections: opened, lost, taken away, recovered.
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/timestamp.h"

#include "build.h"
#include "compat.h"
#include "registry_int.h"
#include "static_area.h"

/* a starter that hasn't brought the worker up by then has failed */
#define START_TIMEOUT_MS	30000

/* how long the postmaster may take to notice that a worker has ended */
#define LEAVING_MS			1000
#define LEAVING_MAX_MS		10000	/* and that one to end which has said so */

/* ---- starting, and being gone ---- */

PgmcWorkerState
pgmc_registry_claim_start(int *worker_pid)
{
	PgmcWorkerState state;
	TimestampTz now = GetCurrentTimestamp();
	int			starter;

	lock(LW_SHARED);
	starter = pgmc_reg->starter_pid;
	unlock();

	/* asked without the lock: whether the starter is there takes another one */
	if (starter != 0 && BackendPidGetProc(starter) != NULL)
		starter = 0;

	lock(LW_EXCLUSIVE);
	if (pgmc_reg->worker_state == PGMC_WORKER_STARTING &&
		((starter != 0 && pgmc_reg->starter_pid == starter) ||
		 TimestampDifferenceExceeds(pgmc_reg->starting_since, now,
									START_TIMEOUT_MS)))
		pgmc_reg->worker_state = PGMC_WORKER_NONE;
	state = pgmc_reg->worker_state;
	if (state == PGMC_WORKER_NONE)
	{
		pgmc_reg->worker_state = PGMC_WORKER_STARTING;
		pgmc_reg->starter_pid = MyProcPid;
		pgmc_reg->starting_since = now;
	}
	*worker_pid = pgmc_reg->worker_pid;
	unlock();
	return state;
}

bool
pgmc_registry_start_failed(void)
{
	bool		ours;

	lock(LW_EXCLUSIVE);
	ours = pgmc_reg->worker_state == PGMC_WORKER_STARTING &&
		pgmc_reg->starter_pid == MyProcPid;
	if (ours)
	{
		pgmc_reg->worker_state = PGMC_WORKER_NONE;
		pgmc_reg->starter_pid = 0;
	}
	unlock();
	ConditionVariableBroadcast(&pgmc_reg->news);
	return ours;
}

PgmcWorkerState
pgmc_registry_worker(int *pid)
{
	PgmcWorkerState state;

	lock(LW_SHARED);
	state = pgmc_reg->worker_state;
	*pid = pgmc_reg->worker_pid;
	unlock();
	return state;
}

ConditionVariable *
pgmc_registry_news_cv(void)
{
	return &pgmc_reg->news;
}

bool
pgmc_registry_worker_begin(void)
{
	bool		ours;
	int			other;
	bool		dead;

	lock(LW_SHARED);
	other = pgmc_reg->worker_state == PGMC_WORKER_RUNNING ?
		pgmc_reg->worker_pid : 0;
	unlock();

	/* asked without the lock, so it holds for that one pid only */
	dead = other != 0 && BackendPidGetProc(other) == NULL;

	lock(LW_EXCLUSIVE);
	ours = pgmc_reg->worker_state != PGMC_WORKER_RUNNING ||
		(dead && pgmc_reg->worker_pid == other);
	if (ours)
	{
		pgmc_reg->worker_state = PGMC_WORKER_RUNNING;
		pgmc_reg->worker_pid = MyProcPid;
		pgmc_reg->worker_procno = pgmc_procno(MyProc);
		pgmc_reg->worker_build = pgmc_build;
		pgmc_reg->worker_loaded = pgmc_build_loaded;
		pgmc_reg->worker_outdated = false;
		pgmc_reg->starter_pid = 0;

		/* holds that the last worker has left behind may have time limits */
		pg_atomic_write_u32(&pgmc_reg->attention, 1);
	}
	unlock();
	if (ours)
	{
		pgmc_static_set_worker(MyProcPid);
		ConditionVariableBroadcast(&pgmc_reg->news);
	}
	return ours;
}

/* caller has the lock */
static void
worker_gone(void)
{
	pgmc_reg->worker_state = PGMC_WORKER_NONE;
	pgmc_reg->gone_pid = pgmc_reg->worker_pid;
	pgmc_reg->gone_since = GetCurrentTimestamp();
	pgmc_reg->worker_pid = 0;
	pgmc_reg->worker_procno = NOBODY;
	pgmc_reg->worker_outdated = false;
}

bool
pgmc_registry_worker_leaving(void)
{
	int			pid;
	TimestampTz since;
	TimestampTz now = GetCurrentTimestamp();

	lock(LW_SHARED);
	pid = pgmc_reg->gone_pid;
	since = pgmc_reg->gone_since;
	unlock();
	if (pid == 0 || TimestampDifferenceExceeds(since, now, LEAVING_MAX_MS))
		return false;
	return kill(pid, 0) == 0 ||
		!TimestampDifferenceExceeds(since, now, LEAVING_MS);
}

bool
pgmc_registry_worker_end_if_unused(void)
{
	bool		unused = true;

	lock(LW_EXCLUSIVE);
	for (int i = 0; i < pgmc_reg->high_water; i++)
		if (pgmc_reg->conns[i].state != PGMC_CONN_FREE)
			unused = false;
	if (unused && pgmc_reg->worker_pid == MyProcPid)
		worker_gone();
	unlock();
	if (unused)
	{
		pgmc_static_worker_gone(MyProcPid);
		ConditionVariableBroadcast(&pgmc_reg->news);
	}
	return unused;
}

bool
pgmc_registry_worker_outdated(void)
{
	return *(volatile bool *) &pgmc_reg->worker_outdated;
}

bool
pgmc_registry_worker_end_if_idle(void)
{
	bool		idle;

	lock(LW_EXCLUSIVE);
	idle = pgmc_reg->worker_pid == MyProcPid;
	for (int i = 0; i < pgmc_reg->high_water; i++)
		if (pgmc_reg->conns[i].state != PGMC_CONN_FREE &&
			pgmc_reg->conns[i].state != PGMC_CONN_IDLE)
			idle = false;
	for (int i = pgmc_reg->high_water - 1; idle && i >= 0; i--)
	{
		Conn	   *conn = &pgmc_reg->conns[i];

		if (conn->state == PGMC_CONN_FREE)
			continue;
		pgmc_conn_forget_backend(conn);
		pgmc_conn_set_state(conn, PGMC_CONN_FREE);
		pgmc_conn_leave_pool(conn);
	}
	if (idle)
		worker_gone();
	unlock();
	if (idle)
	{
		pgmc_static_worker_gone(MyProcPid);
		ConditionVariableBroadcast(&pgmc_reg->news);
	}
	return idle;
}

/* caller has the lock */
static void
worker_exit_conn(Conn *conn, const PgmcFailure *failure)
{
	if (conn->state == PGMC_CONN_FREE)
		return;
	pgmc_conn_forget_backend(conn);
	strlcpy(conn->last_error, failure->message, sizeof(conn->last_error));
	pgmc_pool_fail_waiters(&pgmc_reg->pools[conn->pool], failure);
	if (conn->state != PGMC_CONN_HELD)
	{
		pgmc_conn_set_state(conn, PGMC_CONN_FREE);
		pgmc_conn_leave_pool(conn);
	}
	else
	{
		conn->broken = true;
		pgmc_channel_worker_break(&conn->channel, false);
		wake(conn->holder);
	}
}

void
pgmc_registry_worker_exit(const char *why)
{
	PgmcFailure failure;

	failure.sqlstate = ERRCODE_CONNECTION_FAILURE;
	strlcpy(failure.message, why, sizeof(failure.message));
	lock(LW_EXCLUSIVE);
	if (pgmc_reg->worker_state == PGMC_WORKER_RUNNING &&
		pgmc_reg->worker_pid == MyProcPid)
	{
		for (int i = pgmc_reg->high_water - 1; i >= 0; i--)
			worker_exit_conn(&pgmc_reg->conns[i], &failure);
		worker_gone();
	}
	unlock();
	pgmc_static_worker_gone(MyProcPid);
	ConditionVariableBroadcast(&pgmc_reg->news);
}

/* ---- at work ---- */

void
pgmc_registry_wake_holder(int slot)
{
	wake(*(volatile int *) &pgmc_reg->conns[slot].holder);
}

void
pgmc_registry_set_xact_status(int slot, PgmcXactStatus status)
{
	pg_atomic_write_u32(&pgmc_reg->conns[slot].xact_status, status);
}

void
pgmc_registry_set_commit_xid(int slot, uint32 xid)
{
	pg_atomic_write_u32(&pgmc_reg->conns[slot].commit_xid, xid);
}

bool
pgmc_registry_take_attention(void)
{
	if (pg_atomic_read_u32(&pgmc_reg->attention) == 0)
		return false;
	return pg_atomic_exchange_u32(&pgmc_reg->attention, 0) != 0;
}

bool
pgmc_registry_set_opening(int slot)
{
	Conn	   *conn = &pgmc_reg->conns[slot];
	bool		held;

	lock(LW_EXCLUSIVE);
	held = conn->state == PGMC_CONN_HELD;
	if (held)
	{
		bool		unwanted = conn->expires_at == LONG_AGO;

		pgmc_conn_forget_backend(conn);
		conn->opening = true;
		if (unwanted)
			conn->expires_at = LONG_AGO;
	}
	unlock();
	return held;
}

bool
pgmc_registry_opened(int slot, const PgmcOpened *opened)
{
	Conn	   *conn = &pgmc_reg->conns[slot];
	bool		again;

	lock(LW_EXCLUSIVE);
	conn->open = true;
	conn->opening = false;
	conn->backend_pid = opened->backend_pid;
	conn->same_cluster = opened->same_cluster;
	conn->used_password = opened->used_password;
	conn->options_hash = opened->options_hash;
	conn->backend_start = GetCurrentTimestamp();
	if (conn->expires_at == 0)
		conn->expires_at = opened->expires_at;
	pg_atomic_write_u32(&conn->xact_status, PGMC_XACT_IDLE);
	again = pgmc_counters_opened(&pgmc_reg->counters, tally_of(conn));
	unlock();
	return again;
}

bool
pgmc_registry_finish_call(int slot, int64 rows)
{
	Conn	   *conn = &pgmc_reg->conns[slot];
	int			holder;
	bool		finished;

	lock(LW_EXCLUSIVE);
	finished = conn->state == PGMC_CONN_HELD && conn->own_xacts && conn->open &&
		!(conn->same_cluster && pgmc_pid_holds(conn->backend_pid));
	if (finished)
	{
		holder = conn->holder;
		pgmc_reg->sessions[holder].finished_epoch = conn->epoch;
		pgmc_reg->sessions[holder].finished_rows = rows;
		pgmc_conn_note_end(conn, PGMC_END_RELEASE, false);
		pgmc_conn_release(conn, PGMC_RELEASE_CLEAN);
		wake(holder);
	}
	unlock();
	return finished;
}

bool
pgmc_registry_revoke(int slot, uint64 epoch)
{
	Conn	   *conn = &pgmc_reg->conns[slot];
	bool		held;

	lock(LW_EXCLUSIVE);
	held = conn->state == PGMC_CONN_HELD && conn->epoch == epoch;
	if (held)
	{
		int			holder = conn->holder;

		pgmc_conn_note_end_from_outside(conn, PGMC_END_REVOKE);
		pgmc_counters_count(&pgmc_reg->counters, tally_of(conn),
							PGMC_COUNT_REVOKED);
		pgmc_conn_set_state(conn, PGMC_CONN_RECOVERING);
		wake(holder);
	}
	unlock();
	return held;
}

void
pgmc_registry_expire(int slot)
{
	lock(LW_EXCLUSIVE);
	pgmc_reg->conns[slot].expires_at = pgmc_reg->conns[slot].backend_start;
	unlock();
}

void
pgmc_registry_open_failed(int slot, const PgmcFailure *failure,
						  uint64 options_hash)
{
	Conn	   *conn = &pgmc_reg->conns[slot];

	lock(LW_EXCLUSIVE);
	pgmc_conn_forget_backend(conn);
	pgmc_conn_open_failed(conn, failure, options_hash);

	/* one that has lost its holder meanwhile is passed on by its recovery */
	unlock();
}

void
pgmc_registry_set_max_connections(int max_connections)
{
	lock(LW_EXCLUSIVE);
	pgmc_conns_limit(max_connections, PgReloadTime);
	unlock();
}

/* caller has the lock */
static void
lost_locked(Conn *conn, const char *message, bool in_part)
{
	if (conn->open && conn->state != PGMC_CONN_CLOSING)
		pgmc_counters_lost(&pgmc_reg->counters, tally_of(conn));
	pgmc_conn_forget_backend(conn);
	if (message != NULL)
		strlcpy(conn->last_error, message, sizeof(conn->last_error));
	if (conn->state == PGMC_CONN_HELD)
	{
		conn->broken = true;
		pgmc_channel_worker_break(&conn->channel, in_part);
		wake(conn->holder);
	}
	else if (conn->state != PGMC_CONN_FREE)
	{
		pgmc_channel_empty(&conn->channel);
		pgmc_conn_pass_on(conn);
	}
}

bool
pgmc_registry_lost(int slot, const char *message, bool in_part)
{
	Conn	   *conn = &pgmc_reg->conns[slot];
	bool		still;

	lock(LW_EXCLUSIVE);
	still = conn->open || conn->opening ||
		conn->state == PGMC_CONN_RECOVERING || conn->state == PGMC_CONN_CLOSING;
	if (still)
		lost_locked(conn, message, in_part);
	unlock();
	ConditionVariableBroadcast(&pgmc_reg->news);
	return still;
}

void
pgmc_registry_note_error(int slot, const char *message)
{
	Conn	   *conn = &pgmc_reg->conns[slot];

	lock(LW_EXCLUSIVE);
	strlcpy(conn->last_error, message, sizeof(conn->last_error));
	unlock();
}

void
pgmc_registry_failed(int slot, const char *message, bool in_part)
{
	lock(LW_EXCLUSIVE);
	lost_locked(&pgmc_reg->conns[slot], message, in_part);
	unlock();
	ConditionVariableBroadcast(&pgmc_reg->news);
}

/* no lock: see counters.c */
static int
my_tally(int slot)
{
	int			pool = ((volatile Conn *) &pgmc_reg->conns[slot])->pool;

	return ((volatile Pool *) &pgmc_reg->pools[pool])->tally;
}

void
pgmc_registry_count_command(int slot)
{
	pgmc_counters_command(&pgmc_reg->counters, my_tally(slot));
}

void
pgmc_registry_count_rows(int slot, int64 rows)
{
	pgmc_counters_rows(&pgmc_reg->counters, my_tally(slot), rows);
}

void
pgmc_registry_recovered(int slot, bool forget_session)
{
	Conn	   *conn = &pgmc_reg->conns[slot];

	lock(LW_EXCLUSIVE);
	if (forget_session)
		conn->last_session = 0;
	conn->end = PGMC_END_NONE;	/* that is in order now */
	if (conn->state == PGMC_CONN_RECOVERING && pgmc_conn_expired(conn))
		pgmc_conn_close_expired(conn);
	else if (conn->state == PGMC_CONN_RECOVERING)
	{
		bool		session_left = !forget_session && conn->last_session == 0;
		uint64		recovery = conn->recovery;

		pgmc_conn_pass_on(conn);

		/*
		 * The session has ended meanwhile; a next holder sees to that itself.
		 * For whoever waits this is one recovery.
		 */
		if (session_left && conn->state == PGMC_CONN_IDLE)
		{
			pgmc_conn_set_state(conn, PGMC_CONN_RECOVERING);
			conn->recovery = recovery;
		}
	}
	unlock();
	ConditionVariableBroadcast(&pgmc_reg->news);
}
