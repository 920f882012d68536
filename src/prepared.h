/*
 * prepared.h
 *		Which commands of a connection are prepared statements at the other end.
 *
 * A command that comes again is prepared when it comes for the second time,
 * together with that run, and from then on only its name is sent.  The cache
 * only remembers: remote_send.c sends what must be sent, and remote_result.c
 * says what became of it.
 *
 * All of it belongs to the worker process alone.
 */
#ifndef PGMC_PREPARED_H
#define PGMC_PREPARED_H

#include "wire.h"

typedef struct PgmcPrepared PgmcPrepared;

/* how a command shall go out */
typedef enum PgmcPreparedUse
{
	PGMC_PREPARED_ONCE,			/* in full, without a name */
	PGMC_PREPARED_NEW,			/* in full, to be prepared under a name, which
								 * is then used */
	PGMC_PREPARED_KNOWN			/* by its name */
} PgmcPreparedUse;

/* What is remembered lives in a context of its own below this one; 53200. */
extern PgmcPrepared *pgmc_prepared_create(MemoryContext context);

/*
 * Decide about a command; *number is that of the statement, unless ONCE.
 * settings is a number that changes with whatever literals in a command are
 * read under: a statement isn't used under other settings than it was made.
 * Raises 53200.
 */
extern PgmcPreparedUse pgmc_prepared_use(PgmcPrepared *prepared,
										 const PgmcExecute *exec,
										 uint32 settings, int *number);

/* The statement with this number is there now. */
extern void pgmc_prepared_done(PgmcPrepared *prepared, int number);

/* Don't use this one any more. */
extern void pgmc_prepared_drop(PgmcPrepared *prepared, int number);

/* A transaction begins with the next command. */
extern void pgmc_prepared_begin_xact(PgmcPrepared *prepared);

/*
 * A command with this tag has run.  One that may have changed what names stand
 * for makes all statements unusable: those that return rows would fail, as
 * their columns must stay what they were, and parameters whose types the
 * server has found out would keep these.  So does a rollback of such a one.
 * Where all statements were dropped, so were ours.
 */
extern void pgmc_prepared_heed_tag(PgmcPrepared *prepared, const char *tag,
								   bool returned_rows);

/* Use none of them any more: the connection was reset. */
extern void pgmc_prepared_forget(PgmcPrepared *prepared);

/*
 * One that should be there wasn't.  Somebody takes them away unseen, or there
 * is not always the same session at the other end: so make no more of them.
 */
extern void pgmc_prepared_give_up(PgmcPrepared *prepared);

#endif							/* PGMC_PREPARED_H */
