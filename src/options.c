/*
 * options.c
 *		The options of pgmc's foreign servers and user mappings.
 *
 * What is an option is in option_table.c; here is what the server makes of
 * that: rights, errors, DefElems.  Secrets can only be set in user mappings, for
 * everybody may read a server's options; no message here repeats a value.
 */
#include "postgres.h"

#include "access/reloptions.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "compat.h"
#include "options.h"
#include "registry.h"

PG_FUNCTION_INFO_V1(pgmc_fdw_validator);

static void
make_table(void)
{
	if (!pgmc_option_table_make())
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
}

/* ---- checking what users set ---- */

static PGMC_NORETURN void
refuse_name(const char *name, int where)
{
	const char *nearest = pgmc_option_nearest(name, where);

	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
			 errmsg("invalid option \"%s\"", name),
			 nearest != NULL ?
			 errhint("Perhaps you meant the option \"%s\".", nearest) :
			 where == PGMC_ON_SERVER ?
			 errhint("A server has options of libpq and dsn, pool_size, idle_timeout, max_lifetime, hold_timeout, idle_hold_timeout, reset_query, on_error.") :
			 errhint("A user mapping has the options user, password, password_required, sslcert, sslkey, sslpassword.")));
	pg_unreachable();
}

static PGMC_NORETURN void
refuse_value(const char *name, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for option \"%s\"", name),
			 hint != NULL ? errhint("%s", _(hint)) : 0));
	pg_unreachable();
}

static PGMC_NORETURN void
refuse_elsewhere(const char *name, int where, bool in_dsn)
{
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
			 in_dsn ?
			 errmsg("option \"dsn\" must not contain \"%s\"", name) :
			 errmsg("option \"%s\" is not one of a %s", name,
					where == PGMC_ON_SERVER ? "server" : "user mapping"),
			 where == PGMC_ON_SERVER ?
			 errhint("Set it in a user mapping: CREATE USER MAPPING FOR ... SERVER ... OPTIONS (%s ...).",
					 name) :
			 errhint("Set it in the server: ALTER SERVER ... OPTIONS (%s ...).", name)));
	pg_unreachable();
}

static void
check_place(const PgmcOption *option, int where, bool in_dsn)
{
	if (option->refusal != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("option \"%s\" cannot be set", option->name),
				 errdetail("%s", option->refusal)));
	if ((option->flags & where) == 0)
		refuse_elsewhere(option->name, where, in_dsn);
	if ((option->flags & PGMC_SUPERUSER_ONLY) && !superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to set option \"%s\"", option->name),
				 errdetail("Only superusers may set it.")));
}

static int
parse_time(const char *name, const char *value)
{
	const char *hint = NULL;
	int			ms;

	if (!parse_int(value, &ms, GUC_UNIT_MS, &hint) || ms < 0)
		refuse_value(name, hint != NULL ? hint :
					 "It is a time, such as \"30s\" or \"5min\", or a number of milliseconds; 0 means none.");
	return ms;
}

static int
parse_pool_size(const char *value)
{
	int			size;

	if (!parse_int(value, &size, 0, NULL) || size < 1 ||
		size > PGMC_MAX_CONNECTIONS)
		refuse_value("pool_size",
					 psprintf("It is a number of connections from 1 to %d.",
							  PGMC_MAX_CONNECTIONS));
	return size;
}

static bool
parse_on_error(const char *value)
{
	if (strcmp(value, "close") == 0)
		return true;
	if (strcmp(value, "rollback") != 0)
		refuse_value("on_error", "It is \"rollback\" or \"close\".");
	return false;
}

static void
check_libpq_value(const char *name, const char *value)
{
	const char *hint = pgmc_option_libpq_value_hint(name, value);

	if (hint != NULL)
		refuse_value(name, hint);
}

static void
parse_dsn(const char *dsn, PgmcConninfo *pairs)
{
	if (!pgmc_dsn_parse(dsn, pairs))
		refuse_value("dsn", "It is a connection string of libpq: a URI, or keywords and values.");
}

static void
check_dsn(const char *dsn)
{
	PgmcConninfo pairs;

	parse_dsn(dsn, &pairs);
	for (int i = 0; i < pairs.n; i++)
	{
		check_place(pgmc_option_find(pairs.keywords[i]), PGMC_ON_SERVER, true);
		check_libpq_value(pairs.keywords[i], pairs.values[i]);
	}
}

static void
check_bool(const char *name, const char *value)
{
	bool		result;

	if (!parse_bool(value, &result))
		refuse_value(name, "It is a boolean.");
}

static void
check_option(DefElem *def, int where)
{
	const PgmcOption *option = pgmc_option_find(def->defname);
	const char *value = defGetString(def);

	if (option == NULL)
		refuse_name(def->defname, where);
	check_place(option, where, false);
	switch (option->kind)
	{
		case PGMC_KIND_LIBPQ:
			check_libpq_value(option->name, value);
			break;
		case PGMC_KIND_TEXT:
			break;
		case PGMC_KIND_DSN:
			check_dsn(value);
			break;
		case PGMC_KIND_POOL_SIZE:
			(void) parse_pool_size(value);
			break;
		case PGMC_KIND_TIME:
			(void) parse_time(option->name, value);
			break;
		case PGMC_KIND_ON_ERROR:
			(void) parse_on_error(value);
			break;
		case PGMC_KIND_BOOL:
			check_bool(option->name, value);
			break;
	}
}

/* Called by CREATE and ALTER of wrappers, servers and user mappings. */
Datum
pgmc_fdw_validator(PG_FUNCTION_ARGS)
{
	List	   *options = untransformRelOptions(PG_GETARG_DATUM(0));
	Oid			catalog = PG_GETARG_OID(1);
	int			where = catalog == ForeignServerRelationId ? PGMC_ON_SERVER :
	catalog == UserMappingRelationId ? PGMC_ON_MAPPING : 0;
	ListCell   *cell;

	make_table();
	foreach(cell, options)
	{
		DefElem    *def = lfirst_node(DefElem, cell);

		if (where == 0)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
					 errmsg("invalid option \"%s\"", def->defname),
					 errhint("Options belong to servers and user mappings.")));
		check_option(def, where);
	}
	PG_RETURN_VOID();
}

/* ---- reading what was set ---- */

static void
read_dsn(const char *dsn, PgmcConninfo *info)
{
	PgmcConninfo pairs;

	parse_dsn(dsn, &pairs);
	for (int i = 0; i < pairs.n; i++)
		pgmc_conninfo_set(info, pairs.keywords[i], pairs.values[i]);
}

static void
read_own(const char *name, const char *value, PgmcServerOptions *own)
{
	if (strcmp(name, "pool_size") == 0)
		own->pool_size = parse_pool_size(value);
	else if (strcmp(name, "idle_timeout") == 0)
		own->idle_timeout = parse_time(name, value);
	else if (strcmp(name, "max_lifetime") == 0)
		own->max_lifetime = parse_time(name, value);
	else if (strcmp(name, "hold_timeout") == 0)
		own->hold_timeout = parse_time(name, value);
	else if (strcmp(name, "idle_hold_timeout") == 0)
		own->idle_hold_timeout = parse_time(name, value);
	else if (strcmp(name, "reset_query") == 0)
		own->reset_query = pstrdup(value);
	else if (strcmp(name, "on_error") == 0)
		own->close_on_error = parse_on_error(value);
}

void
pgmc_options_read_server(List *options, PgmcServerOptions *own,
						 PgmcConninfo *info)
{
	ListCell   *cell;

	make_table();
	foreach(cell, options)
	{
		DefElem    *def = lfirst_node(DefElem, cell);

		if (strcmp(def->defname, "dsn") == 0)
			read_dsn(defGetString(def), info);
	}
	foreach(cell, options)
	{
		DefElem    *def = lfirst_node(DefElem, cell);
		const PgmcOption *option = pgmc_option_find(def->defname);

		if (option == NULL || option->kind == PGMC_KIND_DSN)
			continue;
		if (option->kind == PGMC_KIND_LIBPQ)
			pgmc_conninfo_set(info, def->defname, defGetString(def));
		else
			read_own(def->defname, defGetString(def), own);
	}
}

void
pgmc_options_read_mapping(List *options, PgmcConninfo *info,
						  bool *password_required)
{
	ListCell   *cell;

	make_table();
	*password_required = true;
	foreach(cell, options)
	{
		DefElem    *def = lfirst_node(DefElem, cell);

		if (strcmp(def->defname, "password_required") == 0)
			*password_required = defGetBoolean(def);
		else if (pgmc_option_find(def->defname) != NULL)
			pgmc_conninfo_set(info, def->defname, defGetString(def));
	}
}
