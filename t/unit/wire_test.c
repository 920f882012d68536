/*
 * wire_test.c
 *		Every message survives its journey; none that is damaged is taken for
 *		more than it is.
 */
#include "postgres_fe.h"

#include "wire.h"

#include "tap.h"

#define MUTATIONS	20000

/* how a kind of message is read back, into whatever it is, and freed */
typedef bool (*Decoder) (const char *data, Size length);

/* ---- decoders that touch all they have been given ---- */

static unsigned sum;

static void
touch(const char *str)
{
	for (; str != NULL && *str != '\0'; str++)
		sum += (unsigned char) *str;
}

static bool
decode_open(const char *data, Size length)
{
	PgmcOpen	open;
	bool		good = pgmc_wire_read_open(data, length, &open);

	for (int i = 0; good && i < open.npairs; i++)
	{
		touch(open.keywords[i]);
		touch(open.values[i]);
	}
	if (good)
		touch(open.reset_query);
	pfree(open.keywords);
	pfree(open.values);
	return good;
}

static bool
decode_execute(const char *data, Size length)
{
	PgmcExecute exec;
	bool		good = pgmc_wire_read_execute(data, length, &exec);

	if (good)
		touch(exec.command);
	for (int i = 0; good && i < exec.nparams; i++)
		for (int j = 0; j <= exec.params[i].length; j++)
			sum += (unsigned char) exec.params[i].value[j];
	pfree(exec.params);
	return good;
}

static bool
decode_describe(const char *data, Size length)
{
	PgmcDescribe desc;
	bool		good = pgmc_wire_read_describe(data, length, &desc);

	for (int i = 0; good && i < desc.ncolumns; i++)
		sum += desc.columns[i].type + (unsigned) desc.columns[i].typmod;
	if (good)
	{
		touch(desc.datestyle);
		touch(desc.intervalstyle);
		touch(desc.timezone);
	}
	pfree(desc.columns);
	return good;
}

static bool
decode_fields(const char *data, Size length)
{
	PgmcFields	fields;
	bool		good = pgmc_wire_read_fields(data, length, &fields);
	const char *const *strings = (const char *const *) &fields;

	for (Size i = 0; good && i < sizeof(fields) / sizeof(char *); i++)
		touch(strings[i]);
	return good;
}

/* a frame of sets, of three values each */
static bool
decode_sets(const char *data, Size length)
{
	const char *at = data;
	const char *end = data + length;

	while (at < end)
	{
		const char *values[3];
		int			lengths[3];

		if (!pgmc_wire_read_set(&at, end, 3, values, lengths))
			return false;
		for (int i = 0; i < 3; i++)
			for (int j = 0; values[i] != NULL && j <= lengths[i]; j++)
				sum += (unsigned char) values[i][j];
	}
	return true;
}

static bool
decode_done(const char *data, Size length)
{
	PgmcDone	done;

	return pgmc_wire_read_done(data, length, &done);
}

/* ---- the messages ---- */

static const PgmcOpen the_open = {
	.session = UINT64CONST(0x0123456789abcdef),
	.options_hash = UINT64CONST(0xfedcba9876543210),
	.connect_timeout = 10000,
	.idle_timeout = 0,
	.max_lifetime = PG_INT32_MAX,
	.npairs = 3,
	.keywords = (const char *[])
	{"host", "dbname", "password", NULL},
	.values = (const char *[])
	{"/tmp", "", "geh\xc3\xa9im", NULL},
	.reset_query = "DISCARD ALL"
};

static PgmcParam the_params[] = {
	{.type = 25,.length = 5,.format = 0,.value = "hello"},
	{.type = 0,.length = -1,.format = 0,.value = NULL},
	{.type = 17,.length = 4,.format = 1,.value = "a\0\0b"},
	{.type = 25,.length = 0,.format = 0,.value = ""},
};

static const PgmcExecute the_execute = {
	.session = 42,
	.command = "SELECT $1, $2, $3, $4",
	.nparams = 4,
	.params = the_params
};

static PgmcColumn the_columns[] = {{23, -1}, {1043, 14}, {4294967295U, -2147483647}};

static const PgmcDescribe the_describe = {
	.ncolumns = 3,
	.columns = the_columns,
	.datestyle = "ISO, DMY",
	.intervalstyle = "postgres",
	.timezone = "Europe/Berlin"
};

static const PgmcFields the_fields = {
	.severity = "ERROR",
	.sqlstate = "23505",
	.message = "duplicate key",
	.detail = "Key (a)=(1) already exists.",
	.hint = "",
	.context = "SQL function",
	.position = "17",
	.internal_position = "3",
	.internal_query = "SELECT 1",
	.schema = "public",
	.table = "t",
	.column = "a",
	.datatype = "int4",
	.constraint = "t_pkey"
};

static const PgmcDone the_done = {.xact_status = PGMC_XACT_INTRANS,.rows = -5};

static void
append_execute(StringInfo buf, const PgmcExecute *exec)
{
	pgmc_wire_execute_head(buf, PGMC_EXEC_ROWS, 65535, exec);
	for (int i = 0; i < exec->nparams; i++)
		if (exec->params[i].length >= 0)
		{
			appendBinaryStringInfo(buf, exec->params[i].value,
								   exec->params[i].length);
			appendStringInfoChar(buf, '\0');
		}
}

static bool
same(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/* the payload of the one frame in buf, in memory of its own size */
static char *
payload_of(StringInfo buf, uint8 type, uint8 flags, uint16 seq, Size *length)
{
	PgmcFrame	frame;

	pgmc_wire_read_header(buf->data, &frame);
	ok(frame.type == type && frame.flags == flags && frame.seq == seq &&
	   frame.length == (uint32) buf->len - PGMC_FRAME_SIZE, "header of %c", type);
	*length = frame.length;
	return tap_fenced_copy(buf->data + PGMC_FRAME_SIZE, frame.length);
}

/* ---- there and back ---- */

static void
test_open(StringInfo buf)
{
	PgmcOpen	open;
	Size		length;
	char	   *payload;
	bool		equal = true;

	pgmc_wire_open(buf, 7, &the_open);
	payload = payload_of(buf, PGMC_REQUEST_OPEN, 0, 7, &length);
	ok(pgmc_wire_read_open(payload, length, &open), "open is read");
	ok(open.session == the_open.session &&
	   open.options_hash == the_open.options_hash &&
	   open.connect_timeout == the_open.connect_timeout &&
	   open.idle_timeout == the_open.idle_timeout &&
	   open.max_lifetime == the_open.max_lifetime &&
	   same(open.reset_query, the_open.reset_query) &&
	   open.npairs == the_open.npairs, "open: numbers");
	for (int i = 0; i <= open.npairs; i++)
		equal = equal && same(open.keywords[i], the_open.keywords[i]) &&
			same(open.values[i], the_open.values[i]);
	ok(equal, "open: keywords and values, and a NULL behind them");
}

static void
test_execute(StringInfo buf)
{
	PgmcExecute exec;
	Size		length;
	char	   *payload;
	bool		equal = true;

	append_execute(buf, &the_execute);
	payload = payload_of(buf, PGMC_REQUEST_EXECUTE, PGMC_EXEC_ROWS, 65535, &length);
	ok(length == pgmc_wire_execute_size(&the_execute), "execute: size");
	ok(pgmc_wire_read_execute(payload, length, &exec), "execute is read");
	ok(exec.session == 42 && exec.nparams == 4 &&
	   same(exec.command, the_execute.command), "execute: command");
	for (int i = 0; i < exec.nparams; i++)
	{
		PgmcParam  *param = &exec.params[i];
		PgmcParam  *right = &the_params[i];

		equal = equal && param->type == right->type &&
			param->length == right->length && param->format == right->format &&
			(param->length < 0 ? param->value == NULL :
			 memcmp(param->value, right->value, param->length + 1) == 0);
	}
	ok(equal, "execute: parameters, each with a zero byte behind it");
}

static void
test_sets(StringInfo buf)
{
	static const char *const texts[] = {"hello", NULL, "a\0\0b", "", NULL, "x"};
	static const int lengths[] = {5, 0, 4, 0, 0, 1};
	int			begin = pgmc_wire_begin(buf, PGMC_REQUEST_SETS, PGMC_SETS_LAST, 3);
	Size		length;
	const char *payload;
	const char *at;
	bool		equal = true;

	for (int i = 0; i < 6; i++)
		if (texts[i] == NULL)
			pgmc_wire_set_null(buf);
		else
			pgmc_wire_set_value(buf, texts[i], lengths[i]);
	pgmc_wire_end(buf, begin);
	at = payload = payload_of(buf, PGMC_REQUEST_SETS, PGMC_SETS_LAST, 3, &length);
	for (int i = 0; i < 6; i += 3)
	{
		const char *values[3];
		int			got[3];

		ok(pgmc_wire_read_set(&at, payload + length, 3, values, got),
		   "a set is read");
		for (int j = 0; j < 3; j++)
			equal = equal && (values[j] == NULL) == (texts[i + j] == NULL) &&
				got[j] == lengths[i + j] &&
				(values[j] == NULL ||
				 memcmp(values[j], texts[i + j], got[j] + 1) == 0);
	}
	ok(equal && at == payload + length,
	   "sets: all values, each with a zero byte behind it");
	ok(!pgmc_wire_read_set(&at, at, 3, NULL, NULL), "sets: then there are no more");
	at = payload;
	ok(!pgmc_wire_read_set(&at, payload + length, 0, NULL, NULL) && at == payload,
	   "sets: those of no values are none");
}

static void
test_describe(StringInfo buf)
{
	PgmcDescribe desc;
	Size		length;
	char	   *payload;

	pgmc_wire_describe(buf, PGMC_DESCRIBE_ASK, 0, &the_describe);
	payload = payload_of(buf, PGMC_REPLY_DESCRIBE, PGMC_DESCRIBE_ASK, 0, &length);
	ok(pgmc_wire_read_describe(payload, length, &desc), "describe is read");
	ok(desc.ncolumns == 3 &&
	   memcmp(desc.columns, the_columns, sizeof(the_columns)) == 0 &&
	   same(desc.datestyle, the_describe.datestyle) &&
	   same(desc.intervalstyle, the_describe.intervalstyle) &&
	   same(desc.timezone, the_describe.timezone), "describe: all of it");
}

static void
test_fields(StringInfo buf)
{
	PgmcFields	fields;
	PgmcFields	few = {0};
	Size		length;
	char	   *payload;
	bool		equal = true;
	const char *const *right = (const char *const *) &the_fields;
	const char *const *got = (const char *const *) &fields;

	pgmc_wire_fields(buf, PGMC_REPLY_ERROR, 256, &the_fields);
	payload = payload_of(buf, PGMC_REPLY_ERROR, 0, 256, &length);
	ok(pgmc_wire_read_fields(payload, length, &fields), "fields are read");
	for (Size i = 0; i < sizeof(fields) / sizeof(char *); i++)
		equal = equal && right[i] != NULL && same(got[i], right[i]);
	ok(equal, "fields: every one");

	resetStringInfo(buf);
	few.hint = "only this";
	pgmc_wire_fields(buf, PGMC_REPLY_NOTICE, 1, &few);
	payload = payload_of(buf, PGMC_REPLY_NOTICE, 0, 1, &length);
	ok(pgmc_wire_read_fields(payload, length, &fields) && fields.message == NULL &&
	   same(fields.hint, "only this"), "fields: NULL where there is none");
	ok(pgmc_wire_read_fields(payload, 0, &fields) && fields.hint == NULL,
	   "fields: none at all");
	payload = tap_fenced_copy("?from the future\0Mit\0", 21);
	ok(pgmc_wire_read_fields(payload, 21, &fields) && same(fields.message, "it"),
	   "fields: an unknown letter is passed over");
}

static void
test_done(StringInfo buf)
{
	PgmcDone	done;
	Size		length;
	char	   *payload;

	pgmc_wire_done(buf, PGMC_DONE_COPY, 9, &the_done);
	payload = payload_of(buf, PGMC_REPLY_DONE, PGMC_DONE_COPY, 9, &length);
	ok(pgmc_wire_read_done(payload, length, &done) && done.rows == -5 &&
	   done.xact_status == PGMC_XACT_INTRANS, "done");
}

/* ---- damage ---- */

/* fields and sets are lists, so they may end after each */
static void
test_truncation(const char *name, StringInfo buf, Decoder decode, bool list)
{
	char	   *data = buf->data + PGMC_FRAME_SIZE;
	Size		length = buf->len - PGMC_FRAME_SIZE;
	int			taken = 0;

	for (Size n = 0; n < length; n++)
		if (decode(tap_fenced_copy(data, n), n) &&
			!(list && (n == 0 || data[n - 1] == '\0')))
			taken++;
	ok(taken == 0, "%s: every truncation is refused", name);

	appendStringInfoChar(buf, 'x');
	data = buf->data + PGMC_FRAME_SIZE;
	ok(!decode(tap_fenced_copy(data, length + 1), length + 1),
	   "%s: one byte too many is refused", name);
}

/* Reading outside would crash. */
static void
test_mutation(const char *name, StringInfo buf, Decoder decode)
{
	static const int32 odd[] = {0, 1, -1, 2, 127, 255, 65536, PG_INT32_MAX, PG_INT32_MIN,
	PG_INT32_MAX - 1, 0x10000000, 0x15555556};
	Size		length = buf->len - PGMC_FRAME_SIZE;

	for (int i = 0; i < MUTATIONS; i++)
	{
		Size		n = tap_random(4) == 0 ? tap_random(length + 1) : length;
		char	   *copy = tap_fenced_copy(buf->data + PGMC_FRAME_SIZE, n);

		for (int times = tap_random(4); n > 0 && times >= 0; times--)
		{
			Size		at = tap_random(n);

			if (tap_random(2) == 0)
				copy[at] = (char) tap_random(256);
			else if (at + sizeof(int32) <= n)
				memcpy(copy + at, &odd[tap_random(lengthof(odd))], sizeof(int32));
		}
		(void) decode(copy, n);
	}
	ok(true, "%s: %d mutations, and nothing outside was read", name, MUTATIONS);
}

static void
test_kind(const char *name, void (*there_and_back) (StringInfo buf),
		  Decoder decode, bool list)
{
	StringInfoData buf;

	initStringInfo(&buf);
	there_and_back(&buf);
	test_mutation(name, &buf, decode);
	test_truncation(name, &buf, decode, list);
	pfree(buf.data);
}

/* Counts that don't fit must not become allocations, nor overflow. */
static void
test_counts(void)
{
	char		head[40];
	int32		counts[] = {-1, 1, 0x7fffffff, 0x10000000, 0x20000000};
	bool		refused = true;

	for (Size i = 0; i < lengthof(counts); i++)
	{
		memset(head, 0, sizeof(head));
		memcpy(head, &counts[i], 4);
		refused = refused && !decode_describe(tap_fenced_copy(head, 7), 7);
		memset(head, 0, sizeof(head));
		memcpy(head + 8, &counts[i], 4);
		refused = refused && !decode_execute(tap_fenced_copy(head, 13), 13);
		memset(head, 0, sizeof(head));
		memcpy(head + 28, &counts[i], 4);
		refused = refused && !decode_open(tap_fenced_copy(head, 33), 33);
	}
	ok(refused, "counts of what isn't there are refused");
}

int
main(void)
{
	test_kind("open", test_open, decode_open, false);
	test_kind("execute", test_execute, decode_execute, false);
	test_kind("sets", test_sets, decode_sets, true);
	test_kind("describe", test_describe, decode_describe, false);
	test_kind("fields", test_fields, decode_fields, true);
	test_kind("done", test_done, decode_done, false);
	test_counts();
	return done_testing();
}
