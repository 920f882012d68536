/*
 * remote_result.c
 *		Results of the server on their way to the output.
 *
 * Rows are taken from libpq one at a time and only while there is room in the
 * output, so a result of any size passes through a bounded memory.  A row may
 * be larger than the room: pgmc_remote_emit_row goes on where it stopped.
 */
#include "postgres.h"

#include "remote_int.h"

/* a row of less may make the output a little longer than its limit */
#define SMALL_ROW		(8 * 1024)

/* ---- rows ---- */

static void
send_describe(PgmcRemote *remote, const PGresult *res, uint8 flags)
{
	PgmcDescribe desc;
	bool		as_text = (flags & PGMC_DESCRIBE_BINARY) == 0;
	const char *names[3] = {"DateStyle", "IntervalStyle", "TimeZone"};
	const char *values[3];

	desc.ncolumns = PQnfields(res);
	desc.columns = palloc(Max(desc.ncolumns, 1) * sizeof(PgmcColumn));
	for (int i = 0; i < desc.ncolumns; i++)
	{
		desc.columns[i].type = PQftype(res, i);
		desc.columns[i].typmod = PQfmod(res, i);
	}
	for (int i = 0; i < 3; i++)
	{
		values[i] = as_text ? PQparameterStatus(remote->conn, names[i]) : NULL;
		if (values[i] == NULL)
			values[i] = "";
	}
	desc.datestyle = values[0];
	desc.intervalstyle = values[1];
	desc.timezone = values[2];
	pgmc_wire_describe(remote->out, flags, remote->task.seq, &desc);
	pfree(desc.columns);
	remote->task.described = true;
}

static bool
rows_wanted(const Task *task)
{
	return (task->flags & PGMC_EXEC_ROWS) && !task->silent && !task->failed;
}

static uint8
describe_flags(const Task *task)
{
	if (!task->pipelined)
		return PGMC_DESCRIBE_SEVERAL;	/* the simple protocol: text */
	return (task->flags & PGMC_EXEC_BINARY) ? PGMC_DESCRIBE_BINARY : 0;
}

/* Keep it as the row to be emitted, unless nobody wants to have it. */
static void
take_row(PgmcRemote *remote, PGresult *res)
{
	Task	   *task = &remote->task;

	if (!rows_wanted(task))
		return;
	if (!task->described)
		send_describe(remote, res, describe_flags(task));
	task->spoke = true;
	remote->result = NULL;
	remote->row = res;
	remote->row_column = -1;
}

/* A row that there is room for, in one piece. */
static void
emit_small_row(PgmcRemote *remote, uint32 total)
{
	StringInfo	out = remote->out;
	PGresult   *res = remote->row;
	int			n = PQnfields(res);
	char	   *at;

	enlargeStringInfo(out, PGMC_FRAME_SIZE + total);
	at = out->data + out->len;
	pgmc_wire_header(at, PGMC_REPLY_ROW, 0, remote->task.seq, total);
	at += PGMC_FRAME_SIZE;
	for (int i = 0; i < n; i++)
	{
		int32		length = PQgetlength(res, 0, i);

		if (length == 0 && PQgetisnull(res, 0, i))
			length = -1;
		memcpy(at, &length, sizeof(length));
		at += sizeof(length);
		if (length > 0)
		{
			memcpy(at, PQgetvalue(res, 0, i), length);
			at += length;
		}
	}
	out->len = at - out->data;
	out->data[out->len] = '\0';
	clear_row(remote);
}

bool
pgmc_remote_emit_row(PgmcRemote *remote)
{
	StringInfo	out = remote->out;
	PGresult   *res = remote->row;
	int			n = PQnfields(res);

	if (remote->row_column < 0)
	{
		char		header[PGMC_FRAME_SIZE];
		uint32		total = 0;

		for (int i = 0; i < n; i++)
			total += 4 + (uint32) PQgetlength(res, 0, i);
		if (total < SMALL_ROW)
		{
			emit_small_row(remote, total);
			return true;
		}
		remote->bloated = remote->bloated || total > BLOATED_SIZE;
		pgmc_wire_header(header, PGMC_REPLY_ROW, 0, remote->task.seq, total);
		appendBinaryStringInfo(out, header, sizeof(header));
		remote->row_column = 0;
		remote->row_offset = -1;
	}
	for (; remote->row_column < n; remote->row_column++, remote->row_offset = -1)
	{
		bool		isnull = PQgetisnull(res, 0, remote->row_column);
		int32		length = isnull ? -1 : PQgetlength(res, 0, remote->row_column);

		if (remote->row_offset < 0)
		{
			appendBinaryStringInfo(out, (char *) &length, sizeof(length));
			remote->row_offset = 0;
		}
		while (remote->row_offset < length)
		{
			int			room = PGMC_OUTPUT_LIMIT - out->len;
			int			part = Min(length - remote->row_offset, room);

			if (part <= 0)
				return false;
			appendBinaryStringInfo(out, PQgetvalue(res, 0, remote->row_column) +
								   remote->row_offset, part);
			remote->row_offset += part;
		}
	}
	clear_row(remote);
	return true;
}

/* ---- COPY ---- */

/* A COPY to or from the client: end it, the data go nowhere. */
static void
leave_copy(PgmcRemote *remote, ExecStatusType status)
{
	remote->task.done_flags |= PGMC_DONE_COPY;
	if (status == PGRES_COPY_IN || status == PGRES_COPY_BOTH)
		PQputCopyEnd(remote->conn, "COPY from the client is not supported by pgmc");
	else
		pgmc_remote_cancel_now(remote);
	remote->want_write = true;
}

/* Swallow the data of a COPY that is being left; false: more must come first. */
static bool
swallow_copy(PgmcRemote *remote)
{
	char	   *data;
	int			n;

	while ((n = PQgetCopyData(remote->conn, &data, 1)) > 0)
		PQfreemem(data);
	return n != 0;
}

/* ---- steps ---- */

static int64
tuples_of(PGresult *res)
{
	const char *count = PQcmdTuples(res);

	return count[0] == '\0' ? 0 : strtoll(count, NULL, 10);
}

/* What has run may have made prepared statements useless. */
static void
heed_tag(PgmcRemote *remote, PGresult *res)
{
	pgmc_prepared_heed_tag(remote->prepared, PQcmdStatus(res),
						   PQresultStatus(res) == PGRES_TUPLES_OK);
}

/* A step has ended well. */
static void
complete_step(PgmcRemote *remote, PGresult *res)
{
	Task	   *task = &remote->task;

	if (task->at >= task->nsteps)
		return;
	switch (task->steps[task->at])
	{
		case STEP_RESET:
		case STEP_ROLLBACK:
			heed_tag(remote, res);
			break;
		case STEP_PREPARE:
			if (task->statement != 0)
				pgmc_prepared_done(remote->prepared, task->statement);
			break;
		case STEP_DESCRIBE:
			if (!task->silent)
			{
				send_describe(remote, res, PGMC_DESCRIBE_ASK);
				task->asking = true;
			}
			break;
		case STEP_MAIN:
		case STEP_MAIN_PREPARED:
			if (PQntuples(res) > 0 && rows_wanted(task))
				elog(ERROR, "rows have come all at once");
			task->rows = tuples_of(res);
			heed_tag(remote, res);
			if (task->ends_xact && strcmp(PQcmdStatus(res), "COMMIT") == 0)
			{
				task->own_commit = true;
				task->committed = !task->simple;	/* no more is to come */
			}
			if (PQresultStatus(res) == PGRES_TUPLES_OK && !task->described &&
				rows_wanted(task))
				send_describe(remote, res, describe_flags(task));
			task->described = false;
			break;
		case STEP_SETS:
			task->rows += tuples_of(res);
			if (task->sets_done == 0)
				heed_tag(remote, res);
			task->own_commit = task->own_commit ||
				strcmp(PQcmdStatus(res), "COMMIT") == 0 ||
				(task->ends_xact && (task->flags & PGMC_EXEC_AUTOCOMMIT));
			break;
		case STEP_COMMIT:
			task->committed = strcmp(PQcmdStatus(res), "COMMIT") == 0;
			heed_tag(remote, res);
			if (!task->committed)
				task->done_flags |= PGMC_DONE_NOT_COMMITTED;
			break;
		default:
			break;
	}
}

/*
 * The Sync has been answered: what commits by itself has done so, whatever
 * the server says after that.
 */
static void
take_sync(PgmcRemote *remote)
{
	Task	   *task = &remote->task;

	task->at = task->nsteps;
	task->sent = false;
	if (task->fresh && !task->failed && !task->refused &&
		commits_by_itself(task))
		task->committed = true;
	PQexitPipelineMode(remote->conn);
	task->pipelined = false;
}

/* The step's results are all here. */
static void
next_step(PgmcRemote *remote)
{
	Task	   *task = &remote->task;

	if (at_sets(task))
	{
		task->sets_done++;
		pgmc_remote_expect_set(remote);
		return;
	}
	task->at++;
	if (at_sets(task))
		pgmc_remote_expect_set(remote);
	if (task->pipelined)
	{
		pgmc_remote_expect_step(remote);	/* or the Sync, which has no step */
		return;
	}
	task->sent = false;
	if (task->failed)
		task->at = task->nsteps;
}

bool
pgmc_remote_take_result(PgmcRemote *remote)
{
	PGresult   *res;
	ExecStatusType status;

	if ((remote->task.done_flags & PGMC_DONE_COPY) && !swallow_copy(remote) &&
		!remote->eof)
		return false;
	if (no_set_due(&remote->task))
	{
		if (!remote->eof)
			return false;
		if (remote->error[0] == '\0')
			pgmc_remote_set_error(remote, 0, PQerrorMessage(remote->conn));
		remote->drained = true;
		return true;
	}
	if (PQisBusy(remote->conn) && !remote->eof)
		return false;

	res = PQgetResult(remote->conn);
	if (res == NULL)
	{
		/* at the end of the connection, two in a row mean there is no more */
		remote->drained = remote->drained || (remote->eof && remote->last_null);
		remote->last_null = true;
		next_step(remote);
		return true;
	}
	remote->last_null = false;
	remote->result = res;

	status = PQresultStatus(res);
	switch (status)
	{
		case PGRES_SINGLE_TUPLE:
			take_row(remote, res);
			break;
		case PGRES_TUPLES_OK:
		case PGRES_COMMAND_OK:
		case PGRES_EMPTY_QUERY:
			complete_step(remote, res);
			break;
		case PGRES_COPY_OUT:
		case PGRES_COPY_IN:
		case PGRES_COPY_BOTH:
			if (remote->task.many)
			{
				/* not asked for; what else is sent can't be told from data */
				pgmc_remote_set_error(remote, 0, "COPY with many sets of parameters");
				remote->eof = remote->drained = true;
			}
			else
				leave_copy(remote, status);
			break;
		case PGRES_PIPELINE_SYNC:
			take_sync(remote);
			break;
		case PGRES_PIPELINE_ABORTED:
			break;
		default:
			pgmc_remote_report_error(remote, res);
			break;
	}
	clear_result(remote);
	return true;
}
