/*
 * server.h
 *		What a foreign server of the wrapper pgmc means to the current user:
 *		the right to use it, its key, and how to connect.
 */
#ifndef PGMC_SERVER_H
#define PGMC_SERVER_H

#include "options.h"
#include "registry.h"

typedef struct PgmcServer
{
	PgmcKey		key;
	NameData	srvname;
	PgmcServerOptions options;
	int			connect_timeout;	/* milliseconds, 0: no limit */
	PgmcConninfo info;			/* names of hosts not looked up yet */
	bool		own_database;	/* leads to the current database, if it leads
								 * to this cluster at all */
	bool		has_password;	/* of the user mapping, not an empty one */
	bool		trusted;		/* may connect without one: see server.c */
	bool		as_oneself;		/* or if it leads to this cluster */
	uint64		options_hash;	/* of all that a connection is made from */
	const char *description;	/* "host=... user=...", without secrets */
	uint64		as_of;			/* see pgmc_server_pool_size */
} PgmcServer;

/*
 * Look a server up for the current user.  What is returned lives until the next
 * call of this function in the same process.
 *
 * Errors: 42704 no such server, 42809 a server of another wrapper, 42501 no
 * right to use it.
 */
extern const PgmcServer *pgmc_server_resolve(const char *name);

/* The same, whatever its name is now; 42704 names it as it was known. */
extern const PgmcServer *pgmc_server_resolve_oid(Oid serverid,
												 const char *name);

/* A server by its name, without asking for a right; errors 42704, 42809. */
extern Oid	pgmc_server_oid(const char *name);

/* Is this the key of a connection that the current user may use?  No errors. */
extern bool pgmc_server_own_key(const PgmcKey *key);

/*
 * For one who waits for a server that was resolved, which mustn't be resolved
 * again meanwhile: its pool_size, as of now; false where it isn't there any more,
 * or nothing has changed since *as_of, which is the server's at first.
 */
extern bool pgmc_server_pool_size(const PgmcServer *server, uint64 *as_of,
								  int *pool_size);

/*
 * May a server or mapping of this database have been dropped since this was
 * asked last?  Then: is this the key of one?
 */
extern bool pgmc_server_perhaps_dropped(void);
extern bool pgmc_server_key_dropped(const PgmcKey *key);

/* The password rule, before anything is asked of the server.  Error: 2F003. */
extern void pgmc_server_check_password(const PgmcServer *server);

/*
 * May a connection that was opened like this serve the current user?  It may
 * have been opened by somebody with more rights.  Error: 2F003.
 */
extern void pgmc_server_check_connection(const PgmcServer *server,
										 bool used_password,
										 bool same_cluster);

/*
 * What libpq is given: names of hosts are looked up here (it may take the time
 * of a DNS query), because the worker must not.  NULL, or why that failed, in
 * libpq's words, palloc'd.
 */
extern const char *pgmc_server_lookup_hosts(const PgmcServer *server,
											PgmcConninfo *info);

/* Register the callbacks that make resolve look again; once a process. */
extern void pgmc_server_init(void);

#endif							/* PGMC_SERVER_H */
