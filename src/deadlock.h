/*
 * deadlock.h
 *		Deadlocks that the lock manager can't see, because a session waits for
 *		its loopback backend or for a connection.
 */
#ifndef PGMC_DEADLOCK_H
#define PGMC_DEADLOCK_H

#include "datatype/timestamp.h"

#include "registry.h"

/*
 * A wait, and when it shall be looked at; all but the first two begins as
 * zero.
 */
typedef struct PgmcWait
{
	const PgmcKey *key;			/* of the server that is waited for */
	bool		stream;			/* for more of what comes or goes by itself */
	TimestampTz since;
	TimestampTz next_check;
	int			polls;			/* instead of sleeping, so far */
} PgmcWait;

/*
 * To be called before each sleep of a wait.  Each time deadlock_timeout has
 * passed, or somebody else has found a deadlock, looks for a circle through this
 * session.  If there is one, and this wait is the youngest of pgmc's in it,
 * raises 40P01; has the youngest one look, if it is another.  Returns how many
 * milliseconds to sleep at most.  Takes the registry's and the lock manager's
 * locks, one after the other.
 */
extern long pgmc_deadlock_check(PgmcWait *wait);

/* The wait is over. */
extern void pgmc_deadlock_end(PgmcWait *wait);

#endif							/* PGMC_DEADLOCK_H */
