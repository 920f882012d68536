/*
 * settings.h
 *		pgmc's settings, defined in pgmc.c.
 */
#ifndef PGMC_SETTINGS_H
#define PGMC_SETTINGS_H

/* the caller's */
extern char *pgmc_default_server;
extern int	pgmc_acquire_timeout;	/* milliseconds, 0: none */
extern bool pgmc_session_holds;
extern int	pgmc_log_waits;		/* milliseconds, -1: off */

/* the worker's; the first two are also read by who polls, and who acquires */
extern int	pgmc_spin_time;		/* microseconds */
extern int	pgmc_max_connections;
extern int	pgmc_worker_linger; /* milliseconds */
extern int	pgmc_log_level;		/* of what it does by itself; below ERROR */

#endif							/* PGMC_SETTINGS_H */
