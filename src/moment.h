/*
 * moment.h
 *		Moments that may never come: a TimestampTz of 0 is none.
 */
#ifndef PGMC_MOMENT_H
#define PGMC_MOMENT_H

#include "datatype/timestamp.h"

/* the sooner of two moments, 0 where both are none */
static inline TimestampTz
pgmc_sooner(TimestampTz a, TimestampTz b)
{
	if (a == 0 || b == 0)
		return a == 0 ? b : a;
	return Min(a, b);
}

#endif							/* PGMC_MOMENT_H */
