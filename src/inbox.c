/*
 * inbox.c
 *		One frame from a holder, as it comes in.
 *
 * A frame may be larger than the ring, and the holder may stop in its middle:
 * what has come is kept until the rest is here.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "channel.h"
#include "inbox.h"
#include "registry.h"

void
pgmc_inbox_clear(PgmcInbox *inbox)
{
	inbox->header_got = 0;
	inbox->body = NULL;
	inbox->body_got = 0;
}

/* Take up to length bytes, or drop them where dst is NULL. */
static Size
take_bytes(int slot, char *dst, Size length)
{
	char		dropped[1024];
	bool		wake;
	Size		n;

	if (dst == NULL)
	{
		dst = dropped;
		length = Min(length, sizeof(dropped));
	}
	n = pgmc_channel_worker_read(pgmc_registry_channel(slot), slot, dst, length,
								 &wake);
	if (wake)
		pgmc_registry_wake_holder(slot);
	return n;
}

static void
begin_body(PgmcInbox *inbox, MemoryContext context)
{
	pgmc_wire_read_header(inbox->header, &inbox->frame);
	inbox->body_got = 0;
	inbox->body = NULL;
	if (inbox->frame.length > 0)
		inbox->body = MemoryContextAllocExtended(context, inbox->frame.length,
												 MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
}

Size
pgmc_inbox_fill(PgmcInbox *inbox, int slot, MemoryContext context, Size most)
{
	Size		taken = 0;

	while (!pgmc_inbox_full(inbox) && taken < most)
	{
		Size		rest = most - taken;
		Size		n;

		if (inbox->header_got < PGMC_FRAME_SIZE)
		{
			n = take_bytes(slot, inbox->header + inbox->header_got,
						   Min(PGMC_FRAME_SIZE - inbox->header_got, rest));
			inbox->header_got += n;
			if (n > 0 && inbox->header_got == PGMC_FRAME_SIZE)
				begin_body(inbox, context);
		}
		else
		{
			n = take_bytes(slot, inbox->body ? inbox->body + inbox->body_got : NULL,
						   Min(inbox->frame.length - inbox->body_got, rest));
			inbox->body_got += n;
		}
		if (n == 0)
			break;
		taken += n;
	}
	return taken;
}
