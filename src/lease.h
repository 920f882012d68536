/*
 * lease.h
 *		The time limits of a hold, hold_timeout and idle_hold_timeout.
 *
 * Only the worker watches them: the holder may be unable to.
 */
#ifndef PGMC_LEASE_H
#define PGMC_LEASE_H

#include "registry.h"

typedef struct PgmcLease
{
	uint64		epoch;			/* of the hold it is of, 0: no lease */
	TimestampTz end;			/* by hold_timeout, 0: none */
	int			idle_limit;		/* idle_hold_timeout, milliseconds, 0: none */
	TimestampTz idle_since;		/* 0: the holder's request is running */
} PgmcLease;

/*
 * Begin the lease of a slot's present hold, where it has limits and none has
 * begun; busy: a request of the holder is running.  To be called whenever the
 * slot's state may have changed.
 */
extern void pgmc_lease_follow(PgmcLease *lease, const PgmcSlot *slot, bool busy);

/* the end of a lease that there is; 0: it has none at the moment */
extern TimestampTz pgmc_lease_end(const PgmcLease *lease);

/* when the hold is to be revoked, 0: never */
static inline TimestampTz
pgmc_lease_deadline(const PgmcLease *lease)
{
	return lease->epoch == 0 ? 0 : pgmc_lease_end(lease);
}

#endif							/* PGMC_LEASE_H */
