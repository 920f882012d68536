/*
 * taken.h
 *		Which holds of this session aborts have taken, for the errors of calls
 *		that miss them.
 *
 * For one server at a time the newest, and not for ever: of the last few.
 * Nothing here raises errors or takes locks; all of it may be called while a
 * transaction aborts.
 */
#ifndef PGMC_TAKEN_H
#define PGMC_TAKEN_H

#include "datatype/timestamp.h"

typedef struct PgmcTaken
{
	NameData	srvname;
	TimestampTz at;
	bool		subxact;		/* a subtransaction was aborted */
	uint64		number;			/* the order of all that were taken, 0: this
								 * entry is free */
} PgmcTaken;

/*
 * An abort has taken the session's hold of that server; innermost: this is the
 * first one that it takes.
 */
extern void pgmc_taken_note(const NameData *srvname, bool subxact, bool innermost);

/* That server has a hold again. */
extern void pgmc_taken_forget(const NameData *srvname);

/*
 * How the hold of that server was taken; without a name, the innermost that
 * the last abort took, unless the session has acquired something since.  NULL:
 * no abort took it, or it was long ago.
 */
extern const PgmcTaken *pgmc_taken_find(const char *srvname);

#endif							/* PGMC_TAKEN_H */
