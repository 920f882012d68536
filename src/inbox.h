/*
 * inbox.h
 *		One frame from a holder, as it comes in.
 */
#ifndef PGMC_INBOX_H
#define PGMC_INBOX_H

#include "wire.h"

typedef struct PgmcInbox
{
	char		header[PGMC_FRAME_SIZE];
	Size		header_got;
	PgmcFrame	frame;			/* once the header is here in full */
	char	   *body;			/* NULL: it has none, or it was too large for
								 * the memory, and its bytes are dropped */
	Size		body_got;
} PgmcInbox;

/* Forget the frame; its body is the context's, and may be gone already. */
extern void pgmc_inbox_clear(PgmcInbox *inbox);

/*
 * Take what the ring of a slot has of the frame, but no more than most bytes;
 * the number of bytes.  The body is allocated in the context.  The holder is
 * woken where it waits for room in the ring.  Takes the channel's lock, and
 * raises what mapping it raises, where this is the first time.
 */
extern Size pgmc_inbox_fill(PgmcInbox *inbox, int slot, MemoryContext context,
							Size most);

/* Is the frame here in full? */
static inline bool
pgmc_inbox_full(const PgmcInbox *inbox)
{
	return inbox->header_got == PGMC_FRAME_SIZE &&
		inbox->body_got == inbox->frame.length;
}

/* Was its body too large for the memory? */
static inline bool
pgmc_inbox_dropped(const PgmcInbox *inbox)
{
	return inbox->frame.length > 0 && inbox->body == NULL;
}

#endif							/* PGMC_INBOX_H */
