/*
 * hold.c
 *		The memory of holds.
 *
 * A hold has a large buffer.  One is kept for the next call, so that acquiring
 * and releasing allocate nothing.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "hold.h"

/* NULL while it is in use */
static PgmcHold *kept = NULL;

PgmcHold *
pgmc_hold_new(void)
{
	PgmcHold   *hold = kept;

	if (hold == NULL)
		hold = MemoryContextAlloc(TopMemoryContext, sizeof(PgmcHold));
	kept = NULL;

	/* the buffer is the last member, and has nothing in it by the others */
	memset(hold, 0, offsetof(PgmcHold, reader) + offsetof(PgmcReader, buf));
	return hold;
}

void
pgmc_hold_free(PgmcHold *hold)
{
	if (kept != NULL)
		pfree(hold);
	else
		kept = hold;
}
