/*
 * stats.c
 *		The rows of the views pgmc.connections and pgmc.stat_connections.
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "compat.h"
#include "registry.h"
#include "server.h"
#include "session.h"
#include "transfer.h"

PG_FUNCTION_INFO_V1(pgmc_get_connections);
PG_FUNCTION_INFO_V1(pgmc_get_stat_connections);
PG_FUNCTION_INFO_V1(pgmc_stat_reset);

#define MAX_COLUMNS	17

static const char *
state_name(const PgmcSlot *slot)
{
	switch (slot->state)
	{
		case PGMC_CONN_FREE:
			break;
		case PGMC_CONN_HELD:
			return slot->broken ? "broken" : slot->open ? "held" : "opening";
		case PGMC_CONN_IDLE:
			return "idle";
		case PGMC_CONN_RECOVERING:
			return "recovering";
		case PGMC_CONN_CLOSING:
			return "closing";
	}
	return "free";
}

/* one row under construction */
typedef struct Row
{
	Datum		values[MAX_COLUMNS];
	bool		nulls[MAX_COLUMNS];
	int			n;
} Row;

static void
add_value(Row *row, Datum value, bool isnull)
{
	Assert(row->n < MAX_COLUMNS);
	row->values[row->n] = value;
	row->nulls[row->n] = isnull;
	row->n++;
}

static void
add_name(Row *row, const char *value)
{
	Name		name = palloc0(NAMEDATALEN);

	if (value != NULL)
		namestrcpy(name, pgmc_transfer_clean(value));
	add_value(row, NameGetDatum(name), value == NULL);
}

static void
add_text(Row *row, const char *value)
{
	bool		isnull = value == NULL || value[0] == '\0';

	add_value(row, isnull ? (Datum) 0 : CStringGetTextDatum(pgmc_transfer_clean(value)), isnull);
}

/* May the current user see more of a key's connections than that they are there? */
static bool
may_see(const PgmcKey *key)
{
	return has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS) ||
		pgmc_server_own_key(key);
}

static void
add_holder(Row *row, const PgmcSlot *slot, bool visible)
{
	const PgmcHolder *holder = &slot->holder;
	bool		show = visible && holder->pid != 0;

	add_value(row, Int32GetDatum(holder->pid), !show);
	add_name(row, show ? GetUserNameFromId(holder->userid, true) : NULL);
	add_text(row, show ? holder->appname : NULL);
	add_value(row, TimestampTzGetDatum(holder->since), !show);
}

/* Who waits and since when, as two arrays. */
static void
add_queue(Row *row, const PgmcQueued *queued, int n, bool visible)
{
	Datum	   *pids = palloc(Max(n, 1) * sizeof(Datum));
	Datum	   *starts = palloc(Max(n, 1) * sizeof(Datum));

	for (int i = 0; i < n; i++)
	{
		pids[i] = Int32GetDatum(queued[i].pid);
		starts[i] = TimestampTzGetDatum(queued[i].since);
	}
	add_value(row, PointerGetDatum(construct_array(pids, n, INT4OID,
												   sizeof(int32), true,
												   TYPALIGN_INT)),
			  !visible);
	add_value(row, PointerGetDatum(construct_array(starts, n, TIMESTAMPTZOID,
												   sizeof(TimestampTz),
												   FLOAT8PASSBYVAL,
												   TYPALIGN_DOUBLE)),
			  !visible);
}

static void
fill_row(Row *row, const PgmcSlot *slot, const PgmcQueued *queued)
{
	bool		visible = may_see(&slot->key);

	row->n = 0;
	add_name(row, get_database_name(slot->key.dbid));
	add_name(row, NameStr(slot->srvname));
	add_name(row, NameStr(slot->key.login));
	add_text(row, visible ? state_name(slot) : NULL);
	add_text(row, visible ? pgmc_xact_status_name(slot->xact_status) : NULL);
	add_value(row, Int32GetDatum(slot->backend_pid), slot->backend_pid == 0);
	add_value(row, TimestampTzGetDatum(slot->backend_start),
			  !visible || slot->backend_start == 0);
	add_holder(row, slot, visible);
	add_value(row, Int32GetDatum(slot->waiters), !visible);
	add_text(row, visible ? slot->last_error : NULL);
	add_value(row, BoolGetDatum(slot->same_cluster), false);
	add_queue(row, queued, slot->waiters, visible);
}

static void
put_row(ReturnSetInfo *rsinfo, Row *row)
{
	Assert(row->n == rsinfo->setDesc->natts);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, row->values,
						 row->nulls);
}

Datum
pgmc_get_connections(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	PgmcQueued *queued;

	pgmc_session_check_unrestricted();
	InitMaterializedSRF(fcinfo, 0);
	pgmc_registry_attach();
	queued = palloc(pgmc_registry_max_waiters() * sizeof(PgmcQueued));
	for (int i = 0; i < pgmc_registry_slots(); i++)
	{
		PgmcSlot	slot;
		Row			row;

		pgmc_registry_look(i, &slot, queued);
		if (slot.state == PGMC_CONN_FREE)
			continue;
		fill_row(&row, &slot, queued);
		put_row(rsinfo, &row);
	}
	return (Datum) 0;
}

/* ---- statistics ---- */

/* Are all parts of a key of this database still there?  Takes the server's name. */
static bool
key_exists(const PgmcKey *key, NameData *srvname)
{
	ForeignServer *server = GetForeignServerExtended(key->serverid, FSV_MISSING_OK);

	if (server == NULL)
		return false;
	namestrcpy(srvname, server->servername);
	if (OidIsValid(key->umid))
		return SearchSysCacheExists1(USERMAPPINGOID, ObjectIdGetDatum(key->umid));
	return OidIsValid(get_role_oid(NameStr(key->login), true));
}

/*
 * What was dropped is of no more interest.  In this database its catalogs
 * know; of others there is only what was noticed of their commands.
 */
static bool
of_interest(PgmcStats *stats, const char *datname)
{
	if (stats->key.dbid == MyDatabaseId)
		return key_exists(&stats->key, &stats->srvname);
	return datname != NULL && !stats->dropped;
}

static void
fill_stats(Row *row, const PgmcStats *stats, const char *datname)
{
	bool		hidden = !may_see(&stats->key);

	row->n = 0;
	add_name(row, datname);
	add_name(row, NameStr(stats->srvname));
	add_name(row, NameStr(stats->key.login));
	for (int i = 0; i < PGMC_NCOUNTERS; i++)
	{
		add_value(row, Int64GetDatum(stats->counts[i]), hidden);
		if (i != PGMC_COUNT_WAITS)
			continue;
		add_value(row, Float8GetDatum(stats->wait_time), hidden);
		add_value(row, Float8GetDatum(stats->hold_time), hidden);
	}
	add_value(row, Int64GetDatum(stats->commands), hidden);
	add_value(row, Int64GetDatum(stats->rows), hidden);
	add_value(row, TimestampTzGetDatum(stats->since), hidden);
}

Datum
pgmc_get_stat_connections(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	PgmcStats	stats;

	pgmc_session_check_unrestricted();
	InitMaterializedSRF(fcinfo, 0);
	pgmc_registry_attach();
	for (int i = 0; pgmc_registry_stats(i, &stats); i++)
	{
		const char *datname = get_database_name(stats.key.dbid);
		Row			row;

		if (!of_interest(&stats, datname))
			continue;
		fill_stats(&row, &stats, datname);
		put_row(rsinfo, &row);
	}
	return (Datum) 0;
}

Datum
pgmc_stat_reset(PG_FUNCTION_ARGS)
{
	Oid			serverid = InvalidOid;

	pgmc_session_check_unrestricted();
	if (!PG_ARGISNULL(0))
		serverid = pgmc_server_oid(NameStr(*PG_GETARG_NAME(0)));
	if (!superuser() && !OidIsValid(serverid))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to reset the statistics of all servers"),
				 errhint("Must be superuser, or name a server that you own.")));
	if (OidIsValid(serverid) && !pgmc_server_owner_ok(serverid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_FOREIGN_SERVER,
					   NameStr(*PG_GETARG_NAME(0)));
	pgmc_registry_attach();
	pgmc_registry_reset_stats(serverid);
	PG_RETURN_VOID();
}
