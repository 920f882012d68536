/*
 * taken.c
 *		Which holds of this session aborts have taken.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "taken.h"

#define MAX_TAKEN	16

static PgmcTaken entries[MAX_TAKEN];
static uint64 last_abort = 0;	/* that took something */
static uint64 last_number = 0;
static bool begun = false;		/* an abort that took nothing yet */
static bool acquired_since = false;

void
pgmc_taken_begin(void)
{
	begun = true;
}

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
pgmc_taken_note(const NameData *srvname, bool subxact)
{
	PgmcTaken  *entry = entry_for(NameStr(*srvname));

	if (begun)
		last_abort++;
	begun = false;

	/* a second hold of the server, by another role; or there are too many */
	if (entry->number != 0 && entry->abort == last_abort)
		return;
	entry->srvname = *srvname;
	entry->at = GetCurrentTimestamp();
	entry->subxact = subxact;
	entry->abort = last_abort;
	entry->number = ++last_number;
	acquired_since = false;
}

void
pgmc_taken_forget(const NameData *srvname)
{
	PgmcTaken  *entry = find_name(NameStr(*srvname));

	if (entry != NULL)
		entry->number = 0;
	acquired_since = true;
}

static const PgmcTaken *
find_innermost(void)
{
	const PgmcTaken *first = NULL;

	if (acquired_since)
		return NULL;
	for (int i = 0; i < MAX_TAKEN; i++)
		if (entries[i].number != 0 && entries[i].abort == last_abort &&
			(first == NULL || entries[i].number < first->number))
			first = &entries[i];
	return first;
}

const PgmcTaken *
pgmc_taken_find(const char *srvname)
{
	return srvname != NULL ? find_name(srvname) : find_innermost();
}
