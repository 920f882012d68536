/*
 * options.h
 *		What a foreign server of the wrapper pgmc means to the current user:
 *		the right to use it, its key, and how to connect.
 */
#ifndef PGMC_OPTIONS_H
#define PGMC_OPTIONS_H

#include "registry.h"

typedef struct PgmcServer
{
	PgmcKey		key;
	NameData	srvname;
	int			pool_size;
	int			connect_timeout;	/* milliseconds */
	int			idle_timeout;	/* milliseconds, 0: none */
	const char *reset_query;	/* "": none */
	bool		own_database;	/* leads to the current database, if it leads
								 * to this cluster at all */
	int			npairs;			/* what libpq is given */
	const char **keywords;
	const char **values;
	uint64		options_hash;	/* of all that a connection is made from */
	const char *description;	/* "host=... user=...", without secrets */
} PgmcServer;

/*
 * Look a server up for the current user.  What is returned lives until the next
 * call of this function in the same process.
 *
 * Errors: 42704 no such server, 42809 a server of another wrapper, 42501 no
 * right to use it.
 */
extern const PgmcServer *pgmc_options_resolve(const char *name);

/* A server by its name, without asking for a right; errors 42704, 42809. */
extern Oid	pgmc_options_server_oid(const char *name);

/* Is this the key of a connection that the current user may use?  No errors. */
extern bool pgmc_options_own_key(const PgmcKey *key);

/* Register the callbacks that make resolve look again; once a process. */
extern void pgmc_options_init(void);

#endif							/* PGMC_OPTIONS_H */
