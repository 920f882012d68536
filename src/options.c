/*
 * options.c
 *		What a foreign server of the wrapper pgmc means to the current user.
 *
 * A resolved server is kept for as long as the catalogs it was read from stay
 * as they are: syscache callbacks mark all of them stale.  Roles are among
 * those catalogs, so a revoked right and a renamed role are noticed as well.
 */
#include "postgres.h"

#include "access/reloptions.h"
#include "access/xact.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "common/hashfn.h"
#include "foreign/foreign.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "compat.h"
#include "options.h"

#define WRAPPER_NAME	"pgmc"

#define CONNECT_TIMEOUT_MS	10000
#define IDLE_TIMEOUT_MS		(5 * 60 * 1000)
#define RESET_QUERY			"DISCARD ALL"
#define MAX_PAIRS			64

typedef struct Resolved
{
	Oid			userid;
	PgmcServer	server;
	struct Resolved *next;
} Resolved;

/* everything resolved is in one context, thrown away when it has gone stale */
static MemoryContext resolved_context = NULL;
static Resolved *resolved = NULL;
static bool stale = false;

PG_FUNCTION_INFO_V1(pgmc_fdw_validator);

/* ---- CREATE SERVER, CREATE USER MAPPING ... ---- */

Datum
pgmc_fdw_validator(PG_FUNCTION_ARGS)
{
	List	   *options = untransformRelOptions(PG_GETARG_DATUM(0));
	Oid			catalog = PG_GETARG_OID(1);

	if (options == NIL)
		PG_RETURN_VOID();
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 catalog == UserMappingRelationId ?
			 errmsg("user mappings of pgmc servers cannot have options yet") :
			 errmsg("pgmc servers cannot have options yet"),
			 errdetail("A server without options is a loopback connection to the current database.")));
}

/* ---- looking up ---- */

static ForeignServer *
get_server(const char *name)
{
	ForeignServer *server = GetForeignServerByName(name, true);
	ForeignDataWrapper *wrapper;

	if (server == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("server \"%s\" does not exist", name),
				 errhint("Servers are made by CREATE SERVER ... FOREIGN DATA WRAPPER pgmc.")));
	wrapper = GetForeignDataWrapper(server->fdwid);
	if (strcmp(wrapper->fdwname, WRAPPER_NAME) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("server \"%s\" is not a server of the foreign-data wrapper \"%s\"",
						name, WRAPPER_NAME)));
	return server;
}

Oid
pgmc_options_server_oid(const char *name)
{
	return get_server(name)->serverid;
}

static void
check_usage(const ForeignServer *server)
{
	if (!pgmc_server_usage_ok(server->serverid, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for foreign server %s",
						server->servername)));
}

/* ---- how to connect ---- */

static void
add_pair(PgmcServer *server, const char *keyword, const char *value)
{
	Assert(server->npairs < MAX_PAIRS);
	server->keywords[server->npairs] = keyword;
	server->values[server->npairs] = pstrdup(value);
	server->npairs++;
}

/* where this server listens: its first Unix socket directory, else loopback TCP */
static const char *
own_host(void)
{
	List	   *directories;
	char	   *copy = pstrdup(Unix_socket_directories);

	if (SplitDirectoriesString(copy, ',', &directories) && directories != NIL)
		return linitial(directories);
	return "127.0.0.1";
}

static uint64
hash_options(const PgmcServer *server)
{
	uint64		hash = 0;

	for (int i = 0; i < server->npairs; i++)
	{
		hash = hash_bytes_extended((const unsigned char *) server->keywords[i],
								   strlen(server->keywords[i]), hash + 1);
		hash = hash_bytes_extended((const unsigned char *) server->values[i],
								   strlen(server->values[i]), hash + 1);
	}
	return hash_bytes_extended((const unsigned char *) server->reset_query,
							   strlen(server->reset_query), hash);
}

static void
arrange_connection(PgmcServer *server)
{
	char		port[16];

	server->keywords = palloc0((MAX_PAIRS + 1) * sizeof(char *));
	server->values = palloc0((MAX_PAIRS + 1) * sizeof(char *));
	snprintf(port, sizeof(port), "%d", PostPortNumber);

	add_pair(server, "host", own_host());
	add_pair(server, "port", port);
	add_pair(server, "dbname", get_database_name(MyDatabaseId));
	add_pair(server, "user", NameStr(server->key.login));
	server->description = psprintf("host=%s port=%s dbname=%s user=%s",
								   server->values[0], server->values[1],
								   server->values[2], server->values[3]);

	add_pair(server, "application_name", "pgmc loopback");
	add_pair(server, "client_encoding", GetDatabaseEncodingName());
	add_pair(server, "gssencmode", "disable");

	/* a path that can't exist: nobody uses the server owner's ~/.pgpass */
	add_pair(server, "passfile", "/dev/null/none");
	server->options_hash = hash_options(server);
}

static Resolved *
resolve(const ForeignServer *fs)
{
	Resolved   *entry = palloc0(sizeof(Resolved));
	PgmcServer *server = &entry->server;

	entry->userid = GetUserId();
	server->key.dbid = MyDatabaseId;
	server->key.serverid = fs->serverid;
	server->key.umid = InvalidOid;
	namestrcpy(&server->key.login, GetUserNameFromId(GetUserId(), false));
	namestrcpy(&server->srvname, fs->servername);
	server->pool_size = 1;
	server->connect_timeout = CONNECT_TIMEOUT_MS;
	server->idle_timeout = IDLE_TIMEOUT_MS;
	server->reset_query = RESET_QUERY;
	server->own_database = true;
	arrange_connection(server);
	return entry;
}

static void
forget_resolved(void)
{
	resolved = NULL;
	stale = false;
	if (resolved_context == NULL)
		resolved_context = AllocSetContextCreate(TopMemoryContext,
												 "pgmc resolved servers",
												 ALLOCSET_SMALL_SIZES);
	else
		MemoryContextReset(resolved_context);
}

const PgmcServer *
pgmc_options_resolve(const char *name)
{
	MemoryContext caller;
	ForeignServer *fs;
	Resolved   *entry;

	/* a lookup in the catalogs processes invalidations; this one is for us */
	if (IsTransactionState())
		AcceptInvalidationMessages();
	if (stale || resolved_context == NULL)
		forget_resolved();

	for (entry = resolved; entry != NULL; entry = entry->next)
		if (entry->userid == GetUserId() &&
			strcmp(NameStr(entry->server.srvname), name) == 0)
			return &entry->server;

	fs = get_server(name);
	check_usage(fs);
	caller = MemoryContextSwitchTo(resolved_context);
	entry = resolve(fs);
	MemoryContextSwitchTo(caller);
	entry->next = resolved;
	resolved = entry;
	return &entry->server;
}

bool
pgmc_options_own_key(const PgmcKey *key)
{
	char	   *username;

	if (key->dbid != MyDatabaseId ||
		GetForeignServerExtended(key->serverid, FSV_MISSING_OK) == NULL ||
		!pgmc_server_usage_ok(key->serverid, GetUserId()))
		return false;
	username = GetUserNameFromId(GetUserId(), true);
	return username != NULL && strcmp(username, NameStr(key->login)) == 0;
}

static void
mark_stale(Datum arg, int cacheid, uint32 hashvalue)
{
	stale = true;
}

void
pgmc_options_init(void)
{
	CacheRegisterSyscacheCallback(FOREIGNSERVEROID, mark_stale, (Datum) 0);
	CacheRegisterSyscacheCallback(FOREIGNDATAWRAPPEROID, mark_stale, (Datum) 0);
	CacheRegisterSyscacheCallback(USERMAPPINGOID, mark_stale, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, mark_stale, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, mark_stale, (Datum) 0);
	CacheRegisterSyscacheCallback(DATABASEOID, mark_stale, (Datum) 0);
}
