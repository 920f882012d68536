/*
 * await.h
 *		Waiting for the worker's part of a request, and being interrupted in it.
 */
#ifndef PGMC_AWAIT_H
#define PGMC_AWAIT_H

#include "compat.h"
#include "deadlock.h"
#include "hold.h"

/*
 * Wait until the worker may have done something: poll for a moment, the first
 * few times, then sleep; in a stream, where a longer sleep finds more, at once.
 * wait is kept by the caller over all sleeps of one wait.  Errors: 40P01;
 * 55P03, where an opening has passed the hold's deadline; and those of an
 * interrupt, unless the hold's request may commit: then it is passed on to the
 * loopback statement and kept.
 */
extern void pgmc_await_worker(PgmcHold *hold, PgmcWait *wait);

/*
 * Make the hold ready for a request: wait until the worker has ended one that
 * was dropped.  Errors: 08006, 25P03, 55006 (a call within a call).
 */
extern void pgmc_await_settle(PgmcHold *hold);

/* The same for a hold that may be lost or revoked: whether it is, instead of an error. */
extern PgmcChannelState pgmc_await_settled(PgmcHold *hold);

/* Will CHECK_FOR_INTERRUPTS end what this session is doing? */
extern bool pgmc_await_interrupted(void);

/*
 * Raise the error for a hold whose connection is lost, under this error code,
 * which may be 08007, with the reason as its DETAIL where there is one.
 */
extern PGMC_NORETURN void pgmc_await_raise_lost(const PgmcHold *hold,
												int sqlstate, const char *why);

/*
 * The same for one that is lost (08006), for the reason in the registry, or was
 * revoked (25P03).
 */
extern PGMC_NORETURN void pgmc_await_raise(const PgmcHold *hold,
										   PgmcChannelState state);

/*
 * Raise it in the middle of a request, whose replies are all read.  Where it
 * may have committed, that is resolved before, which may wait, and left in the
 * hold's fate; 08007 or 25P03 where it isn't known, and also where it has
 * committed: that is for the caller to take.
 */
extern PGMC_NORETURN void pgmc_await_end(PgmcHold *hold, PgmcChannelState state);

#endif							/* PGMC_AWAIT_H */
