/*
 * remote_task.c
 *		The tasks of a connection: which steps each has, and how it ends.
 *
 * A task is a short list of steps, each one command to the server.  Some of
 * them are only known when others have ended: the command after the holder's
 * word on the format, the same once more where its prepared statement had
 * become useless, and what must be put right after it.
 */
#include "postgres.h"

#include "access/transam.h"
#include "common/hashfn.h"
#include "utils/timestamp.h"

#include "command.h"
#include "remote_int.h"

static Task *
begin_task(PgmcRemote *remote, TaskKind kind, uint16 seq)
{
	Task	   *task = &remote->task;

	Assert(remote->state == PGMC_REMOTE_READY);
	memset(task, 0, sizeof(*task));
	task->kind = kind;
	task->seq = seq;
	remote->quiet_call = false;
	remote->state = PGMC_REMOTE_BUSY;
	remote->event = PGMC_REMOTE_NOTHING;
	if (!remote->eof)
		pgmc_remote_set_error(remote, 0, "");
	return task;
}

static void
add_step(Task *task, StepKind kind)
{
	Assert(task->nsteps < MAX_STEPS);
	task->steps[task->nsteps++] = kind;
}

static bool
reset_due(const PgmcRemote *remote, uint64 session)
{
	return remote->last_user != 0 && remote->last_user != session &&
		remote->reset_query[0] != '\0';
}

void
pgmc_remote_drop_notifications(PgmcRemote *remote)
{
	PGnotify   *notify;

	while ((notify = PQnotifies(remote->conn)) != NULL)
		PQfreemem(notify);
}

/*
 * To be called before something is sent that may commit.  A server that has
 * ended the connection won't read it, and where it finds out by that, libpq
 * never sees its last words: so they are read first, and nothing is sent.
 */
static void
hear_last_words(PgmcRemote *remote)
{
	if (!PQconsumeInput(remote->conn))
		remote->eof = true;
	pgmc_remote_drop_notifications(remote); /* has libpq look at what there is */
	if (remote->error_sqlstate != 0)
		remote->eof = true;
}

/* ---- transactions ---- */

PgmcXactStatus
pgmc_remote_xact_status(const PgmcRemote *remote)
{
	if (remote->conn == NULL || remote->state == PGMC_REMOTE_CONNECTING)
		return PGMC_XACT_CLOSED;
	if (remote->state == PGMC_REMOTE_BUSY)
		return PGMC_XACT_ACTIVE;
	switch (PQtransactionStatus(remote->conn))
	{
		case PQTRANS_IDLE:
			return PGMC_XACT_IDLE;
		case PQTRANS_ACTIVE:
			return PGMC_XACT_ACTIVE;
		case PQTRANS_INTRANS:
			return PGMC_XACT_INTRANS;
		case PQTRANS_INERROR:
			return PGMC_XACT_INERROR;
		case PQTRANS_UNKNOWN:
			break;
	}
	return PGMC_XACT_UNKNOWN;
}

/*
 * The transaction that the loopback backend is in; 0: none that has a number,
 * not our cluster, or it is ending.
 */
static TransactionId
backend_xid(const PgmcRemote *remote)
{
	const volatile PGPROC *proc = remote->proc;

	return proc == NULL || proc->pid != remote->backend_pid ?
		InvalidTransactionId : proc->xid;
}

/*
 * The transaction that a COMMIT is to commit.  A backend that was terminated
 * just before has aborted it, and what it says to that may never arrive.
 */
static TransactionId
open_xid(const PgmcRemote *remote)
{
	TransactionId xid = backend_xid(remote);

	return TransactionIdIsValid(xid) ? xid : remote->xid;
}

uint32
pgmc_remote_commit_xid(const PgmcRemote *remote)
{
	return remote->state == PGMC_REMOTE_BUSY ? remote->task.xid :
		InvalidTransactionId;
}

/* ---- commands ---- */

/* of all that decides what a literal in a command means, and may change */
static uint32
hash_settings(const PgmcRemote *remote)
{
	static const char *const names[] = {
		"client_encoding", "DateStyle", "IntervalStyle",
		"standard_conforming_strings", "TimeZone"
	};
	uint32		hash = 0;

	for (Size i = 0; i < lengthof(names); i++)
	{
		const char *value = PQparameterStatus(remote->conn, names[i]);

		if (value != NULL)
			hash = hash_combine(hash, hash_bytes((const unsigned char *) value,
												 strlen(value)));
	}
	return hash;
}

static bool
needs_simple_protocol(const PgmcExecute *exec)
{
	/* COPY can't be left in an orderly way in pipeline mode */
	return exec->nparams == 0 &&
		(pgmc_command_may_be_several(exec->command) || pgmc_command_may_be_copy(exec->command));
}

/* The command itself: in full, or as a prepared statement; described or not. */
static void
add_main_steps(PgmcRemote *remote)
{
	Task	   *task = &remote->task;
	PgmcPreparedUse use = PGMC_PREPARED_ONCE;

	if (task->many)
	{
		add_step(task, STEP_PREPARE);
		add_step(task, STEP_SETS);
		return;
	}
	if (task->simple)
		task->flags &= ~PGMC_EXEC_ASK;
	else
		use = pgmc_prepared_use(remote->prepared, task->exec,
								hash_settings(remote), &task->statement);
	task->known = use == PGMC_PREPARED_KNOWN;
	if (use == PGMC_PREPARED_NEW ||
		(use == PGMC_PREPARED_ONCE && (task->flags & PGMC_EXEC_ASK)))
		add_step(task, STEP_PREPARE);
	if (task->flags & PGMC_EXEC_ASK)
		add_step(task, STEP_DESCRIBE);
	else
		add_step(task, use == PGMC_PREPARED_ONCE ? STEP_MAIN : STEP_MAIN_PREPARED);
}

static void
begin_many(PgmcRemote *remote, const PgmcExecute *exec)
{
	Task	   *task = &remote->task;

	task->many = true;
	task->simple = false;
	task->heavy = pgmc_wire_execute_size(exec) > HEAVY_SIZE;

	/* each of them could be the first of several transactions then */
	task->xid = InvalidTransactionId;

	/* outside a transaction a procedure may commit what was done so far */
	if ((task->flags & PGMC_EXEC_AUTOCOMMIT) &&
		(pgmc_command_is(exec->command, "call") ||
		 pgmc_command_is(exec->command, "do")))
		task->ends_xact = true;
}

void
pgmc_remote_execute(PgmcRemote *remote, uint8 flags, uint16 seq,
					const PgmcExecute *exec)
{
	bool		may_commit = pgmc_command_may_commit(exec->command);
	Task	   *task;

	if (may_commit || (flags & (PGMC_EXEC_AUTONOMOUS | PGMC_EXEC_AUTOCOMMIT)))
		hear_last_words(remote);
	task = begin_task(remote, TASK_EXECUTE, seq);
	remote->bloated = remote->bloated ||
		pgmc_wire_execute_size(exec) > BLOATED_SIZE;
	task->flags = flags;
	task->exec = exec;
	task->simple = needs_simple_protocol(exec);
	task->ends_xact = may_commit;

	/* what is prepared stays in progress, so its number tells nothing */
	if (task->ends_xact && !pgmc_command_may_be_several(exec->command) &&
		!pgmc_command_may_prepare(exec->command))
		task->xid = open_xid(remote);
	task->fresh = PQtransactionStatus(remote->conn) == PQTRANS_IDLE;
	if (task->fresh)
		pgmc_prepared_begin_xact(remote->prepared);
	if (flags & PGMC_EXEC_MANY)
		begin_many(remote, exec);
	if (reset_due(remote, exec->session))
	{
		pgmc_prepared_forget(remote->prepared);
		add_step(task, STEP_RESET);
	}
	if ((flags & PGMC_EXEC_BEGIN) && task->fresh)
		add_step(task, STEP_BEGIN);
	add_main_steps(remote);
	remote->last_user = exec->session;
}

void
pgmc_remote_begin_retry(PgmcRemote *remote)
{
	Task	   *task = &remote->task;

	if (task->flags & (PGMC_EXEC_AUTONOMOUS | PGMC_EXEC_AUTOCOMMIT))
		hear_last_words(remote);
	task->retry = task->failed = task->known = false;
	task->asking = task->answered = false;
	task->statement = 0;
	task->nsteps = task->at = 0;
	if (PQtransactionStatus(remote->conn) != PQTRANS_IDLE)
		add_step(task, STEP_ROLLBACK);
	if (task->flags & PGMC_EXEC_BEGIN)
		add_step(task, STEP_BEGIN);
	if (task->flags & PGMC_EXEC_ASK)
	{
		add_step(task, STEP_PREPARE);
		add_step(task, STEP_DESCRIBE);
	}
	else
		add_step(task, STEP_MAIN);
}

/*
 * The holder's answer to the columns it was told.  It may come before the
 * Sync's result, which must be taken before anything else is sent.
 */
void
pgmc_remote_format(PgmcRemote *remote, uint8 flags)
{
	Task	   *task = &remote->task;

	if (!task->asking)
		return;
	task->asking = false;
	task->answered = true;
	task->flags = (task->flags & ~(PGMC_EXEC_BINARY | PGMC_EXEC_ASK)) |
		(flags & PGMC_EXEC_BINARY);
}

void
pgmc_remote_begin_answered(Task *task)
{
	task->answered = false;
	task->nsteps = task->at = 0;
	if (task->failed || task->silent)
		return;
	add_step(task, STEP_MAIN_PREPARED);
}

/* ---- other tasks ---- */

void
pgmc_remote_commit(PgmcRemote *remote, uint16 seq)
{
	Task	   *task;

	hear_last_words(remote);
	task = begin_task(remote, TASK_COMMIT, seq);
	task->xid = open_xid(remote);
	task->hopeless = PQtransactionStatus(remote->conn) == PQTRANS_INERROR;
	if (PQtransactionStatus(remote->conn) != PQTRANS_IDLE)
		add_step(task, STEP_COMMIT);
}

void
pgmc_remote_rollback(PgmcRemote *remote, uint16 seq)
{
	Task	   *task = begin_task(remote, TASK_ROLLBACK, seq);

	if (PQtransactionStatus(remote->conn) != PQTRANS_IDLE)
		add_step(task, STEP_ROLLBACK);
}

void
pgmc_remote_recover(PgmcRemote *remote, bool reset, bool release_holds)
{
	Task	   *task;

	Assert(remote->state == PGMC_REMOTE_READY);
	task = begin_task(remote, TASK_RECOVER, 0);
	if (PQtransactionStatus(remote->conn) != PQTRANS_IDLE)
		add_step(task, STEP_ROLLBACK);
	if (release_holds)
		add_step(task, STEP_RELEASE_HOLDS);
	task->resets = reset && reset_due(remote, 0);
	if (task->resets)
	{
		pgmc_prepared_forget(remote->prepared);
		add_step(task, STEP_RESET);
	}
	pgmc_remote_limit_task(remote, GetCurrentTimestamp());
}

void
pgmc_remote_drop_task(PgmcRemote *remote)
{
	Task	   *task = &remote->task;

	if (remote->state != PGMC_REMOTE_BUSY)
	{
		remote->event = PGMC_REMOTE_DONE;
		return;
	}
	task->silent = true;
	task->retry = false;
	task->exec = NULL;			/* its memory goes with the request */
	if (task->asking)
	{
		task->asking = false;
		task->failed = true;
		task->nsteps = task->at = 0;
		return;
	}

	/* a step that isn't sent yet never will be, and a reset stays due */
	if (!task->sent && task->at < task->nsteps &&
		task->steps[task->at] == STEP_RESET)
		remote->last_user = PGMC_ANYBODY;
	if (!task->pipelined)
		task->nsteps = Min(task->nsteps, task->at + (task->sent ? 1 : 0));
	pgmc_remote_cancel(remote);
}

/* ---- the end of a task ---- */

static bool
encoding_changed(PgmcRemote *remote)
{
	const char *now = PQparameterStatus(remote->conn, "client_encoding");

	return now != NULL && strcmp(now, remote->encoding) != 0;
}

bool
pgmc_remote_fix_up(PgmcRemote *remote)
{
	Task	   *task = &remote->task;
	PGTransactionStatusType status = PQtransactionStatus(remote->conn);

	if (task->fixed_up)
		return false;
	task->fixed_up = true;
	remote->cancel_next = 0;	/* the repairs are not meant */
	task->nsteps = task->at = 0;
	if (task->kind == TASK_EXECUTE && (task->flags & PGMC_EXEC_AUTONOMOUS) &&
		status != PQTRANS_IDLE)
	{
		if (!task->failed)
			task->done_flags |= PGMC_DONE_LEFT_OPEN;
		add_step(task, STEP_ROLLBACK);
		status = PQTRANS_IDLE;
	}
	if (encoding_changed(remote) && status != PQTRANS_INERROR)
		add_step(task, STEP_ENCODING);
	return task->nsteps > 0;
}

void
pgmc_remote_finish_task(PgmcRemote *remote)
{
	Task	   *task = &remote->task;
	TaskKind	kind = task->kind;
	PgmcDone	done;

	remote->cancel_next = 0;
	remote->cancel_give_up = 0;
	if (kind == TASK_RECOVER)
	{
		if (PQtransactionStatus(remote->conn) != PQTRANS_IDLE)
			task->condemned = true;
		if (task->condemned)
		{
			pgmc_remote_lose(remote);
			return;
		}
		if (task->resets)
			remote->last_user = 0;
		task->kind = TASK_NONE;
		remote->state = PGMC_REMOTE_READY;
		remote->event = PGMC_REMOTE_RECOVERED;
		return;
	}
	if (task->own_commit)
		task->done_flags |= PGMC_DONE_OWN_COMMIT;
	else if (task->ends_xact &&
			 !(task->flags & (PGMC_EXEC_AUTONOMOUS | PGMC_EXEC_AUTOCOMMIT)))
		task->done_flags |= PGMC_DONE_NOT_COMMITTED;
	if (remote->last_user == PGMC_ANYBODY &&
		PQtransactionStatus(remote->conn) != PQTRANS_IDLE)
	{
		task->condemned = true;
		pgmc_remote_set_error(remote, ERRCODE_CONNECTION_FAILURE,
							  "reset_query was cancelled in a transaction of its own");
	}
	task->kind = TASK_NONE;
	remote->state = PGMC_REMOTE_READY;

	/* not to be given back as one that is clean */
	done.xact_status = task->condemned ? PGMC_XACT_CLOSED :
		pgmc_remote_xact_status(remote);
	done.rows = task->rows;
	remote->xid = done.xact_status == PGMC_XACT_IDLE ? InvalidTransactionId :
		backend_xid(remote);
	if (!task->silent)
		pgmc_wire_done(remote->out, task->done_flags, task->seq, &done);
	if (!task->silent && !task->failed)
		remote->rows += task->rows;
	remote->event = PGMC_REMOTE_DONE;
	remote->quiet_call = (task->flags & PGMC_EXEC_AUTONOMOUS) != 0 &&
		(task->flags & PGMC_EXEC_ROWS) == 0 && task->done_flags == 0 &&
		!task->silent && !task->failed && !task->spoke && !task->condemned &&
		done.xact_status == PGMC_XACT_IDLE;
	if (task->condemned)
		pgmc_remote_lose(remote);
}
