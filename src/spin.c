/*
 * spin.c
 *		Polling for a moment instead of sleeping.
 *
 * As long as a process doesn't say that it may sleep, whoever sets its latch
 * needs no system call for that, and it needs none to find out.  What it saves
 * above all is waking up a processor that has gone to sleep meanwhile.
 */
#include "postgres.h"

#include <sched.h>

#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/s_lock.h"

#include "settings.h"
#include "spin.h"

/*
 * After so many vain attempts in a row there is a pause of so many waits, twice
 * as many each time, up to a limit; then some more attempts.  These must be
 * several, and the pauses not too long: the other side learns as well, and
 * neither gains anything while the other one sleeps.
 */
#define SPIN_MISSES		16
#define SPIN_TRIALS		8
#define SPIN_PAUSE		16
#define SPIN_PAUSE_MAX	128

/*
 * After so many times pgmc.spin_time without a wait, what was learnt is
 * forgotten: something else may have begun.  So what polling in vain costs of
 * a processor is limited to a hundredth.
 */
#define SPIN_FORGET		100

#define LATCH_LOOKS		16

static void
note_spin(PgmcSpinGain *gain, bool found)
{
	if (found)
	{
		gain->misses = 0;
		gain->last_pause = 0;
	}
	else if (++gain->misses >= SPIN_MISSES)
	{
		gain->misses = SPIN_MISSES - SPIN_TRIALS;
		gain->last_pause = Min(Max(2 * gain->last_pause, SPIN_PAUSE),
							   SPIN_PAUSE_MAX);
		gain->pause = gain->last_pause;
	}
}

/* Look at the latch for a microsecond or so, which costs no system call. */
static bool
latch_set_soon(void)
{
	for (int i = 0; i < LATCH_LOOKS; i++)
	{
		if (*(volatile sig_atomic_t *) &MyLatch->is_set)
		{
			ResetLatch(MyLatch);
			return true;
		}
		SPIN_DELAY();
	}
	return false;
}

/* A wait begins: is it to be one without polling? */
static bool
pauses(PgmcSpinGain *gain)
{
	instr_time	now;
	instr_time	rest;

	INSTR_TIME_SET_CURRENT(now);
	rest = now;
	INSTR_TIME_SUBTRACT(rest, gain->last);
	gain->last = now;
	if (INSTR_TIME_GET_MICROSEC(rest) > SPIN_FORGET * (double) pgmc_spin_time)
		gain->misses = gain->last_pause = gain->pause = 0;
	if (gain->pause == 0)
		return false;
	gain->pause--;
	return true;
}

/* The processor is offered to others: one of them may be who we wait for. */
bool
pgmc_spin(PgmcSpinGain *gain, PgmcSpinLook look, void *arg)
{
	bool		last;
	bool		found;

	if (pgmc_spin_time <= 0 || pauses(gain))
		return false;
	do
	{
		/* others may have had the processor for long: then for the last time */
		last = pgmc_elapsed(gain->last) >= pgmc_spin_time;
		found = latch_set_soon() || (look != NULL && look(arg));
		if (!found && !last)
			sched_yield();
	} while (!found && !last);

	/* what comes when the time is over would have woken a sleeper as well */
	note_spin(gain, found && !last);
	return found;
}
