/*
 * prepared.c
 *		Which commands of a connection are prepared statements at the other end.
 *
 * A table of as many commands as a session is likely to repeat; the one that
 * wasn't used for the longest time makes room.  Statements are never
 * deallocated one by one: doing so would fail, and take the transaction with
 * it, where somebody else has done it already.  So their number is bounded
 * from one reset of the connection to the next.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/memutils.h"

#include "command.h"
#include "prepared.h"

#define MAX_ENTRIES		64
#define MAX_STATEMENTS	256		/* at the other end, used and abandoned ones */
#define MAX_TEXT		(16 * 1024)

typedef struct Entry
{
	uint64		hash;			/* of all below but the name, 0: free */
	uint64		used;			/* when it was used last, a count */
	int			number;			/* of the statement, 0: not prepared yet */
	bool		there;			/* it is prepared */
	uint32		settings;
	int			nparams;
	Oid		   *types;
	char	   *command;		/* NULL: has been seen only once */
} Entry;

struct PgmcPrepared
{
	MemoryContext context;		/* of the texts */
	uint64		clock;
	int			last_number;	/* given to a statement; names don't come
								 * again, for we may be wrong about what is
								 * gone */
	int			left;			/* statements that may still be made */
	bool		changed;		/* the open transaction may have changed what
								 * names stand for */
	bool		given_up;		/* none shall be made */
	Entry		entries[MAX_ENTRIES];
};

PgmcPrepared *
pgmc_prepared_create(MemoryContext context)
{
	PgmcPrepared *prepared = MemoryContextAllocZero(context, sizeof(PgmcPrepared));

	prepared->context = AllocSetContextCreate(context, "pgmc prepared statements",
											  ALLOCSET_SMALL_SIZES);
	prepared->left = MAX_STATEMENTS;
	return prepared;
}

void
pgmc_prepared_forget(PgmcPrepared *prepared)
{
	MemoryContextReset(prepared->context);
	memset(prepared->entries, 0, sizeof(prepared->entries));
}

static uint64
hash_of(const PgmcExecute *exec, Size length, uint32 settings)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) exec->command,
										   length, settings);

	for (int i = 0; i < exec->nparams; i++)
		hash = hash_combine64(hash, exec->params[i].type);
	return hash == 0 ? 1 : hash;
}

static bool
same_command(const Entry *entry, const PgmcExecute *exec, uint32 settings)
{
	if (entry->settings != settings || entry->nparams != exec->nparams ||
		strcmp(entry->command, exec->command) != 0)
		return false;
	for (int i = 0; i < exec->nparams; i++)
		if (entry->types[i] != exec->params[i].type)
			return false;
	return true;
}

static void
clear_entry(Entry *entry)
{
	if (entry->command != NULL)
	{
		pfree(entry->command);
		pfree(entry->types);
	}
	memset(entry, 0, sizeof(*entry));
}

/* the entry with this hash, or the one to be used for it */
static Entry *
find_entry(PgmcPrepared *prepared, uint64 hash)
{
	Entry	   *oldest = &prepared->entries[0];

	for (int i = 0; i < MAX_ENTRIES; i++)
	{
		Entry	   *entry = &prepared->entries[i];

		if (entry->hash == hash)
			return entry;
		if (entry->used < oldest->used)
			oldest = entry;
	}
	return oldest;
}

/* Have a name and a copy of the command, to be prepared now. */
static void
begin_statement(PgmcPrepared *prepared, Entry *entry, const PgmcExecute *exec,
				uint32 settings)
{
	Size		size = Max(exec->nparams, 1) * sizeof(Oid);

	if (entry->command == NULL)
	{
		Oid		   *types = MemoryContextAlloc(prepared->context, size);

		entry->command = MemoryContextStrdup(prepared->context, exec->command);
		entry->types = types;
		entry->nparams = exec->nparams;
		entry->settings = settings;
		for (int i = 0; i < exec->nparams; i++)
			types[i] = exec->params[i].type;
	}
	entry->number = ++prepared->last_number;
	prepared->left--;
	entry->there = false;
}

PgmcPreparedUse
pgmc_prepared_use(PgmcPrepared *prepared, const PgmcExecute *exec,
				  uint32 settings, int *number)
{
	Size		length = strlen(exec->command);
	uint64		hash;
	Entry	   *entry;

	if (length > MAX_TEXT || prepared->given_up)
		return PGMC_PREPARED_ONCE;
	hash = hash_of(exec, length, settings);
	entry = find_entry(prepared, hash);

	/* asked once of each: what has a copy here was found repeatable before */
	if ((entry->hash != hash || entry->command == NULL) &&
		!pgmc_command_is_repeatable(exec->command))
		return PGMC_PREPARED_ONCE;
	if (entry->hash != hash)
	{
		clear_entry(entry);
		entry->hash = hash;
		entry->used = ++prepared->clock;
		return PGMC_PREPARED_ONCE;
	}
	entry->used = ++prepared->clock;
	if (entry->command != NULL && !same_command(entry, exec, settings))
		return PGMC_PREPARED_ONCE;
	if (!entry->there)
	{
		if (prepared->left == 0)
			return PGMC_PREPARED_ONCE;
		begin_statement(prepared, entry, exec, settings);
		*number = entry->number;
		return PGMC_PREPARED_NEW;
	}
	*number = entry->number;
	return PGMC_PREPARED_KNOWN;
}

static Entry *
find_number(PgmcPrepared *prepared, int number)
{
	for (int i = 0; i < MAX_ENTRIES; i++)
		if (prepared->entries[i].number == number)
			return &prepared->entries[i];
	return NULL;
}

void
pgmc_prepared_done(PgmcPrepared *prepared, int number)
{
	Entry	   *entry = find_number(prepared, number);

	if (entry != NULL)
		entry->there = true;
}

void
pgmc_prepared_drop(PgmcPrepared *prepared, int number)
{
	Entry	   *entry = find_number(prepared, number);

	if (entry != NULL)
		entry->there = false;
}

void
pgmc_prepared_give_up(PgmcPrepared *prepared)
{
	pgmc_prepared_forget(prepared);
	prepared->given_up = true;
}

void
pgmc_prepared_begin_xact(PgmcPrepared *prepared)
{
	prepared->changed = false;
}

static void
drop_all(PgmcPrepared *prepared)
{
	for (int i = 0; i < MAX_ENTRIES; i++)
		prepared->entries[i].there = false;
}

/* Can't a command with this tag have changed what a name stands for? */
static bool
is_harmless(const char *tag, bool returned_rows)
{
	static const char *const tags[] = {
		"INSERT", "UPDATE", "DELETE", "MERGE", "BEGIN", "START", "COMMIT",
		"SAVEPOINT", "RELEASE", "DECLARE", "FETCH", "MOVE", "CLOSE", "NOTIFY",
		"LISTEN", "UNLISTEN", "LOCK", "SHOW", "COPY", "TRUNCATE", "VACUUM",
		"ANALYZE", "REFRESH"
	};
	Size		length = strcspn(tag, " ");

	/* CREATE TABLE AS and SELECT INTO have this tag, too */
	if (length == 6 && strncmp(tag, "SELECT", length) == 0)
		return returned_rows;
	for (Size i = 0; i < lengthof(tags); i++)
		if (strlen(tags[i]) == length && strncmp(tag, tags[i], length) == 0)
			return true;
	return length == 0;			/* an empty command */
}

void
pgmc_prepared_heed_tag(PgmcPrepared *prepared, const char *tag,
					   bool returned_rows)
{
	if (strcmp(tag, "ROLLBACK") == 0)
	{
		/* or to a savepoint: then there may be more to roll back */
		if (prepared->changed)
			drop_all(prepared);
		return;
	}
	if (is_harmless(tag, returned_rows))
		return;
	prepared->changed = true;
	drop_all(prepared);
	if (strcmp(tag, "DEALLOCATE ALL") == 0 || strcmp(tag, "DISCARD ALL") == 0)
		prepared->left = MAX_STATEMENTS;
}
