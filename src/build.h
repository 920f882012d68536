/*
 * build.h
 *		Which library this process has loaded.
 */
#ifndef PGMC_BUILD_H
#define PGMC_BUILD_H

#include "datatype/timestamp.h"

/* a sum over all sources; that libraries are the same, not which is newer */
extern const uint32 pgmc_build;

/* when this process loaded it, or its postmaster where that did */
extern TimestampTz pgmc_build_loaded;

extern void pgmc_build_init(void);

#endif							/* PGMC_BUILD_H */
