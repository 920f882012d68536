/*
 * inbox_test.c
 *		Frames that come in pieces, of any size, one after the other; those that
 *		are too large for the memory.
 *
 * This is code of the server's, so what it calls of the server is here.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "channel.h"
#include "inbox.h"
#include "registry.h"

#include "tap.h"

#define ROUNDS		20000
#define MAX_BODY	300
#define SLOT		7

/* ---- what the inbox calls ---- */

static char source[4 * (PGMC_FRAME_SIZE + MAX_BODY)];	/* what was sent */
static Size sent;
static Size taken;
static Size piece;				/* so much of it can be had at a time */
static bool waiting;			/* the holder waits for room */
static int	woken;
static bool no_memory;
static bool slot_right;

PgmcChannel *
pgmc_registry_channel(int slot)
{
	slot_right = slot_right && slot == SLOT;
	return NULL;
}

void
pgmc_registry_wake_holder(int slot)
{
	slot_right = slot_right && slot == SLOT;
	woken++;
}

Size
pgmc_channel_worker_read(PgmcChannel *channel, int slot, char *dst, Size length,
						 bool *wake)
{
	Size		n = Min(Min(length, piece), sent - taken);

	slot_right = slot_right && slot == SLOT;
	memcpy(dst, source + taken, n);
	taken += n;
	*wake = waiting && n > 0;
	waiting = waiting && n == 0;
	return n;
}

void *
MemoryContextAllocExtended(MemoryContext context, Size size, int flags)
{
	if ((flags & MCXT_ALLOC_NO_OOM) == 0 || size == 0)
		abort();
	return no_memory ? NULL : malloc(size);
}

/* ---- */

static PgmcInbox inbox;

static void
start(void)
{
	sent = taken = 0;
	piece = sizeof(source);
	waiting = false;
	woken = 0;
	no_memory = false;
	slot_right = true;
	pgmc_inbox_clear(&inbox);
}

/* A frame whose body is the numbers from first on. */
static void
send_frame(uint16 seq, uint32 length, int first)
{
	pgmc_wire_header(source + sent, PGMC_REQUEST_EXECUTE, 3, seq, length);
	sent += PGMC_FRAME_SIZE;
	for (uint32 i = 0; i < length; i++)
		source[sent++] = (char) (first + i);
}

static bool
has_body(uint32 length, int first)
{
	for (uint32 i = 0; i < length; i++)
		if (inbox.body[i] != (char) (first + i))
			return false;
	return inbox.body_got == length;
}

static bool
has_frame(uint16 seq, uint32 length)
{
	return pgmc_inbox_full(&inbox) && inbox.frame.type == PGMC_REQUEST_EXECUTE &&
		inbox.frame.flags == 3 && inbox.frame.seq == seq &&
		inbox.frame.length == length;
}

static void
drop_frame(void)
{
	free(inbox.body);
	pgmc_inbox_clear(&inbox);
}

static Size
fill(Size most)
{
	return pgmc_inbox_fill(&inbox, SLOT, NULL, most);
}

/* Take a frame, however little comes at a time; true if no limit is exceeded. */
static bool
take_all(void)
{
	while (!pgmc_inbox_full(&inbox))
	{
		Size		most = 1 + tap_random(2 * MAX_BODY);
		Size		before = taken;
		Size		n;

		piece = 1 + tap_random(MAX_BODY);
		n = fill(most);
		if (n == 0 || n > most || n != taken - before)
			return false;
	}
	return true;
}

static void
test_one(void)
{
	start();
	ok(fill(100) == 0 && !pgmc_inbox_full(&inbox), "nothing where nothing was sent");
	send_frame(1, 10, 0);
	send_frame(2, 0, 0);
	ok(fill(100) == PGMC_FRAME_SIZE + 10, "a frame and no byte more");
	ok(has_frame(1, 10) && has_body(10, 0), "is as it was sent");
	ok(!pgmc_inbox_dropped(&inbox), "and none that was dropped");
	ok(fill(100) == 0, "nothing is taken where it is full");
	drop_frame();
	ok(!pgmc_inbox_full(&inbox), "it can be cleared");
	ok(fill(100) == PGMC_FRAME_SIZE && has_frame(2, 0), "the next one has no body");
	ok(inbox.body == NULL && !pgmc_inbox_dropped(&inbox), "which isn't one that was dropped");
	ok(slot_right, "all of it of this slot");
}

static void
test_limit(void)
{
	start();
	send_frame(3, 20, 5);
	ok(fill(3) == 3 && inbox.header_got == 3, "no more than was asked for of a header");
	ok(fill(0) == 0, "or nothing");
	ok(fill(9) == 9 && inbox.body_got == 4, "of header and body");
	ok(fill(15) == 15 && !pgmc_inbox_full(&inbox), "of a body");
	ok(fill(15) == 1 && has_frame(3, 20) && has_body(20, 5), "and the rest");
	drop_frame();
}

static void
test_wake(void)
{
	start();
	waiting = true;
	fill(10);
	ok(woken == 0 && waiting, "a holder that waits is let sleep while nothing is taken");
	send_frame(4, 20, 0);
	fill(10);
	ok(woken == 1, "it is woken when there is room");
	fill(100);
	ok(woken == 1, "once");
	drop_frame();
}

static void
test_no_memory(void)
{
	start();
	send_frame(5, MAX_BODY, 0);
	send_frame(6, 3, 40);
	no_memory = true;
	ok(take_all() && has_frame(5, MAX_BODY), "a frame for which there is no memory comes in");
	ok(inbox.body == NULL && pgmc_inbox_dropped(&inbox), "its body is dropped");
	ok(taken == PGMC_FRAME_SIZE + MAX_BODY, "to its last byte and no further");
	drop_frame();
	no_memory = false;
	ok(take_all() && has_frame(6, 3) && has_body(3, 40), "the next one is found behind it");
	drop_frame();
}

static void
test_pieces(void)
{
	int			bad = 0;

	for (int round = 0; round < ROUNDS; round++)
	{
		uint32		length[3];

		start();
		for (int i = 0; i < 3; i++)
		{
			length[i] = tap_random(3) == 0 ? 0 : tap_random(MAX_BODY);
			send_frame(round + i, length[i], round * i);
		}
		for (int i = 0; i < 3; i++)
		{
			no_memory = tap_random(8) == 0;
			bad += !take_all() || !has_frame(round + i, length[i]) ||
				(no_memory ? pgmc_inbox_dropped(&inbox) != (length[i] > 0) :
				 !has_body(length[i], round * i));
			drop_frame();
		}
		bad += taken != sent;
	}
	ok(bad == 0, "%d times three frames in pieces of any size", ROUNDS);
}

int
main(void)
{
	test_one();
	test_limit();
	test_wake();
	test_no_memory();
	test_pieces();
	return done_testing();
}
