/*
 * options.h
 *		The options of pgmc's foreign servers and user mappings.
 *
 * The table of options is pgmc's own few and whatever the libpq at hand knows,
 * so a new libpq brings its new options with it.
 */
#ifndef PGMC_OPTIONS_H
#define PGMC_OPTIONS_H

#include "nodes/pg_list.h"

/* libpq keywords with their values, in libpq's order, each at most once */
typedef struct PgmcConninfo
{
	int			n;
	const char **keywords;		/* NULL-terminated */
	const char **values;
} PgmcConninfo;

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

/* Set a keyword; a value of NULL or "" takes it out. */
extern void pgmc_conninfo_set(PgmcConninfo *info, const char *keyword,
							  const char *value);

/* its value, or NULL */
extern const char *pgmc_conninfo_get(const PgmcConninfo *info,
									 const char *keyword);

/* "host=... port=...", without secrets and what pgmc sets for itself */
extern char *pgmc_conninfo_describe(const PgmcConninfo *info);

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
