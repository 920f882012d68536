/*
 * launch.h
 *		Having a worker.
 */
#ifndef PGMC_LAUNCH_H
#define PGMC_LAUNCH_H

#include "datatype/timestamp.h"

/*
 * Return when a worker is running, starting one where there is none.  Waits
 * until deadline (0: as long as it takes), interruptibly.
 *
 * Errors: 53300 no worker slot (hint: max_worker_processes); 55P03 deadline;
 * 58000 the worker does not come up; 55000 it has a library of another layout.
 */
extern void pgmc_launch_worker(TimestampTz deadline);

/* End the worker and wait for it; false where there was none. */
extern bool pgmc_launch_stop(void);

#endif							/* PGMC_LAUNCH_H */
