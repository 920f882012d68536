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

#endif							/* PGMC_LOG_H */
