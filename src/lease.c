/*
 * lease.c
 *		The time limits of a hold, hold_timeout and idle_hold_timeout.
 *
 * A lease begins when the connection is usable: the time that an opening takes
 * is not the holder's, and has a limit of its own.  So a holder who is still
 * on its way to ask for the opening has some time for that, though not for
 * ever; when the connection is open, its lease begins anew.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "lease.h"
#include "moment.h"

/* with who shall ask for an opening */
#define OPENING_PATIENCE_MS (60 * 1000)

void
pgmc_lease_follow(PgmcLease *lease, const PgmcSlot *slot, bool busy)
{
	TimestampTz begin = slot->holder.since;

	if (slot->state != PGMC_CONN_HELD || slot->opening ||
		(slot->hold_timeout == 0 && slot->idle_hold_timeout == 0))
	{
		lease->epoch = 0;
		return;
	}
	if (lease->epoch == slot->epoch)
		return;
	if (!slot->open && !slot->broken)
		begin = TimestampTzPlusMilliseconds(begin, OPENING_PATIENCE_MS);
	else if (slot->open)
		begin = Max(begin, slot->backend_start);
	lease->epoch = slot->epoch;
	lease->end = slot->hold_timeout == 0 ? 0 :
		TimestampTzPlusMilliseconds(begin, slot->hold_timeout);
	lease->idle_limit = slot->idle_hold_timeout;
	lease->idle_since = busy ? 0 : begin;
}

TimestampTz
pgmc_lease_end(const PgmcLease *lease)
{
	TimestampTz idle_end;

	idle_end = lease->idle_limit == 0 || lease->idle_since == 0 ? 0 :
		TimestampTzPlusMilliseconds(lease->idle_since, lease->idle_limit);
	return pgmc_sooner(lease->end, idle_end);
}
