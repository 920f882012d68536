/*
 * worker.c
 *		The one background worker of the cluster: its wait loop.
 *
 * The loop waits for its latch (set by sessions that sent something or changed
 * a connection's state), for the sockets of all connections and for the next
 * deadline; then it serves every slot that has something to do.  Serving a
 * slot never blocks, and an error in it costs that slot its connection and
 * nobody else's.
 *
 * It is connected to no database, so it is in nobody's way, and it answers the
 * server's barriers and catch-up interrupts each time it wakes.
 */
#include "postgres.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <unistd.h>

#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "portability/instr_time.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/procsignal.h"
#include "storage/s_lock.h"
#include "storage/sinval.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/pidfile.h"
#include "utils/timestamp.h"

#include "channel.h"
#include "compat.h"
#include "log.h"
#include "moment.h"
#include "registry.h"
#include "remote.h"
#include "settings.h"
#include "wire.h"
#include "worker.h"

#define TICK_MS		1000
#define OPENING_PATIENCE_MS (60 * 1000) /* with who shall ask for an opening */
#define MAX_EVENTS	64
#define READ_AT_ONCE	(1024 * 1024)
#define SETS_AT_ONCE	(64 * 1024) /* then libpq shall write them */
#define SETS_ROUNDS		16		/* then other slots have their turn */
#define LOCK_FILE	"postmaster.pid"

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
	char		header[PGMC_FRAME_SIZE];
	Size		header_got;
	PgmcFrame	frame;
	char	   *body;			/* NULL: too large for us, bytes are dropped */
	Size		body_got;
	bool		begun;			/* received in full, and looked at */
	uint64		cancel_epoch;	/* cancel the request with this number of this
								 * hold, 0: none; the holder's word may be
								 * here before the request is */
	uint16		cancel_seq;
	PgmcExecute exec;

	/* the frame of parameter sets being received, while it is working on it */
	bool		owed_sets;		/* the holder has yet to send the last */
	MemoryContext sets_context; /* reset with each frame */
	char		sets_header[PGMC_FRAME_SIZE];
	Size		sets_header_got;
	PgmcFrame	sets_frame;
	char	   *sets;			/* NULL: bytes are dropped */
	Size		sets_got;

	/* the hold's time limits */
	uint64		lease_epoch;	/* of the hold they are of, 0: it has none */
	TimestampTz lease_end;		/* by hold_timeout, 0: none */
	int			idle_limit;		/* idle_hold_timeout, milliseconds, 0: none */
	TimestampTz idle_since;		/* 0: the holder's request is running */

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

static Slot *slots[PGMC_MAX_CONNECTIONS];
static int	nslots = 0;			/* slots[i] may be set below it */
static WaitEventSet *wait_set = NULL;
static MemoryContext loop_context;

/* ---- frames to the holder ---- */

static void
reset_out(Slot *slot)
{
	resetStringInfo(&slot->out);
	slot->out_sent = 0;

	/* don't keep what one huge message needed */
	if (slot->out.maxlen > 4 * PGMC_OUTPUT_LIMIT)
	{
		MemoryContext caller = MemoryContextSwitchTo(slot->context);

		pfree(slot->out.data);
		initStringInfo(&slot->out);
		MemoryContextSwitchTo(caller);
	}
}

/* Move what fits into the ring; true when something went. */
static bool
flush_out(int i)
{
	Slot	   *slot = slots[i];
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
		reset_out(slot);
	if (moved)
		pgmc_registry_wake_holder(i);
	return moved;
}

static void
reply_done(Slot *slot, uint8 flags)
{
	PgmcDone	done = {pgmc_remote_xact_status(slot->remote), 0};

	pgmc_wire_done(&slot->out, flags, slot->frame.seq, &done);
}

static void
reply_fields(Slot *slot, uint8 type, int sqlstate, const char *message)
{
	PgmcFields	fields = {0};

	fields.sqlstate = unpack_sql_state(sqlstate);
	fields.message = message;
	pgmc_wire_fields(&slot->out, type, slot->frame.seq, &fields);
}

/* ---- requests from the holder ---- */

static void
forget_request(Slot *slot)
{
	slot->header_got = 0;
	slot->body = NULL;
	slot->body_got = 0;
	slot->begun = false;
	slot->cancel_epoch = 0;
	MemoryContextReset(slot->request_context);
}

/* Has a part of a request come in, and is the rest still to come? */
static bool
receiving(const Slot *slot)
{
	return slot->header_got > 0 && !slot->begun;
}

/* A connection ends to make room for another one in its slot. */
static void
log_replaced(int i)
{
	Slot	   *slot = slots[i];
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
	Slot	   *slot = slots[i];

	if (!pgmc_registry_set_opening(i))
		return false;
	slot->lost_pending = false;
	slot->lease_epoch = 0;		/* it begins when that is through */
	pgmc_channel_worker_wipe(pgmc_registry_channel(i), i);
	if (pgmc_remote_state(slot->remote) != PGMC_REMOTE_CLOSED)
		log_replaced(i);
	pgmc_remote_open(slot->remote, open);
	return true;
}

static void
refuse(Slot *slot, const char *message)
{
	reply_fields(slot, PGMC_REPLY_ERROR, ERRCODE_PROTOCOL_VIOLATION, message);
	reply_done(slot, PGMC_DONE_REFUSED);
	forget_request(slot);
}

/* What is decoded must last as long as the request does. */
static bool
read_execute(Slot *slot)
{
	MemoryContext caller = MemoryContextSwitchTo(slot->request_context);
	bool		ok = pgmc_wire_read_execute(slot->body, slot->frame.length,
											&slot->exec);

	MemoryContextSwitchTo(caller);
	return ok;
}

/* A request is here in full. */
static void
start_request(int i)
{
	Slot	   *slot = slots[i];
	PgmcOpen	open;

	slot->begun = true;
	pgmc_registry_set_commit_xid(i, 0);
	/* they follow in any case */
	slot->owed_sets = slot->frame.type == PGMC_REQUEST_EXECUTE &&
		(slot->frame.flags & PGMC_EXEC_MANY);

	if (slot->frame.length > 0 && slot->body == NULL)
	{
		reply_fields(slot, PGMC_REPLY_ERROR, ERRCODE_OUT_OF_MEMORY,
					 "request is too large for the memory of the pgmc worker");
		reply_done(slot, PGMC_DONE_REFUSED);
		forget_request(slot);
		return;
	}
	if (slot->frame.type == PGMC_REQUEST_OPEN)
	{
		if (pgmc_wire_read_open(slot->body, slot->frame.length, &open))
		{
			bool		started = start_open(i, &open);

			explicit_bzero(slot->body, slot->frame.length);
			if (!started)
				forget_request(slot);
		}
		else
			refuse(slot, "malformed request to open a connection");
		return;
	}
	if (pgmc_remote_state(slot->remote) != PGMC_REMOTE_READY)
	{
		reply_fields(slot, PGMC_REPLY_LOST, ERRCODE_CONNECTION_FAILURE,
					 "connection is not open");
		forget_request(slot);
		return;
	}
	switch (slot->frame.type)
	{
		case PGMC_REQUEST_EXECUTE:
			if (read_execute(slot))
			{
				pgmc_registry_count_command(i);
				pgmc_remote_execute(slot->remote, slot->frame.flags,
									slot->frame.seq, &slot->exec);
			}
			else
				refuse(slot, "malformed request to execute a command");
			break;
		case PGMC_REQUEST_COMMIT:
			pgmc_remote_commit(slot->remote, slot->frame.seq);
			break;
		case PGMC_REQUEST_ROLLBACK:
			pgmc_remote_rollback(slot->remote, slot->frame.seq);
			break;
		default:
			refuse(slot, "unknown request");
			return;
	}
	if (pgmc_remote_state(slot->remote) == PGMC_REMOTE_BUSY)
		pgmc_registry_set_xact_status(i, PGMC_XACT_ACTIVE);
	pgmc_registry_set_commit_xid(i, pgmc_remote_commit_xid(slot->remote));
	slot->idle_since = 0;
}

static void
start_body(Slot *slot)
{
	pgmc_wire_read_header(slot->header, &slot->frame);
	slot->body_got = 0;
	slot->body = NULL;
	if (slot->frame.length > 0)
		slot->body = MemoryContextAllocExtended(slot->request_context,
												slot->frame.length,
												MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
}

/* Read up to length bytes from the holder, or drop them where dst is NULL. */
static Size
read_bytes(int i, char *dst, Size length)
{
	char		dropped[1024];
	bool		wake;
	Size		n;

	if (dst == NULL)
	{
		dst = dropped;
		length = Min(length, sizeof(dropped));
	}
	n = pgmc_channel_worker_read(pgmc_registry_channel(i), i, dst, length, &wake);
	if (wake)
		pgmc_registry_wake_holder(i);
	return n;
}

/* The holder's word on a task that asks for it. */
static bool
read_answer(int i)
{
	Slot	   *slot = slots[i];
	char		header[PGMC_FRAME_SIZE];
	PgmcFrame	frame;

	if (read_bytes(i, header, sizeof(header)) != sizeof(header))
		return false;
	pgmc_wire_read_header(header, &frame);
	if (frame.type == PGMC_REQUEST_FORMAT)
		pgmc_remote_format(slot->remote, frame.flags);
	return true;
}

/* ---- the sets of parameters of a request that has them ---- */

static void
forget_sets(Slot *slot)
{
	slot->sets_header_got = 0;
	slot->sets = NULL;
	slot->sets_got = 0;
	MemoryContextReset(slot->sets_context);
}

/* The holder has gone, or waits until its request is dropped: it owes nothing. */
static void
stop_sets(Slot *slot)
{
	slot->owed_sets = false;
	forget_sets(slot);
}

static void
refuse_sets(Slot *slot, int sqlstate, const char *message)
{
	if (pgmc_remote_refuse_sets(slot->remote))
		reply_fields(slot, PGMC_REPLY_ERROR, sqlstate, message);
}

static void
start_sets(Slot *slot)
{
	PgmcFrame  *frame = &slot->sets_frame;

	pgmc_wire_read_header(slot->sets_header, frame);
	slot->sets_got = 0;
	slot->sets = NULL;
	if (frame->length == 0)
		return;
	slot->sets = MemoryContextAllocExtended(slot->sets_context, frame->length,
											MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
	if (slot->sets == NULL)
		refuse_sets(slot, ERRCODE_OUT_OF_MEMORY,
					"set of parameters is too large for the memory of the pgmc worker");
}

/* A frame is here in full. */
static void
take_sets(Slot *slot)
{
	PgmcFrame  *frame = &slot->sets_frame;

	if (frame->type != PGMC_REQUEST_SETS ||
		(slot->sets != NULL &&
		 !pgmc_remote_sets(slot->remote, slot->sets, frame->length)))
		refuse_sets(slot, ERRCODE_PROTOCOL_VIOLATION,
					"malformed sets of parameters");
	if (frame->type == PGMC_REQUEST_SETS && (frame->flags & PGMC_SETS_LAST))
	{
		slot->owed_sets = false;
		pgmc_remote_end_sets(slot->remote);
	}
	forget_sets(slot);
}

/*
 * Take what there is of the sets, as long as the connection takes them; true
 * if there was anything.  They also come when the request has ended early, and
 * then they are dropped, to find the next request behind them.
 */
static bool
read_sets(int i)
{
	Slot	   *slot = slots[i];
	Size		taken = 0;

	while (slot->owed_sets && taken < SETS_AT_ONCE &&
		   pgmc_remote_takes_sets(slot->remote))
	{
		Size		n;

		if (slot->sets_header_got < PGMC_FRAME_SIZE)
		{
			n = read_bytes(i, slot->sets_header + slot->sets_header_got,
						   PGMC_FRAME_SIZE - slot->sets_header_got);
			slot->sets_header_got += n;
			if (n > 0 && slot->sets_header_got == PGMC_FRAME_SIZE)
				start_sets(slot);
		}
		else
		{
			n = slot->sets_got == slot->sets_frame.length ? 0 :
				read_bytes(i, slot->sets ? slot->sets + slot->sets_got : NULL,
						   slot->sets_frame.length - slot->sets_got);
			slot->sets_got += n;
		}
		taken += n;
		if (slot->sets_header_got == PGMC_FRAME_SIZE &&
			slot->sets_got == slot->sets_frame.length)
			take_sets(slot);
		else if (n == 0)
			break;
	}
	return taken > 0;
}

/* Take what the holder has sent; true if there was anything. */
static bool
read_request(int i)
{
	Slot	   *slot = slots[i];
	bool		any = false;
	Size		taken = 0;

	if (slot->owed_sets)
		return read_sets(i);

	if (pgmc_remote_state(slot->remote) == PGMC_REMOTE_BUSY)
		return read_answer(i);
	if (pgmc_remote_state(slot->remote) == PGMC_REMOTE_CONNECTING)
		return false;

	/* other slots shall have their turn while a huge request comes in */
	while (taken < READ_AT_ONCE)
	{
		Size		n;

		if (slot->header_got < PGMC_FRAME_SIZE)
		{
			n = read_bytes(i, slot->header + slot->header_got,
						   PGMC_FRAME_SIZE - slot->header_got);
			slot->header_got += n;
			if (n > 0 && slot->header_got == PGMC_FRAME_SIZE)
				start_body(slot);
		}
		else if (slot->body_got < slot->frame.length)
		{
			n = read_bytes(i, slot->body ? slot->body + slot->body_got : NULL,
						   slot->frame.length - slot->body_got);
			slot->body_got += n;
		}
		else
		{
			start_request(i);
			return true;
		}
		if (n == 0)
			return any;
		any = true;
		taken += n;
	}
	return false;				/* go on in the next round */
}

/* ---- holds with a time limit ---- */

/*
 * A lease begins when the connection is usable: the time that an opening takes
 * is not the holder's, and has a limit of its own.  So a holder who is still
 * on its way to ask for the opening has some time for that, though not for
 * ever; when the connection is open, its lease begins anew.
 */
static void
begin_lease(Slot *slot, const PgmcSlot *info)
{
	TimestampTz begin = info->holder.since;

	if (info->opening ||
		(info->hold_timeout == 0 && info->idle_hold_timeout == 0))
	{
		slot->lease_epoch = 0;
		return;
	}
	if (slot->lease_epoch == info->epoch)
		return;
	if (!info->open && !info->broken)
		begin = TimestampTzPlusMilliseconds(begin, OPENING_PATIENCE_MS);
	else if (info->open)
		begin = Max(begin, info->backend_start);
	slot->lease_epoch = info->epoch;
	slot->lease_end = info->hold_timeout == 0 ? 0 :
		TimestampTzPlusMilliseconds(begin, info->hold_timeout);
	slot->idle_limit = info->idle_hold_timeout;
	slot->idle_since = pgmc_remote_state(slot->remote) == PGMC_REMOTE_BUSY ?
		0 : begin;
}

/* when the present hold is to be revoked, 0: never */
static TimestampTz
lease_deadline(const Slot *slot)
{
	TimestampTz idle_end;

	if (slot->lease_epoch == 0)
		return 0;
	idle_end = slot->idle_limit == 0 || slot->idle_since == 0 ? 0 :
		TimestampTzPlusMilliseconds(slot->idle_since, slot->idle_limit);
	return pgmc_sooner(slot->lease_end, idle_end);
}

static void
end_lease(int i)
{
	Slot	   *slot = slots[i];
	PgmcSlot	info;

	pgmc_registry_slot(i, &info);
	if (pgmc_registry_revoke(i, slot->lease_epoch))
		pgmc_log_revoked(&info, lease_deadline(slot) != slot->lease_end);
	slot->lease_epoch = 0;
}

/* ---- recovery ---- */

static void
drop_in_flight(int i)
{
	forget_request(slots[i]);
	reset_out(slots[i]);
}

static void
finish_recovery(int i)
{
	Slot	   *slot = slots[i];

	slot->duty = DUTY_NONE;
	drop_in_flight(i);
	stop_sets(slot);
	pgmc_channel_worker_reset(pgmc_registry_channel(i), i, false);
	pgmc_registry_set_xact_status(i, pgmc_remote_xact_status(slot->remote));
	pgmc_registry_recovered(i, slot->forget);
}

/* The connection is gone and so is all that was on its way. */
static void
finish_lost(int i, const char *why)
{
	Slot	   *slot = slots[i];

	slot->duty = DUTY_NONE;
	slot->lost_pending = false;
	reset_out(slot);

	/* one that has got the slot meanwhile may be sending already */
	if (pgmc_registry_lost(i, why, receiving(slot)))
	{
		forget_request(slot);
		stop_sets(slot);
	}
}

static void
begin_recovery(int i, const PgmcSlot *info)
{
	Slot	   *slot = slots[i];

	pgmc_log_recovery(info, pgmc_remote_state(slot->remote) == PGMC_REMOTE_BUSY);
	slot->forget = info->last_session == 0;
	drop_in_flight(i);
	stop_sets(slot);
	pgmc_channel_worker_reset(pgmc_registry_channel(i), i, true);
	switch (pgmc_remote_state(slot->remote))
	{
		case PGMC_REMOTE_CLOSED:
			finish_lost(i, slot->lost_pending ? pgmc_remote_error(slot->remote) :
						NULL);
			break;
		case PGMC_REMOTE_CONNECTING:
			pgmc_remote_close(slot->remote);
			finish_lost(i, "opening was given up");
			break;
		case PGMC_REMOTE_READY:
			slot->duty = DUTY_RECOVER;
			pgmc_remote_recover(slot->remote, slot->forget,
								pgmc_registry_pid_holds(info->backend_pid));
			break;
		case PGMC_REMOTE_BUSY:
			if (pgmc_remote_sending(slot->remote))
			{
				pgmc_remote_close(slot->remote);
				pgmc_log_lost(info, "command was given up while it was being sent");
				finish_lost(i, "command was given up while it was being sent");
				break;
			}
			slot->duty = DUTY_DRAIN;
			pgmc_remote_drop_task(slot->remote);
			break;
	}
}

/* What sessions have changed in the registry, and we must follow. */
static void
follow_registry(int i)
{
	Slot	   *slot = slots[i];
	PgmcSlot	info;

	pgmc_registry_slot(i, &info);
	if (info.state == PGMC_CONN_CLOSING)
	{
		pgmc_log_recovery(&info, pgmc_remote_state(slot->remote) == PGMC_REMOTE_BUSY);
		pgmc_log_closing(NameStr(info.srvname), info.close_reason);
		pgmc_remote_close(slot->remote);
		stop_sets(slot);
		pgmc_channel_worker_reset(pgmc_registry_channel(i), i, true);
		finish_lost(i, "closed");
	}
	else if (info.state == PGMC_CONN_RECOVERING &&
			 slot->duty != DUTY_DRAIN && slot->duty != DUTY_RECOVER)
		begin_recovery(i, &info);
	else if (!info.open && !info.opening && !slot->lost_pending &&
			 pgmc_remote_state(slot->remote) != PGMC_REMOTE_CLOSED)
	{
		/* the slot was given to another key: its old connection ends */
		log_replaced(i);
		pgmc_remote_close(slot->remote);
	}
	if (info.state == PGMC_CONN_HELD)
		begin_lease(slot, &info);
	else
		slot->lease_epoch = 0;
}

/* ---- what becomes of a task ---- */

static void
handle_opened(int i)
{
	Slot	   *slot = slots[i];
	PgmcOpened	opened;
	PgmcSlot	info;
	bool		again;

	opened.backend_pid = pgmc_remote_backend_pid(slot->remote);
	opened.same_cluster = pgmc_remote_same_cluster(slot->remote);
	opened.used_password = pgmc_remote_used_password(slot->remote);
	opened.options_hash = pgmc_remote_options_hash(slot->remote);
	opened.expires_at = pgmc_remote_expires_at(slot->remote);
	again = pgmc_registry_opened(i, &opened);
	pgmc_registry_slot(i, &info);
	slot->opened_key = info.key;
	slot->opened_srvname = info.srvname;
	if (again)
		pgmc_log_reopened(&info);
	slot->idle_since = GetCurrentTimestamp();
	if (info.state == PGMC_CONN_HELD)
		begin_lease(slot, &info);
	reply_done(slot, 0);
	forget_request(slot);
}

static void
handle_open_failed(int i)
{
	Slot	   *slot = slots[i];
	PgmcFailure failure;

	failure.sqlstate = pgmc_remote_error_sqlstate(slot->remote);
	strlcpy(failure.message, pgmc_remote_error(slot->remote),
			sizeof(failure.message));
	reply_fields(slot, PGMC_REPLY_LOST, failure.sqlstate, failure.message);
	forget_request(slot);
	pgmc_registry_open_failed(i, &failure);
}

static void
handle_done(int i)
{
	Slot	   *slot = slots[i];
	PgmcSlot	info;
	int64		rows;

	pgmc_registry_set_xact_status(i, pgmc_remote_xact_status(slot->remote));
	switch (slot->duty)
	{
		case DUTY_NONE:
			slot->idle_since = GetCurrentTimestamp();
			forget_request(slot);
			if (pgmc_remote_bloated(slot->remote))
				pgmc_registry_expire(i);
			if (pgmc_remote_quiet_call(slot->remote, &rows) &&
				pgmc_registry_finish_call(i, rows))
				reset_out(slot);	/* the reply, which has gone otherwise */
			break;
		case DUTY_DROP:
			slot->duty = DUTY_NONE;
			slot->idle_since = GetCurrentTimestamp();
			drop_in_flight(i);
			pgmc_channel_worker_aborted(pgmc_registry_channel(i), i);
			pgmc_registry_wake_holder(i);
			break;
		case DUTY_DRAIN:
		case DUTY_RECOVER:
			slot->duty = DUTY_RECOVER;
			pgmc_registry_slot(i, &info);
			pgmc_remote_recover(slot->remote, slot->forget,
								pgmc_registry_pid_holds(info.backend_pid));
			break;
	}
}

static void
log_lost(int i, const char *reason)
{
	PgmcSlot	info;

	pgmc_registry_slot(i, &info);
	pgmc_log_lost(&info, reason);
}

static void
handle_event(int i, PgmcRemoteEvent event)
{
	Slot	   *slot = slots[i];

	/* before the holder is told, who may look at the statistics then */
	if (event == PGMC_REMOTE_DONE || event == PGMC_REMOTE_LOST)
		pgmc_registry_count_rows(i, pgmc_remote_take_rows(slot->remote));

	switch (event)
	{
		case PGMC_REMOTE_NOTHING:
			break;
		case PGMC_REMOTE_OPENED:
			handle_opened(i);
			break;
		case PGMC_REMOTE_OPEN_FAILED:
			handle_open_failed(i);
			break;
		case PGMC_REMOTE_DONE:
			handle_done(i);
			break;
		case PGMC_REMOTE_RECOVERED:
			finish_recovery(i);
			break;
		case PGMC_REMOTE_LOST:
			log_lost(i, pgmc_remote_error(slot->remote));
			if (slot->duty == DUTY_NONE && slot->out_sent < slot->out.len)
				slot->lost_pending = true;	/* its last words go first */
			else
				finish_lost(i, pgmc_remote_error(slot->remote));
			break;
	}
}

/* ---- serving a slot ---- */

static void
obey_holder(int i)
{
	Slot	   *slot = slots[i];
	bool		abort;
	uint64		cancel_epoch;
	uint16		cancel_seq;

	pgmc_channel_worker_asked(pgmc_registry_channel(i), &abort, &cancel_epoch,
							  &cancel_seq);
	if (abort && slot->duty == DUTY_NONE)
	{
		drop_in_flight(i);
		stop_sets(slot);
		slot->duty = DUTY_DROP;
		pgmc_remote_drop_task(slot->remote);
	}
	else if (cancel_epoch != 0)
	{
		slot->cancel_epoch = cancel_epoch;
		slot->cancel_seq = cancel_seq;
	}
}

/* Cancel what shall be cancelled, as soon as it has begun. */
static void
obey_cancel(int i)
{
	Slot	   *slot = slots[i];
	uint64		epoch = slot->cancel_epoch;

	if (epoch == 0 || !slot->begun)
		return;
	slot->cancel_epoch = 0;
	if (slot->cancel_seq == slot->frame.seq &&
		epoch == pgmc_channel_epoch(pgmc_registry_channel(i)))
		pgmc_remote_cancel(slot->remote);
}

/* Can more of a command's parameter sets be taken at once? */
static bool
sets_to_take(int i)
{
	Slot	   *slot = slots[i];

	return slot->owed_sets && slot->duty == DUTY_NONE && slot->out.len == 0 &&
		pgmc_remote_takes_sets(slot->remote) &&
		pgmc_channel_stirs(pgmc_registry_channel(i));
}

/* True when anything could be done. */
static bool
serve(int i, bool attention)
{
	Slot	   *slot = slots[i];
	bool		ready = slot->ready;
	bool		progress = ready;
	bool		again = true;
	int			rounds = 0;

	slot->ready = false;
	if (slot->cancel_ready)
		pgmc_remote_cancel_ready(slot->remote);
	slot->cancel_ready = false;
	if (attention)
		follow_registry(i);
	if (lease_deadline(slot) != 0 && GetCurrentTimestamp() >= lease_deadline(slot))
	{
		end_lease(i);
		follow_registry(i);
	}
	while (again)
	{
		PgmcRemoteEvent event;

		again = false;
		if (slot->duty != DUTY_DRAIN && slot->duty != DUTY_RECOVER &&
			pgmc_channel_stirs(pgmc_registry_channel(i)))
		{
			obey_holder(i);
			if (slot->duty == DUTY_NONE && slot->out.len == 0)
				again = read_request(i);
			obey_cancel(i);
		}
		pgmc_remote_advance(slot->remote, ready, &slot->out);
		event = pgmc_remote_take_event(slot->remote);
		handle_event(i, event);
		again = again || event != PGMC_REMOTE_NOTHING;
		again = flush_out(i) || again;
		if (slot->lost_pending && slot->out.len == 0)
			finish_lost(i, pgmc_remote_error(slot->remote));
		ready = false;
		again = again || sets_to_take(i);
		progress = progress || again;
		if (slot->owed_sets && again && ++rounds >= SETS_ROUNDS)
		{
			SetLatch(MyLatch);	/* go on in the next round of all slots */
			break;
		}
	}
	return progress;
}

static void
init_slot(int i)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "pgmc slot",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Slot	   *slot = palloc0(sizeof(Slot));

	slot->context = context;
	slot->request_context = AllocSetContextCreate(context, "pgmc request",
												  ALLOCSET_DEFAULT_SIZES);
	slot->sets_context = AllocSetContextCreate(context, "pgmc parameter sets",
											   ALLOCSET_DEFAULT_SIZES);
	slot->remote = pgmc_remote_create(context);
	slot->socket = PGINVALID_SOCKET;
	slot->position = -1;
	slot->cancel_position = -1;
	initStringInfo(&slot->out);
	MemoryContextSwitchTo(old);
	slots[i] = slot;
	nslots = Max(nslots, i + 1);
}

/*
 * Serve a slot so that no error leaves it: it costs this slot its connection,
 * and its holder is told.
 */
static bool
serve_safely(int i, bool attention)
{
	volatile bool progress = true;

	if (slots[i] == NULL)
		init_slot(i);
	PG_TRY();
	{
		MemoryContextSwitchTo(loop_context);
		progress = serve(i, attention);
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(loop_context);
		edata = CopyErrorData();
		EmitErrorReport();
		FlushErrorState();
		pgmc_remote_close(slots[i]->remote);
		pgmc_remote_take_event(slots[i]->remote);
		slots[i]->duty = DUTY_NONE;
		slots[i]->lost_pending = false;
		log_lost(i, edata->message);
		pgmc_registry_failed(i, edata->message, receiving(slots[i]));
	}
	PG_END_TRY();
	MemoryContextReset(loop_context);
	return progress;
}

static bool
needs_service(int i, TimestampTz now)
{
	Slot	   *slot = slots[i];

	if (slot == NULL)
		return pgmc_channel_stirs(pgmc_registry_channel(i));
	if (slot->ready || slot->cancel_ready || pgmc_channel_stirs(pgmc_registry_channel(i)))
		return true;

	if (slot->deadline != 0 && now >= slot->deadline)
		return true;
	if (lease_deadline(slot) != 0 && now >= lease_deadline(slot))
		return true;

	/* room may have come where there was none */
	return slot->out.len > 0;
}

/* ---- once a second ---- */

/*
 * Does anybody want to drop or copy this database, and waits for its users to
 * leave?  A connecting backend's lock, tried without waiting, tells.
 */
static bool
database_wanted(Oid dbid)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, dbid, 0);
	if (LockAcquire(&tag, RowExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		return true;
	LockRelease(&tag, RowExclusiveLock, true);
	return false;
}

/* A smart shutdown waits for clients, and idle loopback backends are such. */
static bool
server_stopping(void)
{
	char		buf[1024];
	char	   *line = buf;
	int			fd = open(LOCK_FILE, O_RDONLY);
	ssize_t		n;

	if (fd < 0)
		return false;
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	if (n <= 0)
		return false;
	buf[n] = '\0';
	for (int i = 1; i < LOCK_FILE_LINE_PM_STATUS && line != NULL; i++)
	{
		line = strchr(line, '\n');
		if (line != NULL)
			line++;
	}
	return line != NULL && strncmp(line, PM_STATUS_STOPPING, 8) == 0;
}

static Oid
backend_database(int pid)
{
	PGPROC	   *proc = BackendPidGetProc(pid);

	return proc == NULL ? InvalidOid : proc->databaseId;
}

static void
tick_slot(int i, TimestampTz now, bool stopping)
{
	PgmcSlot	info;
	TimestampTz deadline;
	Oid			dbid = InvalidOid;

	pgmc_registry_slot(i, &info);
	if (info.state != PGMC_CONN_IDLE || slots[i] == NULL)
		return;
	deadline = pgmc_remote_idle_deadline(slots[i]->remote, info.state_since);
	if (info.same_cluster)
		dbid = backend_database(info.backend_pid);
	if (stopping)
		pgmc_registry_close_idle(i, &info.key, PGMC_CLOSE_SHUTDOWN);
	else if (deadline != 0 && now >= deadline)
		pgmc_registry_close_idle(i, &info.key, PGMC_CLOSE_IDLE);
	else if (OidIsValid(dbid) && database_wanted(dbid))
		pgmc_registry_close_idle(i, &info.key, PGMC_CLOSE_DATABASE);
}

static void
tick(TimestampTz now)
{
	bool		stopping = server_stopping();

	PG_TRY();
	{
		for (int i = 0; i < pgmc_registry_slots(); i++)
			tick_slot(i, now, stopping);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(loop_context);
		EmitErrorReport();
		FlushErrorState();
	}
	PG_END_TRY();
}

/* ---- waiting ---- */

/* Is the set of sockets in the wait set still the right one? */
static bool
wait_set_current(void)
{
	for (int i = 0; i < nslots; i++)
	{
		Slot	   *slot = slots[i];
		uint32		wants;
		uint32		events;

		if (slot == NULL)
			continue;
		wants = pgmc_remote_wants(slot->remote, &slot->deadline);
		if (pgmc_remote_state(slot->remote) == PGMC_REMOTE_CONNECTING ||
			pgmc_remote_cancel_socket(slot->remote, &events) != PGINVALID_SOCKET ||
			slot->cancel_position >= 0)
			return false;		/* libpq may have changed its socket */
		if (pgmc_remote_socket(slot->remote) != slot->socket ||
			pgmc_remote_serial(slot->remote) != slot->serial ||
			(wants != 0) != (slot->position >= 0))
			return false;
	}
	return true;
}

static void
rebuild_wait_set(void)
{
	int			n = 2;

	if (wait_set != NULL)
		FreeWaitEventSet(wait_set);
	for (int i = 0; i < nslots; i++)
		if (slots[i] != NULL)
			n += 2;
	wait_set = pgmc_wait_set_create(n);
	AddWaitEventToSet(wait_set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(wait_set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	for (int i = 0; i < nslots; i++)
	{
		Slot	   *slot = slots[i];
		pgsocket	cancel;
		uint32		events;

		if (slot == NULL)
			continue;
		slot->events = pgmc_remote_wants(slot->remote, &slot->deadline);
		slot->socket = pgmc_remote_socket(slot->remote);
		slot->serial = pgmc_remote_serial(slot->remote);
		slot->position = -1;
		if (slot->events != 0 && slot->socket != PGINVALID_SOCKET)
			slot->position = AddWaitEventToSet(wait_set, slot->events,
											   slot->socket, NULL, slot);
		cancel = pgmc_remote_cancel_socket(slot->remote, &events);
		slot->cancel_position = cancel == PGINVALID_SOCKET ? -1 :
			AddWaitEventToSet(wait_set, events, cancel, NULL, slot);
	}
}

static void
update_wait_set(void)
{
	if (wait_set == NULL || !wait_set_current())
	{
		rebuild_wait_set();
		return;
	}
	for (int i = 0; i < nslots; i++)
	{
		Slot	   *slot = slots[i];
		uint32		wants;

		if (slot == NULL || slot->position < 0)
			continue;
		wants = pgmc_remote_wants(slot->remote, &slot->deadline);
		if (wants != slot->events)
			ModifyWaitEvent(wait_set, slot->position, wants, NULL);
		slot->events = wants;
	}
}

/* milliseconds until the next thing to do by the clock, -1: none */
static long
next_timeout(TimestampTz now, TimestampTz deadline)
{
	for (int i = 0; i < nslots; i++)
	{
		if (slots[i] == NULL)
			continue;
		deadline = pgmc_sooner(deadline, slots[i]->deadline);
		deadline = pgmc_sooner(deadline, lease_deadline(slots[i]));
	}
	return deadline == 0 ? -1 : TimestampDifferenceMilliseconds(now, deadline);
}

static void
note_event(Slot *slot, int position)
{
	if (position == slot->cancel_position)
		slot->cancel_ready = true;
	else
		slot->ready = true;
}

/* the number of events */
static int
wait_for_work(long timeout, uint32 wait_event)
{
	WaitEvent	events[MAX_EVENTS];
	int			n;

	n = WaitEventSetWait(wait_set, timeout, events, MAX_EVENTS, wait_event);
	for (int i = 0; i < n; i++)
	{
		if (events[i].events & WL_LATCH_SET)
			ResetLatch(MyLatch);
		else if (events[i].user_data != NULL)
			note_event(events[i].user_data, events[i].pos);
	}
	return n;
}

/* ---- life ---- */

static void
handle_interrupts(void)
{
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
	if (catchupInterruptPending)
		ProcessCatchupInterrupt();
	if (ShutdownRequestPending)
	{
		ereport(pgmc_log_level,
				(errmsg("pgmc worker is shutting down")));
		proc_exit(0);
	}
}

static void
on_exit_worker(int code, Datum arg)
{
	const char *why = "the pgmc worker was terminated";

	for (int i = 0; i < nslots; i++)
		if (slots[i] != NULL)
		{
			pgmc_remote_close(slots[i]->remote);
			if (receiving(slots[i]))
				(void) pgmc_registry_lost(i, why, true);
		}
	pgmc_registry_worker_exit(why);
}

static void
set_up(void)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	pqsignal(SIGINT, PG_SIG_IGN);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	loop_context = AllocSetContextCreate(TopMemoryContext, "pgmc worker loop",
										 ALLOCSET_DEFAULT_SIZES);
	pgmc_remote_init();
	pgmc_registry_attach();
}

/* one round of serving; true if any slot had something to do */
static bool
serve_all(bool all, TimestampTz now)
{
	bool		attention = pgmc_registry_take_attention();
	bool		worked = false;
	int			n = Max(pgmc_registry_slots(), nslots);

	for (int i = 0; i < n; i++)
	{
		if ((all || attention || needs_service(i, now)) &&
			serve_safely(i, attention))
			worked = true;
	}
	return worked;
}

/* microseconds since start */
static double
elapsed(const instr_time *start)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, *start);
	return INSTR_TIME_GET_MICROSEC(now);
}

/* ---- polling, instead of sleeping, for a while ---- */

/* so many vain attempts in a row, and it pauses for so many sleeps, or more */
#define SPIN_MISSES		16
#define SPIN_PAUSE		64
#define SPIN_PAUSE_MAX	4096

/* between two looks at everything that the polling doesn't see */
#define FULL_LOOK_US	1000

#define LATCH_LOOKS		16
#define YIELD_EVERY		4

/*
 * What has come of it so far: of waiting for backends' replies, and of waiting
 * for holders' requests.  Where it is in vain most of the time it is left
 * alone, with a trial now and then.
 */
typedef struct SpinGain
{
	int			misses;			/* since the last time that it was worth it */
	int			pause;			/* sleeps that are still due without it */
} SpinGain;

static SpinGain reply_gain;
static SpinGain request_gain;

static void
note_spin(SpinGain *gain, bool found)
{
	if (found)
		gain->misses = 0;
	else if (++gain->misses >= SPIN_MISSES)
		gain->pause = Min(SPIN_PAUSE << Min(gain->misses - SPIN_MISSES, 16),
						  SPIN_PAUSE_MAX);
}

/* the slots whose backends owe a reply; -1: something waits to be written */
static int
list_busy(Slot **busy)
{
	int			n = 0;

	for (int i = 0; i < nslots; i++)
		if (slots[i] != NULL && (slots[i]->events & WL_SOCKET_WRITEABLE))
			return -1;

	for (int i = 0; i < nslots && n < MAX_EVENTS; i++)
	{
		Slot	   *slot = slots[i];

		if (slot != NULL && slot->position >= 0 &&
			pgmc_remote_awaits_reply(slot->remote) &&
			(slot->events & WL_SOCKET_READABLE) != 0)
			busy[n++] = slot;
	}
	return n;
}

/*
 * Have any of these connections got something?  One is asked by reading from
 * it, which then needn't be done any more; several by one system call.
 */
static bool
any_reply(Slot **busy, int n)
{
	struct pollfd fds[MAX_EVENTS];
	bool		found = false;

	if (n == 1)
	{
		busy[0]->ready = pgmc_remote_peek(busy[0]->remote,
										  &busy[0]->out);
		return busy[0]->ready;
	}
	for (int i = 0; i < n; i++)
	{
		fds[i].fd = busy[i]->socket;
		fds[i].events = POLLIN;
	}
	if (poll(fds, n, 0) <= 0)
		return false;
	for (int i = 0; i < n; i++)
		if (fds[i].revents != 0)
			busy[i]->ready = found = true;
	return found;
}

/* Look at the latch for a microsecond or so, which costs no system call. */
static bool
latch_set_soon(void)
{
	for (int i = 0; i < LATCH_LOOKS; i++)
	{
		if (*(volatile sig_atomic_t *) &MyLatch->is_set)
		{
			ResetLatch(MyLatch);
			return true;
		}
		SPIN_DELAY();
	}
	return false;
}

/*
 * Poll for up to pgmc.spin_time; true when there is something to do.  As long
 * as this process doesn't say that it may sleep, whoever sets its latch needs
 * no system call for that.  The processor is offered to others now and then:
 * one of them may be the one we wait for.
 */
static bool
spin(void)
{
	Slot	   *busy[MAX_EVENTS];
	int			n;
	SpinGain   *gain;
	instr_time	start;

	if (pgmc_spin_time <= 0)
		return false;
	n = list_busy(busy);
	if (n < 0)
		return false;
	gain = n > 0 ? &reply_gain : &request_gain;
	if (gain->pause > 0)
	{
		gain->pause--;
		return false;
	}
	INSTR_TIME_SET_CURRENT(start);
	for (int round = 1; elapsed(&start) < pgmc_spin_time; round++)
	{
		if (latch_set_soon() || (n > 0 && any_reply(busy, n)))
		{
			note_spin(gain, true);
			return true;
		}
		if (round % YIELD_EVERY == 0)
			sched_yield();
	}
	note_spin(gain, false);
	return false;
}

/*
 * Right after some work: poll, but look at everything now and then.  True when
 * there is more to do.
 */
static bool
spin_or_look(instr_time *last_look, uint32 wait_event)
{
	if (elapsed(last_look) >= FULL_LOOK_US)
	{
		INSTR_TIME_SET_CURRENT(*last_look);
		if (wait_for_work(0, wait_event) > 0)
			return true;
	}
	return spin();
}

/*
 * When to wake up for the clock: once a second while there are connections;
 * else when the worker has lingered long enough, and then it ends here.
 */
typedef struct Clock
{
	TimestampTz tick_at;		/* 0: no connections */
	TimestampTz leave_at;		/* 0: there are connections */
} Clock;

static void
wind_clock(Clock *clock, TimestampTz now, bool ticked)
{
	if (pgmc_registry_slots() > 0)
	{
		clock->leave_at = 0;
		if (clock->tick_at == 0 || ticked)
			clock->tick_at = TimestampTzPlusMilliseconds(now, TICK_MS);
		return;
	}
	clock->tick_at = 0;
	if (clock->leave_at == 0)
		clock->leave_at = TimestampTzPlusMilliseconds(now, pgmc_worker_linger);
	if (now >= clock->leave_at && pgmc_registry_worker_end_if_unused())
	{
		pgmc_log_leaving();
		proc_exit(0);
	}
}

/*
 * The library was replaced, and some session has the new one already: make room
 * for a worker that has it, too.  Nobody shall lose a hold for that.
 */
static void
leave_if_outdated(void)
{
	static bool told = false;

	if (!pgmc_registry_worker_outdated())
		return;
	if (!told)
		ereport(LOG,
				(errmsg("library of pgmc was replaced"),
				 errdetail("The pgmc worker ends as soon as no connection is held, and the next session that needs one starts a new worker.")));
	told = true;
	if (pgmc_registry_worker_end_if_idle())
		proc_exit(0);
}

void
pgmc_worker_main(Datum arg)
{
	uint32		wait_event;
	Clock		clock = {0, 0};
	instr_time	last_look;

	set_up();
	if (!pgmc_registry_worker_begin())
		proc_exit(0);
	before_shmem_exit(on_exit_worker, (Datum) 0);
	wait_event = pgmc_wait_event_new("PgmcWorkerMain");
	INSTR_TIME_SET_CURRENT(last_look);

	for (;;)
	{
		TimestampTz now;
		bool		due;
		bool		worked;
		long		timeout;

		handle_interrupts();
		now = GetCurrentTimestamp();
		due = clock.tick_at != 0 && now >= clock.tick_at;
		if (due)
			tick(now);
		worked = serve_all(due, now);
		leave_if_outdated();
		wind_clock(&clock, now, due);
		update_wait_set();
		if (worked && spin_or_look(&last_look, wait_event))
			continue;
		timeout = next_timeout(now, clock.tick_at != 0 ?
							   clock.tick_at : clock.leave_at);
		wait_for_work(timeout, wait_event);
		INSTR_TIME_SET_CURRENT(last_look);
	}
}
