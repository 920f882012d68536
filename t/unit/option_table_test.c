/*
 * option_table_test.c
 *		Which options there are, what their values may be, and connection strings.
 */
#include "postgres_fe.h"

#include "option_table.h"
#include "tap.h"

/* may be set here, by somebody */
static bool
has(const char *name, int where)
{
	const PgmcOption *option = pgmc_option_find(name);

	return option != NULL && (option->flags & where) != 0 &&
		option->refusal == NULL;
}

static bool
has_flag(const char *name, int flag)
{
	const PgmcOption *option = pgmc_option_find(name);

	return option != NULL && (option->flags & flag) != 0;
}

static void
test_table(void)
{
	static const char *const own[] = {
		"dsn", "pool_size", "idle_timeout", "max_lifetime", "hold_timeout",
		"idle_hold_timeout", "reset_query", "on_error"
	};
	static const char *const files[] = {
		"passfile", "service", "sslcert", "sslkey", "sslrootcert", "sslcrl"
	};

	ok(pgmc_option_table_make(), "the table is made");
	ok(pgmc_option_table_make(), "once");
	for (Size i = 0; i < lengthof(own); i++)
		ok(has(own[i], PGMC_ON_SERVER) && !has(own[i], PGMC_ON_MAPPING) &&
		   !has_flag(own[i], PGMC_SUPERUSER_ONLY),
		   "%s is a server's", own[i]);
	ok(has("host", PGMC_ON_SERVER) && has("options", PGMC_ON_SERVER) &&
	   has("keepalives_idle", PGMC_ON_SERVER), "libpq's options are a server's");
	ok(!has("password", PGMC_ON_SERVER) && has("password", PGMC_ON_MAPPING) &&
	   has_flag("password", PGMC_SECRET), "a password is a mapping's, and secret");
	ok(!has("sslpassword", PGMC_ON_SERVER) && has_flag("sslpassword", PGMC_SECRET),
	   "so is sslpassword");
	ok(!has("scram_client_key", PGMC_ON_SERVER) && !has("scram_server_key", PGMC_ON_SERVER),
	   "so are the keys of SCRAM, where libpq has them");
	ok(!has("user", PGMC_ON_SERVER) && has("user", PGMC_ON_MAPPING),
	   "user is a mapping's");
	ok(has_flag("password_required", PGMC_SUPERUSER_ONLY),
	   "password_required is a superuser's to set");
	for (Size i = 0; i < lengthof(files); i++)
		ok(has_flag(files[i], PGMC_SUPERUSER_ONLY),
		   "%s is a superuser's to set", files[i]);
	ok(!has("replication", PGMC_ON_SERVER) && !has("client_encoding", PGMC_ON_SERVER),
	   "some are nobody's to set");
	ok(pgmc_option_find("Host") == NULL && pgmc_option_find("") == NULL &&
	   pgmc_option_find("hos") == NULL, "others don't exist");
}

static void
nearest(const char *name, int where, const char *expected)
{
	const char *got = pgmc_option_nearest(name, where);

	ok(expected == NULL ? got == NULL : got != NULL && strcmp(got, expected) == 0,
	   "nearest to %s: %s", name, got ? got : "none");
}

static void
test_nearest(void)
{
	char		longest[200];

	nearest("hots", PGMC_ON_SERVER, "host");
	nearest("poolsize", PGMC_ON_SERVER, "pool_size");
	nearest("pool_size", PGMC_ON_SERVER, "pool_size");
	nearest("idle_time_out", PGMC_ON_SERVER, "idle_timeout");
	nearest("onerror", PGMC_ON_SERVER, "on_error");
	nearest("passwort", PGMC_ON_MAPPING, "password");
	nearest("passwort", PGMC_ON_SERVER, "passfile");	/* password is none */
	nearest("replicatio", PGMC_ON_SERVER, NULL);	/* nor what nobody sets */
	nearest("x", PGMC_ON_SERVER, NULL);
	nearest("", PGMC_ON_SERVER, NULL);
	nearest("completely_different", PGMC_ON_SERVER, NULL);
	memset(longest, 'h', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	nearest(longest, PGMC_ON_SERVER, NULL);
}

static void
value(const char *name, const char *text, bool good)
{
	ok((pgmc_option_libpq_value_hint(name, text) == NULL) == good,
	   "%s '%s' is %s", name, text, good ? "accepted" : "refused");
}

static void
test_values(void)
{
	char		role[NAMEDATALEN + 1];

	value("port", "5432", true);
	value("port", "", true);
	value("port", "1", true);
	value("port", "65535", true);
	value("port", "65536", false);
	value("port", "0", false);
	value("port", "-1", false);
	value("port", "0x1538", false);
	value("port", "5432,5433", true);
	value("port", ",5433,", true);
	value("port", "5432, 5433", true);
	value("port", "5432 ,5433", true);
	value("port", "5432 5433", false);
	value("port", "5432,x", false);
	value("port", "5432,1,", true);
	value("port", "5432, ,1", false);
	value("port", "99999999999999999999", false);
	value("connect_timeout", "10", true);
	value("connect_timeout", " 10 ", true);
	value("connect_timeout", "-1", true);
	value("connect_timeout", "10s", false);
	value("connect_timeout", "1e1", false);
	value("connect_timeout", "99999999999", false);
	value("connect_timeout", " ", false);
	value("sslmode", "require", true);
	value("sslmode", "", true);
	value("sslmode", "requir", false);
	value("sslmode", "require ", false);
	value("sslmode", "disable allow", false);
	value("target_session_attrs", "any", true);
	value("target_session_attrs", "read", false);
	value("host", "anything; at all", true);
	memset(role, 'r', NAMEDATALEN);
	role[NAMEDATALEN] = '\0';
	value("user", role, false);
	value("user", role + 1, true);
}

static void
conninfo(const PgmcConninfo *info, const char *expected)
{
	char	   *text = pgmc_conninfo_describe(info);

	ok(strcmp(text, expected) == 0, "%s", text);
	pfree(text);
}

static void
test_conninfo(void)
{
	PgmcConninfo info = {0};
	PgmcConninfo pairs;

	conninfo(&info, "");
	pgmc_conninfo_set(&info, "user", "ann");
	pgmc_conninfo_set(&info, "application_name", "it's");
	pgmc_conninfo_set(&info, "port", "1");
	pgmc_conninfo_set(&info, "host", "/tmp");
	pgmc_conninfo_set(&info, "password", "secret");
	pgmc_conninfo_set(&info, "dbname", "a\\b c");
	conninfo(&info, "host=/tmp port=1 dbname='a\\\\b c' user=ann application_name='it\\'s'");
	ok(info.n == 6 && info.keywords[info.n] == NULL, "ends with a NULL");
	ok(strcmp(pgmc_conninfo_get(&info, "password"), "secret") == 0,
	   "the secret is there, but isn't shown");
	for (int i = 1; i < info.n; i++)
		ok(pgmc_option_find(info.keywords[i - 1]) < pgmc_option_find(info.keywords[i]),
		   "%s comes before %s", info.keywords[i - 1], info.keywords[i]);
	pgmc_conninfo_set(&info, "port", "2");
	pgmc_conninfo_set(&info, "host", "");
	pgmc_conninfo_set(&info, "dbname", NULL);
	pgmc_conninfo_set(&info, "hostaddr", NULL);
	conninfo(&info, "port=2 user=ann application_name='it\\'s'");
	ok(pgmc_conninfo_get(&info, "host") == NULL && info.n == 4 &&
	   info.keywords[info.n] == NULL, "what is taken out is gone");

	ok(pgmc_dsn_parse("host=a port='' password=''", &pairs) && pairs.n == 3,
	   "what is empty in a string is in it");
	ok(pgmc_dsn_parse("postgresql://ann:secret@[::1]:5433/app?sslmode=require", &pairs) &&
	   strcmp(pgmc_conninfo_get(&pairs, "password"), "secret") == 0 &&
	   strcmp(pgmc_conninfo_get(&pairs, "host"), "::1") == 0, "a URI is read");
	conninfo(&pairs, "host=::1 port=5433 dbname=app user=ann sslmode=require");
	ok(pgmc_dsn_parse("application_name='a\tb' port=1", &pairs), "a tab is read");
	conninfo(&pairs, "port=1 application_name='a\tb'");
	ok(pgmc_dsn_parse("", &pairs) && pairs.n == 0, "an empty string is one");
	ok(!pgmc_dsn_parse("nonsense", &pairs), "nonsense is none");
	ok(!pgmc_dsn_parse("host", &pairs), "nor is a keyword");
	ok(!pgmc_dsn_parse("no_such=1", &pairs), "nor one that doesn't exist");
	ok(!pgmc_dsn_parse("host='open", &pairs), "nor an open quote");
	ok(!pgmc_dsn_parse("postgresql://[::1", &pairs), "nor an open bracket");
}

int
main(void)
{
	test_table();
	test_nearest();
	test_values();
	test_conninfo();
	return done_testing();
}
