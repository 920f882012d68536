/*
 * fuzz_wire.c
 *		Any bytes, read as each kind of message: nothing outside of them is
 *		looked at, and what is accepted can be encoded again as it was.
 *
 * For tools/fuzz.
 */
#include "postgres_fe.h"

#include "wire.h"

extern int	LLVMFuzzerTestOneInput(const uint8 *data, size_t size);

/* the same payload again?  Else the decoder has taken what no encoder makes. */
static void
compare(StringInfo buf, const char *data, Size length)
{
	if (buf->len != (int) length + PGMC_FRAME_SIZE ||
		memcmp(buf->data + PGMC_FRAME_SIZE, data, length) != 0)
		abort();
}

static void
try_open(const char *data, Size length, StringInfo buf)
{
	PgmcOpen	open;

	if (pgmc_wire_read_open(data, length, &open))
	{
		pgmc_wire_open(buf, 0, &open);
		compare(buf, data, length);
	}
	pfree(open.keywords);
	pfree(open.values);
}

static void
try_execute(const char *data, Size length, StringInfo buf)
{
	PgmcExecute exec;

	if (pgmc_wire_read_execute(data, length, &exec))
	{
		pgmc_wire_execute_head(buf, 0, 0, &exec);
		for (int i = 0; i < exec.nparams; i++)
			if (exec.params[i].length >= 0)
				appendBinaryStringInfo(buf, exec.params[i].value,
									   exec.params[i].length + 1);
		compare(buf, data, length);
		if (pgmc_wire_execute_size(&exec) != length)
			abort();
	}
	pfree(exec.params);
}

/* The first byte says how many values a set has. */
static void
try_sets(const char *data, Size length, StringInfo buf)
{
	const char *values[255];
	int			lengths[255];
	const char *at;
	const char *end = data + length;
	int			begin;
	int			n;

	if (length == 0)
		return;
	n = (unsigned char) data[0];
	at = ++data;
	begin = pgmc_wire_begin(buf, PGMC_REQUEST_SETS, 0, 0);
	while (at < end && pgmc_wire_read_set(&at, end, n, values, lengths))
		for (int i = 0; i < n; i++)
			if (values[i] == NULL)
				pgmc_wire_set_null(buf);
			else
				pgmc_wire_set_value(buf, values[i], lengths[i]);
	pgmc_wire_end(buf, begin);
	compare(buf, data, at - data);
}

static void
try_describe(const char *data, Size length, StringInfo buf)
{
	PgmcDescribe desc;

	if (pgmc_wire_read_describe(data, length, &desc))
	{
		pgmc_wire_describe(buf, 0, 0, &desc);
		compare(buf, data, length);
	}
	pfree(desc.columns);
}

/* Fields may come in any order, doubly, with unknown ones among them. */
static void
try_fields(const char *data, Size length, StringInfo buf)
{
	PgmcFields	fields;
	PgmcFields	again;
	const char *const *a = (const char *const *) &fields;
	const char *const *b = (const char *const *) &again;

	if (!pgmc_wire_read_fields(data, length, &fields))
		return;
	pgmc_wire_fields(buf, PGMC_REPLY_ERROR, 0, &fields);
	if (!pgmc_wire_read_fields(buf->data + PGMC_FRAME_SIZE,
							   buf->len - PGMC_FRAME_SIZE, &again))
		abort();
	for (Size i = 0; i < sizeof(fields) / sizeof(char *); i++)
		if ((a[i] == NULL) != (b[i] == NULL) ||
			(a[i] != NULL && strcmp(a[i], b[i]) != 0))
			abort();
}

static void
try_done(const char *data, Size length, StringInfo buf)
{
	PgmcDone	done;

	if (!pgmc_wire_read_done(data, length, &done))
		return;
	pgmc_wire_done(buf, 0, 0, &done);
	compare(buf, data, length);
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	static void (*const tries[]) (const char *data, Size length, StringInfo buf) = {
		try_open, try_execute, try_sets, try_describe, try_fields, try_done
	};
	StringInfoData buf;
	char	   *copy;

	if (size == 0)
		return 0;

	/* of its own size, so that the sanitizer sees a read behind its end */
	copy = malloc(size - 1);
	memcpy(copy, data + 1, size - 1);
	initStringInfo(&buf);
	tries[data[0] % lengthof(tries)] (copy, size - 1, &buf);
	pfree(buf.data);
	free(copy);
	return 0;
}
