/*
 * worker.c
 *		The one background worker of the cluster: its life and its loop.
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

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/sinval.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "log.h"
#include "settings.h"
#include "worker.h"
#include "worker_int.h"

#define TICK_MS		1000

/* What is open in a slot, and ends with the worker? */
static void
log_given_up(int i)
{
	PgmcXactStatus xact = pgmc_remote_xact_status(pgmc_slots[i]->remote);
	PgmcSlot	info;

	if (xact == PGMC_XACT_CLOSED || xact == PGMC_XACT_IDLE)
		return;
	pgmc_registry_slot(i, &info);
	if (info.state == PGMC_CONN_HELD)
		pgmc_log_given_up(&info, xact == PGMC_XACT_ACTIVE);
}

/* An error here is one more reason to exit, where everybody is told. */
static void
shut_down(void)
{
	pgmc_log_shutting_down();
	for (int i = 0; i < pgmc_nslots; i++)
		if (pgmc_slots[i] != NULL)
			log_given_up(i);
	proc_exit(0);
}

static void
handle_interrupts(void)
{
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		pgmc_registry_set_max_connections(pgmc_max_connections);
	}
	if (catchupInterruptPending)
		ProcessCatchupInterrupt();
	if (ShutdownRequestPending)
		shut_down();
}

static void
on_exit_worker(int code, Datum arg)
{
	const char *why = "the pgmc worker was terminated";

	for (int i = 0; i < pgmc_nslots; i++)
		if (pgmc_slots[i] != NULL)
		{
			pgmc_remote_close(pgmc_slots[i]->remote);
			if (pgmc_slot_receiving(pgmc_slots[i]))
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
	pgmc_remote_init();
	pgmc_registry_attach();
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
		pgmc_log_outdated();
	told = true;
	if (!pgmc_registry_worker_end_if_idle())
		return;
	for (int i = 0; i < pgmc_nslots; i++)
		if (pgmc_slots[i] != NULL &&
			pgmc_remote_state(pgmc_slots[i]->remote) != PGMC_REMOTE_CLOSED)
			pgmc_log_closing_outdated(NameStr(pgmc_slots[i]->opened_srvname));
	pgmc_log_leaving_outdated();
	proc_exit(0);
}

void
pgmc_worker_main(Datum arg)
{
	Clock		clock = {0, 0};

	set_up();
	if (!pgmc_registry_worker_begin())
		proc_exit(0);
	before_shmem_exit(on_exit_worker, (Datum) 0);

	for (;;)
	{
		TimestampTz now;
		bool		due;
		bool		worked;

		handle_interrupts();
		now = GetCurrentTimestamp();
		due = clock.tick_at != 0 && now >= clock.tick_at;
		if (due)
			pgmc_worker_tick(now);
		worked = pgmc_worker_serve(due, now);
		leave_if_outdated();
		wind_clock(&clock, now, due);
		pgmc_worker_wait(worked, now, clock.tick_at != 0 ?
						 clock.tick_at : clock.leave_at);
	}
}
