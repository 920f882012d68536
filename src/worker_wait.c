/*
 * worker_wait.c
 *		How the worker waits: in one wait set for its latch and all sockets, or
 *		by polling them for a moment before that.
 *
 * So while holds are active, a call costs the worker no process switch.
 */
#include "postgres.h"

#include <poll.h>

#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "moment.h"
#include "spin.h"
#include "worker_int.h"

#define MAX_EVENTS	64

static WaitEventSet *wait_set = NULL;

/* ---- sleeping ---- */

/* Is the set of sockets in the wait set still the right one? */
static bool
wait_set_current(void)
{
	for (int i = 0; i < pgmc_nslots; i++)
	{
		Slot	   *slot = pgmc_slots[i];
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
	for (int i = 0; i < pgmc_nslots; i++)
		if (pgmc_slots[i] != NULL)
			n += 2;
	wait_set = pgmc_wait_set_create(n);
	AddWaitEventToSet(wait_set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(wait_set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	for (int i = 0; i < pgmc_nslots; i++)
	{
		Slot	   *slot = pgmc_slots[i];
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
	for (int i = 0; i < pgmc_nslots; i++)
	{
		Slot	   *slot = pgmc_slots[i];
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
	for (int i = 0; i < pgmc_nslots; i++)
	{
		if (pgmc_slots[i] == NULL)
			continue;
		deadline = pgmc_sooner(deadline, pgmc_slots[i]->deadline);
		deadline = pgmc_sooner(deadline, pgmc_lease_deadline(&pgmc_slots[i]->lease));
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
wait_for_work(long timeout)
{
	static uint32 wait_event = 0;
	WaitEvent	events[MAX_EVENTS];
	int			n;

	if (wait_event == 0)
		wait_event = pgmc_wait_event_new("PgmcWorkerMain");
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

/* ---- polling, instead of sleeping, for a while ---- */

/* between two looks at everything that the polling doesn't see */
#define FULL_LOOK_US	1000

/* the slots whose backends owe a reply */
typedef struct Busy
{
	int			n;
	Slot	   *slots[MAX_EVENTS];
} Busy;

/* false: something waits to be written, which polling doesn't see */
static bool
list_busy(Busy *busy)
{
	busy->n = 0;
	for (int i = 0; i < pgmc_nslots; i++)
		if (pgmc_slots[i] != NULL && (pgmc_slots[i]->events & WL_SOCKET_WRITEABLE))
			return false;

	for (int i = 0; i < pgmc_nslots && busy->n < MAX_EVENTS; i++)
	{
		Slot	   *slot = pgmc_slots[i];

		if (slot != NULL && slot->position >= 0 &&
			pgmc_remote_awaits_reply(slot->remote) &&
			(slot->events & WL_SOCKET_READABLE) != 0)
			busy->slots[busy->n++] = slot;
	}
	return true;
}

/*
 * Have any of these connections got something?  One is asked by reading from
 * it, which then needn't be done any more; several by one system call.
 */
static bool
any_reply(void *arg)
{
	Busy	   *busy = arg;
	struct pollfd fds[MAX_EVENTS];
	bool		found = false;

	if (busy->n == 1)
	{
		Slot	   *slot = busy->slots[0];

		slot->ready = pgmc_remote_peek(slot->remote, &slot->out);
		return slot->ready;
	}
	for (int i = 0; i < busy->n; i++)
	{
		fds[i].fd = busy->slots[i]->socket;
		fds[i].events = POLLIN;
	}
	if (poll(fds, busy->n, 0) <= 0)
		return false;
	for (int i = 0; i < busy->n; i++)
		if (fds[i].revents != 0)
			busy->slots[i]->ready = found = true;
	return found;
}

/* Poll for backends' replies if any are owed, else for holders' requests. */
static bool
spin(void)
{
	static PgmcSpinGain reply_gain;
	static PgmcSpinGain request_gain;
	Busy		busy;

	if (!list_busy(&busy))
		return false;
	if (busy.n == 0)
		return pgmc_spin(&request_gain, NULL, NULL);
	return pgmc_spin(&reply_gain, any_reply, &busy);
}

/*
 * Right after some work: poll, but look at everything now and then.  True when
 * there is more to do.
 */
static bool
spin_or_look(instr_time *last_look)
{
	if (pgmc_elapsed(*last_look) >= FULL_LOOK_US)
	{
		INSTR_TIME_SET_CURRENT(*last_look);
		if (wait_for_work(0) > 0)
			return true;
	}
	return spin();
}

/* ---- either ---- */

void
pgmc_worker_wait(bool worked, TimestampTz now, TimestampTz deadline)
{
	static instr_time last_look;	/* 0 at first: look at once */

	update_wait_set();
	if (worked && spin_or_look(&last_look))
		return;
	wait_for_work(next_timeout(now, deadline));
	INSTR_TIME_SET_CURRENT(last_look);
}
