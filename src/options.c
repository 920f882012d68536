/*
 * options.c
 *		The options of pgmc's foreign servers and user mappings.
 *
 * One table, made from pgmc's own list and libpq's, drives the check of what
 * users set, the hint at the nearest name, and what libpq is given.  Secrets
 * can only be set in user mappings, for everybody may read a server's options;
 * no message here repeats a value.
 */
#include "postgres.h"

#include <limits.h>

#include "access/reloptions.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "fmgr.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/varlena.h"

#include "compat.h"
#include "options.h"
#include "registry.h"

PG_FUNCTION_INFO_V1(pgmc_fdw_validator);

/* how far a misspelt name may be from the one that a hint names */
#define MAX_DISTANCE	4

typedef enum OptionKind
{
	KIND_LIBPQ,
	KIND_DSN,
	KIND_POOL_SIZE,
	KIND_TIME,
	KIND_TEXT,
	KIND_ON_ERROR,
	KIND_BOOL
} OptionKind;

#define ON_SERVER		0x01
#define ON_MAPPING		0x02
#define SUPERUSER_ONLY	0x04
#define SECRET			0x08

typedef struct Option
{
	const char *name;
	OptionKind	kind;
	int			flags;
	const char *refusal;		/* why nobody may set it, or NULL */
} Option;

static const Option own_options[] = {
	{"dsn", KIND_DSN, ON_SERVER, NULL},
	{"pool_size", KIND_POOL_SIZE, ON_SERVER, NULL},
	{"idle_timeout", KIND_TIME, ON_SERVER, NULL},
	{"max_lifetime", KIND_TIME, ON_SERVER, NULL},
	{"hold_timeout", KIND_TIME, ON_SERVER, NULL},
	{"idle_hold_timeout", KIND_TIME, ON_SERVER, NULL},
	{"reset_query", KIND_TEXT, ON_SERVER, NULL},
	{"on_error", KIND_ON_ERROR, ON_SERVER, NULL},
	{"password_required", KIND_BOOL, ON_MAPPING | SUPERUSER_ONLY, NULL},
};

/* libpq's options that are not simply a server's; the others are */
static const Option special_options[] = {
	{"user", KIND_LIBPQ, ON_MAPPING, NULL},
	{"password", KIND_LIBPQ, ON_MAPPING | SECRET, NULL},
	{"sslpassword", KIND_LIBPQ, ON_MAPPING | SECRET, NULL},
	{"sslcert", KIND_LIBPQ, ON_SERVER | ON_MAPPING | SUPERUSER_ONLY, NULL},
	{"sslkey", KIND_LIBPQ, ON_SERVER | ON_MAPPING | SUPERUSER_ONLY, NULL},
	{"sslrootcert", KIND_LIBPQ, ON_SERVER | SUPERUSER_ONLY, NULL},
	{"sslcrl", KIND_LIBPQ, ON_SERVER | SUPERUSER_ONLY, NULL},
	{"sslcrldir", KIND_LIBPQ, ON_SERVER | SUPERUSER_ONLY, NULL},
	{"sslkeylogfile", KIND_LIBPQ, ON_SERVER | SUPERUSER_ONLY, NULL},
	{"passfile", KIND_LIBPQ, ON_SERVER | SUPERUSER_ONLY, NULL},
	{"service", KIND_LIBPQ, ON_SERVER | SUPERUSER_ONLY, NULL},
	{"servicefile", KIND_LIBPQ, ON_SERVER | SUPERUSER_ONLY, NULL},
	{"krbsrvname", KIND_LIBPQ, ON_SERVER | SUPERUSER_ONLY, NULL},
	{"gsslib", KIND_LIBPQ, ON_SERVER | SUPERUSER_ONLY, NULL},
	{"gssdelegation", KIND_LIBPQ, ON_SERVER | SUPERUSER_ONLY, NULL},
	{"client_encoding", KIND_LIBPQ, 0,
	"pgmc sets it to the encoding of the database."},
	{"fallback_application_name", KIND_LIBPQ, 0,
	"Set application_name instead."},
	{"replication", KIND_LIBPQ, 0,
	"A replication connection cannot run ordinary commands."},
	{"authtype", KIND_LIBPQ, 0, "It is obsolete."},
	{"tty", KIND_LIBPQ, 0, "It is obsolete."},
};

/* those of libpq's whose values are few words; others would fail each opening */
static const struct
{
	const char *name;
	const char *words;
}			choices[] = {
	{"sslmode", "disable allow prefer require verify-ca verify-full"},
	{"sslnegotiation", "postgres direct"},
	{"sslcertmode", "disable allow require"},
	{"gssencmode", "disable prefer require"},
	{"channel_binding", "disable prefer require"},
	{"target_session_attrs",
	"any read-write read-only primary standby prefer-standby"},
	{"load_balance_hosts", "disable random"},
};

/* the whole table, in TopMemoryContext; libpq's part in libpq's order */
static Option *table = NULL;
static int	table_size = 0;

/* ---- the table ---- */

static Option
libpq_option(const PQconninfoOption *libpq)
{
	Option		option = {libpq->keyword, KIND_LIBPQ, ON_SERVER, NULL};

	for (Size i = 0; i < lengthof(special_options); i++)
		if (strcmp(special_options[i].name, libpq->keyword) == 0)
		{
			option = special_options[i];
			return option;
		}

	/* secrets and things for libpq's own debugging that we haven't heard of */
	if (strchr(libpq->dispchar, '*') != NULL)
		option.flags = ON_MAPPING | SECRET;
	else if (strchr(libpq->dispchar, 'D') != NULL)
		option.flags |= SUPERUSER_ONLY;
	return option;
}

static void
make_table(void)
{
	PQconninfoOption *libpq;
	Option	   *made;
	int			n = 0;

	if (table != NULL)
		return;
	libpq = PQconndefaults();
	if (libpq == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	while (libpq[n].keyword != NULL)
		n++;
	made = MemoryContextAlloc(TopMemoryContext,
							  (n + lengthof(own_options)) * sizeof(Option));
	for (int i = 0; i < n; i++)
	{
		made[i] = libpq_option(&libpq[i]);
		made[i].name = MemoryContextStrdup(TopMemoryContext, libpq[i].keyword);
	}
	PQconninfoFree(libpq);
	memcpy(made + n, own_options, sizeof(own_options));
	table_size = n + lengthof(own_options);
	table = made;
}

static const Option *
find_option(const char *name)
{
	make_table();
	for (int i = 0; i < table_size; i++)
		if (strcmp(table[i].name, name) == 0)
			return &table[i];
	return NULL;
}

/* options of libpq's whose default is good for files and debugging only */
static bool
offered(const Option *option, int where)
{
	return (option->flags & where) != 0 && option->refusal == NULL;
}

static const char *
nearest_name(const char *name, int where)
{
	const char *best = NULL;
	int			best_distance = MAX_DISTANCE + 1;
	int			length = Min(strlen(name), NAMEDATALEN - 1);

	for (int i = 0; i < table_size; i++)
	{
		int			distance;

		if (!offered(&table[i], where))
			continue;
		distance = varstr_levenshtein_less_equal(name, length, table[i].name,
												 strlen(table[i].name), 1, 1, 1,
												 MAX_DISTANCE, true);
		if (distance < best_distance && distance <= length / 2)
		{
			best = table[i].name;
			best_distance = distance;
		}
	}
	return best;
}

/* ---- connection strings ---- */

/* each keyword has its place in the table's order */
static int
find_place(const PgmcConninfo *info, const char *keyword, bool *found)
{
	const Option *option = find_option(keyword);
	int			i;

	for (i = 0; i < info->n; i++)
	{
		const Option *other = find_option(info->keywords[i]);

		*found = strcmp(info->keywords[i], keyword) == 0;
		if (*found || other > option)
			return i;
	}
	*found = false;
	return i;
}

void
pgmc_conninfo_set(PgmcConninfo *info, const char *keyword, const char *value)
{
	bool		found;
	int			at;
	int			behind;

	make_table();
	if (info->keywords == NULL)
	{
		info->keywords = palloc0((table_size + 1) * sizeof(char *));
		info->values = palloc0((table_size + 1) * sizeof(char *));
	}
	at = find_place(info, keyword, &found);
	behind = info->n - at;
	if (value == NULL || value[0] == '\0')
	{
		if (!found)
			return;
		memmove(&info->keywords[at], &info->keywords[at + 1], behind * sizeof(char *));
		memmove(&info->values[at], &info->values[at + 1], behind * sizeof(char *));
		info->n--;
		return;
	}
	if (!found)
	{
		memmove(&info->keywords[at + 1], &info->keywords[at], behind * sizeof(char *));
		memmove(&info->values[at + 1], &info->values[at], behind * sizeof(char *));
		info->n++;
	}
	info->keywords[at] = pstrdup(keyword);
	info->values[at] = pstrdup(value);
}

const char *
pgmc_conninfo_get(const PgmcConninfo *info, const char *keyword)
{
	for (int i = 0; i < info->n; i++)
		if (strcmp(info->keywords[i], keyword) == 0)
			return info->values[i];
	return NULL;
}

static void
append_quoted(StringInfo buf, const char *value)
{
	if (value[strcspn(value, " '\\")] == '\0')
	{
		appendStringInfoString(buf, value);
		return;
	}
	appendStringInfoChar(buf, '\'');
	for (const char *p = value; *p != '\0'; p++)
	{
		if (*p == '\'' || *p == '\\')
			appendStringInfoChar(buf, '\\');
		appendStringInfoChar(buf, *p);
	}
	appendStringInfoChar(buf, '\'');
}

char *
pgmc_conninfo_describe(const PgmcConninfo *info)
{
	static const char *const order[] = {"host", "hostaddr", "port", "dbname", "user"};
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < (int) lengthof(order) + info->n; i++)
	{
		bool		first = i < (int) lengthof(order);
		const char *keyword = first ? order[i] : info->keywords[i - lengthof(order)];
		const char *value = pgmc_conninfo_get(info, keyword);
		const Option *option = find_option(keyword);
		bool		again = false;

		for (Size k = 0; !first && k < lengthof(order); k++)
			again = again || strcmp(order[k], keyword) == 0;
		if (value == NULL || again || option == NULL || (option->flags & SECRET))
			continue;
		appendStringInfo(&buf, "%s%s=", buf.len > 0 ? " " : "", keyword);
		append_quoted(&buf, value);
	}
	return buf.data;
}

/* ---- checking what users set ---- */

static PGMC_NORETURN void
refuse_name(const char *name, int where)
{
	const char *nearest = nearest_name(name, where);

	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
			 errmsg("invalid option \"%s\"", name),
			 nearest != NULL ?
			 errhint("Perhaps you meant the option \"%s\".", nearest) :
			 where == ON_SERVER ?
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
					where == ON_SERVER ? "server" : "user mapping"),
			 where == ON_SERVER ?
			 errhint("Set it in a user mapping: CREATE USER MAPPING FOR ... SERVER ... OPTIONS (%s ...).",
					 name) :
			 errhint("Set it in the server: ALTER SERVER ... OPTIONS (%s ...).", name)));
	pg_unreachable();
}

static void
check_place(const Option *option, int where, bool in_dsn)
{
	if (option->refusal != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("option \"%s\" cannot be set", option->name),
				 errdetail("%s", option->refusal)));
	if ((option->flags & where) == 0)
		refuse_elsewhere(option->name, where, in_dsn);
	if ((option->flags & SUPERUSER_ONLY) && !superuser())
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

/* Is word one of these, which are separated by spaces? */
static bool
is_one_of(const char *word, const char *words)
{
	Size		length = strlen(word);

	for (const char *p = words; *p != '\0'; p += strspn(p, " "))
	{
		Size		n = strcspn(p, " ");

		if (n == length && strncmp(p, word, n) == 0)
			return true;
		p += n;
	}
	return false;
}

/* one for each host, or one for all; an empty one is the default */
static void
check_ports(const char *value)
{
	for (const char *p = value;; p++)
	{
		Size		length = strcspn(p, ",");
		int			port;

		if (length > 0 &&
			(!parse_int(pnstrdup(p, length), &port, 0, NULL) ||
			 port < 1 || port > 65535))
			refuse_value("port", "It is a number from 1 to 65535, or several, one for each host.");
		p += length;
		if (*p == '\0')
			return;
	}
}

/* The rest is for libpq to say, when it connects. */
static void
check_libpq_value(const char *name, const char *value)
{
	int			seconds;

	if (value[0] == '\0')
		return;					/* the default */
	if (strcmp(name, "user") == 0 && strlen(value) >= NAMEDATALEN)
		refuse_value(name, "It is too long for the name of a role.");
	if (strcmp(name, "port") == 0)
		check_ports(value);
	if (strcmp(name, "connect_timeout") == 0 &&
		!parse_int(value, &seconds, 0, NULL))
		refuse_value(name, "It is a number of seconds; 0 means none.");
	for (Size i = 0; i < lengthof(choices); i++)
		if (strcmp(choices[i].name, name) == 0 &&
			!is_one_of(value, choices[i].words))
			refuse_value(name, psprintf("It is one of: %s.", choices[i].words));
}

/*
 * libpq's own message about a broken string may repeat a part of it, which may
 * be a password: it is not for anybody's eyes.
 */
static PQconninfoOption *
parse_dsn(const char *dsn)
{
	char	   *message = NULL;
	PQconninfoOption *parsed = PQconninfoParse(dsn, &message);

	if (message != NULL)
		PQfreemem(message);
	if (parsed == NULL)
		refuse_value("dsn", "It is a connection string of libpq: a URI, or keywords and values.");
	return parsed;
}

static void
check_dsn(const char *dsn)
{
	PQconninfoOption *parsed = parse_dsn(dsn);

	PG_TRY();
	{
		for (PQconninfoOption *o = parsed; o->keyword != NULL; o++)
			if (o->val != NULL)
			{
				check_place(find_option(o->keyword), ON_SERVER, true);
				check_libpq_value(o->keyword, o->val);
			}
	}
	PG_FINALLY();
	{
		PQconninfoFree(parsed);
	}
	PG_END_TRY();
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
	const Option *option = find_option(def->defname);
	const char *value = defGetString(def);

	if (option == NULL)
		refuse_name(def->defname, where);
	check_place(option, where, false);
	switch (option->kind)
	{
		case KIND_LIBPQ:
			check_libpq_value(option->name, value);
			break;
		case KIND_TEXT:
			break;
		case KIND_DSN:
			check_dsn(value);
			break;
		case KIND_POOL_SIZE:
			(void) parse_pool_size(value);
			break;
		case KIND_TIME:
			(void) parse_time(option->name, value);
			break;
		case KIND_ON_ERROR:
			(void) parse_on_error(value);
			break;
		case KIND_BOOL:
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
	int			where = catalog == ForeignServerRelationId ? ON_SERVER :
	catalog == UserMappingRelationId ? ON_MAPPING : 0;
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
	PQconninfoOption *parsed = parse_dsn(dsn);

	PG_TRY();
	{
		for (PQconninfoOption *o = parsed; o->keyword != NULL; o++)
			if (o->val != NULL)
				pgmc_conninfo_set(info, o->keyword, o->val);
	}
	PG_FINALLY();
	{
		PQconninfoFree(parsed);
	}
	PG_END_TRY();
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

	foreach(cell, options)
	{
		DefElem    *def = lfirst_node(DefElem, cell);

		if (strcmp(def->defname, "dsn") == 0)
			read_dsn(defGetString(def), info);
	}
	foreach(cell, options)
	{
		DefElem    *def = lfirst_node(DefElem, cell);
		const Option *option = find_option(def->defname);

		if (option == NULL || option->kind == KIND_DSN)
			continue;
		if (option->kind == KIND_LIBPQ)
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

	*password_required = true;
	foreach(cell, options)
	{
		DefElem    *def = lfirst_node(DefElem, cell);

		if (strcmp(def->defname, "password_required") == 0)
			*password_required = defGetBoolean(def);
		else
			pgmc_conninfo_set(info, def->defname, defGetString(def));
	}
}
