/*
 * option_table.h
 *		Which options there are, and libpq's way of writing them.
 *
 * The table is pgmc's own few and whatever the libpq at hand knows, so a new
 * libpq brings its new options with it.
 */
#ifndef PGMC_OPTION_TABLE_H
#define PGMC_OPTION_TABLE_H

/* libpq keywords with their values, in libpq's order, each at most once */
typedef struct PgmcConninfo
{
	int			n;
	const char **keywords;		/* NULL-terminated */
	const char **values;
} PgmcConninfo;

typedef enum PgmcOptionKind
{
	PGMC_KIND_LIBPQ,
	PGMC_KIND_DSN,
	PGMC_KIND_POOL_SIZE,
	PGMC_KIND_TIME,
	PGMC_KIND_TEXT,
	PGMC_KIND_ON_ERROR,
	PGMC_KIND_BOOL
} PgmcOptionKind;

#define PGMC_ON_SERVER		0x01
#define PGMC_ON_MAPPING		0x02
#define PGMC_SUPERUSER_ONLY	0x04
#define PGMC_SECRET			0x08

typedef struct PgmcOption
{
	const char *name;
	PgmcOptionKind kind;
	int			flags;
	const char *refusal;		/* why nobody may set it, or NULL */
} PgmcOption;

/* Make the table, before all that follows; false: out of memory. */
extern bool pgmc_option_table_make(void);

/* an option, or NULL */
extern const PgmcOption *pgmc_option_find(const char *name);

/* the option of this place that was probably meant, or NULL */
extern const char *pgmc_option_nearest(const char *name, int where);

/*
 * What a value of an option of libpq's should be, where it can't be that; NULL:
 * it may be good.  The rest is for libpq to say, when it connects.
 */
extern const char *pgmc_option_libpq_value_hint(const char *name,
												const char *value);

/* Set a keyword; a value of NULL or "" takes it out. */
extern void pgmc_conninfo_set(PgmcConninfo *info, const char *keyword,
							  const char *value);

/* its value, or NULL */
extern const char *pgmc_conninfo_get(const PgmcConninfo *info,
									 const char *keyword);

/* "host=... port=...", without secrets and what pgmc sets for itself */
extern char *pgmc_conninfo_describe(const PgmcConninfo *info);

/* What a connection string says, empty values included; false: it is broken. */
extern bool pgmc_dsn_parse(const char *dsn, PgmcConninfo *pairs);

#endif							/* PGMC_OPTION_TABLE_H */
