/*
 * remote_int.h
 *		What the files that make up remote.h share, and nobody else sees.
 *
 * Each calls only those below it, and remote_error.c:
 *
 *	remote.c		the state machine: it advances what the others have begun
 *	remote_task.c	tasks: which steps they have, and how they end
 *	remote_result.c	results on their way to the output
 *	remote_sets.c	many sets of parameters
 *	remote_send.c	steps on their way to the server
 *	remote_cancel.c	cancelling
 *	remote_open.c	opening, closing and losing the PGconn
 *	remote_error.c	errors and notices of the server and of libpq
 *
 * Whatever opens, begins a task, sends, cancels or appends to the output may
 * raise 53200, or XX000 where that cannot happen, and nothing else does.  What
 * an error has left is good for pgmc_remote_close, which raises none.
 */
#ifndef PGMC_REMOTE_INT_H
#define PGMC_REMOTE_INT_H

#include "libpq-fe.h"
#include "storage/proc.h"

#include "netcancel.h"
#include "prepared.h"
#include "remote.h"

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

/* no session's number: who comes next finds the state of somebody else */
#define PGMC_ANYBODY	PG_UINT64_MAX

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
	bool		fatal;			/* the server's last words were its answer */
	bool		asking;			/* waits for the holder's word on the format */
	bool		answered;		/* has it: the command goes out next */
	bool		described;		/* columns of the present result are sent */
	bool		cancelled;		/* a cancel has been sent */
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
	bool		peeked;			/* libpq has read what there is already */
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
	uint64		last_user;		/* session whose state may be left in it, or
								 * PGMC_ANYBODY */

	bool		bloated;		/* libpq's buffers have grown, and never
								 * shrink */
	int64		rows;			/* told since take_rows */

	/* why it was lost */
	int			error_sqlstate;
	char		error[PGMC_ERROR_SIZE];

	Task		task;
	bool		quiet_call;		/* the latest: see pgmc_remote_quiet_call */
	StringInfo	out;			/* during advance only */
	PGresult   *result;			/* being looked at; an error leaves it here */

	/* the row being emitted */
	PGresult   *row;
	int			row_column;
	int			row_offset;		/* -1: the column's length is due */
};

/* ---- what is asked or done with each result, row or set ---- */

/* Let go of the result that is being looked at, if there still is one. */
static inline void
clear_result(PgmcRemote *remote)
{
	if (remote->result != NULL)
		PQclear(remote->result);
	remote->result = NULL;
}

/* Let go of the row that is being emitted, if there is one. */
static inline void
clear_row(PgmcRemote *remote)
{
	if (remote->row != NULL)
		PQclear(remote->row);
	remote->row = NULL;
}

/* Is it the results of sets that come in? */
static inline bool
at_sets(const Task *task)
{
	return task->at < task->nsteps && task->steps[task->at] == STEP_SETS;
}

/* Have all sets that were sent been answered, and others may come? */
static inline bool
no_set_due(const Task *task)
{
	return at_sets(task) && task->sets_open && !task->synced &&
		task->sets_sent == task->sets_done;
}

/* Is it time for the Sync? */
static inline bool
sets_are_through(const Task *task)
{
	return task->sets_open && !task->synced &&
		(task->sets_ended || task->failed || task->refused || task->silent);
}

/* Does the holder still owe us the end of its sets? */
/* Does the server commit what is running when it has run, of itself? */
static inline bool
commits_by_itself(const Task *task)
{
	return task->kind == TASK_EXECUTE && !task->asking && !task->answered &&
		(task->flags & (PGMC_EXEC_AUTONOMOUS | PGMC_EXEC_AUTOCOMMIT)) != 0 &&
		(!task->many || task->synced);	/* the Sync commits them */
}

static inline bool
sets_are_owed(const Task *task)
{
	return task->many && !task->sets_ended && !task->silent;
}

/* ---- errors and notices (remote_error.c) ---- */

/* Why the connection is lost, or its opening has failed; sqlstate 0: not known. */
extern void pgmc_remote_set_error(PgmcRemote *remote, int sqlstate,
								  const char *message);

/* libpq's notice receiver, with the PgmcRemote as arg. */
extern void pgmc_remote_receive_notice(void *arg, const PGresult *res);

/*
 * A step has failed.  Tells the holder, unless the command is to be sent once
 * more or the connection is at its end.
 */
extern void pgmc_remote_report_error(PgmcRemote *remote, const PGresult *res);

/* ---- opening, closing, losing (remote_open.c) ---- */

/* Go on with the opening; ready: the socket is. */
extern void pgmc_remote_advance_opening(PgmcRemote *remote, bool ready);

/*
 * The connection is lost, or to be given up: tell whoever waits for the task,
 * and close it.  Where it isn't known yet whether a commit has happened, this
 * is put off, and the task goes on until then.
 */
extern void pgmc_remote_lose(PgmcRemote *remote);

/* ---- cancelling (remote_cancel.c) ---- */

/* Cancel what is running at once, and again soon if it goes on; may lose. */
extern void pgmc_remote_cancel_now(PgmcRemote *remote);

/* What runs or will run has a minute from now; else the connection is lost. */
extern void pgmc_remote_limit_task(PgmcRemote *remote, TimestampTz now);

/* Do what is due; may lose.  To be called where cancel_next or _give_up is set. */
extern void pgmc_remote_advance_cancel(PgmcRemote *remote);

/* ---- sending (remote_send.c) ---- */

/* a command's parameters as libpq takes them */
typedef struct Arguments
{
	Oid		   *types;
	const char **values;
	int		   *lengths;
	int		   *formats;
} Arguments;

/* in the current memory context, to which freeing them may be left */
extern void pgmc_remote_arrange_arguments(const PgmcExecute *exec,
										  Arguments *args);
extern void pgmc_remote_free_arguments(Arguments *args);

/*
 * Send the steps from the present one on, as many as can go at once.  False:
 * libpq can't, and PQerrorMessage says why.
 */
extern bool pgmc_remote_send_steps(PgmcRemote *remote);

/*
 * A step's results are due next.  Rows are asked for one by one, which libpq
 * wants to be told after the last step's end and before it looks at this one.
 */
extern void pgmc_remote_expect_step(PgmcRemote *remote);

/* ---- many sets of parameters (remote_sets.c) ---- */

/*
 * The next result is that of the set just sent, or of one in front of it; or
 * the Sync's.  Called when that has become so.
 */
extern void pgmc_remote_expect_set(PgmcRemote *remote);

/*
 * Send the Sync, where sets_are_through.  False: libpq can't, and
 * PQerrorMessage says why.
 */
extern bool pgmc_remote_sync_sets(PgmcRemote *remote);

/* ---- results (remote_result.c) ---- */

/* Take one result from libpq.  False: none can be had without waiting. */
extern bool pgmc_remote_take_result(PgmcRemote *remote);

/* Emit what fits of the present row; true when all of it is out. */
extern bool pgmc_remote_emit_row(PgmcRemote *remote);

/* ---- tasks (remote_task.c): what advance does when nothing is running ---- */

/* The command again, from scratch: see statement_unusable in remote_error.c. */
extern void pgmc_remote_begin_retry(PgmcRemote *remote);

/* The command, after the holder's word on the format. */
extern void pgmc_remote_begin_answered(Task *task);

/* Add the steps that the command's outcome calls for; true if there are any. */
extern bool pgmc_remote_fix_up(PgmcRemote *remote);

/* Nothing is left to do: tell the holder, and be ready.  May lose. */
extern void pgmc_remote_finish_task(PgmcRemote *remote);

/* Anywhere in a task; has libpq look at what it has read: may bring notices. */
extern void pgmc_remote_drop_notifications(PgmcRemote *remote);

#endif							/* PGMC_REMOTE_INT_H */
