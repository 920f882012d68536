/*
 * log.c
 *		What the worker does by itself, told in the server's log.
 */
#include "postgres.h"

#include "log.h"
#include "settings.h"

/* libpq's messages have several lines, and a client may have chosen the text */
static const char *
one_line(const char *text)
{
	char	   *line = pstrdup(text);

	for (char *p = line; *p != '\0'; p++)
		if (*p == '\n' || *p == '\t' || *p == '\r')
			*p = ' ';
	return line;
}

void
pgmc_log_lost(const PgmcSlot *slot, const char *reason)
{
	const char *why = reason[0] == '\0' ? "no reason is known" : one_line(reason);

	if (slot->holder.pid != 0)
		ereport(pgmc_log_level,
				(errmsg("connection of server \"%s\" was lost while process %d held it: %s",
						NameStr(slot->srvname), slot->holder.pid, why)));
	else
		ereport(pgmc_log_level,
				(errmsg("connection of server \"%s\" was lost while no process held it: %s",
						NameStr(slot->srvname), why)));
}

void
pgmc_log_reopened(const PgmcSlot *slot)
{
	if (slot->holder.pid != 0)
		ereport(pgmc_log_level,
				(errmsg("connection of server \"%s\" was opened again for process %d: the last one was lost",
						NameStr(slot->srvname), slot->holder.pid)));
	else
		ereport(pgmc_log_level,
				(errmsg("connection of server \"%s\" was opened again: the last one was lost",
						NameStr(slot->srvname))));
}

static const char *
close_reason(PgmcCloseReason why)
{
	switch (why)
	{
		case PGMC_CLOSE_ASKED:
			break;
		case PGMC_CLOSE_IDLE:
			return "it has reached idle_timeout";
		case PGMC_CLOSE_LIFETIME:
			return "it has reached max_lifetime";
		case PGMC_CLOSE_BLOATED:
			return "its memory has grown by a large message";
		case PGMC_CLOSE_DROPPED:
			return "its server, user mapping or role was dropped";
		case PGMC_CLOSE_DATABASE:
			return "its database is about to be dropped or copied";
		case PGMC_CLOSE_SHUTDOWN:
			return "the database system is shutting down";
		case PGMC_CLOSE_POOL_SIZE:
			return "pool_size was made smaller";
		case PGMC_CLOSE_LIMIT:
			return "pgmc.max_connections was lowered";
		case PGMC_CLOSE_ROOM:
			return "pgmc.max_connections was reached and another server needed one";
		case PGMC_CLOSE_OPTIONS:
			return "options of its server or user mapping have changed";
	}
	return NULL;
}

void
pgmc_log_closing(const char *srvname, PgmcCloseReason why)
{
	const char *reason = close_reason(why);

	if (reason != NULL)
		ereport(pgmc_log_level,
				(errmsg("connection of server \"%s\" is closed: %s",
						srvname, reason)));
}

void
pgmc_log_revoked(const PgmcSlot *slot, bool idle)
{
	ereport(pgmc_log_level,
			(errmsg("hold of server \"%s\" by process %d was revoked: it has reached %s",
					NameStr(slot->srvname), slot->holder.pid,
					idle ? "idle_hold_timeout" : "hold_timeout")));
}

static const char *
end_reason(PgmcEnd end)
{
	switch (end)
	{
		case PGMC_END_NONE:
			break;
		case PGMC_END_RELEASE:
			return "the hold was released";
		case PGMC_END_ABORT:
			return "the hold was ended by an error";
		case PGMC_END_EXIT:
			return "the session has ended";
		case PGMC_END_REVOKE:
			return "the hold was revoked";
	}
	return "its hold has ended";
}

void
pgmc_log_recovery(const PgmcSlot *slot, bool running)
{
	if (slot->end == PGMC_END_NONE)
		return;
	if (slot->ended_in_xact)
		ereport(pgmc_log_level,
				(errmsg("transaction of process %d on server \"%s\" is rolled back: %s",
						slot->ended_pid, NameStr(slot->srvname),
						end_reason(slot->end))));
	else if (running)
		ereport(pgmc_log_level,
				(errmsg("command of process %d on server \"%s\" is cancelled: %s",
						slot->ended_pid, NameStr(slot->srvname),
						end_reason(slot->end))));
}

void
pgmc_log_leaving(void)
{
	ereport(pgmc_log_level,
			(errmsg("pgmc worker ends: no connection was open for %d ms",
					pgmc_worker_linger)));
}

void
pgmc_log_outdated(void)
{
	ereport(pgmc_log_level,
			(errmsg("library of pgmc was replaced"),
			 errdetail("The pgmc worker ends as soon as no connection is held, and the next session that needs one starts a new worker.")));
}

void
pgmc_log_closing_outdated(const char *srvname)
{
	ereport(pgmc_log_level,
			(errmsg("connection of server \"%s\" is closed: the library of the pgmc worker was replaced",
					srvname)));
}

void
pgmc_log_leaving_outdated(void)
{
	ereport(pgmc_log_level,
			(errmsg("pgmc worker ends: its library was replaced")));
}

void
pgmc_log_shutting_down(void)
{
	ereport(pgmc_log_level,
			(errmsg("pgmc worker is shutting down")));
}

void
pgmc_log_given_up(const PgmcSlot *slot, bool running)
{
	if (running)
		ereport(pgmc_log_level,
				(errmsg("command of process %d on server \"%s\" is given up: the pgmc worker is shutting down",
						slot->holder.pid, NameStr(slot->srvname))));
	else
		ereport(pgmc_log_level,
				(errmsg("transaction of process %d on server \"%s\" is rolled back: the pgmc worker is shutting down",
						slot->holder.pid, NameStr(slot->srvname))));
}
