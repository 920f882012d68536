/*
 * counters.h
 *		What has happened on the connections of each key, added up.
 *
 * The counts are part of the registry's segment and have an entry (a "tally")
 * for each key.  Pools come and go with their connections, tallies stay: over
 * restarts of the worker, until the server stops or all PGMC_MAX_TALLIES are
 * taken and that of another key is the longest unused one.
 *
 * Whoever calls the functions below has the registry's lock, exclusively where
 * something changes; only pgmc_counters_command and _rows need no lock.  None
 * of them sleeps, allocates or raises an error.
 */
#ifndef PGMC_COUNTERS_H
#define PGMC_COUNTERS_H

#include "port/atomics.h"

#include "registry.h"

/* at least as many as there may be pools, which can't do without one */
#define PGMC_MAX_TALLIES	PGMC_MAX_CONNECTIONS

/* All fields are guarded by the registry's lock, except for the last two. */
typedef struct PgmcTally
{
	bool		pooled;			/* a pool counts here: it can't be given away */
	bool		dropped;		/* the server, the mapping or a role with this
								 * name was dropped, unless that was rolled
								 * back */
	PgmcKey		key;
	NameData	srvname;		/* as of the latest pool */
	TimestampTz last_used;		/* unless pooled */
	TimestampTz since;			/* what was before isn't counted */
	int			lost;			/* connections lost and not opened again */
	uint64		counts[PGMC_NCOUNTERS];
	double		wait_time;		/* milliseconds */
	double		hold_time;

	/* the worker adds to them, and pgmc_counters_reset clears them */
	pg_atomic_uint64 commands;
	pg_atomic_uint64 rows;
} PgmcTally;

typedef struct PgmcCounters
{
	int			ntallies;		/* in use: those below it */
	PgmcTally	tallies[PGMC_MAX_TALLIES];
} PgmcCounters;

extern void pgmc_counters_init(PgmcCounters *counters);

/* A pool is made: the tally of its key, which stays until the pool's end. */
extern int	pgmc_counters_begin(PgmcCounters *counters, const PgmcKey *key,
								const NameData *srvname);
extern void pgmc_counters_end(PgmcCounters *counters, int tally);

/* the tally of a key, or -1 */
extern int	pgmc_counters_find(const PgmcCounters *counters,
							   const PgmcKey *key);

extern void pgmc_counters_count(PgmcCounters *counters, int tally,
								PgmcCounter what);

/* A wait or a hold that began at start has ended now. */
extern void pgmc_counters_waited(PgmcCounters *counters, int tally,
								 TimestampTz start, TimestampTz now);
extern void pgmc_counters_held(PgmcCounters *counters, int tally,
							   TimestampTz start, TimestampTz now);

/* A connection was lost; one was opened: true where that makes up for a loss. */
extern void pgmc_counters_lost(PgmcCounters *counters, int tally);
extern bool pgmc_counters_opened(PgmcCounters *counters, int tally);

/* The worker runs a command, or has told a holder of so many rows.  No lock. */
extern void pgmc_counters_command(PgmcCounters *counters, int tally);
extern void pgmc_counters_rows(PgmcCounters *counters, int tally, int64 rows);

/* Those that match (see pgmc_registry_close_matching) are of no more interest. */
extern void pgmc_counters_drop(PgmcCounters *counters, Oid dbid, Oid serverid,
							   Oid umid, const char *login);

/* Begin again at zero: those of this server (InvalidOid: any) in this database. */
extern void pgmc_counters_reset(PgmcCounters *counters, Oid dbid, Oid serverid);

/* Copy a tally; false: there is none with this number or above it. */
extern bool pgmc_counters_copy(PgmcCounters *counters, int tally,
							   PgmcStats *stats);

#endif							/* PGMC_COUNTERS_H */
