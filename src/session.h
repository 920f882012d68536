/*
 * session.h
 *		What this session holds: finding it, using it, releasing it.
 *
 * A hold is the exclusive use of one managed connection; see acquire.h.  It
 * ends by a release, by the abort of the (sub)transaction it belongs to, or with
 * the session; in the last two cases without waiting and without errors, because
 * the worker cleans up behind it.
 */
#ifndef PGMC_SESSION_H
#define PGMC_SESSION_H

#include "server.h"
#include "wire.h"

typedef struct PgmcHold PgmcHold;

/* Where a request's rows go.  All of it may raise errors. */
typedef struct PgmcReader PgmcReader;
typedef struct PgmcSink PgmcSink;
struct PgmcSink
{
	/*
	 * A result's columns.  With ask, the answer is PGMC_EXEC_BINARY or 0;
	 * else it is ignored.  Comes again where a string has several results.
	 */
	uint8		(*describe) (PgmcSink *sink, const PgmcDescribe *desc,
							 uint8 flags);

	/*
	 * A row of length bytes, to be taken from the reader; what is left is
	 * skipped.
	 */
	void		(*row) (PgmcSink *sink, PgmcReader *reader, uint32 length);

	/* The command has ended well, and there are no more rows. */
	void		(*end) (PgmcSink *sink);
};

/* Where the parameter sets of a request come from. */
typedef struct PgmcSource PgmcSource;
struct PgmcSource
{
	/*
	 * Append some sets (see wire.h) to a frame; false: there are no more, and
	 * so it is after these.  May raise errors.
	 */
	bool		(*next) (PgmcSource *source, StringInfo frame);
};

/* Take the next length bytes of the row's frame; waits for them. */
extern void pgmc_reader_take(PgmcReader *reader, void *dst, Size length);

/* how a hold is acquired */
typedef enum PgmcScope
{
	PGMC_SCOPE_SESSION,			/* until released */
	PGMC_SCOPE_XACT,			/* until the transaction ends */
	PGMC_SCOPE_CALL				/* during one call: autonomous, run */
} PgmcScope;

/* Callbacks; once a process. */
extern void pgmc_session_init(void);

/*
 * The hold that a call means: of that server, or the innermost; checks that
 * the current user may use it.  Errors: 55000 none, 42501 somebody else's, 2F003
 * where another role than the one that acquired it lacks a password.
 */
extern PgmcHold *pgmc_session_hold(const char *srvname);

/* The same to end it: the one who acquired it needs no right to the server now. */
extern PgmcHold *pgmc_session_hold_to_release(const char *srvname);

/* The innermost, for its state: the password rule has no say in that. */
extern PgmcHold *pgmc_session_hold_to_look_at(void);

/* That of a server, without errors, for looking; NULL: none. */
extern PgmcHold *pgmc_session_find(const PgmcServer *server);
extern PgmcHold *pgmc_session_innermost(void);

extern bool pgmc_hold_own_database(const PgmcHold *hold);

/*
 * Run a command in the hold and wait for its end.  Errors of the loopback
 * server are raised as they were; 08006 lost, 25P03 revoked, 0A000 COPY,
 * 25001 an autonomous command that left a transaction open.
 */
extern void pgmc_session_execute(PgmcHold *hold, const PgmcExecute *exec,
								 uint8 flags, PgmcSink *sink, PgmcDone *done);

/*
 * Run a command for each set of parameters; exec has their types and formats.
 * done->rows is the sum.  Outside a transaction, all of it is one.  Errors as
 * above; that of a set names it in its context.
 */
extern void pgmc_session_execute_many(PgmcHold *hold, const PgmcExecute *exec,
									  uint8 flags, PgmcSource *source,
									  PgmcDone *done);

/* Raise 08006 or 25P03 where the hold is lost or revoked; sends nothing. */
extern void pgmc_session_check_usable(PgmcHold *hold);

/* End the loopback transaction.  Errors as above, and 25P02. */
extern void pgmc_session_commit(PgmcHold *hold);
extern void pgmc_session_rollback(PgmcHold *hold);

/* Errors: 25001 inside a transaction. */
extern void pgmc_session_set_autocommit(PgmcHold *hold, bool enabled);

/* the flags that an ordinary command in this hold needs */
extern uint8 pgmc_session_exec_flags(const PgmcHold *hold);

/*
 * End the hold.  Errors: 25001 where a transaction was open, after it has been
 * rolled back and the hold has ended.
 */
extern void pgmc_session_release(PgmcHold *hold, bool close);

/* End the hold of one call, in whatever state; no errors, no waiting. */
extern void pgmc_session_end_call(PgmcHold *hold, bool failed);

/*
 * All SQL functions begin with this: they refuse what runs with somebody else's
 * rights without that one's will, such as an index expression under ANALYZE.  Errors: 42501.
 */
extern void pgmc_session_check_unrestricted(void);

/* End all holds with a WARNING for each open transaction; returns how many. */
extern int	pgmc_session_release_all(void);

/* Transaction status of the hold's connection; CLOSED when lost or revoked. */
extern PgmcXactStatus pgmc_session_status(PgmcHold *hold);

/*
 * Close the idle connections of a server in this database, whoever's they are,
 * and wait for it; *held: those that could not be.
 */
extern int	pgmc_session_close_idle(Oid serverid, int *held);

/*
 * Wait until this recovery or closing in the slot has ended, whoever has the
 * connection then, or for five seconds at most: false then.  0 is none.
 */
extern bool pgmc_session_await_recovery(int slot, uint64 recovery);

#endif							/* PGMC_SESSION_H */
