/*
 * taken.c
 *		Which holds of this session aborts have taken.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "taken.h"

#define MAX_TAKEN	16

static PgmcTaken entries[MAX_TAKEN];
static uint64 last_number = 0;

/* of the last abort the first, unless something was acquired since; 0: none */
static uint64 innermost_number = 0;

static PgmcTaken *
find_name(const char *srvname)
{
	for (int i = 0; i < MAX_TAKEN; i++)
		if (entries[i].number != 0 && strcmp(NameStr(entries[i].srvname), srvname) == 0)
			return &entries[i];
	return NULL;
}

/* that server's, or a free one, or the oldest */
static PgmcTaken *
entry_for(const char *srvname)
{
	PgmcTaken  *entry = find_name(srvname);

	if (entry != NULL)
		return entry;
	entry = &entries[0];
	for (int i = 1; i < MAX_TAKEN; i++)
		if (entries[i].number < entry->number)
			entry = &entries[i];
	return entry;
}

void
pgmc_taken_note(const NameData *srvname, bool subxact, bool innermost)
{
	PgmcTaken  *entry = entry_for(NameStr(*srvname));

	if (innermost)
		innermost_number = last_number + 1;

	/* a second hold of the server, by another role; or there are too many */
	else if (entry->number >= innermost_number)
		return;
	entry->srvname = *srvname;
	entry->at = GetCurrentTimestamp();
	entry->subxact = subxact;
	entry->number = ++last_number;
}

void
pgmc_taken_forget(const NameData *srvname)
{
	PgmcTaken  *entry = find_name(NameStr(*srvname));

	if (entry != NULL)
		entry->number = 0;
	innermost_number = 0;
}

static const PgmcTaken *
find_innermost(void)
{
	for (int i = 0; i < MAX_TAKEN; i++)
		if (entries[i].number != 0 && entries[i].number == innermost_number)
			return &entries[i];
	return NULL;
}

const PgmcTaken *
pgmc_taken_find(const char *srvname)
{
	return srvname != NULL ? find_name(srvname) : find_innermost();
}
