/*
 * registry.c
 *		What all sessions and the worker know of each other.
 *
 * Everything in the segment is guarded by the registry's lock, except for
 * - channels, which have locks of their own;
 * - the commands and rows of counters.h, atomics as well;
 * - a connection's xact_status and commit_xid, atomics that only the worker
 *   writes, the latter while somebody holds the connection;
 * - high_water, attention and worker_outdated, which are read without it as
 *	 hints.
 *
 * Processes are named by their procno (index in ProcGlobal->allProcs), so a
 * latch can be set whatever has happened to the process meanwhile: latches
 * live as long as the server, and a needless wake-up harms nobody.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "build.h"
#include "compat.h"
#include "counters.h"
#include "registry.h"
#include "static_area.h"

#define NOBODY	(-1)

/* a starter that hasn't brought the worker up by then has failed */
#define START_TIMEOUT_MS	30000

/* expires_at of a connection that nobody shall get any more */
#define LONG_AGO	1

typedef struct Conn
{
	PgmcConnState state;
	int			pool;			/* index, valid unless FREE */
	uint64		epoch;			/* of the hold, 0 unless HELD */
	int			holder;			/* procno, or NOBODY unless HELD */
	TimestampTz hold_start;
	int			hold_timeout;	/* of the hold, milliseconds, 0: none */
	int			idle_hold_timeout;	/* the same, while nothing is run */
	bool		own_xacts;		/* the hold leaves no transaction of its own
								 * open: it is of one call */
	PgmcEnd		end;			/* how the latest hold has ended, while the
								 * worker brings that to order */
	int			ended_pid;		/* whose it was */
	bool		ended_in_xact;	/* a transaction was open */
	PgmcCloseReason close_reason;	/* where CLOSING */
	uint64		last_session;	/* that held it last; 0: none, or it has ended */
	TimestampTz state_since;
	bool		open;			/* the worker has a PGconn here */
	bool		opening;		/* the worker is connecting */
	bool		broken;			/* the PGconn was lost in this hold */
	int			backend_pid;
	bool		same_cluster;
	bool		used_password;
	uint64		options_hash;
	TimestampTz backend_start;
	TimestampTz expires_at;		/* replace it on release from then on, 0:
								 * never; set before it is open where it isn't
								 * wanted any more */
	char		last_error[PGMC_MESSAGE_SIZE];
	pg_atomic_uint32 xact_status;	/* PgmcXactStatus */
	pg_atomic_uint32 commit_xid;	/* that the holder's request is to commit,
									 * 0: not known; cleared with a new holder */
	PgmcChannel channel;
} Conn;

typedef struct Pool
{
	int			nconns;			/* 0: this pool is free */
	int			tally;			/* where it counts; the worker reads it
								 * without the lock, see counters.c */
	int			size;			/* these options as of the last acquire */
	int			hold_timeout;
	int			idle_hold_timeout;
	PgmcKey		key;
	NameData	srvname;
	int			nwaiters;
	int			head;			/* of the queue: procno or NOBODY */
	int			tail;
} Pool;

/* One for each process slot of the server; in use where id isn't 0. */
typedef struct Session
{
	uint64		id;
	int			pid;
	Oid			userid;			/* who asked for the latest hold */
	char		appname[NAMEDATALEN];
	TimestampTz waits_since;	/* a wait of pgmc's that was told, or 0 */
	uint64		queue_number;	/* of the latest queueing */
	TimestampTz queued_since;	/* the same */
	PgmcAcquireMode mode;		/* of the latest acquire */
	int			pool;			/* queued for it, or NOBODY */
	int			next;			/* neighbours in its queue */
	int			prev;
	PgmcAcquireResult result;	/* how the latest queueing ended */
	int			slot;			/* where result is PGMC_GRANTED */
	uint64		epoch;
	PgmcFailure failure;		/* where result is PGMC_FAILED */
	uint64		finished_epoch; /* of the latest call that the worker has
								 * ended; 0: none */
	int64		finished_rows;	/* its reply */
	bool		mailed;			/* the mail is sent, in the latest hold */
	PgmcMail	mail;			/* of the latest acquire: its owner, while it
								 * isn't queued */
} Session;

typedef struct Registry
{
	LWLock		lock;
	int			tranche;
	int			nsessions;
	int			high_water;		/* no conn at or above it is in use */
	uint64		last_session;	/* the last number given to a session */
	uint64		last_epoch;		/* the last number given to a hold or queueing */
	pg_atomic_uint32 attention; /* a state changed that the worker must see */
	PgmcWorkerState worker_state;
	int			worker_pid;
	int			worker_procno;
	uint32		worker_build;	/* of the library that the worker has ... */
	TimestampTz worker_loaded;	/* ... since then; the worker writes both */
	bool		worker_outdated;	/* a session has a newer one */
	int			starter_pid;	/* while STARTING */
	TimestampTz starting_since;
	ConditionVariable news;		/* the worker's state, or the end of a
								 * recovery */
	Conn		conns[PGMC_MAX_CONNECTIONS];
	Pool		pools[PGMC_MAX_CONNECTIONS];
	PgmcCounters counters;
	Session		sessions[FLEXIBLE_ARRAY_MEMBER];
} Registry;

static Registry *reg = NULL;
static uint64 my_session = 0;

/* ---- the lock ---- */

/*
 * In builds with assertions the lock's holder is in a critical section: an
 * error there is a PANIC, and an allocation fails an assertion.
 */
static void
lock(LWLockMode mode)
{
	LWLockAcquire(&reg->lock, mode);
#ifdef USE_ASSERT_CHECKING
	START_CRIT_SECTION();
#endif
}

static void
unlock(void)
{
#ifdef USE_ASSERT_CHECKING
	END_CRIT_SECTION();
#endif
	LWLockRelease(&reg->lock);
}

/* ---- attaching ---- */

static Size
registry_size(void)
{
	return offsetof(Registry, sessions) + mul_size(MaxBackends, sizeof(Session));
}

static void
init_registry(void *segment, Size size, int tranche)
{
	Registry   *r = segment;

	memset(r, 0, size);
	LWLockInitialize(&r->lock, tranche);
	r->tranche = tranche;
	r->nsessions = MaxBackends;
	pg_atomic_init_u32(&r->attention, 0);
	r->worker_state = PGMC_WORKER_NONE;
	r->worker_procno = NOBODY;
	ConditionVariableInit(&r->news);
	pgmc_counters_init(&r->counters);
	for (int i = 0; i < PGMC_MAX_CONNECTIONS; i++)
	{
		pg_atomic_init_u32(&r->conns[i].xact_status, PGMC_XACT_CLOSED);
		pg_atomic_init_u32(&r->conns[i].commit_xid, 0);
		pgmc_channel_init(&r->conns[i].channel, tranche);
		r->conns[i].holder = NOBODY;
	}
}

void
pgmc_registry_attach(void)
{
	if (reg == NULL)
		reg = pgmc_static_attach(registry_size(), init_registry);
}

bool
pgmc_registry_attach_existing(void)
{
	if (reg == NULL)
		reg = pgmc_static_attach(registry_size(), NULL);
	return reg != NULL;
}

void
pgmc_registry_check_current(void)
{
	if (!pgmc_static_current())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the library of pgmc was replaced while this session was using it"),
				 errhint("Reconnect, so that this session loads the new library.")));
}

PgmcChannel *
pgmc_registry_channel(int slot)
{
	return &reg->conns[slot].channel;
}

int
pgmc_registry_slots(void)
{
	return *(volatile int *) &reg->high_water;
}

static void
wake(int procno)
{
	if (procno != NOBODY)
		SetLatch(&GetPGProcByNumber(procno)->procLatch);
}

void
pgmc_registry_wake_worker(void)
{
	wake(*(volatile int *) &reg->worker_procno);
}

/* The worker must look at the slots' states. */
static void
call_worker(void)
{
	pg_atomic_write_u32(&reg->attention, 1);
	pgmc_registry_wake_worker();
}

/* ---- pools; the caller has the lock, exclusively where something changes ---- */

bool
pgmc_same_key(const PgmcKey *a, const PgmcKey *b)
{
	return a->serverid == b->serverid && a->dbid == b->dbid &&
		a->umid == b->umid &&
		strncmp(NameStr(a->login), NameStr(b->login), NAMEDATALEN) == 0;
}

bool
pgmc_key_matches(const PgmcKey *key, Oid dbid, Oid serverid, Oid umid,
				 const char *login)
{
	return (!OidIsValid(dbid) || key->dbid == dbid) &&
		(!OidIsValid(serverid) || key->serverid == serverid) &&
		(!OidIsValid(umid) || key->umid == umid) &&
		(login == NULL || strcmp(NameStr(key->login), login) == 0);
}

static int
find_pool(const PgmcKey *key)
{
	for (int i = 0; i < reg->high_water; i++)
		if (reg->pools[i].nconns > 0 && pgmc_same_key(&reg->pools[i].key, key))
			return i;
	return NOBODY;
}

static void
set_options(Pool *pool, const PgmcAcquire *acquire)
{
	pool->size = acquire->pool_size;
	pool->hold_timeout = acquire->hold_timeout;
	pool->idle_hold_timeout = acquire->idle_hold_timeout;
}

/* There are as many pools as connections, so there is always a free one. */
static int
make_pool(const PgmcAcquire *acquire)
{
	for (int i = 0; i < PGMC_MAX_CONNECTIONS; i++)
	{
		Pool	   *pool = &reg->pools[i];

		if (pool->nconns > 0)
			continue;
		memset(pool, 0, sizeof(*pool));
		pool->key = acquire->key;
		pool->srvname = acquire->srvname;
		pool->tally = pgmc_counters_begin(&reg->counters, &acquire->key,
										  &acquire->srvname);
		set_options(pool, acquire);
		pool->head = pool->tail = NOBODY;
		if (i >= reg->high_water)
			reg->high_water = i + 1;
		return i;
	}
	return NOBODY;
}

static void
enqueue(Pool *pool, int procno)
{
	Session    *s = &reg->sessions[procno];

	s->pool = pool - reg->pools;
	s->queue_number = ++reg->last_epoch;
	s->queued_since = GetCurrentTimestamp();
	s->waits_since = 0;
	s->result = PGMC_QUEUED;
	s->next = NOBODY;
	s->prev = pool->tail;
	if (pool->tail == NOBODY)
		pool->head = procno;
	else
		reg->sessions[pool->tail].next = procno;
	pool->tail = procno;
	pool->nwaiters++;
	pgmc_counters_count(&reg->counters, pool->tally, PGMC_COUNT_WAITS);
}

static void
dequeue(int procno)
{
	Session    *s = &reg->sessions[procno];
	Pool	   *pool = &reg->pools[s->pool];

	if (s->prev == NOBODY)
		pool->head = s->next;
	else
		reg->sessions[s->prev].next = s->next;
	if (s->next == NOBODY)
		pool->tail = s->prev;
	else
		reg->sessions[s->next].prev = s->prev;
	pool->nwaiters--;
	s->pool = NOBODY;
	pgmc_counters_waited(&reg->counters, pool->tally, s->queued_since,
						 GetCurrentTimestamp());
}

/* Everybody in the queue is told the same. */
static void
fail_waiters(Pool *pool, const PgmcFailure *failure)
{
	while (pool->head != NOBODY)
	{
		int			procno = pool->head;
		Session    *s = &reg->sessions[procno];

		dequeue(procno);
		s->failure = *failure;
		s->result = PGMC_FAILED;
		wake(procno);
	}
}

/* ---- states; the caller has the lock ---- */

#ifdef USE_ASSERT_CHECKING
static bool
change_allowed(PgmcConnState from, PgmcConnState to)
{
	switch (from)
	{
		case PGMC_CONN_FREE:
			return to == PGMC_CONN_HELD;
		case PGMC_CONN_HELD:
			return true;
		case PGMC_CONN_IDLE:
			return true;
		case PGMC_CONN_RECOVERING:
			return true;
		case PGMC_CONN_CLOSING:
			return to == PGMC_CONN_FREE || to == PGMC_CONN_HELD;
	}
	return false;
}
#endif

static int
tally_of(const Conn *conn)
{
	return reg->pools[conn->pool].tally;
}

/* The one function that changes a connection's state. */
static void
set_state(Conn *conn, PgmcConnState to)
{
	TimestampTz now = GetCurrentTimestamp();

	Assert(change_allowed(conn->state, to));
	if (conn->state == PGMC_CONN_HELD)
		pgmc_counters_held(&reg->counters, tally_of(conn), conn->hold_start, now);
	if (to != PGMC_CONN_HELD)
	{
		conn->epoch = 0;
		conn->holder = NOBODY;
		conn->broken = false;
		conn->opening = false;
		pgmc_channel_give(&conn->channel, 0);
	}
	conn->state = to;
	conn->state_since = now;
	if (to == PGMC_CONN_RECOVERING || to == PGMC_CONN_CLOSING ||
		(to != PGMC_CONN_HELD && reg->worker_outdated))
		call_worker();
	else
		conn->end = PGMC_END_NONE;
}

static void
close_conn(Conn *conn, PgmcCloseReason why)
{
	conn->close_reason = why;
	set_state(conn, PGMC_CONN_CLOSING);
}

/* May this mail go out on this connection, as its sender would send it? */
static bool
suits_mail(const Conn *conn, const PgmcMail *mail)
{
	return mail->length > 0 && conn->open &&
		conn->options_hash == mail->options_hash &&
		(mail->anyhow || (mail->with_password && conn->used_password) ||
		 (mail->own_cluster && conn->same_cluster));
}

static void
hold(Conn *conn, int procno)
{
	Session    *s = &reg->sessions[procno];

	set_state(conn, PGMC_CONN_HELD);
	conn->epoch = ++reg->last_epoch;
	conn->holder = procno;
	conn->hold_start = conn->state_since;
	conn->last_session = s->id;
	pg_atomic_write_u32(&conn->commit_xid, 0);
	conn->own_xacts = s->mode == PGMC_ACQUIRE_EXTRA;
	pgmc_counters_count(&reg->counters, tally_of(conn), PGMC_COUNT_ACQUIRES);
	conn->hold_timeout = reg->pools[conn->pool].hold_timeout;
	conn->idle_hold_timeout = reg->pools[conn->pool].idle_hold_timeout;
	if (conn->hold_timeout > 0 || conn->idle_hold_timeout > 0)
		call_worker();
	pgmc_channel_give(&conn->channel, conn->epoch);
	s->mailed = suits_mail(conn, &s->mail) &&
		pgmc_channel_post(&conn->channel, conn - reg->conns, conn->epoch,
						  s->mail.frame, s->mail.length);
	if (s->mailed)
		pgmc_registry_wake_worker();
}

static void
fill_grant(const Conn *conn, PgmcGrant *grant)
{
	grant->slot = conn - reg->conns;
	grant->epoch = conn->epoch;
	grant->open = conn->open;
	grant->used_password = conn->used_password;
	grant->same_cluster = conn->same_cluster;
	grant->options_hash = conn->options_hash;
	grant->mailed = reg->sessions[conn->holder].mailed;
}

static void
leave_pool(Conn *conn)
{
	Pool	   *pool = &reg->pools[conn->pool];

	Assert(pool->nconns > 1 || pool->nwaiters == 0);
	pool->nconns--;
	if (pool->nconns == 0)
		pgmc_counters_end(&reg->counters, pool->tally);
	while (reg->high_water > 0 &&
		   reg->conns[reg->high_water - 1].state == PGMC_CONN_FREE &&
		   reg->pools[reg->high_water - 1].nconns == 0)
		reg->high_water--;
}

/* connections of a pool that are in use, or on their way to or from it */
static int
count_busy(int pool)
{
	int			busy = 0;

	for (int i = 0; i < reg->high_water; i++)
		if (reg->conns[i].pool == pool &&
			reg->conns[i].state != PGMC_CONN_FREE &&
			reg->conns[i].state != PGMC_CONN_IDLE)
			busy++;
	return busy;
}

/*
 * Nobody holds it any more, it is idle or closed: whose turn is it?  A pool
 * that has been made smaller gives up what is too much.
 */
static void
pass_on(Conn *conn)
{
	Pool	   *pool = &reg->pools[conn->pool];

	if (pool->nconns > pool->size && count_busy(conn->pool) > pool->size)
	{
		if (conn->open)
			close_conn(conn, PGMC_CLOSE_POOL_SIZE);
		else
		{
			set_state(conn, PGMC_CONN_FREE);
			leave_pool(conn);
		}
	}
	else if (pool->head != NOBODY)
	{
		int			procno = pool->head;
		Session    *s = &reg->sessions[procno];

		dequeue(procno);
		hold(conn, procno);
		s->slot = conn - reg->conns;
		s->epoch = conn->epoch;
		s->result = PGMC_GRANTED;

		/* one whose command has gone out may sleep until the reply */
		if (!s->mailed)
			wake(procno);
	}
	else if (conn->open)
		set_state(conn, PGMC_CONN_IDLE);
	else
	{
		set_state(conn, PGMC_CONN_FREE);
		leave_pool(conn);
	}
}

static void
forget_backend(Conn *conn)
{
	conn->open = false;
	conn->opening = false;
	conn->backend_pid = 0;
	conn->same_cluster = false;
	conn->used_password = false;
	conn->options_hash = 0;
	conn->backend_start = 0;
	conn->expires_at = 0;
	pg_atomic_write_u32(&conn->xact_status, PGMC_XACT_CLOSED);
}

/* ---- sessions ---- */

uint64
pgmc_registry_session(void)
{
	Session    *s = &reg->sessions[pgmc_procno(MyProc)];

	if (my_session != 0)
		return my_session;
	lock(LW_EXCLUSIVE);
	my_session = ++reg->last_session;
	memset(s, 0, sizeof(*s));
	s->id = my_session;
	s->pid = MyProcPid;
	s->pool = NOBODY;
	unlock();
	return my_session;
}

/* caller has the lock: the slot whose backend is this process, or NOBODY */
static int
loopback_of(int pid)
{
	for (int i = 0; i < reg->high_water; i++)
	{
		Conn	   *conn = &reg->conns[i];

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
		if (reg->conns[slot].holder == procno)
			return true;
		pid = reg->sessions[reg->conns[slot].holder].pid;
	}
	return false;
}

/* How many of a pool's connections lead back to us? */
static PgmcAcquireResult
count_own(int pool, int *own)
{
	PgmcAcquireResult whose = PGMC_GRANTED;

	*own = 0;
	for (int i = 0; i < reg->high_water; i++)
	{
		Conn	   *conn = &reg->conns[i];

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

/* the idle connection that suits this session best, or NULL */
static Conn *
choose_idle(int pool)
{
	Conn	   *best = NULL;

	for (int i = 0; i < reg->high_water; i++)
	{
		Conn	   *conn = &reg->conns[i];

		if (conn->state != PGMC_CONN_IDLE || conn->pool != pool)
			continue;
		if (conn->last_session == my_session)
			return conn;
		if (best == NULL || conn->state_since > best->state_since)
			best = conn;
	}
	return best;
}

/*
 * A slot for one more connection: a free one, or that of the longest idle
 * connection of any other pool, whose PGconn the worker closes before it
 * opens ours.  NULL when there is none.
 */
static Conn *
choose_slot(int max_connections)
{
	Conn	   *idle = NULL;
	Conn	   *free_conn = NULL;
	int			used = 0;

	for (int i = 0; i < Min(reg->high_water + 1, PGMC_MAX_CONNECTIONS); i++)
	{
		Conn	   *conn = &reg->conns[i];

		if (conn->state == PGMC_CONN_FREE)
		{
			if (free_conn == NULL)
				free_conn = conn;
			continue;
		}
		used++;
		if (conn->state == PGMC_CONN_IDLE &&
			(idle == NULL || conn->state_since < idle->state_since))
			idle = conn;
	}
	if (used < max_connections && free_conn != NULL)
		return free_conn;
	return idle;
}

static bool
add_connection(const PgmcAcquire *acquire, int pool, PgmcGrant *grant)
{
	Conn	   *conn = choose_slot(acquire->max_connections);

	if (conn == NULL)
		return false;
	if (conn->state != PGMC_CONN_FREE)
	{
		leave_pool(conn);
		call_worker();
	}
	if (pool == NOBODY)
		pool = make_pool(acquire);
	forget_backend(conn);
	conn->pool = pool;
	conn->last_error[0] = '\0';
	reg->pools[pool].nconns++;
	if (conn - reg->conns >= reg->high_water)
		reg->high_water = conn - reg->conns + 1;
	hold(conn, pgmc_procno(MyProc));
	fill_grant(conn, grant);
	return true;
}

/* caller has the lock */
static PgmcAcquireResult
acquire_locked(const PgmcAcquire *acquire, PgmcGrant *grant)
{
	int			pool = find_pool(&acquire->key);
	PgmcAcquireResult own;
	int			nown;
	Conn	   *conn;

	if (pool == NOBODY)
		return add_connection(acquire, pool, grant) ? PGMC_GRANTED : PGMC_NO_ROOM;

	set_options(&reg->pools[pool], acquire);
	own = count_own(pool, &nown);
	if (own != PGMC_GRANTED && acquire->mode != PGMC_ACQUIRE_EXTRA)
		return own;

	conn = choose_idle(pool);
	if (conn != NULL && (reg->pools[pool].nconns <= acquire->pool_size ||
						 count_busy(pool) < acquire->pool_size))
	{
		hold(conn, pgmc_procno(MyProc));
		fill_grant(conn, grant);
		return PGMC_GRANTED;
	}
	if (reg->pools[pool].nconns < acquire->pool_size &&
		add_connection(acquire, pool, grant))
		return PGMC_GRANTED;
	if (nown >= reg->pools[pool].nconns)
		return nown < acquire->pool_size ? PGMC_NO_ROOM : own;
	if (acquire->mode == PGMC_ACQUIRE_TRY)
		return PGMC_BUSY;
	enqueue(&reg->pools[pool], pgmc_procno(MyProc));
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
	if (reg->worker_state == PGMC_WORKER_RUNNING && !reg->worker_outdated &&
		reg->worker_build != pgmc_build &&
		reg->worker_loaded < pgmc_build_loaded)
	{
		reg->worker_outdated = true;
		call_worker();
	}
}

PgmcAcquireResult
pgmc_registry_acquire(const PgmcAcquire *acquire, PgmcGrant *grant)
{
	Session    *s = &reg->sessions[pgmc_procno(MyProc)];
	Oid			userid = GetUserId();
	PgmcAcquireResult result;

	(void) pgmc_registry_session();
	lock(LW_EXCLUSIVE);
	s->userid = userid;
	s->mode = acquire->mode;
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

/* caller has the lock */
static PgmcAcquireResult
outcome(const Session *s, PgmcGrant *grant, PgmcFailure *failure)
{
	if (s->result == PGMC_GRANTED)
	{
		/* it may have been taken away again */
		if (reg->conns[s->slot].epoch == s->epoch)
			fill_grant(&reg->conns[s->slot], grant);
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
	Session    *s = &reg->sessions[pgmc_procno(MyProc)];
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
	if (reg->sessions[me].pool != NOBODY)
		dequeue(me);
	result = outcome(&reg->sessions[me], grant, failure);
	unlock();
	return result;
}

/* caller has the lock */
static void
fill_holder(const Conn *conn, PgmcHolder *holder)
{
	const Session *s;

	memset(holder, 0, sizeof(*holder));
	if (conn->holder == NOBODY)
		return;
	s = &reg->sessions[conn->holder];
	holder->pid = s->pid;
	holder->userid = s->userid;
	strlcpy(holder->appname, s->appname, sizeof(holder->appname));
	holder->since = conn->hold_start;
}

int
pgmc_registry_place(PgmcHolder *holder)
{
	int			me = pgmc_procno(MyProc);
	int			place = 0;
	int			pool;

	memset(holder, 0, sizeof(*holder));
	lock(LW_SHARED);
	pool = reg->sessions[me].pool;
	if (pool != NOBODY)
	{
		for (int p = me; p != NOBODY; p = reg->sessions[p].prev)
			place++;

		/* the one that has held it longest is whom the head waits for */
		for (int i = 0; i < reg->high_water; i++)
		{
			Conn	   *conn = &reg->conns[i];

			if (conn->state == PGMC_CONN_HELD && conn->pool == pool &&
				(holder->pid == 0 || conn->hold_start < holder->since))
				fill_holder(conn, holder);
		}
	}
	unlock();
	return place;
}

void
pgmc_registry_tell_wait(TimestampTz since)
{
	lock(LW_EXCLUSIVE);
	reg->sessions[pgmc_procno(MyProc)].waits_since = since;
	unlock();
}

/* caller has the lock */
static void
fill_wait_conn(Conn *conn, PgmcWaitConn *wait)
{
	memset(wait, 0, sizeof(*wait));
	wait->pool = conn->pool;
	wait->srvname = reg->pools[conn->pool].srvname;
	if (conn->state != PGMC_CONN_HELD)
		return;
	wait->holder_pid = reg->sessions[conn->holder].pid;
	wait->holder_waits_since = reg->sessions[conn->holder].waits_since;
	wait->epoch = conn->epoch;
	wait->backend_pid = conn->backend_pid;
	wait->running = conn->same_cluster && !conn->channel.abort_asked &&
		pg_atomic_read_u32(&conn->xact_status) == PGMC_XACT_ACTIVE;
}

void
pgmc_registry_waits(PgmcWaits *waits)
{
	waits->conns = palloc(PGMC_MAX_CONNECTIONS * sizeof(PgmcWaitConn));
	waits->waiters = palloc(reg->nsessions * sizeof(PgmcWaiter));
	waits->nconns = waits->nwaiters = 0;
	lock(LW_SHARED);
	for (int i = 0; i < reg->high_water; i++)
		if (reg->conns[i].state != PGMC_CONN_FREE)
			fill_wait_conn(&reg->conns[i], &waits->conns[waits->nconns++]);
	for (int p = 0; p < reg->high_water; p++)
	{
		if (reg->pools[p].nconns == 0)
			continue;
		for (int w = reg->pools[p].head; w != NOBODY; w = reg->sessions[w].next)
		{
			PgmcWaiter *waiter = &waits->waiters[waits->nwaiters++];

			waiter->pid = reg->sessions[w].pid;
			waiter->pool = p;
			waiter->number = reg->sessions[w].queue_number;
			waiter->since = reg->sessions[w].waits_since;
		}
	}
	unlock();
}

bool
pgmc_registry_recovering(const PgmcKey *key)
{
	bool		found = false;
	int			pool;

	lock(LW_SHARED);
	pool = find_pool(key);
	if (pool != NOBODY && reg->pools[pool].nwaiters == 0)
		for (int i = 0; i < reg->high_water; i++)
			if (reg->conns[i].pool == pool &&
				(reg->conns[i].state == PGMC_CONN_RECOVERING ||
				 reg->conns[i].state == PGMC_CONN_CLOSING))
				found = true;
	unlock();
	return found;
}

/* caller has the lock: does the session with this pid hold anything? */
static bool
pid_holds(int pid)
{
	for (int i = 0; pid != 0 && i < reg->high_water; i++)
		if (reg->conns[i].state == PGMC_CONN_HELD &&
			reg->sessions[reg->conns[i].holder].pid == pid)
			return true;
	return false;
}

bool
pgmc_registry_pid_holds(int pid)
{
	bool		holds;

	lock(LW_SHARED);
	holds = pid_holds(pid);
	unlock();
	return holds;
}

/*
 * Caller has the lock.  A connection that isn't open is soon given away, but
 * not what its holder has sent and not taken: the worker, where there is one,
 * does away with that first.
 */
static void
release_closed(Conn *conn)
{
	if (!pgmc_channel_used(&conn->channel))
		pass_on(conn);
	else if (reg->worker_state == PGMC_WORKER_RUNNING)
		set_state(conn, PGMC_CONN_RECOVERING);
	else
	{
		pgmc_channel_empty(&conn->channel);
		pass_on(conn);
	}
}

/* Is it due to be replaced, or not wanted any more? */
static bool
expired(const Conn *conn)
{
	return conn->open && conn->expires_at != 0 &&
		GetCurrentTimestamp() >= conn->expires_at;
}

static void
close_expired(Conn *conn)
{
	close_conn(conn, conn->expires_at == LONG_AGO ? PGMC_CLOSE_DROPPED :
			   conn->expires_at <= conn->backend_start ? PGMC_CLOSE_BLOATED :
			   PGMC_CLOSE_LIFETIME);
}

/* Caller has the lock: a hold ends.  What was lost with a connection isn't rolled back. */
static void
note_end(Conn *conn, PgmcEnd why, bool in_xact)
{
	in_xact = in_xact && conn->open;
	conn->end = why;
	conn->ended_pid = reg->sessions[conn->holder].pid;
	conn->ended_in_xact = in_xact;
	if (in_xact)
		pgmc_counters_count(&reg->counters, tally_of(conn),
							why == PGMC_END_RELEASE ? PGMC_COUNT_DIRTY_RELEASES :
							PGMC_COUNT_FORCED_ROLLBACKS);
}

/* The same for one whose holder can't say whether a transaction is open. */
static void
note_end_from_outside(Conn *conn, PgmcEnd why)
{
	uint32		xact = pg_atomic_read_u32(&conn->xact_status);

	note_end(conn, why, !conn->own_xacts && xact != PGMC_XACT_IDLE);
}

/*
 * Caller has the lock.  A connection whose loopback session holds others isn't
 * clean, whatever its holder thinks: the worker makes it release them first.
 */
static void
release_locked(Conn *conn, PgmcRelease how)
{
	if (!conn->open && !conn->opening)
		release_closed(conn);
	else if (how == PGMC_RELEASE_CLEAN && expired(conn))
		close_expired(conn);
	else if (how == PGMC_RELEASE_CLEAN && !conn->opening &&
			 !(conn->same_cluster && pid_holds(conn->backend_pid)))
		pass_on(conn);
	else if (how == PGMC_RELEASE_CLOSE)
		close_conn(conn, PGMC_CLOSE_ASKED);
	else
		set_state(conn, PGMC_CONN_RECOVERING);
}

bool
pgmc_registry_release(int slot, uint64 epoch, PgmcRelease how, PgmcEnd why,
					  bool in_xact)
{
	Conn	   *conn = &reg->conns[slot];
	bool		held;

	lock(LW_EXCLUSIVE);
	held = conn->state == PGMC_CONN_HELD && conn->epoch == epoch;
	if (held)
	{
		note_end(conn, why, in_xact);
		release_locked(conn, how);
	}
	unlock();
	return held;
}

bool
pgmc_registry_call_finished(uint64 epoch, int64 *rows)
{
	const Session *s = &reg->sessions[pgmc_procno(MyProc)];
	bool		finished;

	lock(LW_SHARED);
	finished = s->finished_epoch == epoch;
	*rows = s->finished_rows;
	unlock();
	return finished;
}

bool
pgmc_registry_finish_call(int slot, int64 rows)
{
	Conn	   *conn = &reg->conns[slot];
	int			holder;
	bool		finished;

	lock(LW_EXCLUSIVE);
	finished = conn->state == PGMC_CONN_HELD && conn->own_xacts && conn->open &&
		!(conn->same_cluster && pid_holds(conn->backend_pid));
	if (finished)
	{
		holder = conn->holder;
		reg->sessions[holder].finished_epoch = conn->epoch;
		reg->sessions[holder].finished_rows = rows;
		note_end(conn, PGMC_END_RELEASE, false);
		release_locked(conn, PGMC_RELEASE_CLEAN);
		wake(holder);
	}
	unlock();
	return finished;
}

void
pgmc_registry_session_exit(void)
{
	int			me;

	if (reg == NULL || my_session == 0 || MyProc == NULL)
		return;
	me = pgmc_procno(MyProc);
	lock(LW_EXCLUSIVE);
	if (reg->sessions[me].id == my_session)
	{
		if (reg->sessions[me].pool != NOBODY)
			dequeue(me);
		for (int i = 0; i < reg->high_water; i++)
		{
			Conn	   *conn = &reg->conns[i];
			bool		mine = conn->last_session == my_session;

			/* what is left of the session in it shall not wait for the next */
			if (mine && conn->state == PGMC_CONN_IDLE)
				set_state(conn, PGMC_CONN_RECOVERING);
			else if (conn->state == PGMC_CONN_HELD && conn->holder == me)
			{
				note_end_from_outside(conn, PGMC_END_EXIT);
				release_locked(conn, PGMC_RELEASE_DIRTY);
			}
			if (mine && conn->last_session == my_session)
				conn->last_session = 0;
		}
		reg->sessions[me].id = 0;
		reg->sessions[me].pid = 0;
	}
	unlock();
	my_session = 0;
}

bool
pgmc_registry_close_idle(int slot, const PgmcKey *key, PgmcCloseReason why)
{
	Conn	   *conn = &reg->conns[slot];
	bool		idle;

	lock(LW_EXCLUSIVE);
	idle = conn->state == PGMC_CONN_IDLE &&
		pgmc_same_key(&reg->pools[conn->pool].key, key);
	if (idle)
		close_conn(conn, why);
	unlock();
	return idle;
}

void
pgmc_registry_close_matching(Oid dbid, Oid serverid, Oid umid,
							 const char *login)
{
	lock(LW_EXCLUSIVE);
	for (int i = 0; i < reg->high_water; i++)
	{
		Conn	   *conn = &reg->conns[i];

		if (conn->state == PGMC_CONN_FREE ||
			!pgmc_key_matches(&reg->pools[conn->pool].key, dbid, serverid, umid,
							  login))
			continue;
		if (conn->state == PGMC_CONN_IDLE)
			close_conn(conn, PGMC_CLOSE_DROPPED);
		else
			conn->expires_at = LONG_AGO;
	}
	pgmc_counters_drop(&reg->counters, dbid, serverid, umid, login);
	unlock();
}

int
pgmc_registry_find(const PgmcKey *key)
{
	int			best = -1;
	int			pool;

	lock(LW_SHARED);
	pool = find_pool(key);
	for (int i = 0; pool != NOBODY && i < reg->high_water; i++)
	{
		Conn	   *conn = &reg->conns[i];

		if (conn->state == PGMC_CONN_FREE || conn->pool != pool)
			continue;
		if (best < 0 || (conn->open && !reg->conns[best].open))
			best = i;
		if (conn->state == PGMC_CONN_HELD && conn->holder == pgmc_procno(MyProc))
		{
			best = i;
			break;
		}
	}
	unlock();
	return best;
}

/* ---- statistics ---- */

void
pgmc_registry_count(const PgmcKey *key, PgmcCounter what)
{
	int			tally;

	lock(LW_EXCLUSIVE);
	tally = pgmc_counters_find(&reg->counters, key);
	if (tally >= 0)
		pgmc_counters_count(&reg->counters, tally, what);
	unlock();
}

void
pgmc_registry_reset_stats(Oid serverid)
{
	lock(LW_EXCLUSIVE);
	pgmc_counters_reset(&reg->counters, MyDatabaseId, serverid);
	unlock();
}

bool
pgmc_registry_stats(int i, PgmcStats *stats)
{
	bool		found;

	lock(LW_SHARED);
	found = pgmc_counters_copy(&reg->counters, i, stats);
	unlock();
	return found;
}

/* ---- looking ---- */

int
pgmc_registry_max_waiters(void)
{
	return reg->nsessions;
}

void
pgmc_registry_slot(int slot, PgmcSlot *copy)
{
	pgmc_registry_look(slot, copy, NULL);
}

/* caller has the lock */
static void
fill_queued(const Pool *pool, PgmcQueued *queued)
{
	for (int p = pool->head; p != NOBODY; p = reg->sessions[p].next)
	{
		queued->pid = reg->sessions[p].pid;
		queued->since = reg->sessions[p].queued_since;
		queued++;
	}
}

void
pgmc_registry_look(int slot, PgmcSlot *copy, PgmcQueued *queued)
{
	Conn	   *conn = &reg->conns[slot];

	memset(copy, 0, sizeof(*copy));
	lock(LW_SHARED);
	copy->state = conn->state;
	if (conn->state != PGMC_CONN_FREE)
	{
		copy->key = reg->pools[conn->pool].key;
		copy->srvname = reg->pools[conn->pool].srvname;
		copy->waiters = reg->pools[conn->pool].nwaiters;
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
		copy->xact_status = pg_atomic_read_u32(&conn->xact_status);
		copy->commit_xid = pg_atomic_read_u32(&conn->commit_xid);
		fill_holder(conn, &copy->holder);
		copy->hold_timeout = conn->hold_timeout;
		copy->idle_hold_timeout = conn->idle_hold_timeout;
		copy->end = conn->end;
		copy->ended_pid = conn->ended_pid;
		copy->ended_in_xact = conn->ended_in_xact;
		copy->close_reason = conn->close_reason;
		if (queued != NULL)
			fill_queued(&reg->pools[conn->pool], queued);
		strlcpy(copy->last_error, conn->last_error, sizeof(copy->last_error));
	}
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
	return pg_atomic_read_u32(&reg->conns[slot].xact_status);
}

/* ---- starting the worker ---- */

PgmcWorkerState
pgmc_registry_claim_start(int *worker_pid)
{
	PgmcWorkerState state;
	TimestampTz now = GetCurrentTimestamp();
	int			starter;

	lock(LW_SHARED);
	starter = reg->starter_pid;
	unlock();

	/* asked without the lock: whether the starter is there takes another one */
	if (starter != 0 && BackendPidGetProc(starter) != NULL)
		starter = 0;

	lock(LW_EXCLUSIVE);
	if (reg->worker_state == PGMC_WORKER_STARTING &&
		((starter != 0 && reg->starter_pid == starter) ||
		 TimestampDifferenceExceeds(reg->starting_since, now, START_TIMEOUT_MS)))
		reg->worker_state = PGMC_WORKER_NONE;
	state = reg->worker_state;
	if (state == PGMC_WORKER_NONE)
	{
		reg->worker_state = PGMC_WORKER_STARTING;
		reg->starter_pid = MyProcPid;
		reg->starting_since = now;
	}
	*worker_pid = reg->worker_pid;
	unlock();
	return state;
}

bool
pgmc_registry_start_failed(void)
{
	bool		ours;

	lock(LW_EXCLUSIVE);
	ours = reg->worker_state == PGMC_WORKER_STARTING &&
		reg->starter_pid == MyProcPid;
	if (ours)
	{
		reg->worker_state = PGMC_WORKER_NONE;
		reg->starter_pid = 0;
	}
	unlock();
	ConditionVariableBroadcast(&reg->news);
	return ours;
}

PgmcWorkerState
pgmc_registry_worker(int *pid)
{
	PgmcWorkerState state;

	lock(LW_SHARED);
	state = reg->worker_state;
	*pid = reg->worker_pid;
	unlock();
	return state;
}

ConditionVariable *
pgmc_registry_news_cv(void)
{
	return &reg->news;
}

bool
pgmc_registry_worker_begin(void)
{
	bool		ours;
	int			other;
	bool		dead;

	lock(LW_SHARED);
	other = reg->worker_state == PGMC_WORKER_RUNNING ? reg->worker_pid : 0;
	unlock();

	/* asked without the lock, so it holds for that one pid only */
	dead = other != 0 && BackendPidGetProc(other) == NULL;

	lock(LW_EXCLUSIVE);
	ours = reg->worker_state != PGMC_WORKER_RUNNING ||
		(dead && reg->worker_pid == other);
	if (ours)
	{
		reg->worker_state = PGMC_WORKER_RUNNING;
		reg->worker_pid = MyProcPid;
		reg->worker_procno = pgmc_procno(MyProc);
		reg->worker_build = pgmc_build;
		reg->worker_loaded = pgmc_build_loaded;
		reg->worker_outdated = false;
		reg->starter_pid = 0;
	}
	unlock();
	if (ours)
	{
		pgmc_static_set_worker(MyProcPid);
		ConditionVariableBroadcast(&reg->news);
	}
	return ours;
}

/* caller has the lock */
static void
worker_gone(void)
{
	reg->worker_state = PGMC_WORKER_NONE;
	reg->worker_pid = 0;
	reg->worker_procno = NOBODY;
	reg->worker_outdated = false;
}

bool
pgmc_registry_worker_end_if_unused(void)
{
	bool		unused = true;

	lock(LW_EXCLUSIVE);
	for (int i = 0; i < reg->high_water; i++)
		if (reg->conns[i].state != PGMC_CONN_FREE)
			unused = false;
	if (unused && reg->worker_pid == MyProcPid)
		worker_gone();
	unlock();
	if (unused)
	{
		pgmc_static_worker_gone(MyProcPid);
		ConditionVariableBroadcast(&reg->news);
	}
	return unused;
}

bool
pgmc_registry_worker_outdated(void)
{
	return *(volatile bool *) &reg->worker_outdated;
}

bool
pgmc_registry_worker_end_if_idle(void)
{
	bool		idle;

	lock(LW_EXCLUSIVE);
	idle = reg->worker_pid == MyProcPid;
	for (int i = 0; i < reg->high_water; i++)
		if (reg->conns[i].state != PGMC_CONN_FREE &&
			reg->conns[i].state != PGMC_CONN_IDLE)
			idle = false;
	for (int i = reg->high_water - 1; idle && i >= 0; i--)
	{
		Conn	   *conn = &reg->conns[i];

		if (conn->state == PGMC_CONN_FREE)
			continue;
		forget_backend(conn);
		set_state(conn, PGMC_CONN_FREE);
		leave_pool(conn);
	}
	if (idle)
		worker_gone();
	unlock();
	if (idle)
	{
		pgmc_static_worker_gone(MyProcPid);
		ConditionVariableBroadcast(&reg->news);
	}
	return idle;
}

/* caller has the lock */
static void
worker_exit_conn(Conn *conn, const PgmcFailure *failure)
{
	if (conn->state == PGMC_CONN_FREE)
		return;
	forget_backend(conn);
	strlcpy(conn->last_error, failure->message, sizeof(conn->last_error));
	fail_waiters(&reg->pools[conn->pool], failure);
	if (conn->state != PGMC_CONN_HELD)
	{
		set_state(conn, PGMC_CONN_FREE);
		leave_pool(conn);
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
	if (reg->worker_state == PGMC_WORKER_RUNNING && reg->worker_pid == MyProcPid)
	{
		for (int i = reg->high_water - 1; i >= 0; i--)
			worker_exit_conn(&reg->conns[i], &failure);
		worker_gone();
	}
	unlock();
	pgmc_static_worker_gone(MyProcPid);
	ConditionVariableBroadcast(&reg->news);
}

/* ---- the worker at work ---- */

void
pgmc_registry_wake_holder(int slot)
{
	wake(*(volatile int *) &reg->conns[slot].holder);
}

void
pgmc_registry_set_xact_status(int slot, PgmcXactStatus status)
{
	pg_atomic_write_u32(&reg->conns[slot].xact_status, status);
}

void
pgmc_registry_set_commit_xid(int slot, uint32 xid)
{
	pg_atomic_write_u32(&reg->conns[slot].commit_xid, xid);
}

bool
pgmc_registry_take_attention(void)
{
	if (pg_atomic_read_u32(&reg->attention) == 0)
		return false;
	return pg_atomic_exchange_u32(&reg->attention, 0) != 0;
}

bool
pgmc_registry_set_opening(int slot)
{
	Conn	   *conn = &reg->conns[slot];
	bool		held;

	lock(LW_EXCLUSIVE);
	held = conn->state == PGMC_CONN_HELD;
	if (held)
	{
		forget_backend(conn);
		conn->opening = true;
	}
	unlock();
	return held;
}

bool
pgmc_registry_opened(int slot, const PgmcOpened *opened)
{
	Conn	   *conn = &reg->conns[slot];
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
	again = pgmc_counters_opened(&reg->counters, tally_of(conn));
	unlock();
	return again;
}

bool
pgmc_registry_revoke(int slot, uint64 epoch)
{
	Conn	   *conn = &reg->conns[slot];
	bool		held;

	lock(LW_EXCLUSIVE);
	held = conn->state == PGMC_CONN_HELD && conn->epoch == epoch;
	if (held)
	{
		int			holder = conn->holder;

		note_end_from_outside(conn, PGMC_END_REVOKE);
		pgmc_counters_count(&reg->counters, tally_of(conn), PGMC_COUNT_REVOKED);
		set_state(conn, PGMC_CONN_RECOVERING);
		wake(holder);
	}
	unlock();
	return held;
}

void
pgmc_registry_expire(int slot)
{
	lock(LW_EXCLUSIVE);
	reg->conns[slot].expires_at = reg->conns[slot].backend_start;
	unlock();
}

/* caller has the lock: is any other connection of its pool of use to waiters? */
static bool
others_open(const Conn *conn)
{
	for (int i = 0; i < reg->high_water; i++)
	{
		Conn	   *other = &reg->conns[i];

		if (other != conn && other->state != PGMC_CONN_FREE &&
			other->pool == conn->pool && other->open)
			return true;
	}
	return false;
}

void
pgmc_registry_open_failed(int slot, const PgmcFailure *failure)
{
	Conn	   *conn = &reg->conns[slot];

	lock(LW_EXCLUSIVE);
	pgmc_counters_count(&reg->counters, tally_of(conn), PGMC_COUNT_FAILURES);
	forget_backend(conn);
	strlcpy(conn->last_error, failure->message, sizeof(conn->last_error));
	if (!others_open(conn))
		fail_waiters(&reg->pools[conn->pool], failure);

	/* one that has lost its holder meanwhile is passed on by its recovery */
	unlock();
}

/* caller has the lock */
static void
lost_locked(Conn *conn, const char *message, bool in_part)
{
	if (conn->open && conn->state != PGMC_CONN_CLOSING)
		pgmc_counters_lost(&reg->counters, tally_of(conn));
	forget_backend(conn);
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
		pass_on(conn);
	}
}

bool
pgmc_registry_lost(int slot, const char *message, bool in_part)
{
	Conn	   *conn = &reg->conns[slot];
	bool		still;

	lock(LW_EXCLUSIVE);
	still = conn->open || conn->opening ||
		conn->state == PGMC_CONN_RECOVERING || conn->state == PGMC_CONN_CLOSING;
	if (still)
		lost_locked(conn, message, in_part);
	unlock();
	ConditionVariableBroadcast(&reg->news);
	return still;
}

void
pgmc_registry_failed(int slot, const char *message, bool in_part)
{
	lock(LW_EXCLUSIVE);
	lost_locked(&reg->conns[slot], message, in_part);
	unlock();
	ConditionVariableBroadcast(&reg->news);
}

/* no lock: see counters.c */
static int
my_tally(int slot)
{
	return ((volatile Pool *) &reg->pools[((volatile Conn *) &reg->conns[slot])->pool])->tally;
}

void
pgmc_registry_count_command(int slot)
{
	pgmc_counters_command(&reg->counters, my_tally(slot));
}

void
pgmc_registry_count_rows(int slot, int64 rows)
{
	pgmc_counters_rows(&reg->counters, my_tally(slot), rows);
}

void
pgmc_registry_recovered(int slot, bool forget_session)
{
	Conn	   *conn = &reg->conns[slot];

	lock(LW_EXCLUSIVE);
	if (forget_session)
		conn->last_session = 0;
	if (conn->state == PGMC_CONN_RECOVERING && expired(conn))
		close_expired(conn);
	else if (conn->state == PGMC_CONN_RECOVERING)
		pass_on(conn);
	unlock();
	ConditionVariableBroadcast(&reg->news);
}
