/*
 * talk.h
 *		A holder's requests to the worker, and the replies to them.
 */
#ifndef PGMC_TALK_H
#define PGMC_TALK_H

#include "hold.h"

/* How a request ended, where it ended at all. */
typedef struct PgmcOutcome
{
	PgmcDone	done;
	uint8		flags;			/* PGMC_DONE_... */
	bool		failed;			/* error has the reason */
	bool		lost;			/* so it has, and the connection is gone */
	bool		may_have_committed; /* the request was one that can */
	PgmcFields	error;
} PgmcOutcome;

/*
 * Make the hold ready for a request: wait until the worker has ended one that
 * was dropped.  Errors: 08006, 25P03, 55006 (a call within a call).
 */
extern void pgmc_talk_settle(PgmcHold *hold);

/* Like settle's, but of the present moment, and without errors. */
extern PgmcChannelState pgmc_talk_state(PgmcHold *hold);

/* Raise the error for a hold whose connection is lost or was revoked. */
extern PGMC_NORETURN void pgmc_talk_raise(const PgmcHold *hold,
										  PgmcChannelState state);

/* Send a whole request and read all of its reply. */
extern void pgmc_talk_open(PgmcHold *hold, const PgmcOpen *open,
						   PgmcOutcome *outcome);
extern void pgmc_talk_execute(PgmcHold *hold, const PgmcExecute *exec,
							  uint8 flags, PgmcSink *sink,
							  PgmcOutcome *outcome);

/* The same for a command with many sets of parameters, from source. */
extern void pgmc_talk_many(PgmcHold *hold, const PgmcExecute *exec, uint8 flags,
						   PgmcSource *source, PgmcOutcome *outcome);
extern void pgmc_talk_simple(PgmcHold *hold, uint8 type, PgmcOutcome *outcome);

/*
 * Write a command for a PgmcMail, if it is small enough.  Where the mail has
 * gone out with the acquire, pgmc_talk_execute only waits for the reply.
 */
extern void pgmc_talk_write_mail(const PgmcExecute *exec, uint8 flags,
								 PgmcMail *mail);

/* Will CHECK_FOR_INTERRUPTS end what this session is doing? */
extern bool pgmc_talk_interrupted(void);

/*
 * For an error after the end of a request: what it has committed nevertheless,
 * as a sentence for the DETAIL, or NULL.
 */
extern const char *pgmc_talk_fate(const PgmcHold *hold,
								  const PgmcOutcome *outcome);

/* Let the sink judge the whole; its error tells what was committed. */
extern void pgmc_talk_end_sink(const PgmcHold *hold, PgmcSink *sink,
							   const PgmcOutcome *outcome);

/* Forget the request in flight; the worker ends it.  For abort paths. */
extern void pgmc_talk_drop(PgmcHold *hold);

#endif							/* PGMC_TALK_H */
