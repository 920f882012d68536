/*
 * registry_session.c
 *		What sessions do in the registry: acquire, wait, release, exit.
 *
 * A session changes what is its own: its entry, its place in a queue, the
 * connections that it holds.  Of others' it takes idle connections, and asks
 * for ones to be closed; and it gives to others what is theirs, where it comes
 * later than they.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "build.h"
#include "compat.h"
#include "registry_int.h"

static uint64 my_session = 0;	/* this session's number, 0: not given yet */

uint64
pgmc_registry_session(void)
{
	Session    *s = &pgmc_reg->sessions[pgmc_procno(MyProc)];

	if (my_session != 0)
		return my_session;
	lock(LW_EXCLUSIVE);
	my_session = ++pgmc_reg->last_session;
	memset(s, 0, sizeof(*s));
	pg_atomic_init_u64(&s->waits_since, 0);
	pg_atomic_init_u32(&s->look, 0);
	s->id = my_session;
	s->pid = MyProcPid;
	s->pool = NOBODY;
	unlock();
	return my_session;
}

/* ---- acquiring ---- */

/* caller has the lock: the slot whose backend is this process, or NOBODY */
static int
loopback_of(int pid)
{
	for (int i = 0; i < pgmc_reg->high_water; i++)
	{
		Conn	   *conn = &pgmc_reg->conns[i];

		if (conn->state == PGMC_CONN_HELD && conn->same_cluster &&
			conn->backend_pid == pid)
			return i;
	}
	return NOBODY;
}

/*
 * Is procno this process, or one that waits for this process through a chain
 * of loopback connections?  Chains are acyclic, but bounded all the same.
 */
static bool
is_ancestor(int procno)
{
	int			pid = MyProcPid;

	for (int depth = 0; depth < PGMC_MAX_CONNECTIONS; depth++)
	{
		int			slot = loopback_of(pid);

		if (slot == NOBODY)
			return false;
		if (pgmc_reg->conns[slot].holder == procno)
			return true;
		pid = pgmc_reg->sessions[pgmc_reg->conns[slot].holder].pid;
	}
	return false;
}

/* How many of a pool's connections lead back to us? */
static PgmcAcquireResult
count_own(int pool, int *own)
{
	PgmcAcquireResult whose = PGMC_GRANTED;

	*own = 0;
	for (int i = 0; i < pgmc_reg->high_water; i++)
	{
		Conn	   *conn = &pgmc_reg->conns[i];

		if (conn->state != PGMC_CONN_HELD || conn->pool != pool)
			continue;
		if (conn->holder == pgmc_procno(MyProc))
			whose = PGMC_HELD_BY_SELF;
		else if (!is_ancestor(conn->holder))
			continue;
		else if (whose == PGMC_GRANTED)
			whose = PGMC_HELD_BY_ANCESTOR;
		(*own)++;
	}
	return whose;
}

static void
fill_grant(const Conn *conn, PgmcGrant *grant)
{
	grant->slot = conn - pgmc_reg->conns;
	grant->epoch = conn->epoch;
	grant->open = conn->open;
	grant->used_password = conn->used_password;
	grant->same_cluster = conn->same_cluster;
	grant->options_hash = conn->options_hash;
	grant->mailed = pgmc_reg->sessions[conn->holder].mailed;
}

/* caller has the lock */
static PgmcAcquireResult
take(Conn *conn, PgmcGrant *grant)
{
	pgmc_conn_hold(conn, pgmc_procno(MyProc));
	fill_grant(conn, grant);
	return PGMC_GRANTED;
}

/* There is no room for one more connection: will there be by itself? */
static PgmcAcquireResult
no_room(void)
{
	for (int i = 0; i < pgmc_reg->high_water; i++)
		if (pgmc_reg->conns[i].state == PGMC_CONN_RECOVERING ||
			pgmc_reg->conns[i].state == PGMC_CONN_CLOSING)
		{
			pgmc_reg->room_wanted = true;
			return PGMC_NO_ROOM_YET;
		}
	return PGMC_NO_ROOM;
}

/*
 * Is anybody's time in this pool limited, and no worker there to see to it?
 * One that dies leaves holds behind, and fails those who are queued then.
 */
static bool
lease_unwatched(int pool)
{
	if (pgmc_reg->worker_state == PGMC_WORKER_RUNNING)
		return false;
	for (int i = 0; i < pgmc_reg->high_water; i++)
	{
		Conn	   *conn = &pgmc_reg->conns[i];

		if (conn->state == PGMC_CONN_HELD && conn->pool == pool &&
			(conn->hold_timeout > 0 || conn->idle_hold_timeout > 0))
			return true;
	}
	return false;
}

/* caller has the lock: the first connection of a key */
static PgmcAcquireResult
acquire_first(const PgmcAcquire *acquire, PgmcGrant *grant)
{
	Conn	   *conn = pgmc_conn_make_room();

	if (conn == NULL)
		return no_room();
	pgmc_conn_join_pool(conn, pgmc_pool_make(acquire));
	return take(conn, grant);
}

/*
 * Caller has the lock.  Who came before comes first, also where it is this
 * acquire that brings the news that the pool may be larger.
 */
static PgmcAcquireResult
acquire_locked(const PgmcAcquire *acquire, PgmcGrant *grant)
{
	int			pool;
	PgmcAcquireResult own;
	int			nown;
	Conn	   *conn;

	pgmc_conns_limit(acquire->max_connections, PgReloadTime);
	pool = pgmc_pool_find(&acquire->key);
	if (pool == NOBODY)
		return acquire_first(acquire, grant);

	pgmc_pool_set_options(&pgmc_reg->pools[pool], acquire);
	pgmc_pool_serve(pool);
	own = count_own(pool, &nown);
	if (own != PGMC_GRANTED && acquire->mode != PGMC_ACQUIRE_EXTRA)
		return own;

	/* where somebody is still queued, there is nothing left for us */
	conn = pgmc_pool_take(pool, my_session);
	if (conn != NULL)
		return take(conn, grant);
	if (nown >= pgmc_reg->pools[pool].nconns)
		return nown < acquire->pool_size ? no_room() : own;
	if (lease_unwatched(pool))
		return PGMC_NO_WORKER;
	if (acquire->mode == PGMC_ACQUIRE_TRY && !pgmc_pool_comes_back(pool))
		return PGMC_BUSY;
	pgmc_pool_enqueue(&pgmc_reg->pools[pool], pgmc_procno(MyProc));
	return PGMC_QUEUED;
}

/*
 * Caller has the lock.  Has the library's file been replaced since the worker
 * loaded it?  The builds differ; and ours is the newer one if we have loaded
 * it later, whatever its version.  (A session that was there before goes on
 * with the old one, with a worker of either.)
 */
static void
compare_libraries(void)
{
	if (pgmc_reg->worker_state == PGMC_WORKER_RUNNING &&
		!pgmc_reg->worker_outdated &&
		pgmc_reg->worker_build != pgmc_build &&
		pgmc_reg->worker_loaded < pgmc_build_loaded)
	{
		pgmc_reg->worker_outdated = true;
		call_worker();
	}
}

PgmcAcquireResult
pgmc_registry_acquire(const PgmcAcquire *acquire, PgmcGrant *grant)
{
	Session    *s = &pgmc_reg->sessions[pgmc_procno(MyProc)];
	Oid			userid = GetUserId();
	PgmcAcquireResult result;

	(void) pgmc_registry_session();
	lock(LW_EXCLUSIVE);
	s->userid = userid;
	s->mode = acquire->mode;
	s->options_hash = acquire->options_hash;
	if (acquire->mail != NULL)
		s->mail = *acquire->mail;
	else
		s->mail.length = 0;
	strlcpy(s->appname, application_name ? application_name : "",
			sizeof(s->appname));
	compare_libraries();
	result = acquire_locked(acquire, grant);
	unlock();
	return result;
}

/* ---- queueing ---- */

/* caller has the lock */
static PgmcAcquireResult
outcome(const Session *s, PgmcGrant *grant, PgmcFailure *failure)
{
	if (s->result == PGMC_GRANTED)
	{
		/* it may have been taken away again */
		if (pgmc_reg->conns[s->slot].epoch == s->epoch)
			fill_grant(&pgmc_reg->conns[s->slot], grant);
		else
			memset(grant, 0, sizeof(*grant));
		grant->slot = s->slot;
		grant->epoch = s->epoch;
		grant->mailed = s->mailed;
	}
	else if (s->result == PGMC_FAILED)
		*failure = s->failure;
	return s->result;
}

PgmcAcquireResult
pgmc_registry_poll(PgmcGrant *grant, PgmcFailure *failure)
{
	Session    *s = &pgmc_reg->sessions[pgmc_procno(MyProc)];
	PgmcAcquireResult result;

	lock(LW_SHARED);
	result = outcome(s, grant, failure);
	unlock();
	return result;
}

PgmcAcquireResult
pgmc_registry_leave(PgmcGrant *grant, PgmcFailure *failure)
{
	int			me = pgmc_procno(MyProc);
	PgmcAcquireResult result;

	lock(LW_EXCLUSIVE);
	if (pgmc_reg->sessions[me].pool != NOBODY)
		pgmc_pool_dequeue(me);
	result = outcome(&pgmc_reg->sessions[me], grant, failure);
	unlock();
	return result;
}

void
pgmc_registry_not_opened(int slot, uint64 epoch, const PgmcFailure *failure)
{
	Conn	   *conn = &pgmc_reg->conns[slot];

	lock(LW_EXCLUSIVE);
	if (conn->state == PGMC_CONN_HELD && conn->epoch == epoch)
		pgmc_conn_open_failed(conn, failure,
							  pgmc_reg->sessions[conn->holder].options_hash);
	unlock();
}

void
pgmc_registry_resize(int pool_size)
{
	int			pool;

	lock(LW_EXCLUSIVE);
	pool = pgmc_reg->sessions[pgmc_procno(MyProc)].pool;
	if (pool != NOBODY)
	{
		pgmc_reg->pools[pool].size = pool_size;
		pgmc_pool_serve(pool);
	}
	unlock();
}

void
pgmc_registry_tell_wait(TimestampTz since)
{
	Session    *s = &pgmc_reg->sessions[pgmc_procno(MyProc)];

	pg_atomic_write_u32(&s->look, 0);
	pg_atomic_write_u64(&s->waits_since, since);
}

void
pgmc_registry_have_look(int pid)
{
	PGPROC	   *proc = BackendPidGetProc(pid);

	if (proc == NULL)
		return;
	pg_atomic_write_u32(&pgmc_reg->sessions[pgmc_procno(proc)].look, 1);
	SetLatch(&proc->procLatch);
}

bool
pgmc_registry_look_wanted(void)
{
	Session    *s = &pgmc_reg->sessions[pgmc_procno(MyProc)];

	return pg_atomic_read_u32(&s->look) != 0 &&
		pg_atomic_exchange_u32(&s->look, 0) != 0;
}

/* ---- releasing ---- */

uint64
pgmc_registry_release(int slot, uint64 epoch, PgmcRelease how, PgmcEnd why,
					  bool in_xact)
{
	Conn	   *conn = &pgmc_reg->conns[slot];
	uint64		recovery = 0;

	lock(LW_EXCLUSIVE);
	if (conn->state == PGMC_CONN_HELD && conn->epoch == epoch)
	{
		pgmc_conn_note_end(conn, why, in_xact);
		pgmc_conn_release(conn, how);
		recovery = conn->recovery;
	}
	unlock();
	return recovery;
}

bool
pgmc_registry_call_finished(uint64 epoch, int64 *rows)
{
	const Session *s = &pgmc_reg->sessions[pgmc_procno(MyProc)];
	bool		finished;

	lock(LW_SHARED);
	finished = s->finished_epoch == epoch;
	*rows = s->finished_rows;
	unlock();
	return finished;
}

void
pgmc_registry_session_exit(void)
{
	int			me;

	if (pgmc_reg == NULL || my_session == 0 || MyProc == NULL)
		return;
	me = pgmc_procno(MyProc);
	lock(LW_EXCLUSIVE);
	if (pgmc_reg->sessions[me].id == my_session)
	{
		if (pgmc_reg->sessions[me].pool != NOBODY)
			pgmc_pool_dequeue(me);
		for (int i = 0; i < pgmc_reg->high_water; i++)
		{
			Conn	   *conn = &pgmc_reg->conns[i];
			bool		mine = conn->last_session == my_session;

			/* what is left of the session in it shall not wait for the next */
			if (mine && conn->state == PGMC_CONN_IDLE)
				pgmc_conn_set_state(conn, PGMC_CONN_RECOVERING);
			else if (conn->state == PGMC_CONN_HELD && conn->holder == me)
			{
				pgmc_conn_note_end_from_outside(conn, PGMC_END_EXIT);
				pgmc_conn_release(conn, PGMC_RELEASE_DIRTY);
			}
			if (mine && conn->last_session == my_session)
				conn->last_session = 0;
		}
		pgmc_reg->sessions[me].id = 0;
		pgmc_reg->sessions[me].pid = 0;
	}
	unlock();
	my_session = 0;
}

/* ---- closing ---- */

bool
pgmc_registry_close_idle(int slot, const PgmcKey *key, PgmcCloseReason why)
{
	Conn	   *conn = &pgmc_reg->conns[slot];
	bool		idle;

	lock(LW_EXCLUSIVE);
	idle = conn->state == PGMC_CONN_IDLE &&
		pgmc_same_key(&pgmc_reg->pools[conn->pool].key, key);
	if (idle)
		pgmc_conn_close(conn, why);
	unlock();
	return idle;
}

PgmcConnState
pgmc_registry_close_of(int slot, Oid dbid, Oid serverid, uint64 *recovery)
{
	Conn	   *conn = &pgmc_reg->conns[slot];
	PgmcConnState state = PGMC_CONN_FREE;

	lock(LW_EXCLUSIVE);
	if (conn->state != PGMC_CONN_FREE &&
		pgmc_key_matches(&pgmc_reg->pools[conn->pool].key, dbid, serverid,
						 InvalidOid, NULL))
		state = conn->state;
	if (state == PGMC_CONN_IDLE)
		pgmc_conn_close(conn, PGMC_CLOSE_ASKED);
	*recovery = conn->recovery;
	unlock();
	return state;
}

void
pgmc_registry_close_matching(Oid dbid, Oid serverid, Oid umid,
							 const char *login)
{
	lock(LW_EXCLUSIVE);
	for (int i = 0; i < pgmc_reg->high_water; i++)
	{
		Conn	   *conn = &pgmc_reg->conns[i];

		if (conn->state == PGMC_CONN_FREE ||
			!pgmc_key_matches(&pgmc_reg->pools[conn->pool].key, dbid, serverid,
							  umid, login))
			continue;
		if (conn->state == PGMC_CONN_IDLE)
			pgmc_conn_close(conn, PGMC_CLOSE_DROPPED);
		else
			conn->expires_at = LONG_AGO;
	}
	pgmc_counters_drop(&pgmc_reg->counters, dbid, serverid, umid, login);
	unlock();
}
