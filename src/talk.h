/*
 * talk.h
 *		A holder's requests to the worker, and the replies to them.
 */
#ifndef PGMC_TALK_H
#define PGMC_TALK_H

#include "hold.h"

/* What is known now of the hold's connection; neither waits nor raises. */
extern PgmcChannelState pgmc_talk_state(PgmcHold *hold);

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

/* Forget the request in flight; the worker ends it.  For abort paths. */
extern void pgmc_talk_drop(PgmcHold *hold);

#endif							/* PGMC_TALK_H */
