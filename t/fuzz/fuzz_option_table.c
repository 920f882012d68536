/*
 * fuzz_option_table.c
 *		Any text, taken for an option's name, its value, or a connection string:
 *		nothing outside of it is looked at; the nearest name is one that can be
 *		set there; and a string that is accepted says the same when it is written
 *		again.
 *
 * For tools/fuzz.  The first byte says what the rest is.
 */
#include "postgres_fe.h"

#include "option_table.h"

extern int	LLVMFuzzerTestOneInput(const uint8 *data, size_t size);

static void
try_name(const char *name)
{
	static const int places[] = {PGMC_ON_SERVER, PGMC_ON_MAPPING};

	for (Size i = 0; i < lengthof(places); i++)
	{
		const PgmcOption *exact = pgmc_option_find(name);
		const char *nearest = pgmc_option_nearest(name, places[i]);
		const PgmcOption *option = nearest ? pgmc_option_find(nearest) : NULL;

		if (nearest != NULL && (option == NULL || option->refusal != NULL ||
								(option->flags & places[i]) == 0))
			abort();
		if (exact != NULL && exact->refusal == NULL &&
			(exact->flags & places[i]) != 0 && exact != option)
			abort();
	}
}

static void
try_value(const char *name, const char *value)
{
	const char *hint = pgmc_option_libpq_value_hint(name, value);

	if (hint != NULL && (value[0] == '\0' || hint[0] == '\0'))
		abort();
	if (hint == NULL && strcmp(name, "port") == 0 &&
		strspn(value, "0123456789, +\t\n\v\f\r") != strlen(value))
		abort();
	if (hint != NULL && strncmp(hint, "It is one of", 12) == 0)
		pfree(unconstify(char *, hint));
}

static void
free_pairs(PgmcConninfo *info)
{
	for (int i = 0; i < info->n; i++)
	{
		pfree(unconstify(char *, info->keywords[i]));
		pfree(unconstify(char *, info->values[i]));
	}
	if (info->keywords != NULL)
	{
		pfree(info->keywords);
		pfree(info->values);
	}
}

/* What was put in one by one comes out in the table's order. */
static void
check_order(const PgmcConninfo *info)
{
	for (int i = 1; i < info->n; i++)
		if (pgmc_option_find(info->keywords[i - 1]) >=
			pgmc_option_find(info->keywords[i]))
			abort();
	if (info->n > 0 && info->keywords[info->n] != NULL)
		abort();
}

static void
try_string(const char *dsn)
{
	PgmcConninfo pairs;
	PgmcConninfo info = {0};
	PgmcConninfo again;
	char	   *text;

	if (!pgmc_dsn_parse(dsn, &pairs))
		return;

	/* backwards, so that there is something to put in order */
	for (int i = pairs.n - 1; i >= 0; i--)
		pgmc_conninfo_set(&info, pairs.keywords[i], pairs.values[i]);
	check_order(&info);
	text = pgmc_conninfo_describe(&info);

	if (!pgmc_dsn_parse(text, &again))
		abort();
	for (int i = 0; i < info.n; i++)
	{
		const PgmcOption *option = pgmc_option_find(info.keywords[i]);
		const char *value = pgmc_conninfo_get(&again, info.keywords[i]);

		if ((option->flags & PGMC_SECRET) ? value != NULL :
			value == NULL || strcmp(value, info.values[i]) != 0)
			abort();
	}
	free_pairs(&again);
	free_pairs(&info);
	free_pairs(&pairs);
	pfree(text);
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	static const char *const names[] = {
		"port", "connect_timeout", "sslmode", "target_session_attrs", "user", "host"
	};
	char	   *text;

	if (size == 0)
		return 0;
	if (!pgmc_option_table_make())
		abort();
	text = malloc(size);

	memcpy(text, data + 1, size - 1);
	text[		size - 1] = '\0';

	if (data[0] % 3 == 0)
		try_name(text);
	else if (data[0] % 3 == 1)
		try_value(names[data[0] / 3 % lengthof(names)], text);
	else
		try_string(text);
	free(text);
	return 0;
}
