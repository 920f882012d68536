/*
 * remote.h
 *		One PGconn of the worker, as a state machine that never blocks.
 *
 * The worker starts a task (connecting, a request of the holder, a recovery),
 * and calls pgmc_remote_advance whenever the socket, the clock or the room in
 * the output asks for it, until the task has ended.  What the task has to say
 * is appended to the output as frames of wire.h.
 *
 *	CLOSED		no PGconn
 *	CONNECTING	a PGconn on its way; task: the opening
 *	READY		nothing running; the transaction status says the rest
 *	BUSY		a task is running, or waits for the holder's word (ASKING)
 *
 * All of it belongs to the worker process alone.  What is done in which file,
 * and what these share, is in remote_int.h.
 */
#ifndef PGMC_REMOTE_H
#define PGMC_REMOTE_H

#include "datatype/timestamp.h"

#include "wire.h"

typedef struct PgmcRemote PgmcRemote;

typedef enum PgmcRemoteState
{
	PGMC_REMOTE_CLOSED,
	PGMC_REMOTE_CONNECTING,
	PGMC_REMOTE_READY,
	PGMC_REMOTE_BUSY
} PgmcRemoteState;

/* how the latest task ended; read once by pgmc_remote_take_event */
typedef enum PgmcRemoteEvent
{
	PGMC_REMOTE_NOTHING,		/* it goes on */
	PGMC_REMOTE_OPENED,
	PGMC_REMOTE_OPEN_FAILED,
	PGMC_REMOTE_DONE,			/* the reply is in the output */
	PGMC_REMOTE_RECOVERED,		/* idle, nobody's */
	PGMC_REMOTE_LOST			/* closed; see pgmc_remote_error */
} PgmcRemoteEvent;

/* bytes in the output from which on a task waits for room */
#define PGMC_OUTPUT_LIMIT	(32 * 1024)

#define PGMC_ERROR_SIZE		512

/* One for a slot, living in context; raises 53200. */
extern PgmcRemote *pgmc_remote_create(MemoryContext context);

extern PgmcRemoteState pgmc_remote_state(const PgmcRemote *remote);

/* Is a part of a command still to be sent, so that no cancel can reach it? */
extern bool pgmc_remote_sending(const PgmcRemote *remote);
extern PgmcXactStatus pgmc_remote_xact_status(const PgmcRemote *remote);
extern PgmcRemoteEvent pgmc_remote_take_event(PgmcRemote *remote);

/* libpq's socket, or PGINVALID_SOCKET; its number may change while connecting */
extern int	pgmc_remote_socket(const PgmcRemote *remote);

/* changes with every PGconn, as a socket's number may not */
extern uint64 pgmc_remote_serial(const PgmcRemote *remote);

/*
 * What to wait for: WL_SOCKET_READABLE, WL_SOCKET_WRITEABLE or 0 (blocked by
 * the output); *deadline: when to call advance at the latest, or 0.
 */
extern uint32 pgmc_remote_wants(const PgmcRemote *remote, TimestampTz *deadline);

/* a second socket to wait for, or PGINVALID_SOCKET: a cancel on its way */
extern int	pgmc_remote_cancel_socket(const PgmcRemote *remote, uint32 *events);

/* That socket has had an event; to be followed by advance. */
extern void pgmc_remote_cancel_ready(PgmcRemote *remote);

extern int	pgmc_remote_backend_pid(const PgmcRemote *remote);
extern bool pgmc_remote_same_cluster(const PgmcRemote *remote);
extern bool pgmc_remote_used_password(const PgmcRemote *remote);
extern uint64 pgmc_remote_options_hash(const PgmcRemote *remote);

/*
 * Has the latest task been an autonomous command for which there was nothing to
 * tell but that it has ended well, and how many *rows it had?
 */
extern bool pgmc_remote_quiet_call(const PgmcRemote *remote, int64 *rows);

/* Has a huge value blown up libpq's buffers? */
extern bool pgmc_remote_bloated(const PgmcRemote *remote);

/* when it shall be replaced on release, counted from its opening; 0: never */
extern TimestampTz pgmc_remote_expires_at(const PgmcRemote *remote);

/* when a connection that is idle since then shall be closed; 0: never */
extern TimestampTz pgmc_remote_idle_deadline(const PgmcRemote *remote,
											 TimestampTz idle_since);

/* How many rows holders were told of since the last call of this function? */
extern int64 pgmc_remote_take_rows(PgmcRemote *remote);

/* why the latest opening failed or the connection was lost */
extern int	pgmc_remote_error_sqlstate(const PgmcRemote *remote);
extern const char *pgmc_remote_error(const PgmcRemote *remote);

/* ---- tasks ---- */

/* Close what is open, then connect.  The strings are copied. */
extern void pgmc_remote_open(PgmcRemote *remote, const PgmcOpen *open);

/* exec must stay as it is until the task has ended */
extern void pgmc_remote_execute(PgmcRemote *remote, uint8 flags, uint16 seq,
								const PgmcExecute *exec);
extern void pgmc_remote_format(PgmcRemote *remote, uint8 flags);
extern void pgmc_remote_commit(PgmcRemote *remote, uint16 seq);
extern void pgmc_remote_rollback(PgmcRemote *remote, uint16 seq);

/*
 * A command that was begun with PGMC_EXEC_MANY runs once for each set of
 * parameters that is brought.  Can the task take some now?  It can't before
 * the command is on its way, nor while libpq has much that the server hasn't
 * read.  After an error it takes sets to forget them, so it always can.
 */
extern bool pgmc_remote_takes_sets(const PgmcRemote *remote);

/*
 * The sets of a frame, which may go at once; false: they are malformed.  To be
 * followed by advance, as these are:
 */
extern bool pgmc_remote_sets(PgmcRemote *remote, const char *data, Size length);

/* The holder has brought the last.  The task may end now, not before. */
extern void pgmc_remote_end_sets(PgmcRemote *remote);

/*
 * Something is wrong with the sets: undo what was done.  True where the holder
 * is to be told, which is the caller's part.
 */
extern bool pgmc_remote_refuse_sets(PgmcRemote *remote);

/*
 * Stop what is running and say nothing of it any more; the task ends with
 * PGMC_REMOTE_DONE.
 */
extern void pgmc_remote_drop_task(PgmcRemote *remote);

/*
 * Bring a connection that is READY to idle; with reset, until nothing of the
 * last session is left in it, and with release_holds, until the session at its
 * other end holds nothing itself.  The task ends with PGMC_REMOTE_RECOVERED.
 */
extern void pgmc_remote_recover(PgmcRemote *remote, bool reset,
								bool release_holds);

/*
 * The transaction in this cluster that the running task is to commit, as far
 * as that is known before it does; 0: none.
 */
extern uint32 pgmc_remote_commit_xid(const PgmcRemote *remote);

/* Cancel the running statement; its task goes on to its reply. */
extern void pgmc_remote_cancel(PgmcRemote *remote);

/* Close at once. */
extern void pgmc_remote_close(PgmcRemote *remote);

/*
 * Do what can be done without blocking.  readable: the socket is.  Appends to
 * out, raises 53200.
 */
extern void pgmc_remote_advance(PgmcRemote *remote, bool readable,
								StringInfo out);

/* Is it the backend at the other end, and nobody else, that makes the task go on? */
extern bool pgmc_remote_awaits_reply(const PgmcRemote *remote);

/*
 * Where it is: read what the connection has got, if anything.  True when there
 * is something to do about it, and advance is to be called.  A notice goes to
 * out, where there must be room.
 */
extern bool pgmc_remote_peek(PgmcRemote *remote, StringInfo out);

/* Forget the environment that libpq would look at. Once, before any opening. */
extern void pgmc_remote_init(void);

#endif							/* PGMC_REMOTE_H */
