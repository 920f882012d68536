/*
 * spin.h
 *		Polling for a moment instead of sleeping.
 *
 * Both ends of a channel do it where they expect an answer at once: the worker
 * for replies and requests, a holder for its reply.  Where it gains nothing it
 * is left alone, which each of them learns for itself.
 */
#ifndef PGMC_SPIN_H
#define PGMC_SPIN_H

#include "portability/instr_time.h"

/* microseconds since start */
static inline double
pgmc_elapsed(instr_time start)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, start);
	return INSTR_TIME_GET_MICROSEC(now);
}

/*
 * What has come of it so far, of one kind of wait: the process's own memory,
 * all zero at first.
 */
typedef struct PgmcSpinGain
{
	int			misses;			/* that count towards the next pause */
	int			last_pause;		/* 0: none since it was worth it */
	int			pause;			/* waits that are still due without it */
	instr_time	last;			/* when the latest wait began */
} PgmcSpinGain;

/* Is there something to do, besides what the latch tells? */
typedef bool (*PgmcSpinLook) (void *arg);

/*
 * Poll for up to pgmc.spin_time; true when there is something to do.  A latch
 * that was set is reset.  It sleeps nowhere and takes no lock; it raises what
 * "look" raises, which may be NULL: then only the latch is looked at.
 */
extern bool pgmc_spin(PgmcSpinGain *gain, PgmcSpinLook look, void *arg);

#endif							/* PGMC_SPIN_H */
