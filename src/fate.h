/*
 * fate.h
 *		What became of a request that may have committed, in an error's words.
 *
 * Such words are a whole sentence for the DETAIL.  Nothing here waits or takes
 * a lock.
 */
#ifndef PGMC_FATE_H
#define PGMC_FATE_H

#include "hold.h"

extern const char *pgmc_fate_text(PgmcFate fate);

/* The fate of a request that has ended, as its outcome tells it. */
extern PgmcFate pgmc_fate_of(const PgmcHold *hold, const PgmcOutcome *outcome);

/*
 * For an error after the end of a request: what it has committed nevertheless,
 * or NULL.
 */
extern const char *pgmc_fate_detail(const PgmcHold *hold,
									const PgmcOutcome *outcome);

/* Append it to the DETAIL of an error, in the current memory context. */
extern void pgmc_fate_add(ErrorData *edata, PgmcFate fate);

/* CHECK_FOR_INTERRUPTS, whose error tells the fate. */
extern void pgmc_fate_process_interrupts(PgmcFate fate);

/* Let the sink judge the whole; its error tells what was committed. */
extern void pgmc_fate_end_sink(const PgmcHold *hold, PgmcSink *sink,
							   const PgmcOutcome *outcome);

#endif							/* PGMC_FATE_H */
