/*
 * static_area.c
 *		The 128 bytes of shared memory that never change size or place.
 *
 * All fields but magic and tranche (written once, by whoever creates the area)
 * are guarded by the area's own lock.  pgmc_static_current reads the handle
 * without it: a 32-bit word that changes once in the life of a library.
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "utils/memutils.h"

#include "compat.h"
#include "static_area.h"

#define AREA_NAME	"pgmc"
#define AREA_SIZE	128
#define AREA_MAGIC	0x70676d63	/* "pgmc" */

typedef struct Area
{
	uint32		magic;
	uint32		layout;			/* of the segment; 0: none made yet */
	LWLock		lock;
	int			tranche;
	dsm_handle	handle;
	int			worker_pid;		/* of this layout's worker; 0: none */
} Area;

StaticAssertDecl(sizeof(Area) <= AREA_SIZE, "static area has outgrown its room");

static Area *area = NULL;
static dsm_segment *segment = NULL;
static dsm_handle segment_handle = DSM_HANDLE_INVALID;

static void
init_area(void *ptr)
{
	Area	   *a = ptr;

	a->layout = 0;
	a->tranche = pgmc_new_tranche(AREA_NAME);
	a->handle = DSM_HANDLE_INVALID;
	a->worker_pid = 0;
	LWLockInitialize(&a->lock, a->tranche);
	a->magic = AREA_MAGIC;
}

static void
attach_area(void)
{
	Area	   *a;
	MemoryContext caller = CurrentMemoryContext;

	PG_TRY();
	{
		a = pgmc_named_shmem(AREA_NAME, AREA_SIZE, init_area);
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(caller);
		edata = CopyErrorData();
		if (PGMC_SHMEM_NEEDS_SPARE &&
			edata->sqlerrcode == ERRCODE_OUT_OF_MEMORY)
		{
			FlushErrorState();
			edata->hint = pstrdup("Add pgmc to \"shared_preload_libraries\" and restart the server.");
			ReThrowError(edata);
		}
		PG_RE_THROW();
	}
	PG_END_TRY();

	if (a->magic != AREA_MAGIC)
		elog(ERROR, "shared memory area \"%s\" is not pgmc's", AREA_NAME);
	pgmc_register_tranche(a->tranche, AREA_NAME);
	area = a;
}

/*
 * Make the segment of this layout and publish it.  The segment of an older
 * layout goes away with the last session that still uses it.
 */
static void
create_segment(Size size, PgmcSegmentInit init)
{
	dsm_segment *seg = dsm_create(size, 0);
	dsm_handle	old = area->handle;

	dsm_pin_mapping(seg);
	dsm_pin_segment(seg);
	init(dsm_segment_address(seg), size, area->tranche, area->worker_pid);

	segment = seg;
	segment_handle = dsm_segment_handle(seg);
	area->handle = segment_handle;
	area->layout = PGMC_LAYOUT;
	if (area->worker_pid != 0)
		kill(area->worker_pid, SIGTERM);
	area->worker_pid = 0;
	if (old != DSM_HANDLE_INVALID)
		dsm_unpin_segment(old);
}

void *
pgmc_static_attach(Size size, PgmcSegmentInit init)
{
	if (area == NULL)
		attach_area();
	if (segment != NULL)
		return dsm_segment_address(segment);

	LWLockAcquire(&area->lock, LW_EXCLUSIVE);
	if (area->layout > PGMC_LAYOUT && init != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a newer library of pgmc is in use on this server"),
				 errhint("Reconnect, so that this session loads the new library.")));
	if (area->layout != PGMC_LAYOUT && init == NULL)
	{
		LWLockRelease(&area->lock);
		return NULL;
	}
	if (area->layout < PGMC_LAYOUT)
		create_segment(size, init);
	else
	{
		dsm_segment *seg = dsm_attach(area->handle);

		if (seg == NULL)
			elog(ERROR, "could not attach the shared memory of pgmc");
		dsm_pin_mapping(seg);
		segment = seg;
		segment_handle = area->handle;
	}
	LWLockRelease(&area->lock);
	return dsm_segment_address(segment);
}

bool
pgmc_static_current(void)
{
	return area != NULL && *(volatile dsm_handle *) &area->handle == segment_handle;
}

void
pgmc_static_set_worker(int pid)
{
	LWLockAcquire(&area->lock, LW_EXCLUSIVE);
	if (area->handle == segment_handle)
		area->worker_pid = pid;
	LWLockRelease(&area->lock);
}

void
pgmc_static_worker_gone(int pid)
{
	LWLockAcquire(&area->lock, LW_EXCLUSIVE);
	if (area->worker_pid == pid)
		area->worker_pid = 0;
	LWLockRelease(&area->lock);
}

void
pgmc_static_preload(void)
{
	pgmc_request_named_shmem(AREA_SIZE);
}
