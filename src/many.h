/*
 * many.h
 *		A command for many sets of parameters, from arrays.
 */
#ifndef PGMC_MANY_H
#define PGMC_MANY_H

#include "fmgr.h"

#include "session.h"

/*
 * Run a command in the hold for each set of parameters: the call's arguments
 * from number first on are arrays, one for each parameter, which are paired as
 * unnest pairs them.  Returns how many rows that affected or returned.
 *
 * Errors: those of pgmc_session_execute, 42804 not an array, 0A000 COPY.
 */
extern int64 pgmc_many_execute(FunctionCallInfo fcinfo, int first,
							   PgmcHold *hold, const char *command);

#endif							/* PGMC_MANY_H */
