/*
 * worker_tick.c
 *		What nobody tells the worker, looked at once a second: idle connections
 *		that are in somebody's way, or have been idle for too long.
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "catalog/pg_database.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/memutils.h"
#include "utils/pidfile.h"

#include "worker_int.h"

#define LOCK_FILE	"postmaster.pid"

/*
 * Does anybody want to drop or copy this database, and waits for its users to
 * leave?  A connecting backend's lock, tried without waiting, tells.
 */
static bool
database_wanted(Oid dbid)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, dbid, 0);
	if (LockAcquire(&tag, RowExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		return true;
	LockRelease(&tag, RowExclusiveLock, true);
	return false;
}

/* A smart shutdown waits for clients, and idle loopback backends are such. */
static bool
server_stopping(void)
{
	char		buf[1024];
	char	   *line = buf;
	int			fd = open(LOCK_FILE, O_RDONLY);
	ssize_t		n;

	if (fd < 0)
		return false;
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	if (n <= 0)
		return false;
	buf[n] = '\0';
	for (int i = 1; i < LOCK_FILE_LINE_PM_STATUS && line != NULL; i++)
	{
		line = strchr(line, '\n');
		if (line != NULL)
			line++;
	}
	return line != NULL && strncmp(line, PM_STATUS_STOPPING, 8) == 0;
}

static Oid
backend_database(int pid)
{
	PGPROC	   *proc = BackendPidGetProc(pid);

	return proc == NULL ? InvalidOid : proc->databaseId;
}

static void
tick_slot(int i, TimestampTz now, bool stopping)
{
	PgmcSlot	info;
	TimestampTz deadline;
	Oid			dbid = InvalidOid;

	pgmc_registry_slot(i, &info);
	if (info.state != PGMC_CONN_IDLE || pgmc_slots[i] == NULL)
		return;
	deadline = pgmc_remote_idle_deadline(pgmc_slots[i]->remote, info.state_since);
	if (info.same_cluster)
		dbid = backend_database(info.backend_pid);
	if (stopping)
		pgmc_registry_close_idle(i, &info.key, PGMC_CLOSE_SHUTDOWN);
	else if (deadline != 0 && now >= deadline)
		pgmc_registry_close_idle(i, &info.key, PGMC_CLOSE_IDLE);
	else if (OidIsValid(dbid) && database_wanted(dbid))
		pgmc_registry_close_idle(i, &info.key, PGMC_CLOSE_DATABASE);
}

void
pgmc_worker_tick(TimestampTz now)
{
	MemoryContext caller = CurrentMemoryContext;
	bool		stopping = server_stopping();

	PG_TRY();
	{
		for (int i = 0; i < pgmc_registry_slots(); i++)
			tick_slot(i, now, stopping);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		EmitErrorReport();
		FlushErrorState();
	}
	PG_END_TRY();
}
