/*
 * registry_view.c
 *		What others may know of the registry: copies, as of now.
 *
 * For the views, error messages, the search for deadlocks and the worker's
 * look at its slots.  Nothing is changed here but statistics: they are counted
 * where things happen, and here is what the registry doesn't see (time-outs,
 * deadlocks), the reset, and the copy.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/proc.h"

#include "compat.h"
#include "registry_int.h"

/* ---- looking ---- */

int
pgmc_registry_max_waiters(void)
{
	return pgmc_reg->nsessions;
}

void
pgmc_registry_slot(int slot, PgmcSlot *copy)
{
	pgmc_registry_look(slot, copy, NULL);
}

/* caller has the lock */
static void
fill_holder(const Conn *conn, PgmcHolder *holder)
{
	const Session *s;

	memset(holder, 0, sizeof(*holder));
	if (conn->holder == NOBODY)
		return;
	s = &pgmc_reg->sessions[conn->holder];
	holder->pid = s->pid;
	holder->userid = conn->holder_userid;
	strlcpy(holder->appname, s->appname, sizeof(holder->appname));
	holder->since = conn->hold_start;
}

/* caller has the lock */
static void
fill_queued(const Pool *pool, PgmcQueued *queued)
{
	for (int p = pool->head; p != NOBODY; p = pgmc_reg->sessions[p].next)
	{
		queued->pid = pgmc_reg->sessions[p].pid;
		queued->since = pgmc_reg->sessions[p].queued_since;
		queued++;
	}
}

/* caller has the lock; the copy is all zero still */
static void
copy_conn(const Conn *conn, PgmcSlot *copy)
{
	copy->state = conn->state;
	if (conn->state == PGMC_CONN_FREE)
		return;
	copy->key = pgmc_reg->pools[conn->pool].key;
	copy->srvname = pgmc_reg->pools[conn->pool].srvname;
	copy->waiters = pgmc_reg->pools[conn->pool].nwaiters;
	copy->epoch = conn->epoch;
	copy->last_session = conn->last_session;
	copy->open = conn->open;
	copy->broken = conn->broken;
	copy->opening = conn->opening;
	copy->backend_pid = conn->backend_pid;
	copy->same_cluster = conn->same_cluster;
	copy->used_password = conn->used_password;
	copy->backend_start = conn->backend_start;
	copy->state_since = conn->state_since;
	copy->xact_status = pg_atomic_read_u32(&unconstify(Conn *, conn)->xact_status);
	copy->commit_xid = pg_atomic_read_u32(&unconstify(Conn *, conn)->commit_xid);
	fill_holder(conn, &copy->holder);
	copy->hold_timeout = conn->hold_timeout;
	copy->idle_hold_timeout = conn->idle_hold_timeout;
	copy->end = conn->end;
	copy->ended_pid = conn->ended_pid;
	copy->ended_in_xact = conn->ended_in_xact;
	copy->recovery = conn->recovery;
	copy->close_reason = conn->close_reason;
	strlcpy(copy->last_error, conn->last_error, sizeof(copy->last_error));
}

void
pgmc_registry_look(int slot, PgmcSlot *copy, PgmcQueued *queued)
{
	Conn	   *conn = &pgmc_reg->conns[slot];

	memset(copy, 0, sizeof(*copy));
	lock(LW_SHARED);
	copy_conn(conn, copy);
	if (queued != NULL && conn->state != PGMC_CONN_FREE)
		fill_queued(&pgmc_reg->pools[conn->pool], queued);
	unlock();
}

const char *
pgmc_xact_status_name(PgmcXactStatus status)
{
	switch (status)
	{
		case PGMC_XACT_CLOSED:
			return NULL;
		case PGMC_XACT_IDLE:
			return "idle";
		case PGMC_XACT_ACTIVE:
			return "active";
		case PGMC_XACT_INTRANS:
			return "intrans";
		case PGMC_XACT_INERROR:
			return "inerror";
		case PGMC_XACT_UNKNOWN:
			break;
	}
	return "unknown";
}

PgmcXactStatus
pgmc_registry_xact_status(int slot)
{
	return pg_atomic_read_u32(&pgmc_reg->conns[slot].xact_status);
}

int
pgmc_registry_find(const PgmcKey *key, PgmcSlot *copy)
{
	int			best = -1;
	int			pool;

	memset(copy, 0, sizeof(*copy));
	lock(LW_SHARED);
	pool = pgmc_pool_find(key);
	for (int i = 0; pool != NOBODY && i < pgmc_reg->high_water; i++)
	{
		Conn	   *conn = &pgmc_reg->conns[i];

		if (conn->state == PGMC_CONN_FREE || conn->pool != pool)
			continue;
		if (best < 0 || (conn->open && !pgmc_reg->conns[best].open))
			best = i;
		if (conn->state == PGMC_CONN_HELD && conn->holder == pgmc_procno(MyProc))
		{
			best = i;
			break;
		}
	}
	if (best >= 0)
		copy_conn(&pgmc_reg->conns[best], copy);
	unlock();
	return best;
}

uint64
pgmc_registry_recovery(int slot)
{
	uint64		recovery;

	lock(LW_SHARED);
	recovery = pgmc_reg->conns[slot].recovery;
	unlock();
	return recovery;
}

bool
pgmc_registry_pid_holds(int pid)
{
	bool		holds;

	lock(LW_SHARED);
	holds = pgmc_pid_holds(pid);
	unlock();
	return holds;
}

/* ---- who waits ---- */

int
pgmc_registry_place(PgmcHolder *holder)
{
	int			me = pgmc_procno(MyProc);
	int			place = 0;
	int			pool;

	memset(holder, 0, sizeof(*holder));
	lock(LW_SHARED);
	pool = pgmc_reg->sessions[me].pool;
	if (pool != NOBODY)
	{
		for (int p = me; p != NOBODY; p = pgmc_reg->sessions[p].prev)
			place++;

		/* the one that has held it longest is whom the head waits for */
		for (int i = 0; i < pgmc_reg->high_water; i++)
		{
			Conn	   *conn = &pgmc_reg->conns[i];

			if (conn->state == PGMC_CONN_HELD && conn->pool == pool &&
				(holder->pid == 0 || conn->hold_start < holder->since))
				fill_holder(conn, holder);
		}
	}
	unlock();
	return place;
}

/* caller has the lock */
static void
fill_wait_conn(Conn *conn, PgmcWaitConn *wait)
{
	memset(wait, 0, sizeof(*wait));
	wait->pool = conn->pool;
	wait->srvname = pgmc_reg->pools[conn->pool].srvname;
	if (conn->state != PGMC_CONN_HELD)
		return;
	wait->holder_pid = pgmc_reg->sessions[conn->holder].pid;
	wait->holder_waits_since =
		pg_atomic_read_u64(&pgmc_reg->sessions[conn->holder].waits_since);
	wait->epoch = conn->epoch;
	wait->backend_pid = conn->backend_pid;
	wait->running = conn->same_cluster && !conn->channel.abort_asked &&
		pg_atomic_read_u32(&conn->xact_status) == PGMC_XACT_ACTIVE;
}

void
pgmc_registry_waits(PgmcWaits *waits)
{
	waits->conns = palloc(PGMC_MAX_CONNECTIONS * sizeof(PgmcWaitConn));
	waits->waiters = palloc(pgmc_reg->nsessions * sizeof(PgmcWaiter));
	waits->nconns = waits->nwaiters = 0;
	lock(LW_SHARED);
	for (int i = 0; i < pgmc_reg->high_water; i++)
		if (pgmc_reg->conns[i].state != PGMC_CONN_FREE)
			fill_wait_conn(&pgmc_reg->conns[i], &waits->conns[waits->nconns++]);
	for (int p = 0; p < pgmc_reg->high_water; p++)
	{
		if (pgmc_reg->pools[p].nconns == 0)
			continue;
		for (int w = pgmc_reg->pools[p].head; w != NOBODY;
			 w = pgmc_reg->sessions[w].next)
		{
			PgmcWaiter *waiter = &waits->waiters[waits->nwaiters++];

			waiter->pid = pgmc_reg->sessions[w].pid;
			waiter->pool = p;
			waiter->number = pgmc_reg->sessions[w].queue_number;
			waiter->since =
				pg_atomic_read_u64(&pgmc_reg->sessions[w].waits_since);
		}
	}
	unlock();
}

/* ---- statistics ---- */

void
pgmc_registry_count(const PgmcKey *key, PgmcCounter what)
{
	int			tally;

	lock(LW_EXCLUSIVE);
	tally = pgmc_counters_find(&pgmc_reg->counters, key);
	if (tally >= 0)
		pgmc_counters_count(&pgmc_reg->counters, tally, what);
	unlock();
}

void
pgmc_registry_reset_stats(Oid serverid)
{
	lock(LW_EXCLUSIVE);
	pgmc_counters_reset(&pgmc_reg->counters, MyDatabaseId, serverid);
	unlock();
}

bool
pgmc_registry_stats(int i, PgmcStats *stats)
{
	bool		found;

	lock(LW_SHARED);
	found = pgmc_counters_copy(&pgmc_reg->counters, i, stats);
	unlock();
	return found;
}
