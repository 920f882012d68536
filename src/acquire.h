/*
 * acquire.h
 *		Acquiring a connection: a hold, see session.h, is what comes of it.
 */
#ifndef PGMC_ACQUIRE_H
#define PGMC_ACQUIRE_H

#include "session.h"

/*
 * Take a connection of the server, opening it where it is not; NULL when try
 * is set and somebody else has it.  Waits for at most timeout milliseconds
 * (0: no limit), lock_timeout and pgmc.acquire_timeout.
 *
 * Errors: 55006, 55P03, 53300, 08001 or what the refusing server gave, 08006.
 */
extern PgmcHold *pgmc_acquire_hold(const PgmcServer *server, PgmcScope scope,
								   bool try, int64 timeout);

/*
 * The same for one call, whose command may go out together with that: to be
 * followed by pgmc_session_execute with the same command and flags.
 */
extern PgmcHold *pgmc_acquire_for_call(const PgmcServer *server,
									   const PgmcExecute *exec, uint8 flags);

#endif							/* PGMC_ACQUIRE_H */
