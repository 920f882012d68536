/*
 * channel.h
 *		The byte rings between the holder of a connection and the worker.
 *
 * A channel belongs to a connection slot of the registry, not to a session:
 * one ring carries requests to the worker, the other replies to the holder.
 * The header is in the registry's segment; the bytes are in a DSM segment of
 * the slot's own, made by the first holder and kept until the server stops.
 *
 * Every copy by a holder happens under the channel's lock after comparing the
 * hold's epoch with the channel's.  So whoever lost the hold (revoked, or dead
 * and replaced) can't read or write one byte of the next holder's.
 *
 * Nothing here waits, and nothing but pgmc_channel_prepare and the mapping of
 * a segment raises errors.
 */
#ifndef PGMC_CHANNEL_H
#define PGMC_CHANNEL_H

#include "storage/dsm.h"
#include "storage/lwlock.h"

#define PGMC_RING_SIZE		(64 * 1024)
#define PGMC_COPY_MAX		(8 * 1024)	/* bytes copied under the lock at a
										 * time */

typedef struct PgmcRing
{
	uint64		written;		/* bytes ever written; the writer's */
	uint64		read;			/* bytes ever read; the reader's */
	bool		writer_waits;	/* set by the writer, cleared by the reader */
} PgmcRing;

/* All fields are guarded by lock; after each, who writes it. */
typedef struct PgmcChannel
{
	LWLock		lock;
	uint64		epoch;			/* the hold that may use it, 0: none; whoever
								 * changes the holder, under the registry's
								 * lock too */
	bool		broken;			/* the connection was lost in this hold: the
								 * worker; cleared with a new epoch */
	bool		unheard;		/* and the holder's last request never began:
								 * likewise */
	bool		abort_asked;	/* drop the running request: the holder;
								 * cleared by the worker once it is done */
	bool		cancel_asked;	/* cancel its statement, but reply: the
								 * holder; cleared by the worker */
	uint16		cancel_seq;		/* the request that cancel_asked means */
	bool		used;			/* the holder has sent something: the holder;
								 * cleared with a new epoch */
	dsm_handle	data;			/* where the bytes are, for ever: the slot's
								 * first holder */
	PgmcRing	request;
	PgmcRing	reply;
} PgmcChannel;

typedef enum PgmcChannelState
{
	PGMC_CHANNEL_OK,
	PGMC_CHANNEL_FENCED,		/* the hold with this epoch is over */
	PGMC_CHANNEL_BROKEN,		/* nothing more to read, connection lost */
	PGMC_CHANNEL_UNHEARD		/* the same, before the request began; only
								 * pgmc_channel_receive says so */
} PgmcChannelState;

extern void pgmc_channel_init(PgmcChannel *channel, int tranche);

/*
 * Give the channel to the hold with this epoch (0: to nobody).  Bytes of the
 * last hold stay in the rings until the worker resets them, which it does
 * before anybody else gets a connection that wasn't released clean.
 */
extern void pgmc_channel_give(PgmcChannel *channel, uint64 epoch);

/* Has the present holder sent anything, so that something may be left of it? */
extern bool pgmc_channel_used(PgmcChannel *channel);

/* Empty both rings where there is no worker that could. */
extern void pgmc_channel_empty(PgmcChannel *channel);

/*
 * Write a whole request for the hold with this epoch, on its holder's behalf;
 * false where this process hasn't mapped the slot's bytes.  At most
 * PGMC_COPY_MAX bytes, into a ring that is empty.
 */
extern bool pgmc_channel_post(PgmcChannel *channel, int slot, uint64 epoch,
							  const char *src, Size length);

/* ---- the holder's end ---- */

/*
 * Make the slot's bytes where there are none, and map them into this process
 * for its life.  Raises 53200 or what dsm_create raises; takes the lock.
 */
extern void pgmc_channel_prepare(PgmcChannel *channel, int slot, uint64 epoch);

/*
 * Write at most length bytes of a request, read at most length bytes of a
 * reply: as much as there is room or bytes for.  *done says how many.
 * *wake: the other end waits for what this call did; set its latch.
 */
extern PgmcChannelState pgmc_channel_send(PgmcChannel *channel, int slot,
										  uint64 epoch, const char *src,
										  Size length, Size *done);
extern PgmcChannelState pgmc_channel_receive(PgmcChannel *channel, int slot,
											 uint64 epoch, char *dst,
											 Size length, Size *done,
											 bool *wake);

/*
 * Take back what the worker hasn't read of the requests, and overwrite them:
 * they had secrets, and nobody may come to read them.
 */
extern void pgmc_channel_wipe(PgmcChannel *channel, int slot, uint64 epoch);

/* Ask the worker to drop the running request, or to cancel its statement. */
extern PgmcChannelState pgmc_channel_ask_abort(PgmcChannel *channel, uint64 epoch);
extern PgmcChannelState pgmc_channel_ask_cancel(PgmcChannel *channel,
												uint64 epoch, uint16 seq);

/* Whether the hold still has the channel; *aborting: not yet dropped. */
extern PgmcChannelState pgmc_channel_check(PgmcChannel *channel, uint64 epoch,
										   bool *aborting);

/* ---- the worker's end ---- */

/* True when there may be something to read or to obey.  Takes no lock. */
extern bool pgmc_channel_stirs(PgmcChannel *channel);

extern Size pgmc_channel_worker_read(PgmcChannel *channel, int slot, char *dst,
									 Size length, bool *wake);
extern Size pgmc_channel_worker_write(PgmcChannel *channel, int slot,
									  const char *src, Size length);

/*
 * What the holder asked for.  A cancel is cleared as it is read: of request
 * *seq of the hold *cancel_epoch, 0: none.
 */
extern void pgmc_channel_worker_asked(PgmcChannel *channel, bool *abort,
									  uint64 *cancel_epoch, uint16 *seq);

/* whose channel it is, 0: nobody's */
extern uint64 pgmc_channel_epoch(PgmcChannel *channel);

/* Empty both rings (and overwrite the requests, which may hold secrets). */
extern void pgmc_channel_worker_reset(PgmcChannel *channel, int slot,
									  bool wipe);

/* Overwrite what was read of the requests: it had secrets. */
extern void pgmc_channel_worker_wipe(PgmcChannel *channel, int slot);

/* The request that the holder dropped has ended: it may send the next. */
extern void pgmc_channel_worker_aborted(PgmcChannel *channel, int slot);

/*
 * Tell the holder, for as long as it holds, that its connection is lost.  What
 * is on its way to the worker is thrown away, as the rest of a request must
 * never be taken for the beginning of another; in_part: the worker has received
 * a part of it.
 */
extern void pgmc_channel_worker_break(PgmcChannel *channel, bool in_part);

#endif							/* PGMC_CHANNEL_H */
