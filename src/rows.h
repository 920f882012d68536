/*
 * rows.h
 *		Rows of a loopback command as the result of a set-returning function.
 */
#ifndef PGMC_ROWS_H
#define PGMC_ROWS_H

#include "fmgr.h"

#include "session.h"

typedef struct PgmcRows PgmcRows;

/* Error 0A000 unless the call may return rows; before anything is run. */
extern void pgmc_rows_check(FunctionCallInfo fcinfo);

/*
 * Prepare the call's result.  Errors: 0A000 where the call has no column
 * definition list, as outside FROM.
 */
extern PgmcRows *pgmc_rows_begin(FunctionCallInfo fcinfo, bool own_database);

/*
 * The sink for the command's rows.  Errors raised while it works: 42804 wrong
 * number of columns, or no result at all, and those of the types' input
 * functions.
 */
extern PgmcSink *pgmc_rows_sink(PgmcRows *rows);

/* Which flags to run this command with: its format where it is known already. */
extern uint8 pgmc_rows_flags(PgmcRows *rows, const PgmcExecute *exec);

/* Undo what must not outlive the call; also after an error. */
extern void pgmc_rows_clean_up(PgmcRows *rows);

#endif							/* PGMC_ROWS_H */
