/*
 * registry.h
 *		What all sessions and the worker know of each other: connections, who
 *		holds them, who waits for them.
 *
 * Everything is in one DSM segment under one LWLock.  No function here sleeps,
 * allocates, raises an error or takes another lock but a channel's while it has
 * that lock; builds with assertions check it.
 *
 * A connection slot goes through these states, changed by one function only:
 *
 *	FREE		nobody's.
 *	HELD		has a holder.  Its connection may be open, not opened yet,
 *				or lost ("broken": the hold stays until its holder ends it).
 *	IDLE		no holder, connection open and idle, nothing queued for it.
 *	RECOVERING	no holder; the worker is bringing it to idle or closed.
 *	CLOSING		no holder; the worker is closing it.
 *
 * A pool is the connections of one key and the queue of those who wait for
 * one.  A pool exists as long as it has connections.  A connection that becomes
 * available is handed to the head of the queue under the lock, so nobody
 * overtakes.
 */
#ifndef PGMC_REGISTRY_H
#define PGMC_REGISTRY_H

#include "datatype/timestamp.h"
#include "storage/condition_variable.h"

#include "channel.h"
#include "wire.h"

#define PGMC_MAX_CONNECTIONS	1024	/* what pgmc.max_connections may be */
#define PGMC_MESSAGE_SIZE		512

typedef enum PgmcConnState
{
	PGMC_CONN_FREE,				/* owns nothing */
	PGMC_CONN_HELD,				/* owns a place in its pool, maybe a PGconn */
	PGMC_CONN_IDLE,				/* owns a PGconn, idle */
	PGMC_CONN_RECOVERING,		/* owns a PGconn in whatever state */
	PGMC_CONN_CLOSING			/* owns a PGconn that nobody may use again */
} PgmcConnState;

/* what shares a connection */
typedef struct PgmcKey
{
	Oid			dbid;
	Oid			serverid;
	Oid			umid;			/* InvalidOid: no user mapping */
	NameData	login;			/* role at the other end; zero-padded */
} PgmcKey;

extern bool pgmc_same_key(const PgmcKey *a, const PgmcKey *b);

/* Is it of this database, server, mapping and login role, as far as given? */
extern bool pgmc_key_matches(const PgmcKey *key, Oid dbid, Oid serverid,
							 Oid umid, const char *login);

/* how the connection of a grant stands */
typedef struct PgmcGrant
{
	int			slot;
	uint64		epoch;
	bool		open;
	bool		used_password;
	bool		same_cluster;
	uint64		options_hash;	/* of the options it was opened with */
	bool		mailed;			/* the acquire's mail has been sent */
} PgmcGrant;

typedef enum PgmcAcquireResult
{
	PGMC_GRANTED,
	PGMC_QUEUED,				/* in the queue now: wait, or leave it */
	PGMC_BUSY,					/* somebody has it, and we won't wait */
	PGMC_NO_ROOM,				/* pgmc.max_connections are held by others */
	PGMC_NO_ROOM_YET,			/* or on their way out: for that there will be
								 * news */
	PGMC_NO_WORKER,				/* start one and ask again: a hold to wait for
								 * has a time limit, and nobody watches it */
	PGMC_HELD_BY_SELF,			/* waiting would be waiting for oneself */
	PGMC_HELD_BY_ANCESTOR,
	PGMC_FAILED					/* the opening it was queued for has failed */
} PgmcAcquireResult;

typedef enum PgmcAcquireMode
{
	PGMC_ACQUIRE_HOLD,			/* refuse a second hold of a key */
	PGMC_ACQUIRE_TRY,			/* the same, queueing only for one that is
								 * being brought to idle */
	PGMC_ACQUIRE_EXTRA			/* another connection beside those we hold */
} PgmcAcquireMode;

/* largest request that may go with an acquire */
#define PGMC_MAIL_SIZE	1024

/*
 * A request that goes out by itself, as soon as its turn has come, on a
 * connection that suits it: its holder needn't be awake for that.
 */
typedef struct PgmcMail
{
	Size		length;			/* of the frame, 0: there is none */
	uint16		seq;			/* the frame's */
	uint64		options_hash;	/* the connection must have these options */
	bool		with_password;	/* and one of: have used a password, */
	bool		own_cluster;	/* lead to this cluster, */
	bool		anyhow;			/* nothing else */
	char		frame[PGMC_MAIL_SIZE];
} PgmcMail;

typedef struct PgmcAcquire
{
	PgmcKey		key;
	NameData	srvname;
	int			pool_size;
	int			max_connections;
	int			hold_timeout;	/* milliseconds, 0: none */
	int			idle_hold_timeout;	/* milliseconds, 0: none */
	uint64		options_hash;	/* of what it would open a connection with */
	PgmcAcquireMode mode;
	const PgmcMail *mail;		/* or NULL */
} PgmcAcquire;

/* why a waiter failed */
typedef struct PgmcFailure
{
	int			sqlstate;
	char		message[PGMC_MESSAGE_SIZE];
} PgmcFailure;

/* who holds a connection, for error messages and the view */
typedef struct PgmcHolder
{
	int			pid;			/* 0: nobody */
	Oid			userid;
	char		appname[NAMEDATALEN];
	TimestampTz since;
} PgmcHolder;

/* who waits for a connection */
typedef struct PgmcQueued
{
	int			pid;
	TimestampTz since;
} PgmcQueued;

/* how a connection is given back */
typedef enum PgmcRelease
{
	PGMC_RELEASE_CLEAN,			/* idle, nothing running: somebody may have it */
	PGMC_RELEASE_DIRTY,			/* the worker must bring it to idle first */
	PGMC_RELEASE_CLOSE			/* the worker closes it, whatever it does */
} PgmcRelease;

/* why a hold has ended whose connection the worker must recover or close */
typedef enum PgmcEnd
{
	PGMC_END_NONE,				/* none has */
	PGMC_END_RELEASE,			/* its holder wanted that */
	PGMC_END_ABORT,				/* an error */
	PGMC_END_EXIT,				/* the session has ended */
	PGMC_END_REVOKE				/* a time limit */
} PgmcEnd;

/* why a connection is to be closed */
typedef enum PgmcCloseReason
{
	PGMC_CLOSE_ASKED,			/* a session has asked for it */
	PGMC_CLOSE_IDLE,			/* idle_timeout */
	PGMC_CLOSE_LIFETIME,		/* max_lifetime */
	PGMC_CLOSE_BLOATED,			/* a huge message has gone through it */
	PGMC_CLOSE_DROPPED,			/* the server, the mapping or the role was */
	PGMC_CLOSE_DATABASE,		/* somebody wants to drop or copy it */
	PGMC_CLOSE_SHUTDOWN,		/* so does the server, smartly */
	PGMC_CLOSE_POOL_SIZE,		/* the pool was made smaller */
	PGMC_CLOSE_ROOM,			/* for a connection of another key */
	PGMC_CLOSE_OPTIONS,			/* for one with other options */
	PGMC_CLOSE_LIMIT			/* pgmc.max_connections was lowered */
} PgmcCloseReason;

/* what is counted for each key, see counters.h */
typedef enum PgmcCounter
{
	PGMC_COUNT_ACQUIRES,		/* holds */
	PGMC_COUNT_WAITS,			/* queueings */
	PGMC_COUNT_TIMEOUTS,
	PGMC_COUNT_DIRTY_RELEASES,
	PGMC_COUNT_FORCED_ROLLBACKS,
	PGMC_COUNT_DEADLOCKS,
	PGMC_COUNT_REVOKED,
	PGMC_COUNT_OPENS,
	PGMC_COUNT_FAILURES			/* to open, and losses */
} PgmcCounter;

#define PGMC_NCOUNTERS	(PGMC_COUNT_FAILURES + 1)

/* a copy of it, for the view */
typedef struct PgmcStats
{
	PgmcKey		key;
	NameData	srvname;
	bool		dropped;		/* probably, and it has no connection */
	TimestampTz since;			/* of the latest reset */
	uint64		counts[PGMC_NCOUNTERS];
	double		wait_time;		/* milliseconds */
	double		hold_time;
	uint64		commands;
	uint64		rows;
} PgmcStats;

/* what the worker is told of a slot; see pgmc_registry_slot */
typedef struct PgmcSlot
{
	PgmcConnState state;
	PgmcKey		key;
	NameData	srvname;
	uint64		epoch;
	uint64		last_session;	/* that had it last, 0: ended or none */
	bool		open;
	bool		broken;
	bool		opening;
	int			backend_pid;
	bool		same_cluster;
	bool		used_password;
	TimestampTz backend_start;
	TimestampTz state_since;
	PgmcXactStatus xact_status;
	uint32		commit_xid;		/* of the holder's COMMIT, 0: not known */
	PgmcHolder	holder;
	int			hold_timeout;	/* of the hold, milliseconds, 0: none */
	int			idle_hold_timeout;
	int			waiters;
	PgmcEnd		end;			/* of the latest hold, while that matters */
	int			ended_pid;		/* whose it was */
	bool		ended_in_xact;	/* a transaction was open */
	uint64		recovery;		/* see pgmc_registry_recovery */
	PgmcCloseReason close_reason;	/* of a CLOSING one */
	char		last_error[PGMC_MESSAGE_SIZE];
} PgmcSlot;

/* ---- every process ---- */

/* Attach the registry; cheap when done already.  Raises as static_area.h says. */
extern void pgmc_registry_attach(void);

/* The same, unless nobody has made it yet; then there is nothing in it: false. */
extern bool pgmc_registry_attach_existing(void);

/*
 * Is it still the one that new sessions use?  See pgmc_static_current.
 *
 * Errors: 55000 a library of another layout has taken over (hint: reconnect).
 */
extern void pgmc_registry_check_current(void);

extern PgmcChannel *pgmc_registry_channel(int slot);

/* number of slots that may be in use: none at or above it is */
extern int	pgmc_registry_slots(void);

/* Copy one slot, as of now. */
extern void pgmc_registry_slot(int slot, PgmcSlot *copy);

/*
 * The same, and who is queued for its pool, in their order: copy->waiters of
 * them, for at most pgmc_registry_max_waiters of which there must be room.
 */
extern void pgmc_registry_look(int slot, PgmcSlot *copy, PgmcQueued *queued);
extern int	pgmc_registry_max_waiters(void);

/* Copy the i-th key's statistics; false: there are no more. */
extern bool pgmc_registry_stats(int i, PgmcStats *stats);

/* as pgmc.transaction_status() says it; NULL: closed */
extern const char *pgmc_xact_status_name(PgmcXactStatus status);

/* transaction status of the slot's connection; no lock */
extern PgmcXactStatus pgmc_registry_xact_status(int slot);

extern void pgmc_registry_wake_worker(void);

/* ---- sessions ---- */

/* This session's number, given at first use; never the same twice. */
extern uint64 pgmc_registry_session(void);

/*
 * Take a connection of the key, queue for one, or say why not.  Tells the
 * worker if this process has a newer library than it.
 */
extern PgmcAcquireResult pgmc_registry_acquire(const PgmcAcquire *acquire,
											   PgmcGrant *grant);

/* How the queueing goes: PGMC_QUEUED still, PGMC_GRANTED or PGMC_FAILED. */
extern PgmcAcquireResult pgmc_registry_poll(PgmcGrant *grant,
											PgmcFailure *failure);

/*
 * Stop waiting.  PGMC_GRANTED where the connection had been handed over
 * already: it is ours to use or release.  For abort paths: can't fail.
 */
extern PgmcAcquireResult pgmc_registry_leave(PgmcGrant *grant,
											 PgmcFailure *failure);

/* place in the queue, from 1, and who holds what it queues for; 0: not queued */
extern int	pgmc_registry_place(PgmcHolder *holder);

/*
 * The number of the recovery or closing that the worker has to do in this slot,
 * never the same twice; 0: there is none.
 */
extern uint64 pgmc_registry_recovery(int slot);

/*
 * The opening of the connection held in this slot has failed before the worker
 * was asked for it: so has it for everyone who is queued for the same.  Nothing happens
 * where the hold of this epoch has been revoked.
 */
extern void pgmc_registry_not_opened(int slot, uint64 epoch,
									 const PgmcFailure *failure);

/* The pool that this session is queued for, if any, may have so many now. */
extern void pgmc_registry_resize(int pool_size);

/*
 * Since when this session has been waiting for a reply or for its turn, for
 * others that look for deadlocks; 0: it isn't any more.  Takes no lock.
 */
extern void pgmc_registry_tell_wait(TimestampTz since);

/*
 * Wake this session, which is in such a wait, to look for a deadlock at once;
 * and whether somebody wants this one to, which is asked only once.  They take
 * no lock of the registry.
 */
extern void pgmc_registry_have_look(int pid);
extern bool pgmc_registry_look_wanted(void);

/* Who waits for whom by way of pgmc, as of now. */
typedef struct PgmcWaitConn
{
	int			pool;
	int			holder_pid;		/* 0: nobody's */
	bool		running;		/* the holder waits for backend_pid */
	int			backend_pid;
	uint64		epoch;
	TimestampTz holder_waits_since; /* 0: not told */
	NameData	srvname;
} PgmcWaitConn;

typedef struct PgmcWaiter
{
	int			pid;
	int			pool;
	uint64		number;			/* of its queueing */
	TimestampTz since;			/* 0: not told */
} PgmcWaiter;

typedef struct PgmcWaits
{
	int			nconns;
	PgmcWaitConn *conns;
	int			nwaiters;
	PgmcWaiter *waiters;
} PgmcWaits;

/* Copy them, in the current memory context. */
extern void pgmc_registry_waits(PgmcWaits *waits);

/*
 * Give a connection back, where the hold with this epoch isn't over already.
 * why and in_xact (is a transaction open in it?) are for the statistics and
 * the worker's log.  Returns the number of the recovery that this begins, or 0.
 * For abort paths: can't fail, doesn't wait.
 */
extern uint64 pgmc_registry_release(int slot, uint64 epoch, PgmcRelease how,
									PgmcEnd why, bool in_xact);

/*
 * Has the worker ended the call in the hold with this epoch, and the hold with
 * it?  Then this is the reply.
 */
extern bool pgmc_registry_call_finished(uint64 epoch, int64 *rows);

/* A session ends: everything that it has, in every state. */
extern void pgmc_registry_session_exit(void);

/* Ask the worker to close an idle connection; false if it isn't idle. */
extern bool pgmc_registry_close_idle(int slot, const PgmcKey *key,
									 PgmcCloseReason why);

/*
 * The same for one of this server, because somebody asks for it.  Returns its
 * state as it was, so IDLE where it is closed now, and FREE where it is none of
 * the server's; and the number of the recovery that there is now, or 0.
 */
extern PgmcConnState pgmc_registry_close_of(int slot, Oid dbid, Oid serverid,
											uint64 *recovery);

/*
 * Ask the worker to close all connections that match, those that are held when
 * they are released: of this database (InvalidOid: any), and of this server,
 * this user mapping or this login role, whichever is given.  Can't fail,
 * doesn't wait.
 */
extern void pgmc_registry_close_matching(Oid dbid, Oid serverid, Oid umid,
										 const char *login);

/* Count what the registry doesn't see.  For error paths: can't fail. */
extern void pgmc_registry_count(const PgmcKey *key, PgmcCounter what);

/* Count from zero again: one server of this database, or all (InvalidOid). */
extern void pgmc_registry_reset_stats(Oid serverid);

/*
 * A slot of this key, the caller's own hold first, else any, rather an open one,
 * and a copy of it, as of now; -1: none.
 */
extern int	pgmc_registry_find(const PgmcKey *key, PgmcSlot *copy);

/* ---- the worker ---- */

/* States of the worker, and what a session does about them. */
typedef enum PgmcWorkerState
{
	PGMC_WORKER_NONE,			/* whoever comes starts one */
	PGMC_WORKER_STARTING,		/* wait for it, take over if the starter died */
	PGMC_WORKER_RUNNING
} PgmcWorkerState;

/*
 * What must be done to have a worker.  NONE makes the caller the starter: it
 * has set the mark, must register the worker, and must take the mark back
 * with pgmc_registry_start_failed if it can't; false: it is no longer there.
 */
extern PgmcWorkerState pgmc_registry_claim_start(int *worker_pid);
extern bool pgmc_registry_start_failed(void);
extern PgmcWorkerState pgmc_registry_worker(int *pid);

/*
 * for waiting until the worker's state changes, a recovery has ended, or there
 * is room after PGMC_NO_ROOM_YET
 */
extern ConditionVariable *pgmc_registry_news_cv(void);

/*
 * May the postmaster count a worker still that is gone for everybody?  It gives
 * the worker slot back when that process has ended.
 */
extern bool pgmc_registry_worker_leaving(void);

/* This process is the worker now; false if there is a live one. */
extern bool pgmc_registry_worker_begin(void);

/* Nothing is in use any more: the worker is gone for everybody. */
extern bool pgmc_registry_worker_end_if_unused(void);

/*
 * Has any session loaded a newer library than the worker?  A hint, without the
 * lock.  Such a worker ends when nothing is held, recovering or closing: true,
 * and it is gone for everybody; the connections that it has are nobody's.
 */
extern bool pgmc_registry_worker_outdated(void);
extern bool pgmc_registry_worker_end_if_idle(void);

/* The worker dies: tell every holder and waiter, free what has no holder. */
extern void pgmc_registry_worker_exit(const char *why);

/*
 * The command of a call (PGMC_ACQUIRE_EXTRA) has ended well, and its connection
 * is idle: end the hold, too, on the holder's behalf, who finds the number of
 * rows by pgmc_registry_call_finished.  The next in the queue has the connection
 * then, without waiting for that one to wake up.  False where the reply must go
 * the usual way.
 */
extern bool pgmc_registry_finish_call(int slot, int64 rows);

extern void pgmc_registry_wake_holder(int slot);
extern void pgmc_registry_set_xact_status(int slot, PgmcXactStatus status);

/*
 * A request begins; the transaction that it is to commit, where that is known.
 * It stays known when the worker is gone.  No lock.
 */
extern void pgmc_registry_set_commit_xid(int slot, uint32 xid);

/* whether any session has asked something of the worker by a state change */
extern bool pgmc_registry_take_attention(void);

/* The worker begins to connect; false: the one it would be for has gone. */
extern bool pgmc_registry_set_opening(int slot);

/* A connection is open: of which backend, with which options. */
typedef struct PgmcOpened
{
	int			backend_pid;
	bool		same_cluster;
	bool		used_password;
	uint64		options_hash;
	TimestampTz expires_at;		/* when to replace it on release, 0: never */
} PgmcOpened;

/*
 * Take the connection away from the hold with this epoch, which its holder
 * will find fenced off; false: it is over.  The slot is RECOVERING then.
 */
extern bool pgmc_registry_revoke(int slot, uint64 epoch);

/* Replace the slot's connection when it is released next. */
extern void pgmc_registry_expire(int slot);

/* True where it makes up for a connection that was lost. */
extern bool pgmc_registry_opened(int slot, const PgmcOpened *opened);

/*
 * An opening with these options has failed: so has it for everyone who is
 * queued for the same.
 */
extern void pgmc_registry_open_failed(int slot, const PgmcFailure *failure,
									  uint64 options_hash);

/*
 * The PGconn is gone (message NULL: that is no news).  Its holder stays;
 * without one the slot goes on.  in_part: a part of a request has come in.
 * False: the slot was given away before, and this is not about its new holder.
 */
extern bool pgmc_registry_lost(int slot, const char *message, bool in_part);

/* The setting was read again: see pgmc_conns_limit. */
extern void pgmc_registry_set_max_connections(int max_connections);

/*
 * Why it will be lost, before its holder is told so by a reply: it may raise
 * what it finds here (pgmc_await_raise) before pgmc_registry_lost.
 */
extern void pgmc_registry_note_error(int slot, const char *message);

/* pgmc_registry_lost after an error of the worker, whatever is known of the PGconn. */
extern void pgmc_registry_failed(int slot, const char *message, bool in_part);

/* does the session with this pid hold any connection? */
extern bool pgmc_registry_pid_holds(int pid);

/* Count a command that begins, and rows that the holder is told.  No lock. */
extern void pgmc_registry_count_command(int slot);
extern void pgmc_registry_count_rows(int slot, int64 rows);

/* Recovery has ended with the connection idle and open: on to the next. */
extern void pgmc_registry_recovered(int slot, bool forget_session);

#endif							/* PGMC_REGISTRY_H */
