/*
 * deadlock.c
 *		Deadlocks that the lock manager can't see.
 *
 * Edges are: a session to the loopback backend that runs its command; a
 * session in a queue to the holders of all connections it would take; any
 * process to those that block it in the lock manager.  They are read one after
 * the other while everybody goes on, so a circle counts only if a second look
 * finds the very same waits in it: holds by their epochs, queueing by its
 * number, lock waits by the time they began, waits for a safe snapshot (which
 * the lock manager doesn't know) by the transaction.
 *
 * Where pools are waited for, a deadlock may be more than one circle.  All of
 * pgmc's waits in a deadlock see the same one, and the youngest of them raises:
 * whoever finds it first, as deadlock_timeout may differ, has the youngest look
 * at once.  A wait tells its age when it first sleeps; one that hasn't told it
 * yet is younger than any that has.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "cycle.h"
#include "deadlock.h"
#include "registry.h"

typedef enum WaitKind
{
	WAIT_NONE,
	WAIT_REPLY,					/* of its loopback backend */
	WAIT_TURN,					/* in the queue of a pool */
	WAIT_LOCK,
	WAIT_SAFE_SNAPSHOT			/* of a deferrable transaction */
} WaitKind;

/* a process in the picture; its node has the same index */
typedef struct Process
{
	int			pid;
	WaitKind	kind;
	uint64		wait_id;		/* changes with every wait of that kind */
	TimestampTz since;			/* pgmc's waits: since when, 0: not told yet */
	const char *srvname;		/* pgmc's waits: for which server */
} Process;

typedef struct Picture
{
	PgmcWaits	waits;
	Process    *processes;
	PgmcNode   *nodes;
	int			n;
	int			room;
} Picture;

/* ---- drawing the picture ---- */

static int
process_index(Picture *picture, int pid)
{
	for (int i = 0; i < picture->n; i++)
		if (picture->processes[i].pid == pid)
			return i;
	if (picture->n == picture->room)
	{
		picture->room *= 2;
		picture->processes = repalloc(picture->processes,
									  picture->room * sizeof(Process));
		picture->nodes = repalloc(picture->nodes,
								  picture->room * sizeof(PgmcNode));
	}
	memset(&picture->processes[picture->n], 0, sizeof(Process));
	memset(&picture->nodes[picture->n], 0, sizeof(PgmcNode));
	picture->processes[picture->n].pid = pid;
	return picture->n++;
}

static void
add_edge(Picture *picture, int from, int pid)
{
	int			to = process_index(picture, pid);
	PgmcNode   *node = &picture->nodes[from];

	if (node->edges == NULL)
		node->edges = palloc(sizeof(int));
	else
		node->edges = repalloc(node->edges, (node->nedges + 1) * sizeof(int));
	node->edges[node->nedges++] = to;
}

/* holders of connections that run a command wait for their backends */
static void
add_reply_edges(Picture *picture, int i)
{
	for (int k = 0; k < picture->waits.nconns; k++)
	{
		const PgmcWaitConn *conn = &picture->waits.conns[k];
		Process    *process = &picture->processes[i];

		if (conn->holder_pid != process->pid || !conn->running)
			continue;
		process->kind = WAIT_REPLY;
		process->wait_id = conn->epoch;
		process->since = conn->holder_waits_since;
		process->srvname = NameStr(conn->srvname);
		add_edge(picture, i, conn->backend_pid);
	}
}

static void
add_turn_edges(Picture *picture, int i)
{
	const PgmcWaiter *waiter = NULL;

	for (int k = 0; k < picture->waits.nwaiters; k++)
		if (picture->waits.waiters[k].pid == picture->processes[i].pid)
			waiter = &picture->waits.waiters[k];
	if (waiter == NULL)
		return;
	picture->processes[i].kind = WAIT_TURN;
	picture->processes[i].wait_id = waiter->number;
	picture->processes[i].since = waiter->since;
	picture->nodes[i].all = true;
	for (int k = 0; k < picture->waits.nconns; k++)
	{
		const PgmcWaitConn *conn = &picture->waits.conns[k];

		if (conn->pool != waiter->pool)
			continue;
		picture->processes[i].srvname = NameStr(conn->srvname);

		/* one that comes back by itself leads to nobody: pid 0 never waits */
		add_edge(picture, i, conn->holder_pid);
	}
}

static void
add_pids(Picture *picture, int i, Datum array)
{
	ArrayType  *pids = DatumGetArrayTypeP(array);
	int			n = ArrayGetNItems(ARR_NDIM(pids), ARR_DIMS(pids));

	for (int k = 0; k < n; k++)
	{
		int			pid = ((int32 *) ARR_DATA_PTR(pids))[k];

		if (pid != 0)
			add_edge(picture, i, pid);
	}
}

/*
 * When the lock waits began of this process and its parallel workers, of which
 * each may be the one that is blocked; 0: there is none, or one is so new that
 * it hasn't got its time yet.
 */
static uint64
lock_wait_of(int pid)
{
	BlockedProcsData *data = GetBlockerStatusData(pid);
	uint64		all = 0;

	for (int i = 0; i < data->nprocs; i++)
	{
		PGPROC	   *proc = BackendPidGetProc(data->procs[i].pid);
		uint64		start = proc ? pg_atomic_read_u64(&proc->waitStart) : 0;

		if (start == 0)
			return 0;
		all = hash_combine64(all, start);
	}
	return all;
}

static void
add_server_edges(Picture *picture, int i)
{
	int			pid = picture->processes[i].pid;
	PGPROC	   *proc = pid == 0 ? NULL : BackendPidGetProc(pid);
	uint64		transaction;

	if (proc == NULL)
		return;
	transaction = pgmc_proc_lxid(proc);
	add_pids(picture, i, DirectFunctionCall1(pg_blocking_pids, Int32GetDatum(pid)));
	if (picture->nodes[i].nedges > 0)
	{
		picture->processes[i].kind = WAIT_LOCK;
		picture->processes[i].wait_id = lock_wait_of(pid);
		return;
	}
	add_pids(picture, i, DirectFunctionCall1(pg_safe_snapshot_blocking_pids,
											 Int32GetDatum(pid)));
	if (picture->nodes[i].nedges > 0)
	{
		picture->processes[i].kind = WAIT_SAFE_SNAPSHOT;
		picture->processes[i].wait_id = transaction;
	}
}

/* Everybody whom this session waits for, directly or not; itself is node 0. */
static Picture *
draw_picture(void)
{
	Picture    *picture = palloc0(sizeof(Picture));

	picture->room = 16;
	picture->processes = palloc(picture->room * sizeof(Process));
	picture->nodes = palloc(picture->room * sizeof(PgmcNode));
	pgmc_registry_waits(&picture->waits);
	(void) process_index(picture, MyProcPid);
	for (int i = 0; i < picture->n; i++)
	{
		add_reply_edges(picture, i);
		if (picture->processes[i].kind == WAIT_NONE)
			add_turn_edges(picture, i);
		if (picture->processes[i].kind == WAIT_NONE && i > 0)
			add_server_edges(picture, i);
	}
	return picture;
}

/* ---- judging it ---- */

/* Is the same process in both pictures in the same wait? */
static bool
same_wait(const Process *a, const Process *b)
{
	return a->pid == b->pid && a->kind == b->kind && a->wait_id == b->wait_id &&
		(a->kind != WAIT_LOCK || a->wait_id != 0);
}

/* the process whose wait is the youngest of pgmc's in a deadlock of ours */
static int
youngest_wait(const Picture *picture, const int *members, int nmembers,
			  TimestampTz my_since)
{
	int			pid = MyProcPid;
	TimestampTz since = my_since;

	for (int i = 1; i < nmembers; i++)
	{
		const Process *process = &picture->processes[members[i]];
		TimestampTz its = process->since == 0 ? DT_NOEND : process->since;

		if (process->kind != WAIT_REPLY && process->kind != WAIT_TURN)
			continue;
		if (its > since || (its == since && process->pid > pid))
		{
			since = its;
			pid = process->pid;
		}
	}
	return pid;
}

static bool
same_waits(const Picture *first, const int *first_members,
		   const Picture *second, const int *second_members, int nmembers)
{
	for (int i = 0; i < nmembers; i++)
		if (!same_wait(&first->processes[first_members[i]],
					   &second->processes[second_members[i]]))
			return false;
	return true;
}

/* ---- reporting it ---- */

/* what the process with this pid waits for in the lock manager, if anything */
static bool
describe_lock(StringInfo buf, int pid, bool *snapshot)
{
	BlockedProcsData *data = GetBlockerStatusData(pid);

	for (int i = 0; i < data->nprocs; i++)
	{
		BlockedProcData *proc = &data->procs[i];

		for (int k = 0; k < proc->num_locks; k++)
		{
			LockInstanceData *lock = &data->locks[proc->first_lock + k];

			if (lock->pid != proc->pid || lock->waitLockMode == NoLock)
				continue;
			appendStringInfo(buf, "%s on ",
							 GetLockmodeName(lock->locktag.locktag_lockmethodid,
											 lock->waitLockMode));
			DescribeLockTag(buf, &lock->locktag);
			if (lock->locktag.locktag_type == LOCKTAG_VIRTUALTRANSACTION)
				*snapshot = true;
			return true;
		}
	}
	return false;
}

static void
describe_wait(StringInfo buf, const Process *process, int next_pid,
			  bool *snapshot)
{
	if (buf->len > 0)
		appendStringInfoChar(buf, '\n');
	appendStringInfo(buf, "Process %d waits for ", process->pid);
	switch (process->kind)
	{
		case WAIT_REPLY:
			appendStringInfo(buf, "its command on server \"%s\"; run by process %d.",
							 process->srvname, next_pid);
			return;
		case WAIT_TURN:
			appendStringInfo(buf, "server \"%s\"; held by process %d.",
							 process->srvname, next_pid);
			return;
		case WAIT_SAFE_SNAPSHOT:
			appendStringInfo(buf, "a safe snapshot; blocked by process %d.", next_pid);
			return;
		case WAIT_LOCK:
		case WAIT_NONE:
			if (!describe_lock(buf, process->pid, snapshot))
				appendStringInfoString(buf, "a lock");
			appendStringInfo(buf, "; blocked by process %d.", next_pid);
			return;
	}
}

static PGMC_NORETURN void
raise_deadlock(const Picture *picture, const int *path, int length)
{
	StringInfoData waits;
	StringInfoData statements;
	bool		snapshot = false;

	initStringInfo(&waits);
	initStringInfo(&statements);
	for (int i = 0; i < length; i++)
	{
		const Process *process = &picture->processes[path[i]];
		int			next = picture->processes[path[(i + 1) % length]].pid;

		describe_wait(&waits, process, next, &snapshot);
		appendStringInfo(&statements, "\nProcess %d: %s", process->pid,
						 pgstat_get_backend_current_activity(process->pid, false));
	}
	ereport(ERROR,
			(errcode(ERRCODE_T_R_DEADLOCK_DETECTED),
			 errmsg("deadlock detected"),
			 errdetail_internal("%s", waits.data),
			 errdetail_log("%s%s", waits.data, statements.data),
			 snapshot ?
			 errhint("The command waits for older snapshots, its caller's among them. CALL pgmc.run() runs it without one.") :
			 errhint("See server log for query details.")));
	pg_unreachable();
}

static void
look(PgmcWait *wait)
{
	Picture    *first = draw_picture();
	int		   *first_path = palloc(first->n * sizeof(int));
	int			members;
	Picture    *second;
	int		   *second_path;
	int			still;
	int			length;
	int			victim;

	if (pgmc_find_cycle(first->nodes, first->n, first_path, &members) == 0)
		return;
	second = draw_picture();
	second_path = palloc(second->n * sizeof(int));
	length = pgmc_find_cycle(second->nodes, second->n, second_path, &still);
	if (length == 0 || still != members ||
		!same_waits(first, first_path, second, second_path, members))
		return;
	victim = youngest_wait(second, second_path, members, wait->since);
	if (victim != MyProcPid)
	{
		pgmc_registry_have_look(victim);
		return;
	}
	pgmc_registry_count(wait->key, PGMC_COUNT_DEADLOCKS);
	raise_deadlock(second, second_path, length);
}

static void
look_in_private_memory(PgmcWait *wait)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "pgmc deadlock check",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);

	look(wait);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
}

long
pgmc_deadlock_check(PgmcWait *wait)
{
	TimestampTz now = GetCurrentTimestamp();

	if (wait->since == 0)
	{
		wait->since = now;
		wait->next_check = TimestampTzPlusMilliseconds(now, DeadlockTimeout);
		pgmc_registry_tell_wait(now);
	}
	if (now >= wait->next_check || pgmc_registry_look_wanted())
	{
		look_in_private_memory(wait);
		wait->next_check = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													   DeadlockTimeout);
	}
	return Max(TimestampDifferenceMilliseconds(now, wait->next_check), 1);
}

void
pgmc_deadlock_end(PgmcWait *wait)
{
	if (wait->since != 0)
		pgmc_registry_tell_wait(0);
	wait->since = 0;
}
