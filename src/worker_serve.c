/*
 * worker_serve.c
 *		Serving one slot: following the registry, the holder's requests, what
 *		becomes of them, recovery.
 *
 * Serving never blocks.
 */
#include "postgres.h"

#include "storage/latch.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "channel.h"
#include "log.h"
#include "worker_int.h"

#define SETS_ROUNDS		16		/* then other slots have their turn */

Slot	   *pgmc_slots[PGMC_MAX_CONNECTIONS];
int			pgmc_nslots = 0;
static MemoryContext serve_context; /* reset with each slot served */

/* ---- holds with a time limit ---- */

static void
follow_lease(Slot *slot, const PgmcSlot *info)
{
	pgmc_lease_follow(&slot->lease, info,
					  pgmc_remote_state(slot->remote) == PGMC_REMOTE_BUSY);
}

static void
end_lease(int i)
{
	Slot	   *slot = pgmc_slots[i];
	PgmcLease  *lease = &slot->lease;
	PgmcSlot	info;

	pgmc_registry_slot(i, &info);
	if (pgmc_registry_revoke(i, lease->epoch))
		pgmc_log_revoked(&info, pgmc_lease_deadline(lease) != lease->end);
	lease->epoch = 0;
}

static bool
lease_over(const Slot *slot, TimestampTz now)
{
	TimestampTz deadline = pgmc_lease_deadline(&slot->lease);

	return deadline != 0 && now >= deadline;
}

/* The holder's request has ended, however it did. */
static void
note_idle(Slot *slot)
{
	if (slot->lease.idle_since == 0)
		slot->lease.idle_since = GetCurrentTimestamp();
}

/* ---- recovery ---- */

static void
finish_recovery(int i)
{
	Slot	   *slot = pgmc_slots[i];

	slot->duty = DUTY_NONE;
	pgmc_slot_forget_all(slot);
	pgmc_channel_worker_reset(pgmc_registry_channel(i), i, false);
	pgmc_registry_set_xact_status(i, pgmc_remote_xact_status(slot->remote));
	pgmc_registry_recovered(i, slot->forget);
}

/* The connection is gone and so is all that was on its way. */
static void
finish_lost(int i, const char *why)
{
	Slot	   *slot = pgmc_slots[i];

	slot->duty = DUTY_NONE;
	slot->lost_pending = false;
	if (pgmc_registry_lost(i, why, pgmc_slot_receiving(slot)))
		pgmc_slot_forget_all(slot);
	else
		pgmc_slot_reset_out(slot);	/* one that has got the slot meanwhile may
									 * be sending already */
}

static void
begin_recovery(int i, const PgmcSlot *info)
{
	Slot	   *slot = pgmc_slots[i];

	pgmc_log_recovery(info, pgmc_remote_state(slot->remote) == PGMC_REMOTE_BUSY);
	slot->forget = info->last_session == 0;
	pgmc_slot_forget_all(slot);
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
	Slot	   *slot = pgmc_slots[i];
	PgmcSlot	info;

	pgmc_registry_slot(i, &info);
	if (info.state == PGMC_CONN_CLOSING)
	{
		pgmc_log_recovery(&info, pgmc_remote_state(slot->remote) == PGMC_REMOTE_BUSY);
		pgmc_log_closing(NameStr(info.srvname), info.close_reason);
		pgmc_remote_close(slot->remote);
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
		pgmc_slot_log_replaced(i);
		pgmc_remote_close(slot->remote);
	}
	follow_lease(slot, &info);
}

/* ---- what becomes of a task ---- */

static void
handle_opened(int i)
{
	Slot	   *slot = pgmc_slots[i];
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
	slot->lease.idle_since = GetCurrentTimestamp();
	follow_lease(slot, &info);
	pgmc_slot_reply_done(slot,
						 (opened.used_password ? PGMC_DONE_PASSWORD : 0) |
						 (opened.same_cluster ? PGMC_DONE_OWN_CLUSTER : 0));
	pgmc_slot_forget_request(slot);
}

static void
handle_open_failed(int i)
{
	Slot	   *slot = pgmc_slots[i];
	PgmcFailure failure;

	failure.sqlstate = pgmc_remote_error_sqlstate(slot->remote);
	strlcpy(failure.message, pgmc_remote_error(slot->remote),
			sizeof(failure.message));
	pgmc_slot_reply_fields(slot, PGMC_REPLY_LOST, failure.sqlstate, failure.message);
	pgmc_slot_forget_request(slot);
	pgmc_registry_open_failed(i, &failure, pgmc_remote_options_hash(slot->remote));
}

static void
handle_done(int i)
{
	Slot	   *slot = pgmc_slots[i];
	PgmcSlot	info;
	int64		rows;

	pgmc_registry_set_xact_status(i, pgmc_remote_xact_status(slot->remote));
	switch (slot->duty)
	{
		case DUTY_NONE:
			slot->lease.idle_since = GetCurrentTimestamp();
			pgmc_slot_forget_request(slot);
			if (pgmc_remote_bloated(slot->remote))
				pgmc_registry_expire(i);
			if (pgmc_remote_quiet_call(slot->remote, &rows) &&
				pgmc_registry_finish_call(i, rows))
				pgmc_slot_reset_out(slot);	/* the reply went by the registry */
			break;
		case DUTY_DROP:
			slot->duty = DUTY_NONE;
			slot->lease.idle_since = GetCurrentTimestamp();
			pgmc_slot_forget_all(slot);
			pgmc_channel_worker_aborted(pgmc_registry_channel(i), i);
			pgmc_registry_wake_holder(i);
			break;
		case DUTY_DRAIN:
		case DUTY_RECOVER:
			slot->duty = DUTY_RECOVER;
			pgmc_registry_slot(i, &info);
			slot->forget = slot->forget || info.last_session == 0;
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
	Slot	   *slot = pgmc_slots[i];

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
			note_idle(slot);
			if (slot->duty == DUTY_NONE && slot->out_sent < slot->out.len)
			{
				/* its last words go first */
				pgmc_registry_note_error(i, pgmc_remote_error(slot->remote));
				slot->lost_pending = true;
			}
			else
				finish_lost(i, pgmc_remote_error(slot->remote));
			break;
	}
}

/* ---- serving a slot ---- */

static void
obey_holder(int i)
{
	Slot	   *slot = pgmc_slots[i];
	bool		abort;
	uint64		cancel_epoch;
	uint16		cancel_seq;

	pgmc_channel_worker_asked(pgmc_registry_channel(i), &abort, &cancel_epoch,
							  &cancel_seq);
	if (abort && slot->duty == DUTY_NONE)
	{
		pgmc_slot_forget_all(slot);
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
	Slot	   *slot = pgmc_slots[i];
	uint64		epoch = slot->cancel_epoch;

	if (epoch == 0 || !slot->begun)
		return;
	slot->cancel_epoch = 0;
	if (slot->cancel_seq == slot->request.frame.seq &&
		epoch == pgmc_channel_epoch(pgmc_registry_channel(i)))
		pgmc_remote_cancel(slot->remote);
}

/* A holder who is sending a request, or has sent one, isn't idle. */
static void
note_coming(int i)
{
	Slot	   *slot = pgmc_slots[i];

	if (slot->lease.idle_since != 0 &&
		pgmc_channel_stirs(pgmc_registry_channel(i)))
		slot->lease.idle_since = GetCurrentTimestamp();
}

/* True when anything could be done. */
static bool
serve(int i, bool attention)
{
	Slot	   *slot = pgmc_slots[i];
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
	note_coming(i);
	if (slot->lease.epoch != 0 && lease_over(slot, GetCurrentTimestamp()))
	{
		end_lease(i);
		follow_registry(i);
	}
	while (again)
	{
		PgmcRemoteEvent event;
		bool		moved;

		again = false;
		if (slot->duty != DUTY_DRAIN && slot->duty != DUTY_RECOVER &&
			pgmc_channel_stirs(pgmc_registry_channel(i)))
		{
			obey_holder(i);
			if (slot->duty == DUTY_NONE && slot->out.len == 0)
				again = pgmc_slot_read(i);
			obey_cancel(i);
		}
		pgmc_remote_advance(slot->remote, ready, &slot->out);
		event = pgmc_remote_take_event(slot->remote);
		handle_event(i, event);
		moved = pgmc_slot_flush_out(i);
		if (slot->lost_pending && slot->out.len == 0)
			finish_lost(i, pgmc_remote_error(slot->remote));

		/* who hears of a loss shall find it in the registry, too */
		if (moved)
			pgmc_registry_wake_holder(i);
		ready = false;
		again = again || event != PGMC_REMOTE_NOTHING || moved ||
			pgmc_slot_sets_to_take(i);
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
	static MemoryContext context = NULL;	/* until it is a slot's: what is
											 * left of an attempt that has
											 * failed */
	Slot	   *slot;

	if (context != NULL)
		MemoryContextDelete(context);
	context = NULL;
	context = AllocSetContextCreate(TopMemoryContext, "pgmc slot",
									ALLOCSET_SMALL_SIZES);
	MemoryContextSwitchTo(context);
	slot = palloc0(sizeof(Slot));
	slot->context = context;
	slot->request_context = AllocSetContextCreate(context, "pgmc request",
												  ALLOCSET_DEFAULT_SIZES);
	slot->more_context = AllocSetContextCreate(context, "pgmc request's parts",
											   ALLOCSET_DEFAULT_SIZES);
	slot->remote = pgmc_remote_create(context);
	slot->socket = PGINVALID_SOCKET;
	slot->position = -1;
	slot->cancel_position = -1;
	initStringInfo(&slot->out);
	context = NULL;
	pgmc_slots[i] = slot;
	pgmc_nslots = Max(pgmc_nslots, i + 1);
}

/* What an error in a slot costs: its connection.  Raises nothing. */
static void
give_up(int i, const char *why)
{
	Slot	   *slot = pgmc_slots[i];

	if (slot == NULL)			/* there was no memory for it */
	{
		pgmc_registry_failed(i, why, false);
		return;
	}
	pgmc_remote_close(slot->remote);
	pgmc_remote_take_event(slot->remote);
	slot->duty = DUTY_NONE;
	slot->lost_pending = false;
	note_idle(slot);
	log_lost(i, why);
	pgmc_registry_failed(i, why, pgmc_slot_receiving(slot));

	/* the slot may have another holder now, who has no part in this */
	pgmc_slot_forget_all(slot);
}

/*
 * Serve a slot so that no error leaves it: it costs this slot its connection,
 * and its holder is told.
 */
static bool
serve_safely(int i, bool attention)
{
	volatile bool progress = true;

	PG_TRY();
	{
		if (pgmc_slots[i] == NULL)
			init_slot(i);
		MemoryContextSwitchTo(serve_context);
		progress = serve(i, attention);
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		/* what is emptied has room for this, be there any memory or not */
		MemoryContextSwitchTo(serve_context);
		MemoryContextReset(serve_context);
		edata = CopyErrorData();
		EmitErrorReport();
		FlushErrorState();
		give_up(i, edata->message);
	}
	PG_END_TRY();
	MemoryContextReset(serve_context);
	return progress;
}

static bool
needs_service(int i, TimestampTz now)
{
	Slot	   *slot = pgmc_slots[i];

	if (slot == NULL)
		return pgmc_channel_stirs(pgmc_registry_channel(i));
	if (slot->ready || slot->cancel_ready || pgmc_channel_stirs(pgmc_registry_channel(i)))
		return true;

	if (slot->deadline != 0 && now >= slot->deadline)
		return true;
	if (lease_over(slot, now))
		return true;

	/* room may have come where there was none */
	return slot->out.len > 0;
}

bool
pgmc_worker_serve(bool all, TimestampTz now)
{
	bool		attention = pgmc_registry_take_attention();
	bool		worked = false;
	int			n = Max(pgmc_registry_slots(), pgmc_nslots);

	if (serve_context == NULL)
		serve_context = AllocSetContextCreate(TopMemoryContext, "pgmc worker loop",
											  ALLOCSET_DEFAULT_SIZES);
	for (int i = 0; i < n; i++)
	{
		if ((all || attention || needs_service(i, now)) &&
			serve_safely(i, attention))
			worked = true;
	}
	return worked;
}
