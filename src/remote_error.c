/*
 * remote_error.c
 *		Errors and notices of the server and of libpq, as the worker has them.
 *
 * What the holder is to know of goes to the output; what says why a connection
 * is at its end is noted in the PgmcRemote.
 */
#include "postgres.h"

#include "remote_int.h"

/* libpq's messages end with a line feed, which ours don't */
void
pgmc_remote_set_error(PgmcRemote *remote, int sqlstate, const char *message)
{
	size_t		length;

	remote->error_sqlstate = sqlstate;
	strlcpy(remote->error, message ? message : "", sizeof(remote->error));
	length = strlen(remote->error);
	while (length > 0 && remote->error[length - 1] == '\n')
		remote->error[--length] = '\0';
}

static void
fields_of_result(const PGresult *res, PgmcFields *fields)
{
	fields->severity = PQresultErrorField(res, PG_DIAG_SEVERITY_NONLOCALIZED);
	fields->sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);
	fields->message = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
	fields->detail = PQresultErrorField(res, PG_DIAG_MESSAGE_DETAIL);
	fields->hint = PQresultErrorField(res, PG_DIAG_MESSAGE_HINT);
	fields->context = PQresultErrorField(res, PG_DIAG_CONTEXT);
	fields->position = PQresultErrorField(res, PG_DIAG_STATEMENT_POSITION);
	fields->internal_position = PQresultErrorField(res, PG_DIAG_INTERNAL_POSITION);
	fields->internal_query = PQresultErrorField(res, PG_DIAG_INTERNAL_QUERY);
	fields->schema = PQresultErrorField(res, PG_DIAG_SCHEMA_NAME);
	fields->table = PQresultErrorField(res, PG_DIAG_TABLE_NAME);
	fields->column = PQresultErrorField(res, PG_DIAG_COLUMN_NAME);
	fields->datatype = PQresultErrorField(res, PG_DIAG_DATATYPE_NAME);
	fields->constraint = PQresultErrorField(res, PG_DIAG_CONSTRAINT_NAME);
}

static bool
is_fatal(const PgmcFields *fields)
{
	return fields->severity != NULL &&
		(strcmp(fields->severity, "FATAL") == 0 ||
		 strcmp(fields->severity, "PANIC") == 0);
}

/* the server's last words */
static void
note_fatal(PgmcRemote *remote, const PgmcFields *fields)
{
	pgmc_remote_set_error(remote, ERRCODE_CONNECTION_FAILURE,
						  fields->message ? fields->message : "");
}

/* Is it the reset that is running?  That concerns the last holder only. */
static bool
resetting(const PgmcRemote *remote)
{
	const Task *task = &remote->task;

	return task->at < task->nsteps && task->steps[task->at] == STEP_RESET;
}

/*
 * libpq's notice receiver; may be called anywhere inside libpq, so it must not
 * raise errors: one that doesn't fit into memory is left out.
 */
void
pgmc_remote_receive_notice(void *arg, const PGresult *res)
{
	PgmcRemote *remote = arg;
	PgmcFields	fields = {0};
	MemoryContext caller = CurrentMemoryContext;
	int			length = remote->out != NULL ? remote->out->len : 0;

	fields_of_result(res, &fields);
	if (is_fatal(&fields))
		note_fatal(remote, &fields);
	if (remote->out == NULL || remote->task.kind == TASK_NONE ||
		remote->task.kind == TASK_RECOVER || remote->task.silent ||
		resetting(remote) || fields.sqlstate == NULL)
		return;

	remote->task.spoke = true;
	PG_TRY();
	{
		pgmc_wire_fields(remote->out, PGMC_REPLY_NOTICE, remote->task.seq, &fields);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		FlushErrorState();
		remote->out->len = length;
	}
	PG_END_TRY();
}

/* Was the error raised in this function of the server's, on behalf of nothing else? */
static bool
raised_in(const PGresult *res, const PgmcFields *fields, const char *function)
{
	const char *source = PQresultErrorField(res, PG_DIAG_SOURCE_FUNCTION);

	return source != NULL && strcmp(source, function) == 0 &&
		fields->context == NULL;
}

/*
 * Has the command failed for no other reason than that its prepared statement
 * is gone, or returns other columns than it did?  Then it hasn't begun to run.
 * It is sent once more, in full, where no transaction was lost by that.  The
 * SQLSTATE doesn't tell: what the command calls may have raised that, too.
 *
 * A statement may have become outdated in other ways, by types of parameters
 * that aren't right any more: it isn't used again after errors that look like
 * it, and may be prepared anew.
 */
static bool
statement_unusable(PgmcRemote *remote, const PGresult *res,
				   const PgmcFields *fields)
{
	Task	   *task = &remote->task;
	bool		unusable = false;

	if (!task->known || task->at >= task->nsteps ||
		(task->steps[task->at] != STEP_DESCRIBE &&
		 task->steps[task->at] != STEP_MAIN_PREPARED))
		return false;
	if (strcmp(fields->sqlstate, "26000") == 0 &&
		raised_in(res, fields, "FetchPreparedStatement"))
	{
		unusable = true;
		pgmc_prepared_give_up(remote->prepared);
	}
	else if (strcmp(fields->sqlstate, "0A000") == 0 &&
			 raised_in(res, fields, "RevalidateCachedQuery"))
		unusable = true;
	if (unusable || strncmp(fields->sqlstate, "22", 2) == 0 ||
		strncmp(fields->sqlstate, "42", 2) == 0 ||
		strncmp(fields->sqlstate, "XX", 2) == 0)
		pgmc_prepared_drop(remote->prepared, task->statement);
	task->retry = unusable && task->fresh && !task->spoke && !task->silent &&
		!task->failed;
	return task->retry;
}

/* Which set is it whose results come in?  A line for the context of an error. */
static const char *
name_set(const Task *task, const char *context)
{
	return psprintf("%s%sparameter set " INT64_FORMAT " of pgmc.execute_many",
					context ? context : "", context ? "\n" : "",
					task->sets_done + 1);
}

/* An error of a step.  Only the first one of a task is of interest. */
void
pgmc_remote_report_error(PgmcRemote *remote, const PGresult *res)
{
	Task	   *task = &remote->task;
	PgmcFields	fields = {0};

	fields_of_result(res, &fields);
	if (is_fatal(&fields))
	{
		note_fatal(remote, &fields);
		task->fatal = true;
		return;
	}
	if (fields.sqlstate == NULL)
	{
		/* libpq's own: nearly always the end of the connection */
		if (PQstatus(remote->conn) == CONNECTION_BAD)
		{
			if (remote->error[0] == '\0')
				pgmc_remote_set_error(remote, 0, PQresultErrorMessage(res));
			remote->eof = remote->drained = true;
			return;
		}
		fields.message = PQresultErrorMessage(res);
		fields.sqlstate = strncmp(fields.message, "out of memory", 13) == 0 ?
			"53200" : "XX000";
	}
	if (resetting(remote) && task->cancelled && task->kind == TASK_EXECUTE &&
		strcmp(fields.sqlstate, "57014") == 0)
		remote->last_user = PGMC_ANYBODY;	/* it meant the holder's command,
											 * and the reset stays due */
	else if (resetting(remote))
	{
		task->condemned = true;
		fields.context = "reset_query";
		pgmc_remote_set_error(remote, ERRCODE_CONNECTION_FAILURE,
							  psprintf("reset_query failed: %s", fields.message));
	}
	else if (statement_unusable(remote, res, &fields))
	{
		task->failed = true;
		return;
	}
	else if (at_sets(task))
		fields.context = name_set(task, fields.context);
	else if (task->kind == TASK_RECOVER)
	{
		task->condemned = true;
		pgmc_remote_set_error(remote, ERRCODE_CONNECTION_FAILURE, fields.message);
	}
	if (task->kind != TASK_RECOVER && !task->silent && !task->failed &&
		!task->refused)
		pgmc_wire_fields(remote->out, PGMC_REPLY_ERROR, task->seq, &fields);
	task->failed = true;
}
