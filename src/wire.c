/*
 * wire.c
 *		The messages between the holder of a connection and the worker.
 *
 * Integers are copied byte by byte (memcpy), so nothing needs to be aligned.
 * Strings end with a zero byte; a NULL string of PgmcFields is left out.
 */
#ifdef PGMC_UNIT
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include "wire.h"

/* where a decoder is; bad is set for good by the first read that doesn't fit */
typedef struct Cursor
{
	const char *at;
	const char *end;
	bool		bad;
} Cursor;

/* the fields of an error: each letter stands in the frame before its string */
typedef struct FieldName
{
	char		letter;
	size_t		offset;
} FieldName;

#define FIELD(letter, member)	{letter, offsetof(PgmcFields, member)}

static const FieldName field_names[] = {
	FIELD('V', severity),
	FIELD('C', sqlstate),
	FIELD('M', message),
	FIELD('D', detail),
	FIELD('H', hint),
	FIELD('W', context),
	FIELD('P', position),
	FIELD('p', internal_position),
	FIELD('q', internal_query),
	FIELD('s', schema),
	FIELD('t', table),
	FIELD('c', column),
	FIELD('d', datatype),
	FIELD('n', constraint),
};

/* ---- encoding ---- */

static void
put_bytes(StringInfo buf, const void *src, Size length)
{
	appendBinaryStringInfo(buf, src, (int) length);
}

static void
put_int32(StringInfo buf, int32 value)
{
	put_bytes(buf, &value, sizeof(value));
}

static void
put_uint64(StringInfo buf, uint64 value)
{
	put_bytes(buf, &value, sizeof(value));
}

static void
put_string(StringInfo buf, const char *str)
{
	put_bytes(buf, str, strlen(str) + 1);
}

void
pgmc_wire_header(char *dst, uint8 type, uint8 flags, uint16 seq, uint32 length)
{
	memcpy(dst, &length, 4);
	dst[4] = (char) type;
	dst[5] = (char) flags;
	memcpy(dst + 6, &seq, 2);
}

int
pgmc_wire_begin(StringInfo buf, uint8 type, uint8 flags, uint16 seq)
{
	int			begin = buf->len;
	char		header[PGMC_FRAME_SIZE];

	pgmc_wire_header(header, type, flags, seq, 0);
	put_bytes(buf, header, sizeof(header));
	return begin;
}

void
pgmc_wire_end(StringInfo buf, int begin)
{
	uint32		length = (uint32) (buf->len - begin - PGMC_FRAME_SIZE);

	memcpy(buf->data + begin, &length, 4);
}

void
pgmc_wire_open(StringInfo buf, uint16 seq, const PgmcOpen *open)
{
	int			begin = pgmc_wire_begin(buf, PGMC_REQUEST_OPEN, 0, seq);

	put_uint64(buf, open->session);
	put_uint64(buf, open->options_hash);
	put_int32(buf, open->connect_timeout);
	put_int32(buf, open->idle_timeout);
	put_int32(buf, open->max_lifetime);
	put_int32(buf, open->npairs);
	put_string(buf, open->reset_query);
	for (int i = 0; i < open->npairs; i++)
	{
		put_string(buf, open->keywords[i]);
		put_string(buf, open->values[i]);
	}
	pgmc_wire_end(buf, begin);
}

/* payload of an execute frame; the values' bytes included */
Size
pgmc_wire_execute_size(const PgmcExecute *exec)
{
	Size		size = 8 + 4 + strlen(exec->command) + 1;

	for (int i = 0; i < exec->nparams; i++)
		size += 12 + (exec->params[i].length < 0 ? 0 :
					  (Size) exec->params[i].length + 1);
	return size;
}

/*
 * All of an execute frame but the values: the caller sends those behind it, in
 * order, each that isn't NULL with one zero byte at its end.
 */
void
pgmc_wire_execute_head(StringInfo buf, uint8 flags, uint16 seq,
					   const PgmcExecute *exec)
{
	char		header[PGMC_FRAME_SIZE];

	pgmc_wire_header(header, PGMC_REQUEST_EXECUTE, flags, seq,
					 (uint32) pgmc_wire_execute_size(exec));
	put_bytes(buf, header, sizeof(header));
	put_uint64(buf, exec->session);
	put_int32(buf, exec->nparams);
	for (int i = 0; i < exec->nparams; i++)
	{
		put_int32(buf, (int32) exec->params[i].type);
		put_int32(buf, exec->params[i].length);
		put_int32(buf, exec->params[i].format);
	}
	put_string(buf, exec->command);
}

void
pgmc_wire_set_null(StringInfo buf)
{
	put_int32(buf, -1);
}

/* One piece of room for all three parts: this is done for each value of many. */
void
pgmc_wire_set_value(StringInfo buf, const char *value, int length)
{
	enlargeStringInfo(buf, length + 5);
	memcpy(buf->data + buf->len, &length, 4);
	memcpy(buf->data + buf->len + 4, value, length);
	buf->len += length + 4;
	buf->data[buf->len++] = '\0';
}

void
pgmc_wire_describe(StringInfo buf, uint8 flags, uint16 seq,
				   const PgmcDescribe *desc)
{
	int			begin = pgmc_wire_begin(buf, PGMC_REPLY_DESCRIBE, flags, seq);

	put_int32(buf, desc->ncolumns);
	for (int i = 0; i < desc->ncolumns; i++)
	{
		put_int32(buf, (int32) desc->columns[i].type);
		put_int32(buf, desc->columns[i].typmod);
	}
	put_string(buf, desc->datestyle);
	put_string(buf, desc->intervalstyle);
	put_string(buf, desc->timezone);
	pgmc_wire_end(buf, begin);
}

void
pgmc_wire_fields(StringInfo buf, uint8 type, uint16 seq,
				 const PgmcFields *fields)
{
	int			begin = pgmc_wire_begin(buf, type, 0, seq);

	for (Size i = 0; i < lengthof(field_names); i++)
	{
		const char *value = *(const char *const *)
		((const char *) fields + field_names[i].offset);

		if (value == NULL)
			continue;
		put_bytes(buf, &field_names[i].letter, 1);
		put_string(buf, value);
	}
	pgmc_wire_end(buf, begin);
}

void
pgmc_wire_done(StringInfo buf, uint8 flags, uint16 seq, const PgmcDone *done)
{
	int			begin = pgmc_wire_begin(buf, PGMC_REPLY_DONE, flags, seq);

	put_int32(buf, done->xact_status);
	put_uint64(buf, (uint64) done->rows);
	pgmc_wire_end(buf, begin);
}

/* ---- decoding ---- */

static void
get_bytes(Cursor *c, void *dst, Size length)
{
	if (c->bad || (Size) (c->end - c->at) < length)
	{
		c->bad = true;
		memset(dst, 0, length);
		return;
	}
	memcpy(dst, c->at, length);
	c->at += length;
}

static int32
get_int32(Cursor *c)
{
	int32		value;

	get_bytes(c, &value, sizeof(value));
	return value;
}

static uint64
get_uint64(Cursor *c)
{
	uint64		value;

	get_bytes(c, &value, sizeof(value));
	return value;
}

static const char *
get_string(Cursor *c)
{
	const char *str = c->at;
	const char *zero;

	if (c->bad)
		return "";
	zero = memchr(c->at, '\0', c->end - c->at);
	if (zero == NULL)
	{
		c->bad = true;
		return "";
	}
	c->at = zero + 1;
	return str;
}

/* a count of things of at least size bytes each that must still be there */
static int32
get_count(Cursor *c, Size size)
{
	int32		count = get_int32(c);

	if (count < 0 || (Size) count > (Size) (c->end - c->at) / size)
	{
		c->bad = true;
		return 0;
	}
	return count;
}

static bool
at_end(Cursor *c)
{
	return !c->bad && c->at == c->end;
}

void
pgmc_wire_read_header(const char *src, PgmcFrame *frame)
{
	memcpy(&frame->length, src, 4);
	frame->type = (uint8) src[4];
	frame->flags = (uint8) src[5];
	memcpy(&frame->seq, src + 6, 2);
}

bool
pgmc_wire_read_open(const char *data, Size length, PgmcOpen *open)
{
	Cursor		c = {data, data + length, false};

	open->session = get_uint64(&c);
	open->options_hash = get_uint64(&c);
	open->connect_timeout = get_int32(&c);
	open->idle_timeout = get_int32(&c);
	open->max_lifetime = get_int32(&c);
	open->npairs = get_count(&c, 2);
	open->reset_query = get_string(&c);
	open->keywords = palloc0((open->npairs + 1) * sizeof(char *));
	open->values = palloc0((open->npairs + 1) * sizeof(char *));
	for (int i = 0; i < open->npairs; i++)
	{
		open->keywords[i] = get_string(&c);
		open->values[i] = get_string(&c);
	}
	return at_end(&c);
}

bool
pgmc_wire_read_execute(const char *data, Size length, PgmcExecute *exec)
{
	Cursor		c = {data, data + length, false};

	exec->session = get_uint64(&c);
	exec->nparams = get_count(&c, 12);
	exec->params = palloc0((exec->nparams + 1) * sizeof(PgmcParam));
	for (int i = 0; i < exec->nparams; i++)
	{
		exec->params[i].type = (Oid) get_int32(&c);
		exec->params[i].length = get_int32(&c);
		exec->params[i].format = get_int32(&c);
	}
	exec->command = get_string(&c);
	for (int i = 0; i < exec->nparams && !c.bad; i++)
	{
		PgmcParam  *param = &exec->params[i];

		if (param->length < 0)
			continue;
		if ((Size) (c.end - c.at) <= (Size) param->length ||
			c.at[param->length] != '\0')
			return false;
		param->value = c.at;
		c.at += (Size) param->length + 1;
	}
	return at_end(&c);
}

bool
pgmc_wire_read_set(const char **at, const char *end, int n,
				   const char **values, int *lengths)
{
	const char *p = *at;

	for (int i = 0; i < n; i++)
	{
		int32		length;

		if (end - p < (ptrdiff_t) sizeof(length))
			return false;
		memcpy(&length, p, sizeof(length));
		p += sizeof(length);
		values[i] = NULL;
		lengths[i] = 0;
		if (length == -1)
			continue;
		if (length < 0 || end - p <= (ptrdiff_t) length || p[length] != '\0')
			return false;
		values[i] = p;
		lengths[i] = length;
		p += (Size) length + 1;
	}
	if (p == *at)
		return false;			/* sets of nothing would have no end */
	*at = p;
	return true;
}

bool
pgmc_wire_read_describe(const char *data, Size length, PgmcDescribe *desc)
{
	Cursor		c = {data, data + length, false};

	desc->ncolumns = get_count(&c, 8);
	desc->columns = palloc0((desc->ncolumns + 1) * sizeof(PgmcColumn));
	for (int i = 0; i < desc->ncolumns; i++)
	{
		desc->columns[i].type = (Oid) get_int32(&c);
		desc->columns[i].typmod = get_int32(&c);
	}
	desc->datestyle = get_string(&c);
	desc->intervalstyle = get_string(&c);
	desc->timezone = get_string(&c);
	return at_end(&c);
}

bool
pgmc_wire_read_fields(const char *data, Size length, PgmcFields *fields)
{
	Cursor		c = {data, data + length, false};

	memset(fields, 0, sizeof(*fields));
	while (!c.bad && c.at < c.end)
	{
		char		letter = *c.at++;
		const char *value = get_string(&c);

		for (Size i = 0; i < lengthof(field_names); i++)
			if (field_names[i].letter == letter && !c.bad)
				*(const char **) ((char *) fields + field_names[i].offset) = value;
	}
	return at_end(&c);
}

bool
pgmc_wire_read_done(const char *data, Size length, PgmcDone *done)
{
	Cursor		c = {data, data + length, false};

	done->xact_status = get_int32(&c);
	done->rows = (int64) get_uint64(&c);
	return at_end(&c);
}
