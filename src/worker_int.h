/*
 * worker_int.h
 *		What the worker's files share among them: the slots as the worker sees
 *		them.  Nobody else includes it.
 *
 * worker.c		life and the loop; calls
 * worker_serve.c	serving a slot, which calls worker_request.c
 * worker_tick.c	what is looked at once a second
 * worker_wait.c	sleeping, or polling instead
 *
 * What takes from a holder, appends to its output or moves that into the ring
 * may raise what remote.h, inbox.h and channel.h say; what forgets or empties
 * raises nothing.
 */
#ifndef PGMC_WORKER_INT_H
#define PGMC_WORKER_INT_H

#include "lib/stringinfo.h"

#include "inbox.h"
#include "lease.h"
#include "registry.h"
#include "remote.h"
#include "wire.h"

/* what the worker is doing with a slot besides a request of its holder */
typedef enum SlotDuty
{
	DUTY_NONE,
	DUTY_DROP,					/* the holder dropped its request */
	DUTY_DRAIN,					/* no holder: end what is running ... */
	DUTY_RECOVER				/* ... and bring the connection to idle */
} SlotDuty;

/* the worker's side of a connection slot */
typedef struct Slot
{
	MemoryContext context;		/* lives as long as the worker */
	MemoryContext request_context;	/* reset when a request has ended */
	PgmcRemote *remote;
	SlotDuty	duty;
	bool		forget;			/* recovery resets the session state, too */
	PgmcKey		opened_key;		/* whose connection the latest one was, and of
								 * which server, for the log */
	NameData	opened_srvname;
	bool		lost_pending;	/* tell the registry once out is empty */

	/* the request being received or worked on */
	PgmcInbox	request;
	bool		begun;			/* received in full, and looked at */
	uint64		cancel_epoch;	/* cancel the request with this number of this
								 * hold, 0: none; the holder's word may be
								 * here before the request is */
	uint16		cancel_seq;
	PgmcExecute exec;

	/* what else the holder sends while it is being worked on */
	bool		owed_sets;		/* sets of its parameters: the last is to come */
	PgmcInbox	more;
	MemoryContext more_context; /* reset with each frame */

	PgmcLease	lease;			/* of the present hold */

	/* frames on their way to the holder */
	StringInfoData out;
	int			out_sent;

	/* the wait set's view */
	int			socket;
	uint64		serial;			/* of the PGconn that the socket is of */
	uint32		events;
	int			position;		/* in the wait set, -1: not in it */
	int			cancel_position;	/* of a cancel's socket, -1: none */
	bool		ready;			/* its socket had an event */
	bool		cancel_ready;	/* so had that of a cancel */
	TimestampTz deadline;
} Slot;

/* pgmc_slots[i] may be set below pgmc_nslots; NULL: never used */
extern Slot *pgmc_slots[PGMC_MAX_CONNECTIONS];
extern int	pgmc_nslots;

/* ---- worker_request.c ---- */

/* Has a part of a request come in, and is the rest still to come? */
static inline bool
pgmc_slot_receiving(const Slot *slot)
{
	return slot->request.header_got > 0 && !slot->begun;
}

/* Empty what is on its way to the holder. */
extern void pgmc_slot_reset_out(Slot *slot);

/* Move what fits into the ring; true when something went: wake the holder. */
extern bool pgmc_slot_flush_out(int i);

/* The request has ended; flags are PGMC_DONE_... */
extern void pgmc_slot_reply_done(Slot *slot, uint8 flags);

/* A frame of fields, PGMC_REPLY_ERROR or PGMC_REPLY_LOST */
extern void pgmc_slot_reply_fields(Slot *slot, uint8 type, int sqlstate,
								   const char *message);

/* The request has ended, or is dropped: make room for the next one. */
extern void pgmc_slot_forget_request(Slot *slot);

/*
 * The holder has gone, or waits until its request is dropped: forget all that
 * is on its way, in either direction, and what it still owes.
 */
extern void pgmc_slot_forget_all(Slot *slot);

/* A connection ends to make room for another one in its slot: log it. */
extern void pgmc_slot_log_replaced(int i);

/*
 * Take what the holder has sent, and begin a request that is here in full; true
 * if there was anything.
 */
extern bool pgmc_slot_read(int i);

/* Can more of a command's parameter sets be taken at once? */
extern bool pgmc_slot_sets_to_take(int i);

/* ---- worker_serve.c ---- */

/*
 * One round of serving every slot that has something to do, or all of them;
 * true if any had.  An error in a slot costs it its connection, and doesn't
 * leave this.
 */
extern bool pgmc_worker_serve(bool all, TimestampTz now);

/* ---- worker_tick.c ---- */

/* Look at what nobody tells the worker.  Raises nothing. */
extern void pgmc_worker_tick(TimestampTz now);

/* ---- worker_wait.c ---- */

/*
 * Sleep until there is something to do, at most until the deadline, 0: for
 * ever.  Right after some work (worked): poll for a while before that.
 */
extern void pgmc_worker_wait(bool worked, TimestampTz now, TimestampTz deadline);

#endif							/* PGMC_WORKER_INT_H */
