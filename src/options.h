/*
 * options.h
 *		The options of pgmc's foreign servers and user mappings.
 */
#ifndef PGMC_OPTIONS_H
#define PGMC_OPTIONS_H

#include "nodes/pg_list.h"

#include "option_table.h"

/* pgmc's own options of a server */
typedef struct PgmcServerOptions
{
	int			pool_size;
	int			idle_timeout;	/* milliseconds, 0: none */
	int			max_lifetime;	/* milliseconds, 0: none */
	int			hold_timeout;	/* milliseconds, 0: none */
	int			idle_hold_timeout;	/* milliseconds, 0: none */
	bool		close_on_error;
	const char *reset_query;	/* "": none */
} PgmcServerOptions;

/*
 * Split the options of a server (DefElems, as the catalog has them) into
 * pgmc's own and libpq's; those of the dsn first, overridden by the others.
 */
extern void pgmc_options_read_server(List *options, PgmcServerOptions *own,
									 PgmcConninfo *info);

/* Add the options of a user mapping; *password_required unless it says false. */
extern void pgmc_options_read_mapping(List *options, PgmcConninfo *info,
									  bool *password_required);

#endif							/* PGMC_OPTIONS_H */
