/*
 * remote_sets.c
 *		A command with many sets of parameters.
 *
 * It is a pipeline with a Bind and an Execute for each set, and its Sync when
 * the last is sent.  Sets come in while results are taken, and none as long as
 * libpq has something to write: so neither does libpq hoard them, nor do the
 * server and we wait for each other to read.
 */
#include "postgres.h"

#include "remote_int.h"

/*
 * What is sent behind the sets where not all of them shall count.  It fails,
 * and that undoes what was done outside of a transaction, and leaves an open
 * one fit for nothing but a rollback, even where a cancel came too late.
 */
#define SPOIL_SQL	"SELECT CAST('pgmc.execute_many was interrupted' AS pg_catalog.int4)"

bool
pgmc_remote_takes_sets(const PgmcRemote *remote)
{
	const Task *task = &remote->task;

	return remote->state != PGMC_REMOTE_BUSY || !task->many || task->failed ||
		task->refused ||
		(task->sets_open && !remote->want_write && remote->net_cancel == NULL);
}

void
pgmc_remote_expect_set(PgmcRemote *remote)
{
	Task	   *task = &remote->task;

	if (task->sets_sent > task->sets_done)
		PQsetSingleRowMode(remote->conn);
	else if (task->synced)
		task->at++;
}

static void
note_set_sent(PgmcRemote *remote)
{
	Task	   *task = &remote->task;

	task->sets_sent++;
	if (at_sets(task) && task->sets_sent == task->sets_done + 1)
		pgmc_remote_expect_set(remote);
}

bool
pgmc_remote_sets(PgmcRemote *remote, const char *data, Size length)
{
	Task	   *task = &remote->task;
	const char *end = data + length;
	Arguments	args;

	if (remote->state != PGMC_REMOTE_BUSY || !task->sets_open ||
		task->synced || task->failed || task->refused || task->silent)
		return true;			/* too late for them */
	remote->bloated = remote->bloated || length > BLOATED_SIZE;
	task->heavy = length > HEAVY_SIZE;
	pgmc_remote_arrange_arguments(task->exec, &args);
	while (data < end)
	{
		if (!pgmc_wire_read_set(&data, end, task->exec->nparams, args.values,
								args.lengths))
			return false;
		if (!PQsendQueryPrepared(remote->conn, "", task->exec->nparams,
								 args.values, args.lengths, args.formats, 0))
		{
			pgmc_remote_set_error(remote, 0, PQerrorMessage(remote->conn));
			remote->eof = remote->drained = true;
			break;
		}
		note_set_sent(remote);
	}
	pgmc_remote_free_arguments(&args);
	return true;
}

void
pgmc_remote_end_sets(PgmcRemote *remote)
{
	if (remote->state == PGMC_REMOTE_BUSY)
		remote->task.sets_ended = true;
}

bool
pgmc_remote_refuse_sets(PgmcRemote *remote)
{
	Task	   *task = &remote->task;
	bool		tell = remote->state == PGMC_REMOTE_BUSY && !task->failed &&
	!task->refused;

	task->refused = true;
	return tell;
}

/*
 * An error of the server's spoils what was sent by itself; one of libpq's, as
 * when it has no memory for a result, doesn't.
 */
bool
pgmc_remote_sync_sets(PgmcRemote *remote)
{
	Task	   *task = &remote->task;
	bool		good = task->sets_ended && !task->failed && !task->refused &&
	!task->silent;

	if (!good && PQpipelineStatus(remote->conn) != PQ_PIPELINE_ABORTED)
	{
		if (!PQsendQueryParams(remote->conn, SPOIL_SQL, 0, NULL, NULL, NULL,
							   NULL, 0))
			return false;
		note_set_sent(remote);
	}
	if (!PQpipelineSync(remote->conn))
		return false;
	task->synced = true;
	remote->want_write = true;
	if (at_sets(task) && task->sets_sent == task->sets_done)
		task->at++;
	return true;
}
