/*
 * hold.h
 *		What a session knows of a connection that it holds.
 *
 * Shared by acquire.c, which makes holds, session.c, which ends them, and
 * talk.c, which uses them, with await.c and fate.c; nobody else looks inside.
 * Their memory is hold.c's.
 */
#ifndef PGMC_HOLD_H
#define PGMC_HOLD_H

#include "lib/ilist.h"

#include "channel.h"
#include "registry.h"
#include "session.h"

/*
 * How long a call waits for a recovery, that it may tell the truth; and one that
 * is not to wait.
 */
#define PGMC_RECOVERY_PATIENCE_MS	5000
#define PGMC_TRY_PATIENCE_MS		1000

/* what is known of a commit when an error must tell */
typedef enum PgmcFate
{
	PGMC_FATE_UNKNOWN,
	PGMC_FATE_COMMITTED,
	PGMC_FATE_NOT_COMMITTED,
	PGMC_FATE_IN_PART			/* failed, but may have committed before that */
} PgmcFate;

struct PgmcReader
{
	struct PgmcHold *hold;
	Size		at;				/* bytes of buf taken */
	Size		end;			/* bytes of buf received */
	Size		frame_left;		/* of the present frame's payload */
	Size		received;		/* bytes of replies to the present request */
	char		buf[PGMC_COPY_MAX];
};

struct PgmcHold
{
	dlist_node	node;			/* in the session's list, innermost first */
	int			slot;
	uint64		epoch;
	PgmcKey		key;
	NameData	srvname;
	Oid			userid;			/* who acquired it */
	bool		own_database;
	bool		used_password;	/* of the connection, for the password rule */
	bool		same_cluster;
	PgmcScope	scope;
	SubTransactionId subid;		/* where it was acquired, 0: it has outlived
								 * it */
	bool		autocommit;
	bool		close_on_error; /* option on_error of the server */

	PgmcXactStatus xact;		/* as of the last reply */
	uint16		seq;			/* of the last request */
	bool		in_flight;		/* a request is not answered in full yet */
	bool		mailed;			/* it went with the acquire: see PgmcMail */
	bool		aborting;		/* one was dropped, the worker is ending it */
	bool		committing;		/* what is in flight may commit */
	bool		commits_within; /* and may have done so when it fails */
	bool		interrupted;	/* a cancel waits for the outcome of that */
	bool		doomed;			/* so does an error, which is no deadlock any
								 * more */
	ErrorData  *struck;			/* so does this error, of the acquire that it
								 * went out with */
	PgmcFate	fate;			/* of that, where no reply can tell any more */
	int			users;			/* calls on the stack that use this struct */
	bool		ended;			/* freed when the last of them is through */
	TimestampTz deadline;		/* of the opening, 0: none */
	TimestampTz patience;		/* when to stop waiting for an outcome, 0: not
								 * told to end */
	PgmcReader	reader;
};

/* How a request ended, where it ended at all. */
typedef struct PgmcOutcome
{
	PgmcDone	done;
	uint8		flags;			/* PGMC_DONE_... */
	bool		failed;			/* error has the reason */
	bool		lost;			/* so it has, and the connection is gone */
	bool		may_have_committed; /* the request was one that can */
	PgmcFields	error;
} PgmcOutcome;

static inline PgmcChannel *
pgmc_hold_channel(const PgmcHold *hold)
{
	return pgmc_registry_channel(hold->slot);
}

/*
 * Memory for a hold, all zero but the reader's buffer, which nobody but the
 * reader looks into; and what gives it back.  No locks; the first may raise
 * out of memory.
 */
extern PgmcHold *pgmc_hold_new(void);
extern void pgmc_hold_free(PgmcHold *hold);

/*
 * The slot is ours: put the hold into the session's list (session.c).  From now
 * on an abort, or pgmc_session_end_call, gives the connection back.
 */
extern void pgmc_session_add(PgmcHold *hold);

#endif							/* PGMC_HOLD_H */
