/*
 * remote_open.c
 *		How the PGconn of a PgmcRemote begins and ends.
 *
 * It ends by being closed, which says nothing to anybody, or by being lost,
 * which the holder is told, with what is known of a commit that was under way.
 */
#include "postgres.h"

#include <signal.h>
#include <sys/socket.h>

#include "access/transam.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/procarray.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "remote_int.h"

/* how often to ask what became of a transaction that is still in progress */
#define RESOLVE_EVERY_MS	10

/* ---- closing ---- */

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
	clear_result(remote);
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
	remote->peeked = false;
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

/* ---- losing ---- */

/* May what is running have been committed by the server, as far as we know? */
static bool
in_doubt(const PgmcRemote *remote)
{
	const Task *task = &remote->task;
	bool		commits = (task->kind == TASK_COMMIT && !task->hopeless) ||
	(task->kind == TASK_EXECUTE && !task->asking && !task->answered &&
	 task->ends_xact) || commits_by_itself(task);

	/* all of it was answered before the end came, but not how it ended */
	bool		over = task->simple && commits_by_itself(task) &&
	!task->sent && task->at >= task->nsteps;

	/* the server's last words say that it hadn't, if they were the answer */
	return commits && (task->sent || over) && !task->fatal &&
		!task->failed && !task->committed;
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

void
pgmc_remote_lose(PgmcRemote *remote)
{
	Task	   *task = &remote->task;
	bool		doubt = in_doubt(remote);

	remote->retry_at = 0;
	if (doubt && TransactionIdIsValid(task->xid))
	{
		if (!resolve_doubt(remote))
		{
			remote->retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
														   RESOLVE_EVERY_MS);
			return;
		}
		doubt = false;
	}
	if ((task->own_commit && !task->committed) || doubt)
		remote->error_sqlstate = ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN;
	else if (remote->error_sqlstate == 0)
		remote->error_sqlstate = ERRCODE_CONNECTION_FAILURE;
	if (task->kind != TASK_NONE && task->kind != TASK_RECOVER &&
		!task->silent && remote->out != NULL)
		tell_loss(remote);
	pgmc_remote_close(remote);
	remote->event = PGMC_REMOTE_LOST;
}

/* ---- opening ---- */

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
			sqlstate = MAKE_SQLSTATE(p[0], p[1], p[2], p[3], p[4]);
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

	pgmc_remote_set_error(remote, told != 0 ? told : sqlstate, text);
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
	PQsetNoticeReceiver(remote->conn, pgmc_remote_receive_notice, remote);
	remote->state = PGMC_REMOTE_CONNECTING;
	remote->polling = PGRES_POLLING_WRITING;
	remote->connect_deadline = open->connect_timeout <= 0 ? 0 :
		TimestampTzPlusMilliseconds(GetCurrentTimestamp(), open->connect_timeout);
	pgmc_remote_set_error(remote, 0, "");
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

void
pgmc_remote_advance_opening(PgmcRemote *remote, bool ready)
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
