/*
 * log.h
 *		What the worker does by itself, told in the server's log.
 *
 * One line for each act, with its reason, at the level of pgmc.log_level.  What
 * a session has asked for and is told itself is not among it, nor is the
 * routine of a clean hand-over.  None of it tells more of a connection than
 * the view pgmc.connections.
 */
#ifndef PGMC_LOG_H
#define PGMC_LOG_H

#include "registry.h"

/* A connection has ended without being asked to. */
extern void pgmc_log_lost(const PgmcSlot *slot, const char *reason);

/* One was opened in place of one that had been lost. */
extern void pgmc_log_reopened(const PgmcSlot *slot);

/* One is closed; silent about what a session has asked for. */
extern void pgmc_log_closing(const char *srvname, PgmcCloseReason why);

/* A hold has reached its time limit; idle: that without a command. */
extern void pgmc_log_revoked(const PgmcSlot *slot, bool idle);

/*
 * What its holder has left is rolled back or, where running, cancelled; silent
 * where there is nothing.
 */
extern void pgmc_log_recovery(const PgmcSlot *slot, bool running);

/* The worker ends because nobody needs it. */
extern void pgmc_log_leaving(void);

/*
 * There is a newer library than the worker's, so it is going to end; then it
 * closes each connection; and ends.
 */
extern void pgmc_log_outdated(void);
extern void pgmc_log_closing_outdated(const char *srvname);
extern void pgmc_log_leaving_outdated(void);

/*
 * The worker was told to end; and so ends the transaction that a connection's
 * holder has open, or the command that is running.
 */
extern void pgmc_log_shutting_down(void);
extern void pgmc_log_given_up(const PgmcSlot *slot, bool running);

#endif							/* PGMC_LOG_H */
