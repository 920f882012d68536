/*
 * result.h
 *		What came back: remote errors raised here, remote rows stored here.
 */
#ifndef PGMC_RESULT_H
#define PGMC_RESULT_H

#include "fmgr.h"

#include "compat.h"
#include "wire.h"

/*
 * Report what the loopback server reported, at this level: all fields as they
 * were, one CONTEXT line naming the server.  command: what was run, for a
 * position in it; may be NULL.
 */
extern void pgmc_report(int elevel, const PgmcFields *fields,
						const char *srvname, const char *command);

/* The error code of a report; that of an internal error where it has none. */
extern int	pgmc_result_sqlstate(const PgmcFields *fields);

/* the server's level for a notice's severity */
extern int	pgmc_notice_level(const PgmcFields *fields);

#endif							/* PGMC_RESULT_H */
