/*
 * static_area.h
 *		The 128 bytes of shared memory that never change size or place.
 *
 * They say which DSM segment holds the registry, and of which layout it is, so
 * that sessions with different builds of the library can live in one cluster:
 * each layout has a segment of its own, and only the newest one is used.
 */
#ifndef PGMC_STATIC_AREA_H
#define PGMC_STATIC_AREA_H

#include "storage/dsm.h"

/*
 * Version of everything in the registry's segment and in the channels.  Any
 * change of a struct there, or of the wire format, must increase it.
 */
#ifndef PGMC_LAYOUT
#define PGMC_LAYOUT 6
#endif

/*
 * Fills a new segment of the registry; may not raise errors.  old_worker: the
 * pid of the worker of an older layout, which is about to end; 0: there is none.
 */
typedef void (*PgmcSegmentInit) (void *segment, Size size, int tranche,
								 int old_worker);

/*
 * Attach the registry's segment of this library's layout for the life of this
 * process.  Where there is none yet, make it first; or without init return
 * NULL, also where a newer library is in use.  Takes the area's own lock.
 *
 * Errors: 53200 no room for the static area (hint: preload); 55000 a newer
 * library is in use; whatever dsm_create raises.
 */
extern void *pgmc_static_attach(Size size, PgmcSegmentInit init);

/*
 * Is the segment that this process attached still the one in use?  False after
 * a library of another layout has taken over.  Takes no lock.
 */
extern bool pgmc_static_current(void);

/*
 * Note the pid of the worker, for a library of another layout to end it; and
 * forget it, if it is still this one.
 */
extern void pgmc_static_set_worker(int pid);
extern void pgmc_static_worker_gone(int pid);

/* shared_preload_libraries: ask the server for room, where that is needed */
extern void pgmc_static_preload(void);

#endif							/* PGMC_STATIC_AREA_H */
