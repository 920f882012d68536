/*
 * stats.c
 *		The rows of the view pgmc.connections.
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "compat.h"
#include "registry.h"
#include "server.h"
#include "transfer.h"

PG_FUNCTION_INFO_V1(pgmc_get_connections);

#define NCOLUMNS	13

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
	Datum		values[NCOLUMNS];
	bool		nulls[NCOLUMNS];
	int			n;
} Row;

static void
add_value(Row *row, Datum value, bool isnull)
{
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

/* May the current user see more of this connection than that it is there? */
static bool
may_see(const PgmcSlot *slot)
{
	return has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS) ||
		pgmc_server_own_key(&slot->key);
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

static void
fill_row(Row *row, const PgmcSlot *slot)
{
	bool		visible = may_see(slot);

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
}

Datum
pgmc_get_connections(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	pgmc_registry_attach();
	for (int i = 0; i < pgmc_registry_slots(); i++)
	{
		PgmcSlot	slot;
		Row			row;

		pgmc_registry_slot(i, &slot);
		if (slot.state == PGMC_CONN_FREE)
			continue;
		fill_row(&row, &slot);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, row.values,
							 row.nulls);
	}
	return (Datum) 0;
}
