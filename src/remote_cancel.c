/*
 * remote_cancel.c
 *		Cancelling what a connection is running, until it has ended.
 *
 * The first cancel may find that the server has not yet read the statement, and
 * is lost then; so the second comes soon, and each next one after twice the
 * time, up to a limit.
 */
#include "postgres.h"

#include <signal.h>

#include "storage/procarray.h"
#include "utils/timestamp.h"

#include "remote_int.h"

/* how often a statement that goes on is cancelled again, and how long */
#define CANCEL_FIRST_MS		10
#define CANCEL_EVERY_MS		1000
#define CANCEL_GIVE_UP_MS	60000

/* The next advance does it: this one may have something to say. */
void
pgmc_remote_cancel(PgmcRemote *remote)
{
	if (remote->state != PGMC_REMOTE_BUSY || remote->task.asking)
		return;
	remote->cancel_next = GetCurrentTimestamp();
	remote->cancel_pause = CANCEL_FIRST_MS;
}

void
pgmc_remote_limit_task(PgmcRemote *remote, TimestampTz now)
{
	remote->cancel_give_up = TimestampTzPlusMilliseconds(now, CANCEL_GIVE_UP_MS);
}

/*
 * A backend of this cluster is signalled.  Elsewhere a cancel is sent over the
 * network; where libpq can't do that without blocking, the socket is closed.
 */
static void
send_cancel(PgmcRemote *remote)
{
	TimestampTz now = GetCurrentTimestamp();

	remote->task.cancelled = true;
	if (remote->cancel_give_up == 0)
		pgmc_remote_limit_task(remote, now);
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
		pgmc_remote_set_error(remote, 0, "connection was closed to cancel its statement");
		pgmc_remote_lose(remote);
	}
}

void
pgmc_remote_cancel_now(PgmcRemote *remote)
{
	remote->cancel_pause = CANCEL_FIRST_MS;
	send_cancel(remote);
}

void
pgmc_remote_advance_cancel(PgmcRemote *remote)
{
	TimestampTz now = GetCurrentTimestamp();

	if (remote->cancel_give_up != 0 && now >= remote->cancel_give_up)
	{
		pgmc_remote_set_error(remote, 0, "statement could not be cancelled");
		pgmc_remote_lose(remote);
	}
	else if (remote->cancel_next != 0 && now >= remote->cancel_next)
		send_cancel(remote);
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
