/*
 * option_table.c
 *		Which options there are, and libpq's way of writing them.
 *
 * One table, made from pgmc's own list and libpq's, drives the check of what
 * users set, the hint at the nearest name, and what libpq is given.  Pure but
 * for libpq, which is asked for its options and parses a dsn: it needs no
 * server, and raises no errors but when memory ends.
 */
#ifdef PGMC_UNIT
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include <ctype.h>
#include <limits.h>

#include "lib/stringinfo.h"
#include "libpq-fe.h"

#include "option_table.h"

/* how far a misspelt name may be from the one that a hint names */
#define MAX_DISTANCE	4

static const PgmcOption own_options[] = {
	{"dsn", PGMC_KIND_DSN, PGMC_ON_SERVER, NULL},
	{"pool_size", PGMC_KIND_POOL_SIZE, PGMC_ON_SERVER, NULL},
	{"idle_timeout", PGMC_KIND_TIME, PGMC_ON_SERVER, NULL},
	{"max_lifetime", PGMC_KIND_TIME, PGMC_ON_SERVER, NULL},
	{"hold_timeout", PGMC_KIND_TIME, PGMC_ON_SERVER, NULL},
	{"idle_hold_timeout", PGMC_KIND_TIME, PGMC_ON_SERVER, NULL},
	{"reset_query", PGMC_KIND_TEXT, PGMC_ON_SERVER, NULL},
	{"on_error", PGMC_KIND_ON_ERROR, PGMC_ON_SERVER, NULL},
	{"password_required", PGMC_KIND_BOOL, PGMC_ON_MAPPING | PGMC_SUPERUSER_ONLY, NULL},
};

/* libpq's options that are not simply a server's; the others are */
static const PgmcOption special_options[] = {
	{"user", PGMC_KIND_LIBPQ, PGMC_ON_MAPPING, NULL},
	{"password", PGMC_KIND_LIBPQ, PGMC_ON_MAPPING | PGMC_SECRET, NULL},
	{"sslpassword", PGMC_KIND_LIBPQ, PGMC_ON_MAPPING | PGMC_SECRET, NULL},
	{"scram_client_key", PGMC_KIND_LIBPQ, PGMC_ON_MAPPING | PGMC_SECRET, NULL},
	{"scram_server_key", PGMC_KIND_LIBPQ, PGMC_ON_MAPPING | PGMC_SECRET, NULL},
	{"sslcert", PGMC_KIND_LIBPQ, PGMC_ON_SERVER | PGMC_ON_MAPPING | PGMC_SUPERUSER_ONLY, NULL},
	{"sslkey", PGMC_KIND_LIBPQ, PGMC_ON_SERVER | PGMC_ON_MAPPING | PGMC_SUPERUSER_ONLY, NULL},
	{"sslrootcert", PGMC_KIND_LIBPQ, PGMC_ON_SERVER | PGMC_SUPERUSER_ONLY, NULL},
	{"sslcrl", PGMC_KIND_LIBPQ, PGMC_ON_SERVER | PGMC_SUPERUSER_ONLY, NULL},
	{"sslcrldir", PGMC_KIND_LIBPQ, PGMC_ON_SERVER | PGMC_SUPERUSER_ONLY, NULL},
	{"sslkeylogfile", PGMC_KIND_LIBPQ, PGMC_ON_SERVER | PGMC_SUPERUSER_ONLY, NULL},
	{"passfile", PGMC_KIND_LIBPQ, PGMC_ON_SERVER | PGMC_SUPERUSER_ONLY, NULL},
	{"service", PGMC_KIND_LIBPQ, PGMC_ON_SERVER | PGMC_SUPERUSER_ONLY, NULL},
	{"servicefile", PGMC_KIND_LIBPQ, PGMC_ON_SERVER | PGMC_SUPERUSER_ONLY, NULL},
	{"krbsrvname", PGMC_KIND_LIBPQ, PGMC_ON_SERVER | PGMC_SUPERUSER_ONLY, NULL},
	{"gsslib", PGMC_KIND_LIBPQ, PGMC_ON_SERVER | PGMC_SUPERUSER_ONLY, NULL},
	{"gssdelegation", PGMC_KIND_LIBPQ, PGMC_ON_SERVER | PGMC_SUPERUSER_ONLY, NULL},
	{"client_encoding", PGMC_KIND_LIBPQ, 0,
	"pgmc sets it to the encoding of the database."},
	{"fallback_application_name", PGMC_KIND_LIBPQ, 0,
	"Set application_name instead."},
	{"replication", PGMC_KIND_LIBPQ, 0,
	"A replication connection cannot run ordinary commands."},
	{"authtype", PGMC_KIND_LIBPQ, 0, "It is obsolete."},
	{"tty", PGMC_KIND_LIBPQ, 0, "It is obsolete."},
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

/* the whole table, never freed; libpq's part in libpq's order */
static PgmcOption *table = NULL;
static int	table_size = 0;

/* ---- the table ---- */

static PgmcOption
libpq_option(const PQconninfoOption *libpq)
{
	PgmcOption	option = {libpq->keyword, PGMC_KIND_LIBPQ, PGMC_ON_SERVER, NULL};

	for (Size i = 0; i < lengthof(special_options); i++)
		if (strcmp(special_options[i].name, libpq->keyword) == 0)
		{
			option = special_options[i];
			return option;
		}

	/* secrets and things for libpq's own debugging that we haven't heard of */
	if (strchr(libpq->dispchar, '*') != NULL)
		option.flags = PGMC_ON_MAPPING | PGMC_SECRET;
	else if (strchr(libpq->dispchar, 'D') != NULL)
		option.flags |= PGMC_SUPERUSER_ONLY;
	return option;
}

bool
pgmc_option_table_make(void)
{
	PQconninfoOption *libpq;
	PgmcOption *made;
	int			n = 0;

	if (table != NULL)
		return true;
	libpq = PQconndefaults();
	if (libpq == NULL)
		return false;
	while (libpq[n].keyword != NULL)
		n++;
	made = malloc((n + lengthof(own_options)) * sizeof(PgmcOption));
	for (int i = 0; made != NULL && i < n; i++)
	{
		made[i] = libpq_option(&libpq[i]);
		made[i].name = strdup(libpq[i].keyword);
		if (made[i].name == NULL)
		{
			while (--i >= 0)
				free(unconstify(char *, made[i].name));
			free(made);
			made = NULL;
		}
	}
	PQconninfoFree(libpq);
	if (made == NULL)
		return false;
	memcpy(made + n, own_options, sizeof(own_options));
	table_size = n + lengthof(own_options);
	table = made;
	return true;
}

const PgmcOption *
pgmc_option_find(const char *name)
{
	for (int i = 0; i < table_size; i++)
		if (strcmp(table[i].name, name) == 0)
			return &table[i];
	return NULL;
}

/* bytes to insert, delete or replace to make one name of the other */
static int
distance(const char *a, int a_length, const char *b)
{
	int			row[NAMEDATALEN];	/* of b's beginnings, for a's up to i */
	int			b_length = strlen(b);

	if (b_length >= NAMEDATALEN)
		return INT_MAX;
	for (int j = 0; j <= b_length; j++)
		row[j] = j;
	for (int i = 1; i <= a_length; i++)
	{
		int			diagonal = row[0];

		row[0] = i;
		for (int j = 1; j <= b_length; j++)
		{
			int			above = row[j];

			row[j] = Min(diagonal + (a[i - 1] != b[j - 1]),
						 Min(above, row[j - 1]) + 1);
			diagonal = above;
		}
	}
	return row[b_length];
}

const char *
pgmc_option_nearest(const char *name, int where)
{
	const char *best = NULL;
	int			best_distance = MAX_DISTANCE + 1;
	int			length = strnlen(name, NAMEDATALEN - 1);

	for (int i = 0; i < table_size; i++)
	{
		int			d;

		if ((table[i].flags & where) == 0 || table[i].refusal != NULL)
			continue;
		d = distance(name, length, table[i].name);
		if (d < best_distance && d <= length / 2)
		{
			best = table[i].name;
			best_distance = d;
		}
	}
	return best;
}

/* ---- values ---- */

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

/*
 * A decimal number of this length, as libpq reads its own: perhaps with space
 * around it, and nothing else.
 */
static bool
is_number(const char *value, Size length, int min, int max)
{
	const char *end = value + length;
	long		number;
	char	   *behind;

	errno = 0;
	number = strtol(value, &behind, 10);
	if (behind == value || behind > end || errno != 0 ||
		number < min || number > max)
		return false;
	while (behind < end && isspace((unsigned char) *behind))
		behind++;
	return behind == end;
}

/* one for each host, or one for all; an empty one is the default */
static bool
are_ports(const char *value)
{
	for (const char *p = value;; p++)
	{
		Size		length = strcspn(p, ",");

		if (length > 0 && !is_number(p, length, 1, 65535))
			return false;
		p += length;
		if (*p == '\0')
			return true;
	}
}

const char *
pgmc_option_libpq_value_hint(const char *name, const char *value)
{
	if (value[0] == '\0')
		return NULL;			/* the default */
	if (strcmp(name, "user") == 0 && strlen(value) >= NAMEDATALEN)
		return gettext_noop("It is too long for the name of a role.");
	if (strcmp(name, "port") == 0 && !are_ports(value))
		return gettext_noop("It is a number from 1 to 65535, or several, one for each host.");
	if (strcmp(name, "connect_timeout") == 0 &&
		!is_number(value, strlen(value), INT_MIN, INT_MAX))
		return gettext_noop("It is a number of seconds; 0 means none.");
	for (Size i = 0; i < lengthof(choices); i++)
		if (strcmp(choices[i].name, name) == 0 &&
			!is_one_of(value, choices[i].words))
			return psprintf("It is one of: %s.", choices[i].words);
	return NULL;
}

/* ---- connection strings ---- */

/* each keyword has its place in the table's order */
static int
find_place(const PgmcConninfo *info, const char *keyword, bool *found)
{
	const PgmcOption *option = pgmc_option_find(keyword);
	int			i;

	for (i = 0; i < info->n; i++)
	{
		const PgmcOption *other = pgmc_option_find(info->keywords[i]);

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
	if (value[strcspn(value, " \t\n\v\f\r'\\")] == '\0')
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
		const PgmcOption *option = pgmc_option_find(keyword);
		bool		again = false;

		for (Size k = 0; !first && k < lengthof(order); k++)
			again = again || strcmp(order[k], keyword) == 0;
		if (value == NULL || again || option == NULL || (option->flags & PGMC_SECRET))
			continue;
		appendStringInfo(&buf, "%s%s=", buf.len > 0 ? " " : "", keyword);
		append_quoted(&buf, value);
	}
	return buf.data;
}

/*
 * libpq's own message about a broken string may repeat a part of it, which may
 * be a password: it is not for anybody's eyes.
 */
bool
pgmc_dsn_parse(const char *dsn, PgmcConninfo *pairs)
{
	char	   *message = NULL;
	PQconninfoOption *parsed = PQconninfoParse(dsn, &message);
	int			n = 0;

	if (message != NULL)
		PQfreemem(message);
	if (parsed == NULL)
		return false;
	for (PQconninfoOption *o = parsed; o->keyword != NULL; o++)
		n += o->val != NULL;
	pairs->n = 0;
	pairs->keywords = palloc0((n + 1) * sizeof(char *));
	pairs->values = palloc0((n + 1) * sizeof(char *));
	for (PQconninfoOption *o = parsed; o->keyword != NULL; o++)
		if (o->val != NULL)
		{
			pairs->keywords[pairs->n] = pstrdup(o->keyword);
			pairs->values[pairs->n++] = pstrdup(o->val);
		}
	PQconninfoFree(parsed);
	return true;
}
