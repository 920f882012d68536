/*
 * worker.h
 *		The one background worker of the cluster, which owns every PGconn.
 */
#ifndef PGMC_WORKER_H
#define PGMC_WORKER_H

/* entry point of the background worker; never returns to its caller's work */
extern PGDLLEXPORT void pgmc_worker_main(Datum arg);

#endif							/* PGMC_WORKER_H */
