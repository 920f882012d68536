/*
 * registry.c
 *		Makes the registry, or attaches it, in each process that uses pgmc.
 *
 * What is in it is in registry_int.h.  What is done with it is elsewhere:
 *
 *	registry_state.c	pools and their queues, the states of connections
 *	registry_session.c	what sessions do: acquire, wait, release, exit
 *	registry_worker.c	what is done with the worker, and what it does
 *	registry_view.c		who looks: views, errors, the search for deadlocks
 *
 * The last three call the first, and none of them another.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "registry_int.h"
#include "static_area.h"

Registry   *pgmc_reg = NULL;

static Size
registry_size(void)
{
	return offsetof(Registry, sessions) + mul_size(MaxBackends, sizeof(Session));
}

static void
init_registry(void *segment, Size size, int tranche, int old_worker)
{
	Registry   *r = segment;

	memset(r, 0, size);
	LWLockInitialize(&r->lock, tranche);
	r->tranche = tranche;
	r->nsessions = MaxBackends;
	pg_atomic_init_u32(&r->attention, 0);
	r->worker_state = PGMC_WORKER_NONE;
	r->worker_procno = NOBODY;
	r->gone_pid = old_worker;
	r->gone_since = GetCurrentTimestamp();
	ConditionVariableInit(&r->news);
	pgmc_counters_init(&r->counters);
	for (int i = 0; i < PGMC_MAX_CONNECTIONS; i++)
	{
		pg_atomic_init_u32(&r->conns[i].xact_status, PGMC_XACT_CLOSED);
		pg_atomic_init_u32(&r->conns[i].commit_xid, 0);
		pgmc_channel_init(&r->conns[i].channel, tranche);
		r->conns[i].holder = NOBODY;
	}
}

void
pgmc_registry_attach(void)
{
	if (pgmc_reg == NULL)
		pgmc_reg = pgmc_static_attach(registry_size(), init_registry);
}

bool
pgmc_registry_attach_existing(void)
{
	if (pgmc_reg == NULL)
		pgmc_reg = pgmc_static_attach(registry_size(), NULL);
	return pgmc_reg != NULL;
}

void
pgmc_registry_check_current(void)
{
	if (!pgmc_static_current())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the library of pgmc was replaced while this session was using it"),
				 errhint("Reconnect, so that this session loads the new library.")));
}

PgmcChannel *
pgmc_registry_channel(int slot)
{
	return &pgmc_reg->conns[slot].channel;
}

int
pgmc_registry_slots(void)
{
	return *(volatile int *) &pgmc_reg->high_water;
}

void
pgmc_registry_wake_worker(void)
{
	wake(*(volatile int *) &pgmc_reg->worker_procno);
}
