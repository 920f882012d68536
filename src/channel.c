/*
 * channel.c
 *		The byte rings between the holder of a connection and the worker.
 *
 * A ring's positions count bytes since the segment was made and never wrap;
 * the place of byte n is n modulo the ring's size.  Each end moves only its
 * own position.  The exceptions are resets, done by the worker alone: while
 * the holder waits for its abort to be answered, when there is no holder, or
 * when the connection is lost, after which the holder can send no more.
 */
#include "postgres.h"

#include "storage/dsm.h"
#include "utils/memutils.h"

#include "channel.h"

/* this process's mappings of the slots' bytes, by slot */
typedef struct Mapping
{
	dsm_handle	handle;
	dsm_segment *segment;
	char	   *base;
} Mapping;

static Mapping *mappings = NULL;
static int	nmappings = 0;

void
pgmc_channel_init(PgmcChannel *channel, int tranche)
{
	memset(channel, 0, sizeof(*channel));
	LWLockInitialize(&channel->lock, tranche);
	channel->data = DSM_HANDLE_INVALID;
}

void
pgmc_channel_give(PgmcChannel *channel, uint64 epoch)
{
	LWLockAcquire(&channel->lock, LW_EXCLUSIVE);
	channel->epoch = epoch;
	channel->broken = false;
	channel->unheard = false;
	channel->used = false;
	channel->abort_asked = false;	/* these were for the last holder's
									 * requests */
	channel->cancel_asked = false;
	LWLockRelease(&channel->lock);
}

bool
pgmc_channel_used(PgmcChannel *channel)
{
	bool		used;

	LWLockAcquire(&channel->lock, LW_SHARED);
	used = channel->used;
	LWLockRelease(&channel->lock);
	return used;
}

/* ---- mapping ---- */

static Mapping *
get_mapping(int slot)
{
	if (slot >= nmappings)
	{
		int			n = Max(16, slot + 8);

		if (mappings == NULL)
			mappings = MemoryContextAllocZero(TopMemoryContext, n * sizeof(Mapping));
		else
		{
			mappings = repalloc(mappings, n * sizeof(Mapping));
			memset(mappings + nmappings, 0, (n - nmappings) * sizeof(Mapping));
		}
		nmappings = n;
	}
	return &mappings[slot];
}

static void
remember_mapping(Mapping *map, dsm_segment *segment)
{
	dsm_pin_mapping(segment);
	if (map->segment != NULL)
		dsm_detach(map->segment);
	map->segment = segment;
	map->handle = dsm_segment_handle(segment);
	map->base = dsm_segment_address(segment);
}

/* Map the slot's bytes as they are now; NULL when there are none. */
static char *
map_bytes(int slot, dsm_handle handle)
{
	Mapping    *map = get_mapping(slot);
	dsm_segment *segment;

	if (handle == DSM_HANDLE_INVALID)
		return NULL;
	if (map->handle == handle)
		return map->base;

	/*
	 * An attempt that has failed, for want of memory say, leaves its segment
	 * attached but not mapped where no resource owner takes care of it: so it
	 * is in the worker, and no other attempt would succeed.
	 */
	segment = dsm_find_mapping(handle);
	if (segment != NULL)
		dsm_detach(segment);
	segment = dsm_attach(handle);
	if (segment == NULL)
		return NULL;
	remember_mapping(map, segment);
	return map->base;
}

/* the mapping made before, or NULL where it is of other bytes */
static char *
mapped(PgmcChannel *channel, int slot)
{
	if (slot >= nmappings || channel->data == DSM_HANDLE_INVALID ||
		mappings[slot].handle != channel->data)
		return NULL;
	return mappings[slot].base;
}

static dsm_handle
current_bytes(PgmcChannel *channel)
{
	dsm_handle	handle;

	LWLockAcquire(&channel->lock, LW_SHARED);
	handle = channel->data;
	LWLockRelease(&channel->lock);
	return handle;
}

/* Let these be the slot's bytes, unless the hold is over or there are others. */
static bool
publish(PgmcChannel *channel, uint64 epoch, dsm_handle handle)
{
	bool		wanted;

	LWLockAcquire(&channel->lock, LW_EXCLUSIVE);
	wanted = channel->epoch == epoch && channel->data == DSM_HANDLE_INVALID;
	if (wanted)
	{
		channel->data = handle;
		memset(&channel->request, 0, sizeof(channel->request));
		memset(&channel->reply, 0, sizeof(channel->reply));
	}
	LWLockRelease(&channel->lock);
	return wanted;
}

void
pgmc_channel_prepare(PgmcChannel *channel, int slot, uint64 epoch)
{
	dsm_segment *segment;

	if (map_bytes(slot, current_bytes(channel)) != NULL)
		return;

	/*
	 * They are pinned last, and published at once: an error before that
	 * leaves nothing.  One whose hold was revoked meanwhile finds that it is
	 * not the only one here.
	 */
	segment = dsm_create(2 * PGMC_RING_SIZE, 0);
	remember_mapping(get_mapping(slot), segment);
	dsm_pin_segment(segment);
	if (!publish(channel, epoch, dsm_segment_handle(segment)))
		dsm_unpin_segment(dsm_segment_handle(segment));
}

/* ---- rings; the caller holds the channel's lock ---- */

static Size
ring_write(PgmcRing *ring, char *bytes, const char *src, Size length)
{
	Size		room = PGMC_RING_SIZE - (Size) (ring->written - ring->read);
	Size		n = Min(Min(length, room), PGMC_COPY_MAX);
	Size		at = (Size) (ring->written % PGMC_RING_SIZE);
	Size		first = Min(n, PGMC_RING_SIZE - at);

	memcpy(bytes + at, src, first);
	memcpy(bytes, src + first, n - first);
	ring->written += n;
	if (length > room)
		ring->writer_waits = true;
	return n;
}

static Size
ring_read(PgmcRing *ring, const char *bytes, char *dst, Size length, bool *wake)
{
	Size		there = (Size) (ring->written - ring->read);
	Size		n = Min(Min(length, there), PGMC_COPY_MAX);
	Size		at = (Size) (ring->read % PGMC_RING_SIZE);
	Size		first = Min(n, PGMC_RING_SIZE - at);

	memcpy(dst, bytes + at, first);
	memcpy(dst + first, bytes, n - first);
	ring->read += n;

	/* a writer that waits is worth waking once half of the ring is free */
	*wake = ring->writer_waits && there - n <= PGMC_RING_SIZE / 2;
	if (*wake)
		ring->writer_waits = false;
	return n;
}

static inline char *
request_bytes(char *base)
{
	return base;
}

static inline char *
reply_bytes(char *base)
{
	return base + PGMC_RING_SIZE;
}

/* ---- the holder's end ---- */

PgmcChannelState
pgmc_channel_send(PgmcChannel *channel, int slot, uint64 epoch,
				  const char *src, Size length, Size *done)
{
	PgmcChannelState state = PGMC_CHANNEL_OK;
	char	   *base;

	*done = 0;
	LWLockAcquire(&channel->lock, LW_EXCLUSIVE);
	base = mapped(channel, slot);
	if (channel->epoch != epoch)
		state = PGMC_CHANNEL_FENCED;
	else if (channel->broken || base == NULL)
		state = PGMC_CHANNEL_BROKEN;
	else
	{
		*done = ring_write(&channel->request, request_bytes(base), src, length);
		channel->used = true;
	}
	LWLockRelease(&channel->lock);
	return state;
}

PgmcChannelState
pgmc_channel_receive(PgmcChannel *channel, int slot, uint64 epoch, char *dst,
					 Size length, Size *done, bool *wake)
{
	PgmcChannelState state = PGMC_CHANNEL_OK;
	char	   *base;

	*done = 0;
	*wake = false;
	LWLockAcquire(&channel->lock, LW_EXCLUSIVE);
	base = mapped(channel, slot);
	if (channel->epoch != epoch)
		state = PGMC_CHANNEL_FENCED;
	else if (base == NULL)
		state = PGMC_CHANNEL_BROKEN;
	else
	{
		*done = ring_read(&channel->reply, reply_bytes(base), dst, length, wake);
		if (*done == 0 && channel->broken)
			state = channel->unheard ? PGMC_CHANNEL_UNHEARD : PGMC_CHANNEL_BROKEN;
	}
	LWLockRelease(&channel->lock);
	return state;
}

bool
pgmc_channel_post(PgmcChannel *channel, int slot, uint64 epoch,
				  const char *src, Size length)
{
	char	   *base;
	bool		posted = false;

	LWLockAcquire(&channel->lock, LW_EXCLUSIVE);
	base = mapped(channel, slot);
	if (base != NULL && channel->epoch == epoch && !channel->broken &&
		channel->request.written == channel->request.read)
	{
		posted = ring_write(&channel->request, request_bytes(base), src,
							length) == length;
		channel->used = true;
	}
	LWLockRelease(&channel->lock);
	return posted;
}

void
pgmc_channel_wipe(PgmcChannel *channel, int slot, uint64 epoch)
{
	char	   *base;

	LWLockAcquire(&channel->lock, LW_EXCLUSIVE);
	base = mapped(channel, slot);
	if (channel->epoch == epoch && base != NULL)
	{
		channel->request.read = channel->request.written;
		memset(request_bytes(base), 0, PGMC_RING_SIZE);
	}
	LWLockRelease(&channel->lock);
}

/* Set one of the holder's flags, unless the hold is over. */
static PgmcChannelState
raise_flag(PgmcChannel *channel, uint64 epoch, bool *flag, uint16 seq)
{
	PgmcChannelState state = PGMC_CHANNEL_OK;

	LWLockAcquire(&channel->lock, LW_EXCLUSIVE);
	if (channel->epoch != epoch)
		state = PGMC_CHANNEL_FENCED;
	else if (channel->broken)
		state = PGMC_CHANNEL_BROKEN;
	else
	{
		*flag = true;
		channel->cancel_seq = seq;
	}
	LWLockRelease(&channel->lock);
	return state;
}

PgmcChannelState
pgmc_channel_ask_abort(PgmcChannel *channel, uint64 epoch)
{
	return raise_flag(channel, epoch, &channel->abort_asked, 0);
}

PgmcChannelState
pgmc_channel_ask_cancel(PgmcChannel *channel, uint64 epoch, uint16 seq)
{
	return raise_flag(channel, epoch, &channel->cancel_asked, seq);
}

PgmcChannelState
pgmc_channel_check(PgmcChannel *channel, uint64 epoch, bool *aborting)
{
	PgmcChannelState state = PGMC_CHANNEL_OK;

	LWLockAcquire(&channel->lock, LW_SHARED);
	if (channel->epoch != epoch)
		state = PGMC_CHANNEL_FENCED;
	else if (channel->broken)
		state = PGMC_CHANNEL_BROKEN;
	*aborting = channel->abort_asked;
	LWLockRelease(&channel->lock);
	return state;
}

/* ---- the worker's end ---- */

bool
pgmc_channel_stirs(PgmcChannel *channel)
{
	volatile PgmcChannel *c = channel;

	return c->request.written != c->request.read ||
		c->abort_asked || c->cancel_asked;
}

/* The worker maps bytes that a holder has made. */
static char *
worker_bytes(PgmcChannel *channel, int slot)
{
	return map_bytes(slot, current_bytes(channel));
}

Size
pgmc_channel_worker_read(PgmcChannel *channel, int slot, char *dst,
						 Size length, bool *wake)
{
	char	   *base = worker_bytes(channel, slot);
	Size		n;

	*wake = false;
	if (base == NULL)
		return 0;
	LWLockAcquire(&channel->lock, LW_EXCLUSIVE);
	n = ring_read(&channel->request, request_bytes(base), dst, length, wake);
	LWLockRelease(&channel->lock);
	return n;
}

Size
pgmc_channel_worker_write(PgmcChannel *channel, int slot, const char *src,
						  Size length)
{
	char	   *base = worker_bytes(channel, slot);
	Size		n;

	if (base == NULL)
		return 0;
	LWLockAcquire(&channel->lock, LW_EXCLUSIVE);
	n = ring_write(&channel->reply, reply_bytes(base), src, length);
	LWLockRelease(&channel->lock);
	return n;
}

void
pgmc_channel_worker_asked(PgmcChannel *channel, bool *abort,
						  uint64 *cancel_epoch, uint16 *seq)
{
	LWLockAcquire(&channel->lock, LW_EXCLUSIVE);
	*abort = channel->abort_asked;
	*cancel_epoch = channel->cancel_asked ? channel->epoch : 0;
	*seq = channel->cancel_seq;
	channel->cancel_asked = false;
	LWLockRelease(&channel->lock);
}

uint64
pgmc_channel_epoch(PgmcChannel *channel)
{
	uint64		epoch;

	LWLockAcquire(&channel->lock, LW_SHARED);
	epoch = channel->epoch;
	LWLockRelease(&channel->lock);
	return epoch;
}

/* caller holds the lock */
static void
empty_rings(PgmcChannel *channel)
{
	channel->request.read = channel->request.written;
	channel->request.writer_waits = false;
	channel->reply.read = channel->reply.written;
	channel->reply.writer_waits = false;
	channel->abort_asked = false;
	channel->cancel_asked = false;
}

void
pgmc_channel_empty(PgmcChannel *channel)
{
	LWLockAcquire(&channel->lock, LW_EXCLUSIVE);
	empty_rings(channel);
	LWLockRelease(&channel->lock);
}

void
pgmc_channel_worker_reset(PgmcChannel *channel, int slot, bool wipe)
{
	char	   *base = worker_bytes(channel, slot);

	LWLockAcquire(&channel->lock, LW_EXCLUSIVE);
	empty_rings(channel);
	if (wipe && base != NULL)
		memset(request_bytes(base), 0, PGMC_RING_SIZE);
	LWLockRelease(&channel->lock);
}

void
pgmc_channel_worker_wipe(PgmcChannel *channel, int slot)
{
	char	   *base = worker_bytes(channel, slot);

	LWLockAcquire(&channel->lock, LW_EXCLUSIVE);
	if (base != NULL && channel->request.read == channel->request.written)
		memset(request_bytes(base), 0, PGMC_RING_SIZE);
	LWLockRelease(&channel->lock);
}

void
pgmc_channel_worker_aborted(PgmcChannel *channel, int slot)
{
	pgmc_channel_worker_reset(channel, slot, false);
}

void
pgmc_channel_worker_break(PgmcChannel *channel, bool in_part)
{
	LWLockAcquire(&channel->lock, LW_EXCLUSIVE);
	channel->broken = true;
	if (in_part || channel->request.written != channel->request.read)
		channel->unheard = true;
	channel->request.read = channel->request.written;
	channel->request.writer_waits = false;
	channel->abort_asked = false;
	channel->cancel_asked = false;
	LWLockRelease(&channel->lock);
}
