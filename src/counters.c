/*
 * counters.c
 *		What has happened on the connections of each key, added up.
 *
 * Nearly everything is counted where the registry's lock is held exclusively
 * anyway, so it costs an addition.  Commands and rows are too frequent for
 * that, and the worker alone counts them, in atomics.  That the worker finds
 * the right tally without the lock is sure because a slot can't pass to
 * another pool while a request of its holder is being worked on.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "counters.h"

void
pgmc_counters_init(PgmcCounters *counters)
{
	counters->ntallies = 0;
	for (int i = 0; i < PGMC_MAX_TALLIES; i++)
	{
		pg_atomic_init_u64(&counters->tallies[i].commands, 0);
		pg_atomic_init_u64(&counters->tallies[i].rows, 0);
	}
}

static void
clear(PgmcTally *tally, TimestampTz now)
{
	memset(tally->counts, 0, sizeof(tally->counts));
	tally->wait_time = 0;
	tally->hold_time = 0;
	pg_atomic_write_u64(&tally->commands, 0);
	pg_atomic_write_u64(&tally->rows, 0);
	tally->since = now;
}

int
pgmc_counters_find(const PgmcCounters *counters, const PgmcKey *key)
{
	for (int i = 0; i < counters->ntallies; i++)
		if (pgmc_same_key(&counters->tallies[i].key, key))
			return i;
	return -1;
}

/* Is a a better one to take for another key than b? */
static bool
rather(const PgmcTally *a, const PgmcTally *b)
{
	if (a->dropped != b->dropped)
		return a->dropped;
	return a->last_used < b->last_used;
}

/*
 * One for a key that has none: a fresh one, else one that no pool needs, which
 * there is, as each pool has one and there are no more pools than tallies.
 */
static int
choose(PgmcCounters *counters)
{
	int			best = -1;

	if (counters->ntallies < PGMC_MAX_TALLIES)
		return counters->ntallies++;
	for (int i = 0; i < PGMC_MAX_TALLIES; i++)
		if (!counters->tallies[i].pooled &&
			(best < 0 || rather(&counters->tallies[i], &counters->tallies[best])))
			best = i;
	Assert(best >= 0);
	return best;
}

int
pgmc_counters_begin(PgmcCounters *counters, const PgmcKey *key,
					const NameData *srvname)
{
	int			i = pgmc_counters_find(counters, key);
	PgmcTally  *tally;

	if (i < 0)
	{
		i = choose(counters);
		tally = &counters->tallies[i];
		clear(tally, GetCurrentTimestamp());
		tally->lost = 0;
		tally->key = *key;
	}
	tally = &counters->tallies[i];
	tally->srvname = *srvname;
	tally->pooled = true;
	tally->dropped = false;
	return i;
}

void
pgmc_counters_end(PgmcCounters *counters, int tally)
{
	counters->tallies[tally].pooled = false;
	counters->tallies[tally].last_used = GetCurrentTimestamp();
}

void
pgmc_counters_count(PgmcCounters *counters, int tally, PgmcCounter what)
{
	counters->tallies[tally].counts[what]++;
}

/* milliseconds of this that are after the tally's latest reset */
static double
elapsed(const PgmcTally *tally, TimestampTz start, TimestampTz now)
{
	start = Max(start, tally->since);
	return now > start ? (now - start) / 1000.0 : 0;
}

void
pgmc_counters_waited(PgmcCounters *counters, int tally, TimestampTz start,
					 TimestampTz now)
{
	PgmcTally  *t = &counters->tallies[tally];

	t->wait_time += elapsed(t, start, now);
}

void
pgmc_counters_held(PgmcCounters *counters, int tally, TimestampTz start,
				   TimestampTz now)
{
	PgmcTally  *t = &counters->tallies[tally];

	t->hold_time += elapsed(t, start, now);
}

void
pgmc_counters_lost(PgmcCounters *counters, int tally)
{
	counters->tallies[tally].counts[PGMC_COUNT_FAILURES]++;
	counters->tallies[tally].lost++;
}

bool
pgmc_counters_opened(PgmcCounters *counters, int tally)
{
	PgmcTally  *t = &counters->tallies[tally];

	t->counts[PGMC_COUNT_OPENS]++;
	if (t->lost == 0)
		return false;
	t->lost--;
	return true;
}

void
pgmc_counters_command(PgmcCounters *counters, int tally)
{
	pg_atomic_fetch_add_u64(&counters->tallies[tally].commands, 1);
}

void
pgmc_counters_rows(PgmcCounters *counters, int tally, int64 rows)
{
	pg_atomic_fetch_add_u64(&counters->tallies[tally].rows, rows);
}

void
pgmc_counters_drop(PgmcCounters *counters, Oid dbid, Oid serverid, Oid umid,
				   const char *login)
{
	for (int i = 0; i < counters->ntallies; i++)
		if (pgmc_key_matches(&counters->tallies[i].key, dbid, serverid, umid,
							 login))
			counters->tallies[i].dropped = true;
}

void
pgmc_counters_reset(PgmcCounters *counters, Oid dbid, Oid serverid)
{
	TimestampTz now = GetCurrentTimestamp();

	for (int i = 0; i < counters->ntallies; i++)
		if (pgmc_key_matches(&counters->tallies[i].key, dbid, serverid,
							 InvalidOid, NULL))
			clear(&counters->tallies[i], now);
}

bool
pgmc_counters_copy(PgmcCounters *counters, int tally, PgmcStats *stats)
{
	PgmcTally  *t = &counters->tallies[tally];

	if (tally >= counters->ntallies)
		return false;
	stats->key = t->key;
	stats->srvname = t->srvname;
	stats->dropped = t->dropped && !t->pooled;
	stats->since = t->since;
	memcpy(stats->counts, t->counts, sizeof(stats->counts));
	stats->wait_time = t->wait_time;
	stats->hold_time = t->hold_time;
	stats->commands = pg_atomic_read_u64(&t->commands);
	stats->rows = pg_atomic_read_u64(&t->rows);
	return true;
}
