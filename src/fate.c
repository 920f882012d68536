/*
 * fate.c
 *		What became of a request that may have committed, in an error's words.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "fate.h"

const char *
pgmc_fate_text(PgmcFate fate)
{
	switch (fate)
	{
		case PGMC_FATE_COMMITTED:
			return "The command on the managed connection was committed.";
		case PGMC_FATE_NOT_COMMITTED:
			return "The command on the managed connection was not committed.";
		case PGMC_FATE_IN_PART:
			return "The command on the managed connection was not completed; what it had committed itself by then stays committed.";
		case PGMC_FATE_UNKNOWN:
			break;
	}
	return "It is not known whether the command on the managed connection was committed.";
}

/* Error context callback that gives an error its DETAIL. */
static void
tell_fate(void *arg)
{
	errdetail("%s", pgmc_fate_text(*(PgmcFate *) arg));
}

static void
begin_telling(ErrorContextCallback *callback, PgmcFate *fate)
{
	callback->callback = tell_fate;
	callback->arg = fate;
	callback->previous = error_context_stack;
	error_context_stack = callback;
}

void
pgmc_fate_process_interrupts(PgmcFate fate)
{
	ErrorContextCallback callback;

	begin_telling(&callback, &fate);
	CHECK_FOR_INTERRUPTS();
	error_context_stack = callback.previous;
}

PgmcFate
pgmc_fate_of(const PgmcHold *hold, const PgmcOutcome *outcome)
{
	bool		open = outcome->done.xact_status == PGMC_XACT_INTRANS ||
	outcome->done.xact_status == PGMC_XACT_INERROR;

	if (outcome->flags & PGMC_DONE_OWN_COMMIT)
		return outcome->failed || open ? PGMC_FATE_IN_PART : PGMC_FATE_COMMITTED;
	if (outcome->lost && strcmp(outcome->error.sqlstate, "08007") == 0)
		return PGMC_FATE_UNKNOWN;
	if (outcome->failed || (outcome->flags & PGMC_DONE_LEFT_OPEN))
		return hold->commits_within ? PGMC_FATE_IN_PART : PGMC_FATE_NOT_COMMITTED;
	return (outcome->flags & PGMC_DONE_NOT_COMMITTED) || open ?
		PGMC_FATE_NOT_COMMITTED : PGMC_FATE_COMMITTED;
}

const char *
pgmc_fate_detail(const PgmcHold *hold, const PgmcOutcome *outcome)
{
	PgmcFate	fate;

	if (!outcome->may_have_committed)
		return NULL;
	fate = pgmc_fate_of(hold, outcome);
	return fate == PGMC_FATE_NOT_COMMITTED ? NULL : pgmc_fate_text(fate);
}

void
pgmc_fate_end_sink(const PgmcHold *hold, PgmcSink *sink,
				   const PgmcOutcome *outcome)
{
	ErrorContextCallback callback;
	PgmcFate	fate;

	if (!outcome->may_have_committed)
	{
		sink->end(sink);
		return;
	}
	fate = pgmc_fate_of(hold, outcome);
	begin_telling(&callback, &fate);
	sink->end(sink);
	error_context_stack = callback.previous;
}

void
pgmc_fate_add(ErrorData *edata, PgmcFate fate)
{
	edata->detail = edata->detail == NULL ? pstrdup(pgmc_fate_text(fate)) :
		psprintf("%s\n%s", edata->detail, pgmc_fate_text(fate));
}
