/*
 * transfer.c
 *		How values travel between two servers and stay what they are.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/tupdesc.h"
#include "access/transam.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/float.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "transfer.h"

static bool composite_ok(Oid type, bool own_database);

/*
 * Types whose binary format can be sent but not received, or means something
 * else in another session.
 */
static bool
is_one_way(Form_pg_type form, Oid type)
{
	switch (type)
	{
		case PG_NODE_TREEOID:
		case PG_NDISTINCTOID:
		case PG_DEPENDENCIESOID:
		case PG_MCV_LISTOID:
		case PG_BRIN_BLOOM_SUMMARYOID:
		case PG_BRIN_MINMAX_MULTI_SUMMARYOID:
			return true;
		default:
			return form->typtype == TYPTYPE_PSEUDO && type != VOIDOID;
	}
}

bool
pgmc_transfer_object_name(Oid type)
{
	switch (type)
	{
		case REGPROCOID:
		case REGPROCEDUREOID:
		case REGOPEROID:
		case REGOPERATOROID:
		case REGCLASSOID:
		case REGCOLLATIONOID:
		case REGTYPEOID:
		case REGROLEOID:
		case REGNAMESPACEOID:
		case REGCONFIGOID:
		case REGDICTIONARYOID:
			return true;
		default:
			return false;
	}
}

static bool
form_ok(Form_pg_type form, Oid type, bool own_database)
{
	if (!form->typisdefined || !OidIsValid(form->typsend) ||
		!OidIsValid(form->typreceive) || is_one_way(form, type) ||
		(pgmc_transfer_object_name(type) && !own_database))
		return false;
	switch (form->typtype)
	{
		case TYPTYPE_COMPOSITE:
			return composite_ok(type, own_database);
		case TYPTYPE_DOMAIN:
			return pgmc_transfer_binary_ok(form->typbasetype, own_database);
		case TYPTYPE_RANGE:
			return pgmc_transfer_binary_ok(get_range_subtype(type), own_database);
		case TYPTYPE_MULTIRANGE:
			return pgmc_transfer_binary_ok(get_multirange_range(type), own_database);
		default:
			break;
	}

	/* true arrays are as good as their elements */
	if (OidIsValid(form->typelem) && form->typlen == -1)
		return pgmc_transfer_binary_ok(form->typelem, own_database);
	return true;
}

bool
pgmc_transfer_binary_ok(Oid type, bool own_database)
{
	HeapTuple	tuple;
	bool		ok;

	if (type >= FirstGenbkiObjectId && !own_database)
		return false;
	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	if (!HeapTupleIsValid(tuple))
		return false;
	ok = form_ok((Form_pg_type) GETSTRUCT(tuple), type, own_database);
	ReleaseSysCache(tuple);
	return ok;
}

static bool
composite_ok(Oid type, bool own_database)
{
	Oid			relid = get_typ_typrelid(type);
	TupleDesc	desc;
	bool		ok;

	/* not to be waited for: it may be the loopback that has it locked */
	if (!ConditionalLockRelationOid(relid, AccessShareLock))
		return false;
	desc = lookup_rowtype_tupdesc_noerror(type, -1, true);
	UnlockRelationOid(relid, AccessShareLock);
	ok = desc != NULL;
	for (int i = 0; ok && i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped)
			ok = pgmc_transfer_binary_ok(att->atttypid, own_database);
	}
	if (desc != NULL)
		ReleaseTupleDesc(desc);
	return ok;
}

int
pgmc_transfer_begin_encoding(void)
{
	int			saved = pg_get_client_encoding();

	if (saved != GetDatabaseEncoding())
		SetClientEncoding(GetDatabaseEncoding());
	return saved;
}

void
pgmc_transfer_end_encoding(int saved)
{
	if (saved != GetDatabaseEncoding() && SetClientEncoding(saved) < 0)
		elog(ERROR, "could not restore client encoding %d", saved);
}

static void
set_for_now(const char *name, const char *value)
{
	if (value[0] != '\0')
		(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, DEBUG1, false);
}

/* An unquoted NULL in an array is one, whatever the session has set. */
static void
read_nulls(void)
{
	if (!Array_nulls)
		set_for_now("array_nulls", "on");
}

/*
 * The style under which dates written under this one are read as they were
 * meant: some are written in an order of their own, whatever order is set.
 */
static const char *
reading_style(const char *datestyle)
{
	if (strncmp(datestyle, "German", 6) == 0)
		return "German, DMY";
	if (strcmp(datestyle, "SQL, YMD") == 0)
		return "SQL, MDY";
	return datestyle;
}

int
pgmc_transfer_begin_reading(const PgmcDescribe *desc)
{
	int			nestlevel = NewGUCNestLevel();

	set_for_now("datestyle", reading_style(desc->datestyle));
	set_for_now("intervalstyle", desc->intervalstyle);
	set_for_now("timezone", desc->timezone);
	read_nulls();
	return nestlevel;
}

int
pgmc_transfer_begin_converting(void)
{
	int			nestlevel = NewGUCNestLevel();

	if (extra_float_digits < 1)
		set_for_now("extra_float_digits", "1");
	read_nulls();
	return nestlevel;
}

/* ISO dates and ISO 8601 intervals are read alike under every style. */
int
pgmc_transfer_begin_writing(void)
{
	int			nestlevel = NewGUCNestLevel();

	set_for_now("datestyle", "ISO, YMD");
	set_for_now("intervalstyle", "iso_8601");
	set_for_now("extra_float_digits", "3");
	set_for_now("search_path", "pg_catalog");
	return nestlevel;
}

void
pgmc_transfer_end_settings(int nestlevel)
{
	AtEOXact_GUC(true, nestlevel);
}

char *
pgmc_transfer_clean(const char *message)
{
	char	   *clean = pstrdup(message);
	int			length = strlen(clean);
	int			valid = pg_encoding_verifymbstr(GetDatabaseEncoding(), clean,
												length);

	/* the last character was cut */
	if (length - valid < pg_database_encoding_max_length())
		clean[valid] = '\0';
	for (char *p = clean + Min(valid, length); *p != '\0'; p++)
		if (IS_HIGHBIT_SET(*p))
			*p = '?';
	return clean;
}
