/*
 * worker_request.c
 *		What the worker takes from a holder, and what it sends there.
 *
 * A request is received in full before it begins.  While it runs, the holder
 * sends what belongs to it only: the sets of its parameters, or a word on the
 * format of its rows.  Frames to the holder are made in memory (Slot.out) and
 * moved into the ring as room comes.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "channel.h"
#include "log.h"
#include "worker_int.h"

/* then other slots have their turn */
#define READ_AT_ONCE	(1024 * 1024)

/* then libpq shall write them */
#define SETS_AT_ONCE	(64 * 1024)

/* room in an output that has grown too large, to begin anew with */
#define EMPTY_OUT_SIZE	1024

/* ---- frames to the holder ---- */

void
pgmc_slot_reset_out(Slot *slot)
{
	resetStringInfo(&slot->out);
	slot->out_sent = 0;

	/* don't keep what one huge message needed, if there is any memory */
	if (slot->out.maxlen > 4 * PGMC_OUTPUT_LIMIT)
	{
		char	   *data = MemoryContextAllocExtended(slot->context, EMPTY_OUT_SIZE,
													  MCXT_ALLOC_NO_OOM);

		if (data == NULL)
			return;
		data[0] = '\0';
		pfree(slot->out.data);
		slot->out.data = data;
		slot->out.maxlen = EMPTY_OUT_SIZE;
	}
}

bool
pgmc_slot_flush_out(int i)
{
	Slot	   *slot = pgmc_slots[i];
	bool		moved = false;

	while (slot->out_sent < slot->out.len)
	{
		Size		n = pgmc_channel_worker_write(pgmc_registry_channel(i), i,
												  slot->out.data + slot->out_sent,
												  slot->out.len - slot->out_sent);

		if (n == 0)
			break;
		slot->out_sent += n;
		moved = true;
	}
	if (slot->out_sent == slot->out.len && slot->out.len > 0)
		pgmc_slot_reset_out(slot);
	return moved;
}

void
pgmc_slot_reply_done(Slot *slot, uint8 flags)
{
	PgmcDone	done = {pgmc_remote_xact_status(slot->remote), 0};

	pgmc_wire_done(&slot->out, flags, slot->request.frame.seq, &done);
}

void
pgmc_slot_reply_fields(Slot *slot, uint8 type, int sqlstate, const char *message)
{
	PgmcFields	fields = {0};

	fields.sqlstate = unpack_sql_state(sqlstate);
	fields.message = message;
	pgmc_wire_fields(&slot->out, type, slot->request.frame.seq, &fields);
}

/* ---- requests from the holder ---- */

/* What has come of a request to open a connection may be a password. */
static void
wipe_open(PgmcInbox *request)
{
	if (request->header_got == PGMC_FRAME_SIZE && request->body != NULL &&
		request->frame.type == PGMC_REQUEST_OPEN)
		explicit_bzero(request->body, request->body_got);
}

void
pgmc_slot_forget_request(Slot *slot)
{
	wipe_open(&slot->request);
	pgmc_inbox_clear(&slot->request);
	slot->begun = false;
	slot->cancel_epoch = 0;
	MemoryContextReset(slot->request_context);
}

static void
forget_more(Slot *slot)
{
	pgmc_inbox_clear(&slot->more);
	MemoryContextReset(slot->more_context);
}

void
pgmc_slot_forget_all(Slot *slot)
{
	pgmc_slot_forget_request(slot);
	slot->owed_sets = false;
	forget_more(slot);
	pgmc_slot_reset_out(slot);
}

void
pgmc_slot_log_replaced(int i)
{
	Slot	   *slot = pgmc_slots[i];
	PgmcSlot	info;

	pgmc_registry_slot(i, &info);
	pgmc_log_closing(NameStr(slot->opened_srvname),
					 pgmc_same_key(&info.key, &slot->opened_key) ?
					 PGMC_CLOSE_OPTIONS : PGMC_CLOSE_ROOM);
}

/* False where the holder has gone already. */
static bool
start_open(int i, const PgmcOpen *open)
{
	Slot	   *slot = pgmc_slots[i];

	if (!pgmc_registry_set_opening(i))
		return false;
	slot->lost_pending = false;
	slot->lease.epoch = 0;		/* it begins when that is through */
	pgmc_channel_worker_wipe(pgmc_registry_channel(i), i);
	if (pgmc_remote_state(slot->remote) != PGMC_REMOTE_CLOSED)
		pgmc_slot_log_replaced(i);
	pgmc_remote_open(slot->remote, open);
	return true;
}

static void
refuse(Slot *slot, const char *message)
{
	pgmc_slot_reply_fields(slot, PGMC_REPLY_ERROR, ERRCODE_PROTOCOL_VIOLATION, message);
	pgmc_slot_reply_done(slot, PGMC_DONE_REFUSED);
	pgmc_slot_forget_request(slot);
}

/* What is decoded must last as long as the request does. */
static bool
read_execute(Slot *slot)
{
	const PgmcInbox *request = &slot->request;
	MemoryContext caller = MemoryContextSwitchTo(slot->request_context);
	bool		ok = pgmc_wire_read_execute(request->body, request->frame.length,
											&slot->exec);

	MemoryContextSwitchTo(caller);
	return ok;
}

/* A request is here in full. */
static void
start_request(int i)
{
	Slot	   *slot = pgmc_slots[i];
	PgmcInbox  *request = &slot->request;
	const PgmcFrame *frame = &request->frame;
	PgmcOpen	open;

	slot->begun = true;
	pgmc_registry_set_commit_xid(i, 0);
	/* they follow in any case */
	slot->owed_sets = frame->type == PGMC_REQUEST_EXECUTE &&
		(frame->flags & PGMC_EXEC_MANY);

	if (pgmc_inbox_dropped(request))
	{
		pgmc_slot_reply_fields(slot, PGMC_REPLY_ERROR, ERRCODE_OUT_OF_MEMORY,
							   "request is too large for the memory of the pgmc worker");
		pgmc_slot_reply_done(slot, PGMC_DONE_REFUSED);
		pgmc_slot_forget_request(slot);
		return;
	}
	if (frame->type == PGMC_REQUEST_OPEN)
	{
		if (pgmc_wire_read_open(request->body, frame->length, &open))
		{
			bool		started = start_open(i, &open);

			wipe_open(request);
			if (!started)
				pgmc_slot_forget_request(slot);
		}
		else
			refuse(slot, "malformed request to open a connection");
		return;
	}
	if (pgmc_remote_state(slot->remote) != PGMC_REMOTE_READY)
	{
		pgmc_slot_reply_fields(slot, PGMC_REPLY_LOST, ERRCODE_CONNECTION_FAILURE,
							   "connection is not open");
		pgmc_slot_forget_request(slot);
		return;
	}
	switch (frame->type)
	{
		case PGMC_REQUEST_EXECUTE:
			if (!read_execute(slot))
			{
				refuse(slot, "malformed request to execute a command");
				return;
			}
			pgmc_registry_count_command(i);
			pgmc_remote_execute(slot->remote, frame->flags,
								frame->seq, &slot->exec);
			break;
		case PGMC_REQUEST_COMMIT:
			pgmc_remote_commit(slot->remote, frame->seq);
			break;
		case PGMC_REQUEST_ROLLBACK:
			pgmc_remote_rollback(slot->remote, frame->seq);
			break;
		default:
			refuse(slot, "unknown request");
			return;
	}
	if (pgmc_remote_state(slot->remote) == PGMC_REMOTE_BUSY)
		pgmc_registry_set_xact_status(i, PGMC_XACT_ACTIVE);
	pgmc_registry_set_commit_xid(i, pgmc_remote_commit_xid(slot->remote));
	slot->lease.idle_since = 0;
}

/* ---- what belongs to a request ---- */

/* The holder's word on a task that asks for it. */
static bool
read_answer(int i)
{
	Slot	   *slot = pgmc_slots[i];
	Size		taken = pgmc_inbox_fill(&slot->more, i, slot->more_context,
										READ_AT_ONCE);

	if (!pgmc_inbox_full(&slot->more))
		return taken > 0;
	if (slot->more.frame.type == PGMC_REQUEST_FORMAT)
		pgmc_remote_format(slot->remote, slot->more.frame.flags);
	forget_more(slot);
	return true;
}

/* ---- the sets of parameters of a request that has them ---- */

static void
refuse_sets(Slot *slot, int sqlstate, const char *message)
{
	if (pgmc_remote_refuse_sets(slot->remote))
		pgmc_slot_reply_fields(slot, PGMC_REPLY_ERROR, sqlstate, message);
}

/* A frame is here in full. */
static void
take_sets(Slot *slot)
{
	const PgmcFrame *frame = &slot->more.frame;
	char	   *sets = slot->more.body;

	if (pgmc_inbox_dropped(&slot->more))
		refuse_sets(slot, ERRCODE_OUT_OF_MEMORY,
					"set of parameters is too large for the memory of the pgmc worker");
	else if (frame->type != PGMC_REQUEST_SETS ||
			 (sets != NULL && !pgmc_remote_sets(slot->remote, sets, frame->length)))
		refuse_sets(slot, ERRCODE_PROTOCOL_VIOLATION,
					"malformed sets of parameters");
	if (frame->type == PGMC_REQUEST_SETS && (frame->flags & PGMC_SETS_LAST))
	{
		slot->owed_sets = false;
		pgmc_remote_end_sets(slot->remote);
	}
	forget_more(slot);
}

/*
 * Take what there is of the sets, as long as the connection takes them; true
 * if there was anything.  They also come when the request has ended early, and
 * then they are dropped, to find the next request behind them.
 */
static bool
read_sets(int i)
{
	Slot	   *slot = pgmc_slots[i];
	Size		taken = 0;

	while (slot->owed_sets && taken < SETS_AT_ONCE &&
		   pgmc_remote_takes_sets(slot->remote))
	{
		taken += pgmc_inbox_fill(&slot->more, i, slot->more_context,
								 SETS_AT_ONCE - taken);
		if (!pgmc_inbox_full(&slot->more))
			break;
		take_sets(slot);
	}
	return taken > 0;
}

bool
pgmc_slot_sets_to_take(int i)
{
	Slot	   *slot = pgmc_slots[i];

	return slot->owed_sets && slot->duty == DUTY_NONE && slot->out.len == 0 &&
		pgmc_remote_takes_sets(slot->remote) &&
		pgmc_channel_stirs(pgmc_registry_channel(i));
}

/* ---- reading ---- */

bool
pgmc_slot_read(int i)
{
	Slot	   *slot = pgmc_slots[i];
	Size		taken;

	if (slot->owed_sets)
		return read_sets(i);
	if (pgmc_remote_state(slot->remote) == PGMC_REMOTE_BUSY)
		return read_answer(i);
	if (pgmc_remote_state(slot->remote) == PGMC_REMOTE_CONNECTING)
		return false;

	taken = pgmc_inbox_fill(&slot->request, i, slot->request_context,
							READ_AT_ONCE);
	if (pgmc_inbox_full(&slot->request))
	{
		start_request(i);
		return true;
	}
	/* of a huge one, more in the next round */
	return taken > 0 && taken < READ_AT_ONCE;
}
