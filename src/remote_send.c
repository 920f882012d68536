/*
 * remote_send.c
 *		The steps of a task on their way to the server.
 *
 * Where it can, a task goes out in libpq's pipeline mode as one write with one
 * Sync; a step that fails makes the server skip the rest.  Strings that may
 * contain several commands need the simple protocol, which pipeline mode
 * hasn't: their steps are sent one after the other.
 */
#include "postgres.h"

#include "command.h"
#include "remote_int.h"

static const char *
step_sql(PgmcRemote *remote, StepKind step)
{
	switch (step)
	{
		case STEP_RESET:
			return remote->reset_query;
		case STEP_RELEASE_HOLDS:
			return "SELECT pgmc.release_all()";
		case STEP_ENCODING:
			return psprintf("SET SESSION client_encoding TO '%s'", remote->encoding);
		case STEP_BEGIN:
			return "BEGIN";
		case STEP_COMMIT:
			return "COMMIT";
		case STEP_ROLLBACK:
			return "ROLLBACK";
		case STEP_PREPARE:
		case STEP_DESCRIBE:
		case STEP_MAIN:
		case STEP_MAIN_PREPARED:
		case STEP_SETS:
			break;
	}
	return remote->task.exec->command;
}

void
pgmc_remote_arrange_arguments(const PgmcExecute *exec, Arguments *args)
{
	int			n = exec->nparams;

	args->types = palloc((n + 1) * sizeof(Oid));
	args->values = palloc((n + 1) * sizeof(char *));
	args->lengths = palloc((n + 1) * sizeof(int));
	args->formats = palloc((n + 1) * sizeof(int));
	for (int i = 0; i < n; i++)
	{
		args->types[i] = exec->params[i].type;
		args->values[i] = exec->params[i].value;
		args->lengths[i] = Max(exec->params[i].length, 0);
		args->formats[i] = exec->params[i].format;
	}
}

void
pgmc_remote_free_arguments(Arguments *args)
{
	pfree(args->types);
	pfree(args->values);
	pfree(args->lengths);
	pfree(args->formats);
}

#define STATEMENT_NAME	32

/* name of the prepared statement, with a blank so that it is nobody else's */
static void
statement_name(const PgmcRemote *remote, char *name)
{
	if (remote->task.statement == 0)
		name[0] = '\0';
	else
		snprintf(name, STATEMENT_NAME, "pgmc %08x %d", remote->statement_key,
				 remote->task.statement);
}

static int
send_main(PgmcRemote *remote, StepKind step)
{
	const PgmcExecute *exec = remote->task.exec;
	int			binary = (remote->task.flags & PGMC_EXEC_BINARY) ? 1 : 0;
	Arguments	args;
	char		name[STATEMENT_NAME];

	pgmc_remote_arrange_arguments(exec, &args);
	statement_name(remote, name);
	if (step == STEP_PREPARE)
		return PQsendPrepare(remote->conn, name, exec->command, exec->nparams,
							 args.types);
	if (step == STEP_MAIN_PREPARED)
		return PQsendQueryPrepared(remote->conn, name, exec->nparams, args.values,
								   args.lengths, args.formats, binary);
	return PQsendQueryParams(remote->conn, exec->command, exec->nparams,
							 args.types, args.values, args.lengths,
							 args.formats, binary);
}

static int
send_in_pipeline(PgmcRemote *remote, StepKind step)
{
	switch (step)
	{
		case STEP_PREPARE:
		case STEP_MAIN:
		case STEP_MAIN_PREPARED:
			return send_main(remote, step);
		case STEP_DESCRIBE:
			{
				char		name[STATEMENT_NAME];

				statement_name(remote, name);
				return PQsendDescribePrepared(remote->conn, name);
			}
		case STEP_SETS:
			remote->task.sets_open = true;
			return 1;			/* they go as they come */
		default:
			return PQsendQueryParams(remote->conn, step_sql(remote, step), 0,
									 NULL, NULL, NULL, NULL, 0);
	}
}

void
pgmc_remote_expect_step(PgmcRemote *remote)
{
	Task	   *task = &remote->task;

	task->described = false;
	if (task->at < task->nsteps &&
		(task->steps[task->at] == STEP_MAIN ||
		 task->steps[task->at] == STEP_MAIN_PREPARED))
		PQsetSingleRowMode(remote->conn);
}

/* Must the next step go by the simple protocol, and the others wait for it? */
static bool
goes_alone(const PgmcRemote *remote)
{
	const Task *task = &remote->task;

	return task->simple || task->kind != TASK_EXECUTE || task->fixed_up ||
		(task->steps[task->at] == STEP_RESET &&
		 pgmc_command_may_be_several(remote->reset_query));
}

bool
pgmc_remote_send_steps(PgmcRemote *remote)
{
	Task	   *task = &remote->task;

	task->pipelined = !goes_alone(remote);
	if (task->pipelined)
	{
		if (!PQenterPipelineMode(remote->conn))
			return false;
		for (int i = task->at; i < task->nsteps; i++)
			if (!send_in_pipeline(remote, task->steps[i]))
				return false;
		if (!task->many && !PQpipelineSync(remote->conn))
			return false;
	}
	else if (!PQsendQuery(remote->conn, step_sql(remote, task->steps[task->at])))
		return false;
	task->sent = true;
	remote->want_write = true;
	pgmc_remote_expect_step(remote);
	return true;
}
