/*
 * registry_int.h
 *		What is in the registry's segment, for the files of the registry only.
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
 *
 * Whoever changes a struct here increases PGMC_LAYOUT.
 */
#ifndef PGMC_REGISTRY_INT_H
#define PGMC_REGISTRY_INT_H

#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"

#include "channel.h"
#include "counters.h"
#include "registry.h"

#define NOBODY	(-1)

/* expires_at of a connection that nobody shall get any more */
#define LONG_AGO	1

typedef struct Conn
{
	PgmcConnState state;
	int			pool;			/* index, valid unless FREE */
	uint64		epoch;			/* of the hold, 0 unless HELD */
	int			holder;			/* procno, or NOBODY unless HELD */
	Oid			holder_userid;	/* the role that it acquired as */
	TimestampTz hold_start;
	int			hold_timeout;	/* of the hold, milliseconds, 0: none */
	int			idle_hold_timeout;	/* the same, while nothing is run */
	bool		own_xacts;		/* the hold leaves no transaction of its own
								 * open: it is of one call */
	PgmcEnd		end;			/* how the latest hold has ended, while the
								 * worker brings that to order */
	int			ended_pid;		/* whose it was */
	bool		ended_in_xact;	/* a transaction was open */
	uint64		recovery;		/* a number of its own for what the worker
								 * brings to order or closes; 0: nothing */
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
	pg_atomic_uint64 waits_since;	/* a wait of pgmc's that was told, or 0;
									 * only its owner writes it */
	pg_atomic_uint32 look;		/* others have found a deadlock, and it is the
								 * youngest; its owner clears it */
	uint64		queue_number;	/* of the latest queueing */
	TimestampTz queued_since;	/* the same */
	PgmcAcquireMode mode;		/* of the latest acquire */
	uint64		options_hash;	/* the same: how it would open a connection */
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
	uint64		last_epoch;		/* the last number given to a hold, a queueing
								 * or a recovery */
	int			max_connections;	/* as of the latest reload */
	TimestampTz limit_as_of;	/* when whoever told it had read it */
	int			nqueued;		/* in all queues */
	bool		room_wanted;	/* a session sleeps until a slot that is on
								 * its way out may be had; cleared with the
								 * news */
	pg_atomic_uint32 attention; /* a state changed that the worker must see */
	PgmcWorkerState worker_state;
	int			worker_pid;
	int			worker_procno;
	uint32		worker_build;	/* of the library that the worker has ... */
	TimestampTz worker_loaded;	/* ... since then; the worker writes both */
	bool		worker_outdated;	/* a session has a newer one */
	int			gone_pid;		/* of the last worker that has ended ... */
	TimestampTz gone_since;		/* ... or was about to, then */
	int			starter_pid;	/* while STARTING */
	TimestampTz starting_since;
	ConditionVariable news;		/* the worker's state, the end of a recovery,
								 * or room where it was wanted */
	Conn		conns[PGMC_MAX_CONNECTIONS];
	Pool		pools[PGMC_MAX_CONNECTIONS];
	PgmcCounters counters;
	Session		sessions[FLEXIBLE_ARRAY_MEMBER];
} Registry;

/* the segment, NULL until it is attached (registry.c) */
extern Registry *pgmc_reg;

/* ---- the lock, and whom to wake ---- */

/*
 * In builds with assertions the lock's holder is in a critical section: an
 * error there is a PANIC, and an allocation fails an assertion.
 */
static inline void
lock(LWLockMode mode)
{
	LWLockAcquire(&pgmc_reg->lock, mode);
#ifdef USE_ASSERT_CHECKING
	START_CRIT_SECTION();
#endif
}

static inline void
unlock(void)
{
#ifdef USE_ASSERT_CHECKING
	END_CRIT_SECTION();
#endif
	LWLockRelease(&pgmc_reg->lock);
}

/* For this the lock isn't needed. */
static inline void
wake(int procno)
{
	if (procno != NOBODY)
		SetLatch(&GetPGProcByNumber(procno)->procLatch);
}

/* The worker must look at the slots' states. */
static inline void
call_worker(void)
{
	pg_atomic_write_u32(&pgmc_reg->attention, 1);
	pgmc_registry_wake_worker();
}

/*
 * ---- registry_state.c ----
 *
 * For all of this the caller has the lock, exclusively where something changes.
 */

/* the index of the key's pool, or NOBODY */
extern int	pgmc_pool_find(const PgmcKey *key);

/*
 * A new pool for the key, empty still: its index.  There are as many pools as
 * connections, so there is always a free one.
 */
extern int	pgmc_pool_make(const PgmcAcquire *acquire);

/* Take over the server's options as of this acquire. */
extern void pgmc_pool_set_options(Pool *pool, const PgmcAcquire *acquire);

/* connections of a pool that are in use, or on their way to or from it */
extern int	pgmc_pool_count_busy(int pool);

/*
 * Is a connection of a pool about to come back by itself, and nobody's turn, and
 * will there be a place for one more hold in the pool then?
 */
extern bool pgmc_pool_comes_back(int pool);

/* Put a session at the end of a queue; take it out of the one it is in. */
extern void pgmc_pool_enqueue(Pool *pool, int procno);
extern void pgmc_pool_dequeue(int procno);

/*
 * Everybody in the queue is told the same, or everybody who would open a
 * connection with these options.
 */
extern void pgmc_pool_fail_waiters(Pool *pool, const PgmcFailure *failure);
extern void pgmc_pool_fail_waiters_with(Pool *pool, const PgmcFailure *failure,
										uint64 options_hash);

/* where the connection counts; it isn't FREE */
static inline int
tally_of(const Conn *conn)
{
	return pgmc_reg->pools[conn->pool].tally;
}

/* The one function that changes a connection's state. */
extern void pgmc_conn_set_state(Conn *conn, PgmcConnState to);

/* It is CLOSING from now on. */
extern void pgmc_conn_close(Conn *conn, PgmcCloseReason why);

/* Make that session the holder; what it has sent by mail goes out. */
extern void pgmc_conn_hold(Conn *conn, int procno);

/*
 * One that is FREE, or goes to another pool, isn't in this one any more; one
 * that has just left its pool, or was FREE, is in this one.
 */
extern void pgmc_conn_leave_pool(Conn *conn);
extern void pgmc_conn_join_pool(Conn *conn, int pool);

/*
 * A connection for any pool, which the caller joins and holds then: a free
 * slot, or that of the longest idle connection, whose PGconn the worker closes
 * before it opens ours.  NULL where pgmc.max_connections are in use.
 */
extern Conn *pgmc_conn_make_room(void);

/*
 * A connection of the pool for its next hold, by this session: an idle one, or
 * one more if it may have that and there is room.  NULL: there is none.
 */
extern Conn *pgmc_pool_take(int pool, uint64 session);

/*
 * Give those who are queued what there is for them: in a pool that may have
 * become larger, or in all pools, after room has come.
 */
extern void pgmc_pool_serve(int pool);
extern void pgmc_pools_grow(void);

/*
 * pgmc.max_connections is this now: what is idle and too much is closed, the
 * longest idle first, or more are given to those who are queued.  as_of: when
 * the caller's process read its configuration (PgReloadTime); what was read
 * later by another one stays.
 */
extern void pgmc_conns_limit(int max_connections, TimestampTz as_of);

/*
 * Nobody holds it any more, it is idle or closed: whose turn is it?  A pool
 * that has been made smaller gives up what is too much.  Where it is nobody's
 * turn, another pool's queue may have it, or it is closed, if there are more
 * than pgmc.max_connections allows.
 */
extern void pgmc_conn_pass_on(Conn *conn);

/*
 * Its opening with these options has failed: is counted and told to everyone
 * who is queued with the same, unless the pool has another connection for them.
 */
extern void pgmc_conn_open_failed(Conn *conn, const PgmcFailure *failure,
								  uint64 options_hash);

/* The worker has no PGconn here any more. */
extern void pgmc_conn_forget_backend(Conn *conn);

/* Is it due to be replaced, or not wanted any more?  Then close it. */
extern bool pgmc_conn_expired(const Conn *conn);
extern void pgmc_conn_close_expired(Conn *conn);

/*
 * A hold is about to end: note how.  What was lost with a connection isn't
 * rolled back.
 */
extern void pgmc_conn_note_end(Conn *conn, PgmcEnd why, bool in_xact);

/* The same for one whose holder can't say whether a transaction is open. */
extern void pgmc_conn_note_end_from_outside(Conn *conn, PgmcEnd why);

/* does the session with this pid hold anything? */
extern bool pgmc_pid_holds(int pid);

/*
 * The holder gives it back.  A connection whose loopback session holds others
 * isn't clean, whatever its holder thinks: the worker makes it release them
 * first.
 */
extern void pgmc_conn_release(Conn *conn, PgmcRelease how);

#endif							/* PGMC_REGISTRY_INT_H */
