/*
 * build.c
 *		Which library this process has loaded.
 *
 * A library's file can be replaced while processes run the old one.  Those of
 * different layouts are kept apart by static_area.c; here is what tells two of
 * the same layout from each other.  The Makefile compiles this file anew when
 * any source has changed, with a sum over all of them.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "build.h"

#ifndef PGMC_BUILD
#define PGMC_BUILD 0
#endif

const uint32 pgmc_build = PGMC_BUILD;
TimestampTz pgmc_build_loaded = 0;

void
pgmc_build_init(void)
{
	pgmc_build_loaded = GetCurrentTimestamp();
}
