/*
 * params.h
 *		The arguments of a call as parameters of a command.
 */
#ifndef PGMC_PARAMS_H
#define PGMC_PARAMS_H

#include "fmgr.h"

#include "wire.h"

/*
 * Fill exec->params with the call's arguments from number first on; they may
 * be an array behind VARIADIC.  Built-in types keep their type; for others the
 * type is left to the server to infer.  Allocates in the current context.
 */
extern void pgmc_params_collect(FunctionCallInfo fcinfo, int first,
								PgmcExecute *exec);

#endif							/* PGMC_PARAMS_H */
