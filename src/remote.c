/*
 * remote.c
 *		One PGconn of the worker, as a state machine that never blocks.
 *
 * Here is what makes it go: pgmc_remote_advance looks at what has come and what
 * is due, and calls the file whose job it is.  What these are, remote_int.h
 * tells.
 */
#include "postgres.h"

#include <unistd.h>

#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "moment.h"
#include "remote_int.h"

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

/* ---- what there is to know ---- */

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

/* ---- advancing ---- */

static bool
connection_ended(PgmcRemote *remote)
{
	return PQstatus(remote->conn) == CONNECTION_BAD;
}

/* A step couldn't be sent. */
static void
fail_sending(PgmcRemote *remote)
{
	pgmc_remote_set_error(remote, ERRCODE_CONNECTION_FAILURE,
						  PQerrorMessage(remote->conn));
	pgmc_remote_lose(remote);
}

static void
advance_task(PgmcRemote *remote)
{
	Task	   *task = &remote->task;

	while (remote->state == PGMC_REMOTE_BUSY)
	{
		if (remote->row != NULL && task->silent)
			clear_row(remote);
		if (remote->row != NULL && !pgmc_remote_emit_row(remote))
			return;
		if (remote->out->len >= PGMC_OUTPUT_LIMIT)
			return;
		if (remote->drained ||
			(!task->sent && (remote->eof || connection_ended(remote))))
		{
			pgmc_remote_lose(remote);
			return;
		}
		if (sets_are_through(task) && !pgmc_remote_sync_sets(remote))
		{
			fail_sending(remote);
			return;
		}
		if (!task->sent && (task->asking || remote->net_cancel != NULL))
			return;
		if (task->sent)
		{
			if (!pgmc_remote_take_result(remote))
				return;
		}
		else if (task->retry)
			pgmc_remote_begin_retry(remote);
		else if (task->answered)
			pgmc_remote_begin_answered(task);
		else if (task->at < task->nsteps)
		{
			if (!pgmc_remote_send_steps(remote))
				fail_sending(remote);
		}
		else if (sets_are_owed(task))
			return;
		else if (!pgmc_remote_fix_up(remote))
			pgmc_remote_finish_task(remote);
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
	remote->peeked = true;
	return true;
}

void
pgmc_remote_advance(PgmcRemote *remote, bool readable, StringInfo out)
{
	remote->out = out;
	if (remote->state == PGMC_REMOTE_CONNECTING)
		pgmc_remote_advance_opening(remote, readable);
	else if (remote->state != PGMC_REMOTE_CLOSED)
	{
		if (remote->state == PGMC_REMOTE_BUSY &&
			(remote->cancel_next != 0 || remote->cancel_give_up != 0))
			pgmc_remote_advance_cancel(remote);

		/* an end of the connection that comes later shall be seen later */
		if (remote->conn != NULL && readable && !remote->peeked &&
			!PQconsumeInput(remote->conn))
			remote->eof = true;
		remote->peeked = false;

		/* libpq may have notices to tell then, which can't go inside a row */
		if (remote->conn != NULL && remote->row == NULL)
			pgmc_remote_drop_notifications(remote);
		if (remote->state == PGMC_REMOTE_READY &&
			(remote->eof || connection_ended(remote)))
		{
			if (remote->error[0] == '\0')
				pgmc_remote_set_error(remote, ERRCODE_CONNECTION_FAILURE,
									  PQerrorMessage(remote->conn));
			pgmc_remote_lose(remote);
		}
		if (remote->state == PGMC_REMOTE_BUSY)
			advance_task(remote);
		if (remote->conn != NULL && remote->state != PGMC_REMOTE_CONNECTING)
			flush_writes(remote);
		remote->blocked = out->len >= PGMC_OUTPUT_LIMIT || remote->row != NULL;
	}
	remote->out = NULL;
}
