/*
 * params.h
 *		The arguments of a call as parameters of a command.
 */
#ifndef PGMC_PARAMS_H
#define PGMC_PARAMS_H

#include "fmgr.h"

#include "wire.h"

/* the arguments as they come, whichever way they are written */
typedef struct PgmcArguments
{
	int			n;
	Oid		   *types;
	Datum	   *values;
	bool	   *nulls;
} PgmcArguments;

/* how the values of a type are written */
typedef enum PgmcWriting
{
	PGMC_WRITE_VARLENA_TEXT,	/* the bytes of a text */
	PGMC_WRITE_TEXT,			/* text that no setting changes */
	PGMC_WRITE_BINARY,			/* under the database's encoding */
	PGMC_WRITE_PORTABLE_TEXT	/* text, under settings of our own */
} PgmcWriting;

/* writes many values of one type */
typedef struct PgmcWriter
{
	PgmcWriting writing;
	FmgrInfo	function;
} PgmcWriter;

/* what pgmc_writers_begin has changed */
typedef struct PgmcWritersState
{
	int			encoding;		/* -1: nothing */
	int			nestlevel;		/* -1: nothing */
} PgmcWritersState;

/*
 * The call's arguments from number first on; they may be an array behind
 * VARIADIC.  Errors: 42804 VARIADIC without an array, 54000 too many.
 */
extern void pgmc_params_list(FunctionCallInfo fcinfo, int first,
							 PgmcArguments *args);

/*
 * Fill exec->params with the call's arguments from number first on; they may
 * be an array behind VARIADIC.  Built-in types keep their type; for others the
 * type is left to the server to infer.  Allocates in the current context.
 */
extern void pgmc_params_collect(FunctionCallInfo fcinfo, int first,
								PgmcExecute *exec);

/*
 * Prepare to write values of a type; param gets what all of them have in
 * common.  Lives in the current context.
 */
extern void pgmc_writer_init(PgmcWriter *writer, Oid type, PgmcParam *param);

/*
 * Append a value, not NULL, to a frame of sets.  To be called between begin
 * and end, which set what the writers depend on; no errors between them may
 * escape without a call of end.  Leaves garbage in the current context.
 */
extern void pgmc_writer_append(PgmcWriter *writer, Datum value, StringInfo buf);
extern void pgmc_writers_begin(const PgmcWriter *writers, int n,
							   PgmcWritersState *state);
extern void pgmc_writers_end(const PgmcWritersState *state);

#endif							/* PGMC_PARAMS_H */
