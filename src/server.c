/*
 * server.c
 *		What a foreign server of the wrapper pgmc means to the current user.
 *
 * A resolved server is kept for as long as the catalogs it was read from stay
 * as they are: syscache callbacks mark all of them stale.  Roles are among
 * those catalogs, so a revoked right and a renamed role are noticed as well.
 *
 * The password rule is postgres_fdw's.  A connection that the server process
 * makes can authenticate as the server's own operating-system user, so on
 * behalf of an ordinary role it must prove the right to its login role by a
 * password from the user mapping.  There are two exceptions: a superuser has
 * said password_required 'false' in the mapping, or the connection goes to
 * this very cluster as the very role that asks, which gains nothing by it.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "common/hashfn.h"
#include "common/ip.h"
#include "foreign/foreign.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "compat.h"
#include "server.h"

#define WRAPPER_NAME	"pgmc"

#define POOL_SIZE			1
#define CONNECT_TIMEOUT_MS	10000
#define IDLE_TIMEOUT_MS		(5 * 60 * 1000)
#define MAX_LIFETIME_MS		(60 * 60 * 1000)
#define RESET_QUERY			"DISCARD ALL"

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

/* since the latest look: has a server or mapping been changed, or dropped? */
static bool perhaps_dropped = false;

/* how often what is read from catalogs may have changed, and as of when it was */
static uint64 changes = 0;
static uint64 resolved_as_of = 0;

/* ---- looking up ---- */

static PGMC_NORETURN void
raise_no_server(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("server \"%s\" does not exist", name),
			 errhint("Servers are made by CREATE SERVER ... FOREIGN DATA WRAPPER pgmc.")));
	pg_unreachable();
}

static ForeignServer *
get_server(const char *name)
{
	ForeignServer *server = GetForeignServerByName(name, true);
	ForeignDataWrapper *wrapper;

	if (server == NULL)
		raise_no_server(name);
	wrapper = GetForeignDataWrapper(server->fdwid);
	if (strcmp(wrapper->fdwname, WRAPPER_NAME) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("server \"%s\" is not a server of the foreign-data wrapper \"%s\"",
						name, WRAPPER_NAME)));
	return server;
}

Oid
pgmc_server_oid(const char *name)
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

/* The user's own mapping, else PUBLIC's; its oid, or InvalidOid. */
static Oid
find_mapping(Oid userid, Oid serverid, HeapTuple *tuple)
{
	*tuple = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(userid),
							 ObjectIdGetDatum(serverid));
	if (!HeapTupleIsValid(*tuple))
		*tuple = SearchSysCache2(USERMAPPINGUSERSERVER,
								 ObjectIdGetDatum(InvalidOid),
								 ObjectIdGetDatum(serverid));
	if (!HeapTupleIsValid(*tuple))
		return InvalidOid;
	return ((Form_pg_user_mapping) GETSTRUCT(*tuple))->oid;
}

static Oid
read_mapping(Oid userid, Oid serverid, PgmcConninfo *info,
			 bool *password_required)
{
	HeapTuple	tuple;
	Oid			umid = find_mapping(userid, serverid, &tuple);

	*password_required = true;
	if (!OidIsValid(umid))
		return umid;
	ReleaseSysCache(tuple);
	pgmc_options_read_mapping(GetUserMapping(userid, serverid)->options, info,
							  password_required);
	return umid;
}

/* ---- how to connect ---- */

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

/* the loopback address that this server listens on, or NULL */
static const char *
own_tcp_address(void)
{
	List	   *addresses;
	char	   *copy = pstrdup(ListenAddresses);
	ListCell   *cell;
	const char *v6 = NULL;

	if (!SplitGUCList(copy, ',', &addresses))
		return NULL;
	foreach(cell, addresses)
	{
		const char *a = lfirst(cell);

		if (strcmp(a, "*") == 0 || strcmp(a, "localhost") == 0 ||
			strcmp(a, "0.0.0.0") == 0 || strncmp(a, "127.", 4) == 0)
			return strncmp(a, "127.", 4) == 0 ? a : "127.0.0.1";
		if (strcmp(a, "::") == 0 || strcmp(a, "::1") == 0)
			v6 = "::1";
	}
	return v6;
}

/*
 * Whatever was left out means this server, port and database.  With a password
 * that is this server's loopback address where it listens there: pg_hba.conf
 * commonly asks for passwords there, and for the peer's name on the socket.
 */
static void
add_defaults(PgmcServer *server)
{
	PgmcConninfo *info = &server->info;

	if (pgmc_conninfo_get(info, "service") != NULL)
		return;
	if (pgmc_conninfo_get(info, "host") == NULL &&
		pgmc_conninfo_get(info, "hostaddr") == NULL)
	{
		const char *address = server->has_password ? own_tcp_address() : NULL;

		pgmc_conninfo_set(info, "host", address != NULL ? address : own_host());
	}
	if (pgmc_conninfo_get(info, "port") == NULL)
		pgmc_conninfo_set(info, "port", psprintf("%d", PostPortNumber));
	if (pgmc_conninfo_get(info, "dbname") == NULL)
		pgmc_conninfo_set(info, "dbname", get_database_name(MyDatabaseId));
}

/* what a user may set, but need not, and what is pgmc's own business */
static void
add_requisites(PgmcConninfo *info)
{
	/*
	 * a path that can't exist: nobody uses the server owner's files by
	 * accident
	 */
	const char *nowhere = "/dev/null/none";

	if (pgmc_conninfo_get(info, "application_name") == NULL)
		pgmc_conninfo_set(info, "application_name", "pgmc loopback");
	if (pgmc_conninfo_get(info, "gssencmode") == NULL)
		pgmc_conninfo_set(info, "gssencmode", "disable");
	if (pgmc_conninfo_get(info, "passfile") == NULL)
		pgmc_conninfo_set(info, "passfile", nowhere);
	if (pgmc_conninfo_get(info, "sslcert") == NULL)
		pgmc_conninfo_set(info, "sslcert", nowhere);
	if (pgmc_conninfo_get(info, "sslkey") == NULL &&
		strcmp(pgmc_conninfo_get(info, "sslcert"), nowhere) == 0)
		pgmc_conninfo_set(info, "sslkey", nowhere);
	if (pgmc_conninfo_get(info, "sslrootcert") == NULL)
		pgmc_conninfo_set(info, "sslrootcert", nowhere);
	pgmc_conninfo_set(info, "client_encoding", GetDatabaseEncodingName());
}

static uint64
hash_string(const char *str, uint64 hash)
{
	return hash_bytes_extended((const unsigned char *) str, strlen(str), hash + 1);
}

static uint64
hash_options(const PgmcServer *server)
{
	uint64		hash = hash_string(server->options.reset_query, 0);

	for (int i = 0; i < server->info.n; i++)
	{
		hash = hash_string(server->info.keywords[i], hash);
		hash = hash_string(server->info.values[i], hash);
	}
	hash = hash_combine64(hash, server->options.idle_timeout);
	hash = hash_combine64(hash, server->options.max_lifetime);
	return hash;
}

static int
connect_timeout_of(const PgmcConninfo *info)
{
	const char *value = pgmc_conninfo_get(info, "connect_timeout");
	long		seconds;

	if (value == NULL)
		return CONNECT_TIMEOUT_MS;
	seconds = strtol(value, NULL, 10);
	return seconds <= 0 ? 0 : (int) Min(seconds, INT_MAX / 1000) * 1000;
}

/* Does any of this lead elsewhere than to this server? */
static bool
leads_elsewhere(const PgmcConninfo *info)
{
	return pgmc_conninfo_get(info, "host") != NULL ||
		pgmc_conninfo_get(info, "hostaddr") != NULL ||
		pgmc_conninfo_get(info, "port") != NULL ||
		pgmc_conninfo_get(info, "service") != NULL;
}

static bool
other_database(const PgmcConninfo *info)
{
	const char *dbname = pgmc_conninfo_get(info, "dbname");

	return dbname != NULL && strcmp(dbname, get_database_name(MyDatabaseId)) != 0;
}

static void
arrange_connection(PgmcServer *server, bool password_required)
{
	PgmcConninfo *info = &server->info;
	const char *role = GetUserNameFromId(GetUserId(), false);
	bool		elsewhere = leads_elsewhere(info);

	server->own_database = !other_database(info);
	server->has_password = pgmc_conninfo_get(info, "password") != NULL;
	server->trusted = superuser() || !password_required;
	if (pgmc_conninfo_get(info, "user") == NULL)
		pgmc_conninfo_set(info, "user", role);
	namestrcpy(&server->key.login, pgmc_conninfo_get(info, "user"));
	server->as_oneself = !elsewhere && strcmp(NameStr(server->key.login), role) == 0;
	server->connect_timeout = connect_timeout_of(info);
	add_defaults(server);
	server->description = pgmc_conninfo_describe(info);
	pgmc_conninfo_set(info, "connect_timeout", NULL);	/* the worker's own
														 * clock */
	add_requisites(info);
	server->options_hash = hash_options(server);
}

static Resolved *
resolve(const ForeignServer *fs)
{
	Resolved   *entry = palloc0(sizeof(Resolved));
	PgmcServer *server = &entry->server;
	bool		password_required;

	entry->userid = GetUserId();
	server->key.dbid = MyDatabaseId;
	server->key.serverid = fs->serverid;
	namestrcpy(&server->srvname, fs->servername);
	server->as_of = resolved_as_of;
	server->options.pool_size = POOL_SIZE;
	server->options.idle_timeout = IDLE_TIMEOUT_MS;
	server->options.max_lifetime = MAX_LIFETIME_MS;
	server->options.reset_query = RESET_QUERY;
	pgmc_options_read_server(fs->options, &server->options, &server->info);
	server->key.umid = read_mapping(GetUserId(), fs->serverid, &server->info,
									&password_required);
	arrange_connection(server, password_required);
	return entry;
}

/* ---- the password rule ---- */

static PGMC_NORETURN void
raise_password_required(const char *srvname, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_S_R_E_PROHIBITED_SQL_STATEMENT_ATTEMPTED),
			 errmsg("password is required to use server \"%s\"", srvname),
			 errdetail("%s", _(detail)),
			 errhint("Set option password in the user mapping, or have a superuser set password_required 'false' there.")));
	pg_unreachable();
}

void
pgmc_server_check_password(const PgmcServer *server)
{
	if (!server->has_password && !server->trusted && !server->as_oneself)
		raise_password_required(NameStr(server->srvname),
								"Non-superusers must have a password in the user mapping.");
}

void
pgmc_server_check_connection(const PgmcServer *server, bool used_password,
							 bool same_cluster)
{
	if (server->trusted || (server->has_password && used_password) ||
		(server->as_oneself && same_cluster))
		return;
	raise_password_required(NameStr(server->srvname),
							"The server it connects to did not ask for one.");
}

/* ---- names of hosts ---- */

/* a name that libpq would look up, which blocks */
static bool
is_host_name(const char *host)
{
	char		address[16];

	return host[0] != '\0' && host[0] != '/' && host[0] != '@' &&
		inet_pton(AF_INET, host, address) != 1 &&
		inet_pton(AF_INET6, host, address) != 1;
}

/* Split at commas, keeping empty items. */
static List *
split_list(const char *value)
{
	List	   *items = NIL;
	char	   *copy = pstrdup(value);

	for (;;)
	{
		char	   *comma = strchr(copy, ',');

		items = lappend(items, copy);
		if (comma == NULL)
			return items;
		*comma = '\0';
		copy = comma + 1;
	}
}

typedef struct HostLists
{
	StringInfoData hosts;
	StringInfoData addresses;
	StringInfoData ports;
	int			n;
} HostLists;

static void
add_host(HostLists *lists, const char *host, const char *address,
		 const char *port)
{
	const char *comma = lists->n++ > 0 ? "," : "";

	appendStringInfo(&lists->hosts, "%s%s", comma, host);
	appendStringInfo(&lists->addresses, "%s%s", comma, address);
	appendStringInfo(&lists->ports, "%s%s", comma, port);
}

/* A name becomes as many entries as it has addresses.  NULL, or why not. */
static const char *
look_up_host(HostLists *lists, const char *host, const char *port)
{
	struct addrinfo hint = {0};
	struct addrinfo *found = NULL;
	int			error;

	hint.ai_socktype = SOCK_STREAM;
	error = getaddrinfo(host, NULL, &hint, &found);
	if (error != 0)
		return psprintf("could not translate host name \"%s\" to address: %s",
						host, gai_strerror(error));
	for (struct addrinfo *a = found; a != NULL; a = a->ai_next)
	{
		char		address[NI_MAXHOST];

		if (getnameinfo(a->ai_addr, a->ai_addrlen, address, sizeof(address),
						NULL, 0, NI_NUMERICHOST) == 0)
			add_host(lists, host, address, port);
	}
	freeaddrinfo(found);
	return NULL;
}

static void
copy_conninfo(const PgmcConninfo *from, PgmcConninfo *to)
{
	memset(to, 0, sizeof(*to));
	for (int i = 0; i < from->n; i++)
		pgmc_conninfo_set(to, from->keywords[i], from->values[i]);
}

const char *
pgmc_server_lookup_hosts(const PgmcServer *server, PgmcConninfo *info)
{
	const char *host = pgmc_conninfo_get(&server->info, "host");
	const char *port = pgmc_conninfo_get(&server->info, "port");
	HostLists	lists = {0};
	List	   *hosts;
	List	   *ports;
	int			i = 0;
	ListCell   *cell;

	copy_conninfo(&server->info, info);
	if (host == NULL || port == NULL ||
		pgmc_conninfo_get(&server->info, "hostaddr") != NULL)
		return NULL;
	hosts = split_list(host);
	ports = split_list(port);
	if (list_length(ports) != 1 && list_length(ports) != list_length(hosts))
		return NULL;			/* libpq says what is wrong with it */
	initStringInfo(&lists.hosts);
	initStringInfo(&lists.addresses);
	initStringInfo(&lists.ports);
	foreach(cell, hosts)
	{
		const char *name = lfirst(cell);
		const char *its_port = list_nth(ports, list_length(ports) == 1 ? 0 : i);
		const char *failure = NULL;

		if (is_host_name(name))
			failure = look_up_host(&lists, name, its_port);
		else
			add_host(&lists, name, "", its_port);
		if (failure != NULL)
			return failure;
		i++;
	}
	pgmc_conninfo_set(info, "host", lists.hosts.data);
	pgmc_conninfo_set(info, "port", lists.ports.data);
	if (strspn(lists.addresses.data, ",") < (size_t) lists.addresses.len)
		pgmc_conninfo_set(info, "hostaddr", lists.addresses.data);
	return NULL;
}

/* ---- keeping what was resolved ---- */

static void
forget_resolved(void)
{
	resolved = NULL;
	stale = false;
	resolved_as_of = changes;
	if (resolved_context == NULL)
		resolved_context = AllocSetContextCreate(TopMemoryContext,
												 "pgmc resolved servers",
												 ALLOCSET_SMALL_SIZES);
	else
		MemoryContextReset(resolved_context);
}

/* Afterwards, what is kept is right. */
static void
refresh_resolved(void)
{
	/* a lookup in the catalogs processes invalidations; this one is for us */
	AcceptInvalidationMessages();
	if (stale || resolved_context == NULL)
		forget_resolved();
}

static const PgmcServer *
keep_resolved(const ForeignServer *fs)
{
	MemoryContext caller;
	Resolved   *entry;

	check_usage(fs);
	caller = MemoryContextSwitchTo(resolved_context);
	entry = resolve(fs);
	MemoryContextSwitchTo(caller);
	entry->next = resolved;
	resolved = entry;
	return &entry->server;
}

const PgmcServer *
pgmc_server_resolve(const char *name)
{
	refresh_resolved();
	for (Resolved *entry = resolved; entry != NULL; entry = entry->next)
		if (entry->userid == GetUserId() &&
			strcmp(NameStr(entry->server.srvname), name) == 0)
			return &entry->server;
	return keep_resolved(get_server(name));
}

const PgmcServer *
pgmc_server_resolve_oid(Oid serverid, const char *name)
{
	ForeignServer *fs;

	refresh_resolved();
	for (Resolved *entry = resolved; entry != NULL; entry = entry->next)
		if (entry->userid == GetUserId() &&
			entry->server.key.serverid == serverid)
			return &entry->server;
	fs = GetForeignServerExtended(serverid, FSV_MISSING_OK);
	if (fs == NULL)
		raise_no_server(name);
	return keep_resolved(fs);
}

bool
pgmc_server_own_key(const PgmcKey *key)
{
	PgmcConninfo info = {0};
	bool		password_required;
	const char *login;

	if (key->dbid != MyDatabaseId ||
		GetForeignServerExtended(key->serverid, FSV_MISSING_OK) == NULL ||
		!pgmc_server_usage_ok(key->serverid, GetUserId()))
		return false;
	if (read_mapping(GetUserId(), key->serverid, &info,
					 &password_required) != key->umid)
		return false;

	/* without a mapping, and with one that names no user, roles are apart */
	login = pgmc_conninfo_get(&info, "user");
	if (login == NULL)
		login = GetUserNameFromId(GetUserId(), true);
	return login != NULL && strcmp(login, NameStr(key->login)) == 0;
}

bool
pgmc_server_perhaps_dropped(void)
{
	bool		perhaps = perhaps_dropped;

	perhaps_dropped = false;
	return perhaps;
}

bool
pgmc_server_key_dropped(const PgmcKey *key)
{
	bool		dropped;

	if (key->dbid != MyDatabaseId)
		return false;
	dropped = !SearchSysCacheExists1(FOREIGNSERVEROID,
									 ObjectIdGetDatum(key->serverid)) ||
		(OidIsValid(key->umid) &&
		 !SearchSysCacheExists1(USERMAPPINGOID, ObjectIdGetDatum(key->umid)));

	/* whoever waits in pgmc.run() must have no snapshot */
	InvalidateCatalogSnapshot();
	return dropped;
}

bool
pgmc_server_pool_size(const PgmcServer *server, uint64 *as_of, int *pool_size)
{
	PgmcServerOptions options = {.pool_size = POOL_SIZE};
	PgmcConninfo info = {0};
	MemoryContext context;
	MemoryContext caller;
	ForeignServer *fs;

	AcceptInvalidationMessages();
	if (*as_of == changes)
		return false;
	*as_of = changes;
	context = AllocSetContextCreate(CurrentMemoryContext, "pgmc server's options",
									ALLOCSET_SMALL_SIZES);
	caller = MemoryContextSwitchTo(context);
	fs = GetForeignServerExtended(server->key.serverid, FSV_MISSING_OK);
	if (fs != NULL)
		pgmc_options_read_server(fs->options, &options, &info);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);

	/* whoever waits in pgmc.run() must have no snapshot */
	InvalidateCatalogSnapshot();
	*pool_size = options.pool_size;
	return fs != NULL;
}

static void
mark_stale(Datum arg, int cacheid, uint32 hashvalue)
{
	stale = true;
	changes++;
	if (cacheid == FOREIGNSERVEROID || cacheid == USERMAPPINGOID)
		perhaps_dropped = true;
}

void
pgmc_server_init(void)
{
	CacheRegisterSyscacheCallback(FOREIGNSERVEROID, mark_stale, (Datum) 0);
	CacheRegisterSyscacheCallback(FOREIGNDATAWRAPPEROID, mark_stale, (Datum) 0);
	CacheRegisterSyscacheCallback(USERMAPPINGOID, mark_stale, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, mark_stale, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, mark_stale, (Datum) 0);
}
