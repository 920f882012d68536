/*
 * lease_test.c
 *		When a hold's time is over: by either limit, with and without an opening,
 *		idle and at work.
 *
 * This is code of the server's, but calls nothing of it.
 */
#include "postgres.h"

#include "lease.h"

#include "tap.h"

#define NOW			INT64CONST(1000000000)
#define MS			INT64CONST(1000)
#define PATIENCE	(60 * 1000 * MS)

/* An open connection, held since NOW, with these limits in milliseconds. */
static PgmcSlot
held(int hold_timeout, int idle_hold_timeout)
{
	PgmcSlot	slot;

	memset(&slot, 0, sizeof(slot));
	slot.state = PGMC_CONN_HELD;
	slot.epoch = 1;
	slot.open = true;
	slot.backend_start = NOW - 5000 * MS;
	slot.holder.pid = 1;
	slot.holder.since = NOW;
	slot.hold_timeout = hold_timeout;
	slot.idle_hold_timeout = idle_hold_timeout;
	return slot;
}

/* when the lease of such a slot is over that has begun with it */
static TimestampTz
deadline_of(const PgmcSlot *slot, bool busy)
{
	PgmcLease	lease = {0};

	pgmc_lease_follow(&lease, slot, busy);
	return pgmc_lease_deadline(&lease);
}

static void
test_limits(void)
{
	PgmcSlot	slot = held(0, 0);

	ok(deadline_of(&slot, false) == 0, "no limit");
	slot = held(100, 0);
	ok(deadline_of(&slot, false) == NOW + 100 * MS, "hold_timeout");
	ok(deadline_of(&slot, true) == NOW + 100 * MS, "whatever is running");
	slot = held(0, 100);
	ok(deadline_of(&slot, false) == NOW + 100 * MS, "idle_hold_timeout");
	ok(deadline_of(&slot, true) == 0, "not while something is running");
	slot = held(300, 100);
	ok(deadline_of(&slot, false) == NOW + 100 * MS, "the sooner of both: idle_hold_timeout");
	ok(deadline_of(&slot, true) == NOW + 300 * MS, "or hold_timeout while something is running");
	slot = held(100, 300);
	ok(deadline_of(&slot, false) == NOW + 100 * MS, "or where it is the shorter one");
}

static void
test_states(void)
{
	static const PgmcConnState others[] = {
		PGMC_CONN_FREE, PGMC_CONN_IDLE, PGMC_CONN_RECOVERING, PGMC_CONN_CLOSING
	};
	PgmcLease	lease = {0};
	PgmcSlot	slot;

	for (int i = 0; i < lengthof(others); i++)
	{
		slot = held(100, 100);
		pgmc_lease_follow(&lease, &slot, false);
		slot.state = others[i];
		pgmc_lease_follow(&lease, &slot, false);
		ok(pgmc_lease_deadline(&lease) == 0, "none where nobody holds it (%d)", i);
	}
	slot = held(100, 100);
	pgmc_lease_follow(&lease, &slot, false);
	slot.opening = true;
	pgmc_lease_follow(&lease, &slot, true);
	ok(pgmc_lease_deadline(&lease) == 0, "none while it is being opened");
}

static void
test_opening(void)
{
	PgmcLease	lease = {0};
	PgmcSlot	slot = held(100, 0);

	slot.open = false;
	ok(deadline_of(&slot, false) == NOW + PATIENCE + 100 * MS,
	   "some time to ask for an opening");
	slot.broken = true;
	ok(deadline_of(&slot, false) == NOW + 100 * MS, "not where it was lost");

	slot = held(100, 200);
	slot.open = false;
	pgmc_lease_follow(&lease, &slot, false);
	slot.opening = true;
	pgmc_lease_follow(&lease, &slot, false);
	slot.opening = false;
	slot.open = true;
	slot.backend_start = NOW + 5000 * MS;
	pgmc_lease_follow(&lease, &slot, false);
	ok(pgmc_lease_deadline(&lease) == NOW + 5100 * MS, "its time begins when it is open");
	lease.idle_since = slot.backend_start;
	lease.end = 0;
	ok(pgmc_lease_deadline(&lease) == NOW + 5200 * MS, "and so does that of idleness");
}

static void
test_course(void)
{
	PgmcLease	lease = {0};
	PgmcSlot	slot = held(1000, 100);

	pgmc_lease_follow(&lease, &slot, false);
	lease.idle_since = 0;
	ok(pgmc_lease_deadline(&lease) == NOW + 1000 * MS, "a command begins");
	lease.idle_since = NOW + 500 * MS;
	ok(pgmc_lease_deadline(&lease) == NOW + 600 * MS, "and ends: idle from then on");
	lease.idle_since = NOW + 950 * MS;
	ok(pgmc_lease_deadline(&lease) == NOW + 1000 * MS, "the hold has its limit all the same");

	slot.hold_timeout = 5;
	slot.idle_hold_timeout = 5;
	slot.broken = true;
	slot.open = false;
	pgmc_lease_follow(&lease, &slot, false);
	ok(pgmc_lease_deadline(&lease) == NOW + 1000 * MS, "nothing changes it while the hold lasts");
	slot.epoch++;
	slot.broken = false;
	slot.open = true;
	slot.holder.since = NOW + 2000 * MS;
	pgmc_lease_follow(&lease, &slot, false);
	ok(pgmc_lease_deadline(&lease) == NOW + 2005 * MS, "the next hold has a lease of its own");
	slot.epoch++;
	slot.hold_timeout = slot.idle_hold_timeout = 0;
	pgmc_lease_follow(&lease, &slot, false);
	ok(pgmc_lease_deadline(&lease) == 0, "or none");
}

int
main(void)
{
	test_limits();
	test_states();
	test_opening();
	test_course();
	return done_testing();
}
