/*
 * result.c
 *		Remote errors and notices, reported as if they were our own.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"

#include "result.h"

int
pgmc_result_sqlstate(const PgmcFields *fields)
{
	const char *s = fields->sqlstate;

	if (s == NULL || strlen(s) != 5)
		return ERRCODE_INTERNAL_ERROR;
	return MAKE_SQLSTATE(s[0], s[1], s[2], s[3], s[4]);
}

int
pgmc_notice_level(const PgmcFields *fields)
{
	const char *severity = fields->severity ? fields->severity : "NOTICE";

	if (strcmp(severity, "WARNING") == 0)
		return WARNING;
	if (strcmp(severity, "INFO") == 0)
		return INFO;
	if (strcmp(severity, "DEBUG") == 0)
		return DEBUG1;
	if (strcmp(severity, "LOG") == 0)
		return LOG;
	return NOTICE;
}

/*
 * The place of the error: one that the server had found inside a statement of
 * its own, or one in our command.  Never errposition, which would point into
 * the statement of our caller.
 */
static void
set_position(const PgmcFields *fields, const char *command)
{
	if (fields->internal_query != NULL)
	{
		internalerrquery(fields->internal_query);
		if (fields->internal_position != NULL)
			internalerrposition(atoi(fields->internal_position));
	}
	else if (fields->position != NULL && command != NULL)
	{
		internalerrquery(command);
		internalerrposition(atoi(fields->position));
	}
}

static void
set_names(const PgmcFields *fields)
{
	const struct
	{
		int			code;
		const char *value;
	}			names[] = {
		{PG_DIAG_SCHEMA_NAME, fields->schema},
		{PG_DIAG_TABLE_NAME, fields->table},
		{PG_DIAG_COLUMN_NAME, fields->column},
		{PG_DIAG_DATATYPE_NAME, fields->datatype},
		{PG_DIAG_CONSTRAINT_NAME, fields->constraint},
	};

	for (Size i = 0; i < lengthof(names); i++)
		if (names[i].value != NULL)
			err_generic_string(names[i].code, names[i].value);
}

void
pgmc_report(int elevel, const PgmcFields *fields, const char *srvname,
			const char *command)
{
	if (!errstart(elevel, TEXTDOMAIN))
		return;
	errcode(pgmc_result_sqlstate(fields));
	errmsg_internal("%s", fields->message ? fields->message :
					"the server gave no error message");
	if (fields->detail)
		errdetail_internal("%s", fields->detail);
	if (fields->hint)
		errhint("%s", fields->hint);
	if (fields->context)
		errcontext("%s", fields->context);
	errcontext("on pgmc server \"%s\"", srvname);
	set_position(fields, command);
	set_names(fields);
	errfinish(__FILE__, __LINE__, __func__);
}
