/*
 * remote.c
 *		One PGconn of the worker, as a state machine that never blocks.
 *
 * A task is a short list of steps, each one command to the server.  Where it
 * can, a task goes out in libpq's pipeline mode as one write with one Sync:
 * the reset that is due, BEGIN, and the holder's command; a step that fails
 * makes the server skip the rest.  Strings that may contain several commands
 * need the simple protocol, which pipeline mode hasn't: their steps are sent
 * one after the other.
 *
 * Rows are taken from libpq one at a time and only while there is room in the
 * output, so a result of any size passes through a bounded memory.  A row may
 * be larger than the room: emit_row goes on where it stopped.
 *
 * A command with many sets of parameters is a pipeline, too, with a Bind and
 * an Execute for each set, and its Sync when the last is sent.  Sets come in
 * while results are taken, and none as long as libpq has something to write:
 * so neither does libpq hoard them, nor do the server and we wait for each
 * other to read.  See "many sets of parameters".
 */
#include "postgres.h"

#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "access/transam.h"
#include "common/hashfn.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "storage/procarray.h"
#include "storage/proc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "command.h"
#include "compat.h"
#include "moment.h"
#include "netcancel.h"
#include "prepared.h"
#include "remote.h"

/*
 * How often a statement that goes on is cancelled again, and how long.  The
 * first cancel may find that the server has not yet read the statement, and is
 * lost then; so the second comes soon, and each next one after twice the time.
 */
#define CANCEL_FIRST_MS		10
#define CANCEL_EVERY_MS		1000
#define CANCEL_GIVE_UP_MS	60000

/* how often to ask what became of a transaction that is still in progress */
#define RESOLVE_EVERY_MS	10

/* a row of less may make the output a little longer than its limit */
#define SMALL_ROW		(8 * 1024)

/* a message of this size makes a connection worth replacing when it is idle */
#define BLOATED_SIZE		(4 * 1024 * 1024)

/* a frame of sets of this size takes a while to send */
#define HEAVY_SIZE			(1024 * 1024)

typedef enum StepKind
{
	STEP_RESET,					/* reset_query */
	STEP_RELEASE_HOLDS,			/* holds of the loopback session itself */
	STEP_ENCODING,				/* put client_encoding back */
	STEP_BEGIN,
	STEP_PREPARE,				/* the holder's command, as task.statement */
	STEP_DESCRIBE,				/* of that */
	STEP_MAIN,					/* the holder's command */
	STEP_MAIN_PREPARED,			/* the same, as prepared before */
	STEP_SETS,					/* the same, once for each set of parameters */
	STEP_COMMIT,
	STEP_ROLLBACK
} StepKind;

#define MAX_STEPS	6

typedef enum TaskKind
{
	TASK_NONE,
	TASK_EXECUTE,
	TASK_COMMIT,
	TASK_ROLLBACK,
	TASK_RECOVER
} TaskKind;

typedef struct Task
{
	TaskKind	kind;
	uint16		seq;
	uint8		flags;			/* PGMC_EXEC_... */
	const PgmcExecute *exec;
	int			statement;		/* number of the prepared one, 0: unnamed */
	bool		known;			/* it was prepared by an earlier task */
	bool		fresh;			/* no transaction was open when it began */
	bool		spoke;			/* rows or notices of it are in the output */
	bool		retry;			/* its statement wasn't usable: once more */
	TransactionId xid;			/* that a COMMIT is to commit, where known */
	bool		hopeless;		/* a COMMIT of a transaction that has failed */
	bool		ends_xact;		/* the holder's command may be a COMMIT */
	bool		own_commit;		/* it was one, or one of several was */
	StepKind	steps[MAX_STEPS];
	int			nsteps;
	int			at;				/* step whose results are due */
	bool		simple;			/* the command needs the simple protocol */
	bool		pipelined;		/* all steps from at on are sent, and a Sync */
	bool		sent;			/* the step at is sent */
	bool		silent;			/* say nothing: the holder has dropped it */
	bool		failed;			/* an error has been reported */
	bool		asking;			/* waits for the holder's word on the format */
	bool		answered;		/* has it: the command goes out next */
	bool		described;		/* columns of the present result are sent */
	bool		condemned;		/* close the connection at the end */
	bool		fixed_up;		/* final repairs have been arranged */
	bool		committed;		/* the server has confirmed the commit */
	bool		resets;			/* a recovery with STEP_RESET */
	uint8		done_flags;		/* PGMC_DONE_... */
	int64		rows;

	/* many sets of parameters */
	bool		many;			/* the command has them */
	bool		sets_open;		/* it is on its way, and sets can follow */
	bool		sets_ended;		/* the holder has no more */
	bool		refused;		/* something is wrong with them */
	bool		synced;			/* nothing can follow: the Sync is sent */
	bool		heavy;			/* what was sent last is large */
	int64		sets_sent;
	int64		sets_done;		/* their results are here */
} Task;

struct PgmcRemote
{
	MemoryContext context;		/* what lives as long as this struct */
	MemoryContext open_context; /* what lives as long as the PGconn */
	PGconn	   *conn;
	uint64		serial;			/* increased with each PGconn */
	PgmcRemoteState state;
	PgmcRemoteEvent event;
	PostgresPollingStatusType polling;
	TimestampTz connect_deadline;
	TimestampTz cancel_next;	/* 0: nothing is being cancelled */
	int			cancel_pause;	/* milliseconds from the next cancel to the
								 * one after it */
	TimestampTz cancel_give_up;
	PgmcNetCancel *net_cancel;	/* one on its way over the network, or NULL */
	TimestampTz retry_at;		/* to resolve a commit in doubt, 0: none */
	bool		eof;			/* libpq has seen the end of the connection */
	bool		drained;		/* and has given all that came before it */
	bool		last_null;		/* the last PQgetResult gave nothing */
	bool		want_write;		/* libpq has bytes to send */
	bool		blocked;		/* the output is full */
	bool		has_fd;			/* counted by AcquireExternalFD */

	/* of the open connection */
	int			backend_pid;
	bool		same_cluster;
	PGPROC	   *proc;			/* the backend's where same_cluster, or NULL */
	TransactionId xid;			/* of its open transaction as of the last
								 * command, where known */
	bool		used_password;
	uint64		options_hash;
	int			idle_timeout;	/* milliseconds, 0: none */
	int			max_lifetime;	/* milliseconds, 0: none */
	char	   *reset_query;
	char	   *encoding;
	PgmcPrepared *prepared;		/* statements */
	uint32		statement_key;	/* part of their names: behind a pooler, there
								 * may be those of other connections */
	uint64		last_user;		/* session whose state may be left in it */

	bool		bloated;		/* libpq's buffers have grown, and never
								 * shrink */
	int64		rows;			/* told since take_rows */

	/* why it was lost */
	int			error_sqlstate;
	char		error[PGMC_ERROR_SIZE];

	Task		task;
	bool		quiet_call;		/* the latest: see pgmc_remote_quiet_call */
	StringInfo	out;			/* during advance only */

	/* the row being emitted */
	PGresult   *row;
	int			row_column;
	int			row_offset;		/* -1: the column's length is due */
};

/* ---- small things ---- */

void
pgmc_remote_init(void)
{
	PQconninfoOption *options = PQconndefaults();

	for (PQconninfoOption *o = options; o != NULL && o->keyword != NULL; o++)
		if (o->envvar != NULL)
			unsetenv(o->envvar);
	PQconninfoFree(options);
	unsetenv("PGSERVICEFILE");
	unsetenv("PGSYSCONFDIR");
	unsetenv("PGREQUIRESSL");
}

PgmcRemote *
pgmc_remote_create(MemoryContext context)
{
	PgmcRemote *remote = MemoryContextAllocZero(context, sizeof(PgmcRemote));

	remote->context = context;
	remote->open_context = AllocSetContextCreate(context, "pgmc connection",
												 ALLOCSET_SMALL_SIZES);
	return remote;
}

PgmcRemoteState
pgmc_remote_state(const PgmcRemote *remote)
{
	return remote->state;
}

bool
pgmc_remote_sending(const PgmcRemote *remote)
{
	const Task *task = &remote->task;

	/* of many sets little is left, if they are small */
	return remote->state == PGMC_REMOTE_BUSY && remote->want_write &&
		(!task->many || task->heavy);
}

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

PgmcRemoteEvent
pgmc_remote_take_event(PgmcRemote *remote)
{
	PgmcRemoteEvent event = remote->event;

	remote->event = PGMC_REMOTE_NOTHING;
	return event;
}

int
pgmc_remote_socket(const PgmcRemote *remote)
{
	return remote->conn == NULL ? PGINVALID_SOCKET : PQsocket(remote->conn);
}

uint32
pgmc_remote_wants(const PgmcRemote *remote, TimestampTz *deadline)
{
	*deadline = 0;
	switch (remote->state)
	{
		case PGMC_REMOTE_CLOSED:
			return 0;
		case PGMC_REMOTE_CONNECTING:
			*deadline = remote->connect_deadline;
			return remote->polling == PGRES_POLLING_WRITING ?
				WL_SOCKET_WRITEABLE : WL_SOCKET_READABLE;
		case PGMC_REMOTE_READY:
		case PGMC_REMOTE_BUSY:
			break;
	}
	*deadline = pgmc_sooner(pgmc_sooner(remote->cancel_next, remote->cancel_give_up),
							remote->retry_at);
	if (remote->eof)
		return 0;
	return (remote->blocked ? 0 : WL_SOCKET_READABLE) |
		(remote->want_write ? WL_SOCKET_WRITEABLE : 0);
}

int
pgmc_remote_cancel_socket(const PgmcRemote *remote, uint32 *events)
{
	return remote->net_cancel == NULL ? PGINVALID_SOCKET :
		pgmc_netcancel_socket(remote->net_cancel, events);
}

void
pgmc_remote_cancel_ready(PgmcRemote *remote)
{
	if (remote->net_cancel != NULL && pgmc_netcancel_advance(remote->net_cancel))
		remote->net_cancel = NULL;
}

int
pgmc_remote_backend_pid(const PgmcRemote *remote)
{
	return remote->backend_pid;
}

bool
pgmc_remote_same_cluster(const PgmcRemote *remote)
{
	return remote->same_cluster;
}

bool
pgmc_remote_used_password(const PgmcRemote *remote)
{
	return remote->used_password;
}

uint64
pgmc_remote_serial(const PgmcRemote *remote)
{
	return remote->serial;
}

uint64
pgmc_remote_options_hash(const PgmcRemote *remote)
{
	return remote->options_hash;
}

bool
pgmc_remote_quiet_call(const PgmcRemote *remote, int64 *rows)
{
	*rows = remote->task.rows;
	return remote->quiet_call;
}

bool
pgmc_remote_bloated(const PgmcRemote *remote)
{
	return remote->bloated;
}

TimestampTz
pgmc_remote_expires_at(const PgmcRemote *remote)
{
	if (remote->max_lifetime <= 0)
		return 0;
	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
									   remote->max_lifetime);
}

TimestampTz
pgmc_remote_idle_deadline(const PgmcRemote *remote, TimestampTz idle_since)
{
	if (remote->idle_timeout <= 0)
		return 0;
	return TimestampTzPlusMilliseconds(idle_since, remote->idle_timeout);
}

int64
pgmc_remote_take_rows(PgmcRemote *remote)
{
	int64		rows = remote->rows;

	remote->rows = 0;
	return rows;
}

int
pgmc_remote_error_sqlstate(const PgmcRemote *remote)
{
	return remote->error_sqlstate;
}

const char *
pgmc_remote_error(const PgmcRemote *remote)
{
	return remote->error;
}

static int
parse_sqlstate(const char *text)
{
	return MAKE_SQLSTATE(text[0], text[1], text[2], text[3], text[4]);
}

/* libpq's messages end with a line feed, which ours don't */
static void
set_error(PgmcRemote *remote, int sqlstate, const char *message)
{
	size_t		length;

	remote->error_sqlstate = sqlstate;
	strlcpy(remote->error, message ? message : "", sizeof(remote->error));
	length = strlen(remote->error);
	while (length > 0 && remote->error[length - 1] == '\n')
		remote->error[--length] = '\0';
}

/* ---- closing ---- */

static void
clear_row(PgmcRemote *remote)
{
	if (remote->row != NULL)
		PQclear(remote->row);
	remote->row = NULL;
}

/*
 * A backend doesn't notice that its socket is closed while it runs something,
 * and would go on, hold its locks and even commit.
 */
static void
end_backend(PgmcRemote *remote)
{
	if (remote->state == PGMC_REMOTE_BUSY && remote->same_cluster &&
		!remote->eof && BackendPidGetProc(remote->backend_pid) != NULL)
		kill(-remote->backend_pid, SIGTERM);
}

void
pgmc_remote_close(PgmcRemote *remote)
{
	end_backend(remote);
	clear_row(remote);
	if (remote->net_cancel != NULL)
		pgmc_netcancel_free(remote->net_cancel);
	remote->net_cancel = NULL;
	if (remote->conn != NULL)
		PQfinish(remote->conn);
	if (remote->has_fd)
		ReleaseExternalFD();
	remote->conn = NULL;
	remote->has_fd = false;
	remote->state = PGMC_REMOTE_CLOSED;
	remote->task.kind = TASK_NONE;
	remote->eof = false;
	remote->drained = false;
	remote->blocked = false;
	remote->want_write = false;
	remote->cancel_next = 0;
	remote->cancel_give_up = 0;
	remote->retry_at = 0;
	remote->backend_pid = 0;
	remote->same_cluster = false;
	remote->proc = NULL;
	remote->xid = InvalidTransactionId;
	remote->used_password = false;
	remote->bloated = false;
	remote->last_user = 0;
	remote->reset_query = NULL;
	remote->encoding = NULL;
	remote->prepared = NULL;
	MemoryContextReset(remote->open_context);
}

/* May what is running have been committed by the server, as far as we know? */
static bool
in_doubt(const PgmcRemote *remote)
{
	const Task *task = &remote->task;
	bool		commits = (task->kind == TASK_COMMIT && !task->hopeless) ||
	(task->kind == TASK_EXECUTE && !task->asking && !task->answered &&
	 (task->ends_xact ||
	  ((task->flags & (PGMC_EXEC_AUTONOMOUS | PGMC_EXEC_AUTOCOMMIT)) &&
	   (!task->many || task->synced))));	/* the Sync commits them */

	/* the server's last words, where it had any, say that it hadn't */
	return commits && task->sent && !task->failed && !task->committed &&
		remote->error_sqlstate == 0;
}

/*
 * The transaction that was being committed when the connection ended is one of
 * this cluster, and its number is known: did it?  False: it is still going on.
 */
static bool
resolve_doubt(PgmcRemote *remote)
{
	Task	   *task = &remote->task;

	if (TransactionIdIsInProgress(task->xid))
		return false;
	task->committed = TransactionIdDidCommit(task->xid);
	if (!task->committed)
		remote->error_sqlstate = ERRCODE_CONNECTION_FAILURE;
	return true;
}

static void
tell_loss(PgmcRemote *remote)
{
	Task	   *task = &remote->task;
	PgmcFields	fields = {0};

	if (task->committed)
	{
		PgmcDone	done = {PGMC_XACT_CLOSED, task->rows};

		pgmc_wire_done(remote->out, task->done_flags | PGMC_DONE_LOST,
					   task->seq, &done);
		remote->rows += task->rows;
		return;
	}
	fields.sqlstate = unpack_sql_state(remote->error_sqlstate);
	fields.message = remote->error;
	pgmc_wire_fields(remote->out, PGMC_REPLY_LOST, task->seq, &fields);
}

/*
 * The connection is lost: tell whoever waits for the task.  Where it isn't
 * known yet whether a commit has happened, this is put off.
 */
static void
lose(PgmcRemote *remote)
{
	Task	   *task = &remote->task;

	remote->retry_at = 0;
	if (in_doubt(remote) && TransactionIdIsValid(task->xid) &&
		!resolve_doubt(remote))
	{
		remote->retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													   RESOLVE_EVERY_MS);
		return;
	}
	if (task->own_commit && !task->committed)
		remote->error_sqlstate = ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN;
	if (remote->error_sqlstate == 0)
		remote->error_sqlstate = in_doubt(remote) ?
			ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN : ERRCODE_CONNECTION_FAILURE;
	if (task->kind != TASK_NONE && task->kind != TASK_RECOVER &&
		!task->silent && remote->out != NULL)
		tell_loss(remote);
	pgmc_remote_close(remote);
	remote->event = PGMC_REMOTE_LOST;
}

/* ---- notices and errors ---- */

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
	set_error(remote, ERRCODE_CONNECTION_FAILURE,
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
static void
receive_notice(void *arg, const PGresult *res)
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

/* Is it the results of sets that come in? */
static bool
at_sets(const Task *task)
{
	return task->at < task->nsteps && task->steps[task->at] == STEP_SETS;
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
static void
report_error(PgmcRemote *remote, const PGresult *res)
{
	Task	   *task = &remote->task;
	PgmcFields	fields = {0};

	fields_of_result(res, &fields);
	if (is_fatal(&fields))
	{
		note_fatal(remote, &fields);
		return;
	}
	if (fields.sqlstate == NULL)
	{
		/* libpq's own: nearly always the end of the connection */
		if (PQstatus(remote->conn) == CONNECTION_BAD)
		{
			if (remote->error[0] == '\0')
				set_error(remote, 0, PQresultErrorMessage(res));
			remote->eof = remote->drained = true;
			return;
		}
		fields.sqlstate = "XX000";
		fields.message = PQresultErrorMessage(res);
	}
	if (resetting(remote))
	{
		task->condemned = true;
		fields.context = "reset_query";
		set_error(remote, ERRCODE_CONNECTION_FAILURE,
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
		set_error(remote, ERRCODE_CONNECTION_FAILURE, fields.message);
	}
	if (task->kind != TASK_RECOVER && !task->silent && !task->failed &&
		!task->refused)
		pgmc_wire_fields(remote->out, PGMC_REPLY_ERROR, task->seq, &fields);
	task->failed = true;
}

/* ---- connecting ---- */

/* whose process listens on the other end's Unix socket: our postmaster's? */
static bool
listener_is_postmaster(int sock)
{
#ifdef SO_PEERCRED
	struct ucred peer;
	socklen_t	peerlen = sizeof(peer);

	return getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &peerlen) == 0 &&
		peer.pid == PostmasterPid;
#else
	return false;
#endif
}

/*
 * Is the server at the other end this very cluster?  The kernel tells who
 * listens on a Unix socket.  Over TCP the process with the number that the
 * server gave must be a backend of ours, and its client must be our socket.
 */
static bool
prove_same_cluster(PGconn *conn)
{
	SockAddr	self = {0};

	self.salen = sizeof(self.addr);
	if (getsockname(PQsocket(conn), (struct sockaddr *) &self.addr,
					&self.salen) != 0)
		return false;
	if (self.addr.ss_family == AF_UNIX)
		return listener_is_postmaster(PQsocket(conn));
	return pgmc_backend_has_client(PQbackendPID(conn), &self);
}

/*
 * Take the SQLSTATE out of libpq's verbose message ("FATAL:  53300: text"),
 * and the line that tells the place in the server's source.
 */
static int
take_sqlstate(char *message)
{
	int			sqlstate = 0;
	char	   *p = message;

	while ((p = strstr(p, ":  ")) != NULL)
	{
		p += 3;
		if (strspn(p, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5 &&
			p[5] == ':' && p[6] == ' ')
		{
			sqlstate = parse_sqlstate(p);
			memmove(p, p + 7, strlen(p + 7) + 1);
		}
	}
	while ((p = strstr(message, "\nLOCATION:  ")) != NULL)
	{
		char	   *end = strchr(p + 1, '\n');

		if (end == NULL)
			*p = '\0';
		else
			memmove(p, end, strlen(end) + 1);
	}
	return sqlstate;
}

static void
fail_opening(PgmcRemote *remote, const char *message, int sqlstate)
{
	char	   *text = pstrdup(message);
	int			told = take_sqlstate(text);

	set_error(remote, told != 0 ? told : sqlstate, text);
	pfree(text);
	pgmc_remote_close(remote);
	remote->event = PGMC_REMOTE_OPEN_FAILED;
}

void
pgmc_remote_open(PgmcRemote *remote, const PgmcOpen *open)
{
	pgmc_remote_close(remote);
	remote->event = PGMC_REMOTE_NOTHING;
	remote->serial++;
	remote->options_hash = open->options_hash;
	remote->idle_timeout = open->idle_timeout;
	remote->max_lifetime = open->max_lifetime;
	remote->reset_query = MemoryContextStrdup(remote->open_context,
											  open->reset_query);
	if (!AcquireExternalFD())
	{
		fail_opening(remote, "too many open files in the worker",
					 ERRCODE_INSUFFICIENT_RESOURCES);
		return;
	}
	remote->has_fd = true;
	remote->conn = PQconnectStartParams(open->keywords, open->values, false);
	if (remote->conn == NULL)
	{
		fail_opening(remote, "out of memory", ERRCODE_OUT_OF_MEMORY);
		return;
	}
	if (PQstatus(remote->conn) == CONNECTION_BAD)
	{
		fail_opening(remote, PQerrorMessage(remote->conn),
					 ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION);
		return;
	}
	PQsetErrorVerbosity(remote->conn, PQERRORS_VERBOSE);
	PQsetNoticeReceiver(remote->conn, receive_notice, remote);
	remote->state = PGMC_REMOTE_CONNECTING;
	remote->polling = PGRES_POLLING_WRITING;
	remote->connect_deadline = open->connect_timeout <= 0 ? 0 :
		TimestampTzPlusMilliseconds(GetCurrentTimestamp(), open->connect_timeout);
	set_error(remote, 0, "");
}

static void
finish_opening(PgmcRemote *remote)
{
	const char *encoding = PQparameterStatus(remote->conn, "client_encoding");

	PQsetErrorVerbosity(remote->conn, PQERRORS_DEFAULT);
	PQsetnonblocking(remote->conn, 1);
	remote->backend_pid = PQbackendPID(remote->conn);
	remote->same_cluster = prove_same_cluster(remote->conn);
	if (remote->same_cluster)
		remote->proc = BackendPidGetProc(remote->backend_pid);
	remote->used_password = PQconnectionUsedPassword(remote->conn);
	remote->encoding = MemoryContextStrdup(remote->open_context,
										   encoding ? encoding : "");
	remote->prepared = pgmc_prepared_create(remote->open_context);
	if (!pg_strong_random(&remote->statement_key, sizeof(remote->statement_key)))
		elog(ERROR, "could not generate a random number");
	remote->state = PGMC_REMOTE_READY;
	remote->event = PGMC_REMOTE_OPENED;
}

static void
advance_connecting(PgmcRemote *remote, bool ready)
{
	if (remote->connect_deadline != 0 &&
		GetCurrentTimestamp() >= remote->connect_deadline)
	{
		fail_opening(remote, "timeout expired",
					 ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION);
		return;
	}
	if (!ready)
		return;
	remote->polling = PQconnectPoll(remote->conn);
	if (remote->polling == PGRES_POLLING_OK)
		finish_opening(remote);
	else if (remote->polling == PGRES_POLLING_FAILED)
		fail_opening(remote, PQerrorMessage(remote->conn),
					 ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION);
}

/* ---- tasks and their steps ---- */

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
		set_error(remote, 0, "");
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

static void
drop_notifications(PgmcRemote *remote)
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
	drop_notifications(remote); /* has libpq look at what there is */
	if (remote->error_sqlstate != 0)
		remote->eof = true;
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

/* The command again, from scratch: see statement_unusable. */
static void
begin_retry(PgmcRemote *remote)
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

static void
begin_answered(Task *task)
{
	task->answered = false;
	task->nsteps = task->at = 0;
	if (task->failed || task->silent)
		return;
	add_step(task, STEP_MAIN_PREPARED);
}

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

uint32
pgmc_remote_commit_xid(const PgmcRemote *remote)
{
	return remote->state == PGMC_REMOTE_BUSY ? remote->task.xid :
		InvalidTransactionId;
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

	/* a step that isn't sent yet never will be */
	if (!task->pipelined)
		task->nsteps = Min(task->nsteps, task->at + (task->sent ? 1 : 0));
	pgmc_remote_cancel(remote);
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
	remote->cancel_give_up = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
														 CANCEL_GIVE_UP_MS);
}

/* The next advance does it: this one may have something to say. */
void
pgmc_remote_cancel(PgmcRemote *remote)
{
	if (remote->state != PGMC_REMOTE_BUSY || remote->task.asking)
		return;
	remote->cancel_next = GetCurrentTimestamp();
	remote->cancel_pause = CANCEL_FIRST_MS;
}

/*
 * A backend of this cluster is signalled.  Elsewhere a cancel is sent over the
 * network; where libpq can't do that without blocking, the socket is closed.
 */
static void
cancel_now(PgmcRemote *remote)
{
	TimestampTz now = GetCurrentTimestamp();

	if (remote->cancel_give_up == 0)
		remote->cancel_give_up = TimestampTzPlusMilliseconds(now, CANCEL_GIVE_UP_MS);
	remote->cancel_next = TimestampTzPlusMilliseconds(now, remote->cancel_pause);
	remote->cancel_pause = Min(2 * remote->cancel_pause, CANCEL_EVERY_MS);
	if (remote->same_cluster)
	{
		if (BackendPidGetProc(remote->backend_pid) != NULL)
			kill(-remote->backend_pid, SIGINT);
		return;
	}
	if (remote->net_cancel == NULL)
		remote->net_cancel = pgmc_netcancel_begin(remote->conn, remote->context);
	if (remote->net_cancel == NULL)
	{
		set_error(remote, 0, "connection was closed to cancel its statement");
		lose(remote);
	}
}

/* ---- sending ---- */

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

/* the parameters as libpq takes them */
typedef struct Arguments
{
	Oid		   *types;
	const char **values;
	int		   *lengths;
	int		   *formats;
} Arguments;

static void
arrange_arguments(const PgmcExecute *exec, Arguments *args)
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

static void
free_arguments(Arguments *args)
{
	pfree(args->types);
	pfree(args->values);
	pfree(args->lengths);
	pfree(args->formats);
}

static int
send_main(PgmcRemote *remote, StepKind step)
{
	const PgmcExecute *exec = remote->task.exec;
	int			binary = (remote->task.flags & PGMC_EXEC_BINARY) ? 1 : 0;
	Arguments	args;
	char		name[STATEMENT_NAME];

	arrange_arguments(exec, &args);
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

/*
 * A step's results are due next.  Rows are asked for one by one, which libpq
 * wants to be told after the last step's end and before it looks at this one.
 */
static void
expect_step(PgmcRemote *remote)
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

static bool
send_steps(PgmcRemote *remote)
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
	expect_step(remote);
	return true;
}

/* ---- many sets of parameters ---- */

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

/* The next result is that of the set just sent, or of one in front of it. */
static void
expect_set(PgmcRemote *remote)
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
		expect_set(remote);
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
	arrange_arguments(task->exec, &args);
	while (data < end)
	{
		if (!pgmc_wire_read_set(&data, end, task->exec->nparams, args.values,
								args.lengths))
			return false;
		if (!PQsendQueryPrepared(remote->conn, "", task->exec->nparams,
								 args.values, args.lengths, args.formats, 0))
		{
			set_error(remote, 0, PQerrorMessage(remote->conn));
			remote->eof = remote->drained = true;
			break;
		}
		note_set_sent(remote);
	}
	free_arguments(&args);
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

/* Is it time for the Sync? */
static bool
sets_are_through(const Task *task)
{
	return task->sets_open && !task->synced &&
		(task->sets_ended || task->failed || task->refused || task->silent);
}

/*
 * An error of the server's spoils what was sent by itself; one of libpq's, as
 * when it has no memory for a result, doesn't.
 */
static bool
sync_sets(PgmcRemote *remote)
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

/* The results of a set are all here. */
static void
next_set(PgmcRemote *remote)
{
	remote->task.sets_done++;
	expect_set(remote);
}

/* Have all sets that were sent been answered, and others may come? */
static bool
no_set_due(const Task *task)
{
	return at_sets(task) && task->sets_open && !task->synced &&
		task->sets_sent == task->sets_done;
}

/* Does the holder still owe us the end of its sets? */
static bool
sets_are_owed(const Task *task)
{
	return task->many && !task->sets_ended && !task->silent;
}

/* ---- results ---- */

static void
send_describe(PgmcRemote *remote, const PGresult *res, uint8 flags)
{
	PgmcDescribe desc;
	bool text = (flags & PGMC_DESCRIBE_BINARY) == 0;
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
		values[i] = text ? PQparameterStatus(remote->conn, names[i]) : NULL;

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

/* Emit what fits of the present row; true when all of it is out. */
static bool
emit_row(PgmcRemote *remote)
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

static int64
tuples_of(PGresult *res)
{
	const char *count = PQcmdTuples(res);

	return count[0] == '\0' ? 0 : strtoll(count, NULL, 10);
}

/* A step has ended well. */
static void
complete_step(PgmcRemote *remote, PGresult *res)
{
	Task	   *task = &remote->task;
	ExecStatusType status = PQresultStatus(res);

	if (task->at >= task->nsteps)
		return;
	switch (task->steps[task->at])
	{
		case STEP_RESET:
		case STEP_ROLLBACK:
			pgmc_prepared_heed_tag(remote->prepared, PQcmdStatus(res),
								   status == PGRES_TUPLES_OK);
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
			pgmc_prepared_heed_tag(remote->prepared, PQcmdStatus(res),
								   status == PGRES_TUPLES_OK);
			if (task->ends_xact && strcmp(PQcmdStatus(res), "COMMIT") == 0)
			{
				task->own_commit = true;
				task->committed = !task->simple;	/* no more is to come */
			}
			if (status == PGRES_TUPLES_OK && !task->described && rows_wanted(task))
				send_describe(remote, res, describe_flags(task));
			task->described = false;
			break;
		case STEP_SETS:
			task->rows += tuples_of(res);
			if (task->sets_done == 0)
				pgmc_prepared_heed_tag(remote->prepared, PQcmdStatus(res),
									   status == PGRES_TUPLES_OK);
			task->own_commit = task->own_commit ||
				strcmp(PQcmdStatus(res), "COMMIT") == 0 ||
				(task->ends_xact && (task->flags & PGMC_EXEC_AUTOCOMMIT));
			break;
		case STEP_COMMIT:
			task->committed = strcmp(PQcmdStatus(res), "COMMIT") == 0;
			pgmc_prepared_heed_tag(remote->prepared, PQcmdStatus(res), false);
			if (!task->committed)
				task->done_flags |= PGMC_DONE_NOT_COMMITTED;
			break;
		default:
			break;
	}
}

/* A COPY to or from the client: end it, the data go nowhere. */
static void
leave_copy(PgmcRemote *remote, ExecStatusType status)
{
	remote->task.done_flags |= PGMC_DONE_COPY;
	if (status == PGRES_COPY_IN || status == PGRES_COPY_BOTH)
		PQputCopyEnd(remote->conn, "COPY from the client is not supported by pgmc");
	else
	{
		remote->cancel_pause = CANCEL_FIRST_MS;
		cancel_now(remote);
	}
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

static void
take_row(PgmcRemote *remote, PGresult *res)
{
	Task	   *task = &remote->task;

	if (!rows_wanted(task))
	{
		PQclear(res);
		return;
	}
	if (!task->described)
		send_describe(remote, res, describe_flags(task));
	task->spoke = true;
	remote->row = res;
	remote->row_column = -1;
}

/* The step's results are all here. */
static void
next_step(PgmcRemote *remote)
{
	Task	   *task = &remote->task;

	if (at_sets(task))
	{
		next_set(remote);
		return;
	}
	task->at++;
	if (at_sets(task))
		expect_set(remote);
	if (task->pipelined)
	{
		expect_step(remote);	/* or the Sync, which has no step */
		return;
	}
	task->sent = false;
	if (task->failed)
		task->at = task->nsteps;
}

/* Take one result from libpq.  False: none can be had without waiting. */
static bool
take_result(PgmcRemote *remote)
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
			set_error(remote, 0, PQerrorMessage(remote->conn));
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

	status = PQresultStatus(res);
	switch (status)
	{
		case PGRES_SINGLE_TUPLE:
			take_row(remote, res);
			return true;		/* take_row keeps or clears it */
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
				set_error(remote, 0, "COPY with many sets of parameters");
				remote->eof = remote->drained = true;
			}
			else
				leave_copy(remote, status);
			break;
		case PGRES_PIPELINE_SYNC:
			remote->task.at = remote->task.nsteps;
			remote->task.sent = false;
			PQexitPipelineMode(remote->conn);
			remote->task.pipelined = false;
			break;
		case PGRES_PIPELINE_ABORTED:
			break;
		default:
			report_error(remote, res);
			break;
	}
	PQclear(res);
	return true;
}

/* ---- the end of a task ---- */

static bool
encoding_changed(PgmcRemote *remote)
{
	const char *now = PQparameterStatus(remote->conn, "client_encoding");

	return now != NULL && strcmp(now, remote->encoding) != 0;
}

/* Add the steps that the command's outcome calls for; true if there are any. */
static bool
fix_up(PgmcRemote *remote)
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

static void
finish_task(PgmcRemote *remote)
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
			lose(remote);
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
	task->kind = TASK_NONE;
	remote->state = PGMC_REMOTE_READY;
	done.xact_status = pgmc_remote_xact_status(remote);
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
		lose(remote);
}

static bool
connection_ended(PgmcRemote *remote)
{
	return PQstatus(remote->conn) == CONNECTION_BAD;
}

static void
advance_task(PgmcRemote *remote)
{
	Task	   *task = &remote->task;

	while (remote->state == PGMC_REMOTE_BUSY)
	{
		if (remote->row != NULL && task->silent)
			clear_row(remote);
		if (remote->row != NULL && !emit_row(remote))
			return;
		if (remote->out->len >= PGMC_OUTPUT_LIMIT)
			return;
		if (remote->drained ||
			(!task->sent && (remote->eof || connection_ended(remote))))
		{
			lose(remote);
			return;
		}
		if (sets_are_through(task) && !sync_sets(remote))
		{
			set_error(remote, ERRCODE_CONNECTION_FAILURE,
					  PQerrorMessage(remote->conn));
			lose(remote);
			return;
		}
		if (!task->sent && (task->asking || remote->net_cancel != NULL))
			return;
		if (task->sent)
		{
			if (!take_result(remote))
				return;
		}
		else if (task->retry)
			begin_retry(remote);
		else if (task->answered)
			begin_answered(task);
		else if (task->at < task->nsteps)
		{
			if (!send_steps(remote))
			{
				set_error(remote, ERRCODE_CONNECTION_FAILURE,
						  PQerrorMessage(remote->conn));
				lose(remote);
			}
		}
		else if (sets_are_owed(task))
			return;
		else if (!fix_up(remote))
			finish_task(remote);
	}
}

static void
flush_writes(PgmcRemote *remote)
{
	int			left = PQflush(remote->conn);

	remote->want_write = left > 0;
	if (left < 0)
		remote->eof = remote->eof || connection_ended(remote);
}

bool
pgmc_remote_awaits_reply(const PgmcRemote *remote)
{
	const Task *task = &remote->task;

	return remote->state == PGMC_REMOTE_BUSY && task->sent && !remote->eof &&
		!no_set_due(task) && !(task->done_flags & PGMC_DONE_COPY);
}

/* PQisBusy looks at what there is, and hands out the notices that are in it. */
bool
pgmc_remote_peek(PgmcRemote *remote, StringInfo out)
{
	int			length = out->len;

	Assert(remote->row == NULL);
	remote->out = out;
	if (!PQconsumeInput(remote->conn))
		remote->eof = true;
	if (!remote->eof && PQisBusy(remote->conn))
	{
		remote->out = NULL;
		/* cppcheck-suppress knownConditionTrueFalse ; by notices */
		return out->len > length;
	}
	remote->out = NULL;
	return true;
}

static void
advance_cancel(PgmcRemote *remote)
{
	TimestampTz now = GetCurrentTimestamp();

	if (remote->cancel_give_up != 0 && now >= remote->cancel_give_up)
	{
		set_error(remote, 0, "statement could not be cancelled");
		lose(remote);
	}
	else if (remote->cancel_next != 0 && now >= remote->cancel_next)
		cancel_now(remote);
}

void
pgmc_remote_advance(PgmcRemote *remote, bool readable, StringInfo out)
{
	remote->out = out;
	if (remote->state == PGMC_REMOTE_CONNECTING)
		advance_connecting(remote, readable);
	else if (remote->state != PGMC_REMOTE_CLOSED)
	{
		if (remote->state == PGMC_REMOTE_BUSY &&
			(remote->cancel_next != 0 || remote->cancel_give_up != 0))
			advance_cancel(remote);
		if (remote->conn != NULL && readable && !PQconsumeInput(remote->conn))
			remote->eof = true;

		/* libpq may have notices to tell then, which can't go inside a row */
		if (remote->conn != NULL && remote->row == NULL)
			drop_notifications(remote);
		if (remote->state == PGMC_REMOTE_READY &&
			(remote->eof || connection_ended(remote)))
		{
			if (remote->error[0] == '\0')
				set_error(remote, ERRCODE_CONNECTION_FAILURE,
						  PQerrorMessage(remote->conn));
			lose(remote);
		}
		if (remote->state == PGMC_REMOTE_BUSY)
			advance_task(remote);
		if (remote->conn != NULL && remote->state != PGMC_REMOTE_CONNECTING)
			flush_writes(remote);
		remote->blocked = out->len >= PGMC_OUTPUT_LIMIT || remote->row != NULL;
	}
	remote->out = NULL;
}
