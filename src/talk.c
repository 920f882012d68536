/*
 * talk.c
 *		A holder's requests to the worker, and the replies to them.
 *
 * A request that is interrupted (by an error of any kind, here or in whoever
 * takes its rows) is dropped: the worker is told to end it, and the hold must
 * settle before the next one.  Where what is in flight may commit, its outcome
 * is waited for instead, and the error says in its DETAIL what became of it.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "await.h"
#include "command.h"
#include "compat.h"
#include "deadlock.h"
#include "fate.h"
#include "registry.h"
#include "result.h"
#include "talk.h"

PgmcChannelState
pgmc_talk_state(PgmcHold *hold)
{
	bool		aborting;
	PgmcChannelState state = pgmc_channel_check(pgmc_hold_channel(hold),
												hold->epoch, &aborting);

	/* its last words come a moment before the worker marks the channel */
	if (state == PGMC_CHANNEL_OK &&
		(hold->xact == PGMC_XACT_UNKNOWN || hold->xact == PGMC_XACT_CLOSED))
		return PGMC_CHANNEL_BROKEN;
	return state;
}

void
pgmc_talk_drop(PgmcHold *hold)
{
	if (!hold->in_flight)
		return;
	hold->in_flight = false;
	hold->committing = false;
	hold->interrupted = false;
	hold->aborting = pgmc_channel_ask_abort(pgmc_hold_channel(hold),
											hold->epoch) == PGMC_CHANNEL_OK;
	if (hold->aborting)
		hold->xact = PGMC_XACT_ACTIVE;
	pgmc_registry_wake_worker();
}

/* ---- bytes ---- */

static void
send_bytes(PgmcHold *hold, const char *data, Size length)
{
	PgmcWait	wait = {.key = &hold->key,.stream = true};

	while (length > 0)
	{
		Size		done;
		PgmcChannelState state = pgmc_channel_send(pgmc_hold_channel(hold),
												   hold->slot, hold->epoch,
												   data, length, &done);

		if (state != PGMC_CHANNEL_OK)
			pgmc_await_raise(hold, state);
		data += done;
		length -= done;
		if (done == 0)
		{
			pgmc_registry_wake_worker();
			pgmc_await_worker(hold, &wait);
		}
	}
}

/*
 * The hold is over because its call has ended well, which the worker has told
 * the registry: the reader finds the reply that would have come.
 */
static bool
take_finished(PgmcReader *reader)
{
	PgmcHold   *hold = reader->hold;
	PgmcDone	done = {PGMC_XACT_IDLE, 0};
	StringInfoData reply = {.data = reader->buf,.maxlen = sizeof(reader->buf)};

	if (hold->scope != PGMC_SCOPE_CALL ||
		!pgmc_registry_call_finished(hold->epoch, &done.rows))
		return false;
	pgmc_wire_done(&reply, 0, hold->seq, &done);
	reader->end = reply.len;
	return true;
}

/* Take what there is into the reader's empty buffer; false: nothing. */
static bool
fill_at_once(PgmcReader *reader)
{
	PgmcHold   *hold = reader->hold;
	PgmcChannelState state;
	bool		wake;

	reader->at = reader->end = 0;
	state = pgmc_channel_receive(pgmc_hold_channel(hold), hold->slot, hold->epoch,
								 reader->buf, sizeof(reader->buf),
								 &reader->end, &wake);
	if (wake)
		pgmc_registry_wake_worker();
	reader->received += reader->end;
	if (reader->end > 0)
		return true;
	if (state == PGMC_CHANNEL_FENCED && take_finished(reader))
		return true;
	if (state != PGMC_CHANNEL_OK)
		pgmc_await_end(hold, state);
	return false;
}

/* Have at least one byte in the reader's buffer. */
static void
fill(PgmcReader *reader)
{
	PgmcWait	wait = {.key = &reader->hold->key,
	.stream = reader->received >= sizeof(reader->buf)};

	while (!fill_at_once(reader))
		pgmc_await_worker(reader->hold, &wait);
	pgmc_deadlock_end(&wait);
}

static void
take_bytes(PgmcReader *reader, void *dst, Size length)
{
	char	   *to = dst;

	while (length > 0)
	{
		Size		n;

		if (reader->at == reader->end)
			fill(reader);
		n = Min(length, reader->end - reader->at);
		if (to != NULL)
		{
			memcpy(to, reader->buf + reader->at, n);
			to += n;
		}
		reader->at += n;
		length -= n;
	}
}

void
pgmc_reader_take(PgmcReader *reader, void *dst, Size length)
{
	if (length > reader->frame_left)
		elog(ERROR, "row of pgmc is shorter than its header says");
	take_bytes(reader, dst, length);
	reader->frame_left -= length;

	/* a long row without waiting shall be interruptible as well */
	if (!reader->hold->committing)
		CHECK_FOR_INTERRUPTS();
}

static void
next_frame(PgmcReader *reader, PgmcFrame *frame)
{
	char		header[PGMC_FRAME_SIZE];

	take_bytes(reader, NULL, reader->frame_left);
	reader->frame_left = 0;
	take_bytes(reader, header, sizeof(header));
	pgmc_wire_read_header(header, frame);
	reader->frame_left = frame->length;
}

static char *
take_payload(PgmcReader *reader, const PgmcFrame *frame)
{
	char	   *payload = MemoryContextAllocHuge(CurrentMemoryContext,
												 (Size) frame->length + 1);

	take_bytes(reader, payload, frame->length);
	reader->frame_left = 0;
	return payload;
}

/* ---- replies ---- */

static PGMC_NORETURN void
bad_frame(const PgmcFrame *frame)
{
	elog(ERROR, "malformed reply of the pgmc worker, type %d", frame->type);
	pg_unreachable();
}

static void
take_notice(PgmcHold *hold, const PgmcFrame *frame, const char *command)
{
	char	   *payload = take_payload(&hold->reader, frame);
	PgmcFields	fields;

	if (!pgmc_wire_read_fields(payload, frame->length, &fields))
		bad_frame(frame);

	/* reporting looks for interrupts, which may have to wait for the outcome */
	if (hold->committing)
		HOLD_INTERRUPTS();
	pgmc_report(pgmc_notice_level(&fields), &fields, NameStr(hold->srvname),
				command);
	if (hold->committing)
		RESUME_INTERRUPTS();
	pfree(payload);
}

static void
send_format(PgmcHold *hold, uint8 format)
{
	char		answer[PGMC_FRAME_SIZE];

	pgmc_wire_header(answer, PGMC_REQUEST_FORMAT, format, hold->seq, 0);
	send_bytes(hold, answer, sizeof(answer));
	pgmc_registry_wake_worker();
}

static void
take_describe(PgmcHold *hold, const PgmcFrame *frame, PgmcSink *sink)
{
	char	   *payload = take_payload(&hold->reader, frame);
	PgmcDescribe desc;
	uint8		format = 0;
	bool		committing = hold->committing;

	if (!pgmc_wire_read_describe(payload, frame->length, &desc))
		bad_frame(frame);
	if (frame->flags & PGMC_DESCRIBE_ASK)
	{
		/* the command doesn't run yet: an error now needs no outcome */
		hold->committing = false;
		CHECK_FOR_INTERRUPTS();
	}
	if (sink != NULL)
		format = sink->describe(sink, &desc, frame->flags);
	if (frame->flags & PGMC_DESCRIBE_ASK)
	{
		send_format(hold, format);
		hold->committing = committing;
	}
	pfree(desc.columns);
	pfree(payload);
}

static void
take_error(PgmcHold *hold, const PgmcFrame *frame, PgmcOutcome *outcome)
{
	char	   *payload = take_payload(&hold->reader, frame);

	if (!pgmc_wire_read_fields(payload, frame->length, &outcome->error))
		bad_frame(frame);
	outcome->failed = true;
}

static void
take_done(PgmcHold *hold, const PgmcFrame *frame, PgmcOutcome *outcome)
{
	char		payload[64];

	if (frame->length > sizeof(payload))
		bad_frame(frame);
	take_bytes(&hold->reader, payload, frame->length);
	hold->reader.frame_left = 0;
	if (!pgmc_wire_read_done(payload, frame->length, &outcome->done))
		bad_frame(frame);
	outcome->flags = frame->flags;
	hold->xact = outcome->done.xact_status;
}

/*
 * Read a reply; false: it was the final one.  Without a sink, rows are
 * skipped; with quiet, so is all but the final one.
 */
static bool
read_reply(PgmcHold *hold, PgmcSink *sink, const char *command,
		   bool quiet, PgmcOutcome *outcome)
{
	PgmcFrame	frame;

	next_frame(&hold->reader, &frame);
	if (frame.seq != hold->seq)
		return true;
	switch (frame.type)
	{
		case PGMC_REPLY_NOTICE:
			if (!quiet)
				take_notice(hold, &frame, command);
			break;
		case PGMC_REPLY_DESCRIBE:
			if (!quiet)
				take_describe(hold, &frame, sink);
			break;
		case PGMC_REPLY_ROW:
			if (sink != NULL)
				sink->row(sink, &hold->reader, frame.length);
			break;
		case PGMC_REPLY_ERROR:
			take_error(hold, &frame, outcome);
			break;
		case PGMC_REPLY_DONE:
			take_done(hold, &frame, outcome);
			hold->in_flight = false;
			return false;
		case PGMC_REPLY_LOST:
			take_error(hold, &frame, outcome);
			outcome->lost = true;
			hold->in_flight = false;

			/*
			 * Neither is clean: the registry may not know of the loss yet.
			 * UNKNOWN is a transaction that is gone; what became of a commit
			 * is another matter.
			 */
			hold->xact = hold->committing ? PGMC_XACT_CLOSED : PGMC_XACT_UNKNOWN;
			return false;
		default:
			bad_frame(&frame);
	}
	return true;
}

static void
read_replies(PgmcHold *hold, PgmcSink *sink, const char *command,
			 bool quiet, PgmcOutcome *outcome)
{
	while (read_reply(hold, sink, command, quiet, outcome))
		;
}

/*
 * An error has struck in the middle of something that may commit: wait for
 * the outcome and add it to the error.
 */
static PGMC_NORETURN void
rethrow_with_fate(PgmcHold *hold, MemoryContext context)
{
	PgmcOutcome outcome = {0};
	ErrorData  *edata;
	volatile PgmcFate fate = PGMC_FATE_UNKNOWN;

	MemoryContextSwitchTo(context);
	edata = CopyErrorData();
	FlushErrorState();

	hold->doomed = true;
	(void) pgmc_channel_ask_cancel(pgmc_hold_channel(hold), hold->epoch,
								   hold->seq);
	pgmc_registry_wake_worker();
	PG_TRY();
	{
		read_replies(hold, NULL, NULL, true, &outcome);
		fate = pgmc_fate_of(hold, &outcome);
	}
	PG_CATCH();
	{
		/* lost as well, or told to end: the first error is the better one */
		MemoryContextSwitchTo(context);
		FlushErrorState();
		pgmc_talk_drop(hold);
		fate = hold->fate;
	}
	PG_END_TRY();
	hold->committing = hold->doomed = false;

	pgmc_fate_add(edata, fate);
	ReThrowError(edata);
	pg_unreachable();
}

/* ---- requests ---- */

/* the heads of longer requests don't keep their memory */
#define HEAD_KEPT	(64 * 1024)

/* for the next head: nobody else's code runs until one has been sent */
static StringInfo kept_head = NULL;

/*
 * Begin a request of this command, or of none, in memory that lasts until
 * end_head, or until the next request after an error.
 */
static StringInfo
begin_head(const PgmcExecute *exec)
{
	MemoryContext caller;

	if (exec != NULL && pgmc_wire_execute_size(exec) > HEAD_KEPT)
		return makeStringInfo();
	if (kept_head == NULL)
	{
		caller = MemoryContextSwitchTo(TopMemoryContext);
		kept_head = makeStringInfo();
		MemoryContextSwitchTo(caller);
	}
	resetStringInfo(kept_head);
	return kept_head;
}

static void
end_head(StringInfo head)
{
	if (head == kept_head)
		return;
	pfree(head->data);
	pfree(head);
}

/* what is sent of a request besides its head */
static void
send_values(PgmcHold *hold, const PgmcExecute *exec)
{
	for (int i = 0; i < exec->nparams; i++)
		if (exec->params[i].length >= 0)
		{
			send_bytes(hold, exec->params[i].value, exec->params[i].length);
			send_bytes(hold, "", 1);
		}
}

static void
append_values(StringInfo head, const PgmcExecute *exec)
{
	for (int i = 0; i < exec->nparams; i++)
		if (exec->params[i].length >= 0)
		{
			appendBinaryStringInfo(head, exec->params[i].value,
								   exec->params[i].length);
			appendStringInfoChar(head, '\0');
		}
}

void
pgmc_talk_write_mail(const PgmcExecute *exec, uint8 flags, PgmcMail *mail)
{
	static uint16 last_seq = 0;
	StringInfo	head;

	mail->length = 0;
	if (pgmc_wire_execute_size(exec) + PGMC_FRAME_SIZE > PGMC_MAIL_SIZE)
		return;
	mail->seq = ++last_seq;
	head = begin_head(exec);
	pgmc_wire_execute_head(head, flags, mail->seq, exec);
	append_values(head, exec);
	if (head->len <= PGMC_MAIL_SIZE)
	{
		mail->length = head->len;
		memcpy(mail->frame, head->data, head->len);
	}
	end_head(head);
}

/* Most requests are small: they go in one piece, so that the worker wakes once. */
static void
send_request(PgmcHold *hold, StringInfo head, const PgmcExecute *exec)
{
	if (exec != NULL && exec->nparams > 0 &&
		pgmc_wire_execute_size(exec) <= PGMC_COPY_MAX)
	{
		append_values(head, exec);
		exec = NULL;
	}
	send_bytes(hold, head->data, head->len);
	if (exec != NULL)
		send_values(hold, exec);
	pgmc_registry_wake_worker();
}

/* The connection is gone, and yet the commit is proved: that is no error. */
static void
take_proof(PgmcHold *hold, MemoryContext context, PgmcOutcome *outcome)
{
	MemoryContextSwitchTo(context);
	FlushErrorState();
	memset(outcome, 0, sizeof(*outcome));
	outcome->flags = PGMC_DONE_LOST;
	outcome->done.xact_status = hold->xact;
}

/* ---- many sets of parameters ---- */

/* a request whose sets are being sent */
typedef struct Sending
{
	PgmcHold   *hold;
	const char *command;
	PgmcOutcome *outcome;
	bool		ended;			/* the final reply is here already */
} Sending;

/*
 * Take a reply, if one is here.  After the final one there is none, but until
 * the last frame is sent the request counts as in flight: an error in between
 * must drop what is left of it.
 */
static bool
take_reply_at_once(Sending *sending)
{
	PgmcHold   *hold = sending->hold;
	PgmcReader *reader = &hold->reader;

	if (sending->ended || (reader->at == reader->end && !fill_at_once(reader)))
		return false;
	if (!read_reply(hold, NULL, sending->command, false, sending->outcome))
	{
		sending->ended = true;
		hold->in_flight = !sending->outcome->lost;
	}
	return true;
}

/*
 * Send a frame.  While there is no room for it, take what the worker has to
 * say: it may be that which keeps it from taking the frame.
 */
static void
send_frame(Sending *sending, const char *data, Size length)
{
	PgmcHold   *hold = sending->hold;
	PgmcWait	wait = {.key = &hold->key,.stream = true};

	while (length > 0 && !sending->outcome->lost)
	{
		Size		done;
		PgmcChannelState state = pgmc_channel_send(pgmc_hold_channel(hold),
												   hold->slot, hold->epoch,
												   data, length, &done);

		data += done;
		length -= done;
		if (done > 0)
			continue;
		pgmc_registry_wake_worker();
		if (take_reply_at_once(sending))
			continue;
		if (state != PGMC_CHANNEL_OK)
			pgmc_await_raise(hold, state);
		pgmc_await_worker(hold, &wait);
	}
	pgmc_deadlock_end(&wait);
	pgmc_registry_wake_worker();
}

/*
 * Send the sets until there are no more, or an error has made the others
 * pointless.  The last frame goes in any case, or the worker would take the
 * next request for a part of this one.
 */
static void
send_sets(PgmcHold *hold, PgmcSource *source, const char *command,
		  PgmcOutcome *outcome)
{
	Sending		sending = {hold, command, outcome, false};
	StringInfoData frame;
	bool		more = true;

	initStringInfo(&frame);
	while (more && !outcome->lost)
	{
		int			begin;

		while (take_reply_at_once(&sending))
			;
		CHECK_FOR_INTERRUPTS();
		resetStringInfo(&frame);
		begin = pgmc_wire_begin(&frame, PGMC_REQUEST_SETS, 0, hold->seq);
		more = !sending.ended && !outcome->failed &&
			source->next(source, &frame);
		pgmc_wire_end(&frame, begin);
		if (!more)
			pgmc_wire_header(frame.data, PGMC_REQUEST_SETS, PGMC_SETS_LAST,
							 hold->seq, frame.len - PGMC_FRAME_SIZE);
		send_frame(&sending, frame.data, frame.len);
	}
	pfree(frame.data);
	hold->in_flight = !sending.ended;
}

/* ---- the whole ---- */

static void
talk(PgmcHold *hold, StringInfo head, const PgmcExecute *exec,
	 PgmcSource *source, bool committing, PgmcSink *sink, PgmcOutcome *outcome)
{
	const char *command = exec ? exec->command : NULL;
	MemoryContext caller = CurrentMemoryContext;

	memset(outcome, 0, sizeof(*outcome));
	hold->reader.at = hold->reader.end = hold->reader.frame_left = 0;
	hold->reader.received = 0;
	hold->interrupted = false;
	hold->patience = 0;
	hold->committing = false;
	hold->commits_within = committing && exec != NULL &&
		pgmc_command_may_commit_within(exec->command);
	hold->fate = PGMC_FATE_UNKNOWN;
	hold->in_flight = true;
	hold->users++;
	PG_TRY();
	{
		if (head != NULL)
			send_request(hold, head, exec);
		if (source != NULL)
			send_sets(hold, source, command, outcome);
		hold->committing = committing;
		if (hold->struck != NULL)
			ReThrowError(hold->struck);
		if (hold->in_flight)
			read_replies(hold, sink, command, false, outcome);
	}
	PG_CATCH();
	{
		if (hold->fate != PGMC_FATE_COMMITTED)
		{
			hold->users--;
			if (hold->in_flight && hold->committing)
				rethrow_with_fate(hold, caller);
			pgmc_talk_drop(hold);
			PG_RE_THROW();
		}
		take_proof(hold, caller, outcome);
	}
	PG_END_TRY();
	hold->users--;
	hold->committing = false;
	outcome->may_have_committed = committing;
	if (hold->interrupted || (committing && pgmc_await_interrupted()))
	{
		hold->interrupted = false;
		pgmc_fate_process_interrupts(pgmc_fate_of(hold, outcome));
	}
}

void
pgmc_talk_open(PgmcHold *hold, const PgmcOpen *open, PgmcOutcome *outcome)
{
	StringInfoData head;

	initStringInfo(&head);
	pgmc_wire_open(&head, ++hold->seq, open);
	PG_TRY();
	{
		talk(hold, &head, NULL, NULL, false, NULL, outcome);
	}
	PG_FINALLY();
	{
		explicit_bzero(head.data, head.len);
		pgmc_channel_wipe(pgmc_hold_channel(hold), hold->slot, hold->epoch);
	}
	PG_END_TRY();
}

void
pgmc_talk_execute(PgmcHold *hold, const PgmcExecute *exec, uint8 flags,
				  PgmcSink *sink, PgmcOutcome *outcome)
{
	bool		committing =
	(flags & (PGMC_EXEC_AUTONOMOUS | PGMC_EXEC_AUTOCOMMIT)) != 0 ||
	pgmc_command_may_commit(exec->command);
	StringInfo	head;

	if (hold->mailed)
	{
		hold->mailed = false;
		talk(hold, NULL, exec, NULL, committing, sink, outcome);
		return;
	}
	pgmc_await_settle(hold);
	head = begin_head(exec);
	pgmc_wire_execute_head(head, flags, ++hold->seq, exec);
	talk(hold, head, exec, NULL, committing, sink, outcome);
	end_head(head);
}

void
pgmc_talk_many(PgmcHold *hold, const PgmcExecute *exec, uint8 flags,
			   PgmcSource *source, PgmcOutcome *outcome)
{
	StringInfo	head;

	pgmc_await_settle(hold);
	head = begin_head(exec);
	pgmc_wire_execute_head(head, flags, ++hold->seq, exec);
	talk(hold, head, exec, source,
		 (flags & PGMC_EXEC_AUTOCOMMIT) != 0 ||
		 pgmc_command_may_commit(exec->command), NULL, outcome);
	end_head(head);
}

void
pgmc_talk_simple(PgmcHold *hold, uint8 type, PgmcOutcome *outcome)
{
	StringInfo	head;

	pgmc_await_settle(hold);
	head = begin_head(NULL);
	pgmc_wire_end(head, pgmc_wire_begin(head, type, 0, ++hold->seq));
	talk(hold, head, NULL, NULL,
		 type == PGMC_REQUEST_COMMIT && hold->xact != PGMC_XACT_INERROR, NULL,
		 outcome);
	end_head(head);
}
