/*
 * launch.c
 *		Having a worker.
 *
 * Whoever finds none marks it as starting, in the registry, and registers a
 * background worker; everybody else waits for the mark to change.  A mark that
 * a dead starter has left is taken over.
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "launch.h"
#include "registry.h"

/* how often one that waits looks whether the worker or its starter has died */
#define LOOK_EVERY_MS	100

/* and how often one that needs its worker slot tries to get it */
#define REGISTER_EVERY_MS	10

static uint32
wait_event(void)
{
	static uint32 event = 0;

	if (event == 0)
		event = pgmc_wait_event_new("PgmcWorkerStart");
	return event;
}

static void
check_deadline(TimestampTz deadline)
{
	if (deadline == 0 || GetCurrentTimestamp() < deadline)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("timed out while the pgmc worker was starting")));
}

/* False: no worker slot is free, and the last worker has given back its own. */
static bool
register_patiently(BackgroundWorker *worker, TimestampTz deadline,
				   BackgroundWorkerHandle **handle)
{
	while (!RegisterDynamicBackgroundWorker(worker, handle))
	{
		if (!pgmc_registry_worker_leaving())
			return false;
		check_deadline(deadline);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 REGISTER_EVERY_MS, wait_event());
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	return true;
}

static BackgroundWorkerHandle *
register_worker(TimestampTz deadline)
{
	BackgroundWorker worker;
	BackgroundWorkerHandle *handle;
	bool		registered;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_ConsistentState;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	strlcpy(worker.bgw_name, "pgmc worker", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "pgmc worker", BGW_MAXLEN);
	strlcpy(worker.bgw_library_name, "pgmc", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "pgmc_worker_main",
			sizeof(worker.bgw_function_name));

	PG_TRY();
	{
		registered = register_patiently(&worker, deadline, &handle);
	}
	PG_CATCH();
	{
		(void) pgmc_registry_start_failed();
		PG_RE_THROW();
	}
	PG_END_TRY();
	if (!registered)
	{
		(void) pgmc_registry_start_failed();
		ereport(ERROR,
				(errcode(ERRCODE_TOO_MANY_CONNECTIONS),
				 errmsg("no background worker slot is free for the pgmc worker"),
				 errhint("Raise \"max_worker_processes\" and restart the server.")));
	}
	return handle;
}

/*
 * Has the worker that we registered ended without ever being ready?  One that
 * was, and was terminated then, has taken our mark away.
 */
static void
check_started(BackgroundWorkerHandle *handle)
{
	pid_t		pid;

	if (handle == NULL || GetBackgroundWorkerPid(handle, &pid) != BGWH_STOPPED)
		return;
	if (!pgmc_registry_start_failed())
		return;
	ereport(ERROR,
			(errcode(ERRCODE_SYSTEM_ERROR),
			 errmsg("the pgmc worker did not start"),
			 errhint("The server's log may tell why.")));
}

void
pgmc_launch_worker(TimestampTz deadline)
{
	BackgroundWorkerHandle *handle = NULL;
	ConditionVariable *cv = pgmc_registry_news_cv();
	PgmcWorkerState state;
	int			pid;

	if (pgmc_registry_worker(&pid) == PGMC_WORKER_RUNNING)
		return;

	ConditionVariablePrepareToSleep(cv);
	while ((state = pgmc_registry_claim_start(&pid)) != PGMC_WORKER_RUNNING)
	{
		if (state == PGMC_WORKER_NONE)
			handle = register_worker(deadline);

		/* the worker may be one of another layout, and never turn up here */
		pgmc_registry_check_current();
		check_started(handle);
		check_deadline(deadline);
		ConditionVariableTimedSleep(cv, LOOK_EVERY_MS, wait_event());
	}
	ConditionVariableCancelSleep();
}

bool
pgmc_launch_stop(void)
{
	ConditionVariable *cv = pgmc_registry_news_cv();
	int			pid;
	int			now_pid;

	if (pgmc_registry_worker(&pid) != PGMC_WORKER_RUNNING)
		return false;
	if (kill(pid, SIGTERM) != 0)
		return false;

	ConditionVariablePrepareToSleep(cv);
	while (pgmc_registry_worker(&now_pid) == PGMC_WORKER_RUNNING && now_pid == pid)
		ConditionVariableTimedSleep(cv, LOOK_EVERY_MS, wait_event());
	ConditionVariableCancelSleep();
	return true;
}
