/*
 * compat.h
 *		Every difference between the PostgreSQL versions pgmc supports (15 to 19).
 *
 * No other file looks at PG_VERSION_NUM.  A wrapper here has the signature of
 * the newest version; older servers are adapted to it.
 */
#ifndef PGMC_COMPAT_H
#define PGMC_COMPAT_H

#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_foreign_server.h"
#include "commands/dbcommands.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/acl.h"
#include "utils/backend_status.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif
#if PG_VERSION_NUM >= 170000
#include "storage/dsm_registry.h"
#endif

#if PG_VERSION_NUM < 150000
#error "pgmc needs PostgreSQL 15 or newer"
#endif

/* "this function does not return", as a prefix of its declaration */
#define PGMC_NORETURN __attribute__((noreturn))

/* index of a process in ProcGlobal->allProcs: pgmc's name for a live backend */
#if PG_VERSION_NUM >= 170000
#define pgmc_procno(proc)	((int) GetNumberFromPGProc(proc))
#else
#define pgmc_procno(proc)	((proc)->pgprocno)
#endif

/* number of the transaction that a process is in; 0: none */
#if PG_VERSION_NUM >= 170000
#define pgmc_proc_lxid(proc)	((proc)->vxid.lxid)
#else
#define pgmc_proc_lxid(proc)	((proc)->lxid)
#endif

/* wait events have names of their own since 17; "Extension" before that */
static inline uint32
pgmc_wait_event_new(const char *name)
{
#if PG_VERSION_NUM >= 170000
	return WaitEventExtensionNew(name);
#else
	(void) name;
	return PG_WAIT_EXTENSION;
#endif
}

/*
 * A new tranche of LWLocks.  Before 19, each process that uses such a lock must
 * register the name for itself.
 */
static inline int
pgmc_new_tranche(const char *name)
{
#if PG_VERSION_NUM >= 190000
	return LWLockNewTrancheId(name);
#else
	(void) name;
	return LWLockNewTrancheId();
#endif
}

static inline void
pgmc_register_tranche(int tranche, const char *name)
{
#if PG_VERSION_NUM >= 190000
	(void) tranche;
	(void) name;
#else
	LWLockRegisterTranche(tranche, name);
#endif
}

/* the server's signal handlers have an argument more in 19 */
#if PG_VERSION_NUM < 190000
#define PG_SIG_IGN	SIG_IGN
#endif

/* a wait event set that lives until it is freed, whatever aborts meanwhile */
static inline WaitEventSet *
pgmc_wait_set_create(int nevents)
{
#if PG_VERSION_NUM >= 170000
	return CreateWaitEventSet(NULL, nevents);
#else
	return CreateWaitEventSet(TopMemoryContext, nevents);
#endif
}

/* may this role use this foreign server? */
static inline bool
pgmc_server_usage_ok(Oid serverid, Oid roleid)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(ForeignServerRelationId, serverid, roleid,
						   ACL_USAGE) == ACLCHECK_OK;
#else
	return pg_foreign_server_aclcheck(serverid, roleid,
									  ACL_USAGE) == ACLCHECK_OK;
#endif
}

/* is this role the owner of this foreign server, or a member of the owner? */
static inline bool
pgmc_server_owner_ok(Oid serverid, Oid roleid)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(ForeignServerRelationId, serverid, roleid);
#else
	return pg_foreign_server_ownercheck(serverid, roleid);
#endif
}

#if PG_VERSION_NUM >= 190000
/* calls the pgmc_named_shmem caller's init */
static inline void
pgmc_init_named(void *ptr, void *init)
{
	(*(void (**) (void *)) init) (ptr);
}
#endif

/*
 * A named piece of shared memory of fixed size, zeroed and then given to init
 * by whoever comes first.  15 and 16 take it from the spare room that every
 * server's main segment has; 17 and later from the DSM registry.
 */
static inline void *
pgmc_named_shmem(const char *name, Size size, void (*init) (void *ptr))
{
	bool		found;
	void	   *ptr;

#if PG_VERSION_NUM >= 190000
	ptr = GetNamedDSMSegment(name, size, pgmc_init_named, &found, &init);
#elif PG_VERSION_NUM >= 170000
	ptr = GetNamedDSMSegment(name, size, init, &found);
#else
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	PG_TRY();
	{
		ptr = ShmemInitStruct(name, size, &found);
	}
	PG_CATCH();
	{
		/* for callers that go on after the error */
		LWLockRelease(AddinShmemInitLock);
		PG_RE_THROW();
	}
	PG_END_TRY();
	if (!found)
	{
		memset(ptr, 0, size);
		init(ptr);
	}
	LWLockRelease(AddinShmemInitLock);
#endif
	return ptr;
}

/*
 * Ask for that memory while the server starts (shared_preload_libraries).  A
 * library loaded later takes its chance with what is spare.
 */
#if PG_VERSION_NUM >= 170000
#define pgmc_request_named_shmem(size)	((void) (size))
#else
static shmem_request_hook_type pgmc_prev_shmem_request = NULL;
static Size pgmc_requested_shmem = 0;

static inline void
pgmc_shmem_request(void)
{
	if (pgmc_prev_shmem_request)
		pgmc_prev_shmem_request();
	RequestAddinShmemSpace(MAXALIGN(pgmc_requested_shmem));
}

static inline void
pgmc_request_named_shmem(Size size)
{
	pgmc_requested_shmem = size;
	pgmc_prev_shmem_request = shmem_request_hook;
	shmem_request_hook = pgmc_shmem_request;
}
#endif

/* whether pgmc_named_shmem may run out of the main segment's spare room */
#if PG_VERSION_NUM >= 170000
#define PGMC_SHMEM_NEEDS_SPARE	false
#else
#define PGMC_SHMEM_NEEDS_SPARE	true
#endif

/*
 * Is the client of the backend with this pid at this address?  The local copy
 * of the backends' status is made and thrown away here.
 */
static inline bool
pgmc_backend_has_client(int pid, const SockAddr *client)
{
	bool		found = false;

	pgstat_clear_backend_activity_snapshot();
	for (int i = 1; i <= pgstat_fetch_stat_numbackends() && !found; i++)
	{
#if PG_VERSION_NUM >= 160000
		LocalPgBackendStatus *local = pgstat_get_local_beentry_by_index(i);
#else
		LocalPgBackendStatus *local = pgstat_fetch_stat_local_beentry(i);
#endif
		const SockAddr *addr;

		if (local == NULL || local->backendStatus.st_procpid != pid)
			continue;
		addr = &local->backendStatus.st_clientaddr;
		found = addr->salen == client->salen &&
			memcmp(&addr->addr, &client->addr, client->salen) == 0;
	}
	pgstat_clear_backend_activity_snapshot();
	return found;
}

#endif							/* PGMC_COMPAT_H */
