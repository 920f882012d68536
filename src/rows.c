/*
 * rows.c
 *		Rows of a loopback command as the result of a set-returning function.
 *
 * A value that comes in binary format is received as the type it has over
 * there; where the caller's column is of another type, it goes on through its
 * text form, as a cast by way of text would.  A value that comes as text is
 * read under the settings it was written under.
 *
 * Which format a command's columns can have is known only after it has been
 * described, which costs a round trip.  The answer is remembered for the
 * command's text.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "command.h"
#include "compat.h"
#include "rows.h"
#include "transfer.h"

/* how one column of the other end becomes one of ours */
typedef struct Column
{
	FmgrInfo	receive;		/* of the type over there */
	bool		direct;			/* read_directly may know a shorter way */
	Oid			receive_param;
	int32		receive_typmod;
	FmgrInfo	output;			/* of the same, where the types differ */
	bool		by_text;
	FmgrInfo	input;			/* of our type */
	Oid			input_param;
	int32		typmod;
} Column;

struct PgmcRows
{
	PgmcSink	sink;			/* first, so that a sink is a PgmcRows */
	ReturnSetInfo *rsinfo;
	TupleDesc	desc;
	Tuplestorestate *store;
	MemoryContext context;		/* of the call */
	MemoryContext row_context;
	bool		own_database;
	bool		binary;
	int			ncolumns;		/* of the last result, -1: none yet */
	int			nestlevel;		/* of the settings that values are read under */
	uint64		command_hash;
	bool		fetches;		/* the command is a FETCH */
	Column	   *columns;
	Datum	   *values;
	bool	   *nulls;
	char	   *buffer;			/* of a row, ROW_BUFFER bytes and one */
};

/* longer rows are read value by value */
#define ROW_BUFFER	(16 * 1024)

/* one such buffer for the next call, NULL while it is in use */
static char *kept_buffer = NULL;

/* ---- the format of a command's rows, as learnt before ---- */

typedef struct KnownFormat
{
	uint64		command_hash;
	int			ncolumns;
	bool		binary;
} KnownFormat;

#define MAX_KNOWN	1024

static HTAB *known_formats = NULL;

static void
forget_formats(void)
{
	if (known_formats != NULL)
		hash_destroy(known_formats);
	known_formats = NULL;
}

/* A table has changed: nobody knows which commands return its columns. */
static void
table_changed(Datum arg, Oid relid)
{
	forget_formats();
}

static void
make_known_formats(void)
{
	static bool registered = false;
	HASHCTL		ctl;

	if (!registered)
		CacheRegisterRelcacheCallback(table_changed, (Datum) 0);
	registered = true;
	ctl.keysize = sizeof(uint64);
	ctl.entrysize = sizeof(KnownFormat);
	known_formats = hash_create("pgmc row formats", 64, &ctl,
								HASH_ELEM | HASH_BLOBS);
}

static void
remember_format(uint64 command_hash, int ncolumns, bool binary)
{
	KnownFormat *known;
	bool		found;

	if (known_formats != NULL &&
		hash_get_num_entries(known_formats) >= MAX_KNOWN)
		forget_formats();
	if (known_formats == NULL)
		make_known_formats();
	known = hash_search(known_formats, &command_hash, HASH_ENTER, &found);
	known->ncolumns = ncolumns;
	known->binary = binary;
}

static uint64
hash_command(const PgmcRows *rows, const PgmcExecute *exec)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) exec->command,
										   strlen(exec->command),
										   rows->own_database);

	for (int i = 0; i < rows->desc->natts; i++)
		hash = hash_combine64(hash, TupleDescAttr(rows->desc, i)->atttypid);
	for (int i = 0; i < exec->nparams; i++)
		hash = hash_combine64(hash, exec->params[i].type);
	return hash;
}

uint8
pgmc_rows_flags(PgmcRows *rows, const PgmcExecute *exec)
{
	KnownFormat *known = NULL;

	rows->fetches = pgmc_command_is(exec->command, "fetch");
	rows->command_hash = hash_command(rows, exec);
	if (known_formats != NULL)
		known = hash_search(known_formats, &rows->command_hash, HASH_FIND, NULL);
	if (known == NULL || known->ncolumns != rows->desc->natts)
		return PGMC_EXEC_ROWS | PGMC_EXEC_ASK;
	return PGMC_EXEC_ROWS | (known->binary ? PGMC_EXEC_BINARY : 0);
}

/* ---- columns ---- */

static void
check_columns(const PgmcRows *rows)
{
	int			wanted = rows->desc->natts;

	if (rows->ncolumns == wanted)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("command returns %d column(s), but the column definition list has %d",
					Max(rows->ncolumns, 0), wanted)));
}

static void
set_up_column(PgmcRows *rows, Column *column, const PgmcColumn *remote,
			  Form_pg_attribute att)
{
	Oid			function;
	bool		isvarlena;
	Oid			sent = remote->type;

	column->typmod = att->atttypmod;
	getTypeInputInfo(att->atttypid, &function, &column->input_param);
	fmgr_info_cxt(function, &column->input, rows->context);
	if (!rows->binary)
		return;

	/* the binary format is the text; a new label may not be known here yet */
	if (sent != att->atttypid && type_is_enum(sent))
		sent = TEXTOID;
	column->by_text = sent != att->atttypid;
	column->receive_typmod = column->by_text ? -1 : att->atttypmod;
	getTypeBinaryInputInfo(sent, &function, &column->receive_param);
	fmgr_info_cxt(function, &column->receive, rows->context);
	column->direct = !column->by_text && column->receive_typmod < 0;
	if (column->by_text)
	{
		getTypeOutputInfo(sent, &function, &isvarlena);
		fmgr_info_cxt(function, &column->output, rows->context);
	}
}

/*
 * Is the text of this type, or of its elements, made of names in a catalog that
 * may not be known here yet?  An enum's label is sent itself.
 */
static bool
needs_names(Oid type)
{
	Oid			element = get_element_type(type);

	return pgmc_transfer_object_name(OidIsValid(element) ? element : type) ||
		(OidIsValid(element) && type_is_enum(element));
}

/* Is it a row type, or of such, which an ALTER TABLE changes? */
static bool
has_rows(Oid type)
{
	Oid			element;

	type = getBaseType(type);
	element = get_element_type(type);
	if (OidIsValid(element))
		type = getBaseType(element);
	return type != RECORDOID && type_is_rowtype(type);
}

static bool
format_lasts(const PgmcDescribe *desc)
{
	for (int i = 0; i < desc->ncolumns; i++)
		if (has_rows(desc->columns[i].type))
			return false;
	return true;
}

static bool
binary_ok(const PgmcRows *rows, const PgmcDescribe *desc)
{
	for (int i = 0; i < desc->ncolumns; i++)
	{
		Oid			type = desc->columns[i].type;

		if (i < rows->desc->natts &&
			TupleDescAttr(rows->desc, i)->atttypid != type &&
			needs_names(type))
			return false;
		if (!pgmc_transfer_binary_ok(type, rows->own_database))
			return false;
	}
	return true;
}

static bool
any_by_text(const PgmcRows *rows)
{
	for (int i = 0; i < rows->desc->natts; i++)
		if (rows->columns[i].by_text)
			return true;
	return false;
}

static void
end_settings(PgmcRows *rows)
{
	if (rows->nestlevel > 0)
		pgmc_transfer_end_settings(rows->nestlevel);
	rows->nestlevel = 0;
}

static uint8
describe(PgmcSink *sink, const PgmcDescribe *desc, uint8 flags)
{
	PgmcRows   *rows = (PgmcRows *) sink;

	rows->ncolumns = desc->ncolumns;

	/* only a cursor that doesn't exist has no columns: the server says so */
	if ((flags & PGMC_DESCRIBE_SEVERAL) == 0 &&
		!(rows->fetches && desc->ncolumns == 0))
		check_columns(rows);
	if (flags & PGMC_DESCRIBE_ASK)
	{
		bool		binary = binary_ok(rows, desc);

		if (format_lasts(desc))
			remember_format(rows->command_hash, desc->ncolumns, binary);
		return binary ? PGMC_EXEC_BINARY : 0;
	}
	rows->binary = (flags & PGMC_DESCRIBE_BINARY) != 0;
	tuplestore_clear(rows->store);	/* of a string's commands, the last counts */
	end_settings(rows);
	if (desc->ncolumns != rows->desc->natts)
		return 0;				/* its rows are skipped */
	for (int i = 0; i < desc->ncolumns; i++)
		set_up_column(rows, &rows->columns[i], &desc->columns[i],
					  TupleDescAttr(rows->desc, i));
	if (!rows->binary)
		rows->nestlevel = pgmc_transfer_begin_reading(desc);
	else if (any_by_text(rows))
		rows->nestlevel = pgmc_transfer_begin_converting();
	return 0;
}

/* ---- values ---- */

static uint32
read_network32(const char *bytes)
{
	uint32		n;

	memcpy(&n, bytes, sizeof(n));
	return pg_ntoh32(n);
}

static uint64
read_network64(const char *bytes)
{
	uint64		n;

	memcpy(&n, bytes, sizeof(n));
	return pg_ntoh64(n);
}

/*
 * What the receive functions of the most frequent types would give.  A large
 * result of such columns takes about a tenth less time by it.  False for all
 * else, and for what they would refuse: they shall say why.
 */
static bool
read_directly(const Column *column, const char *bytes, int32 length, Datum *value)
{
	Oid			function = column->receive.fn_oid;
	Timestamp	moment;

	switch (function)
	{
		case F_INT4RECV:
			if (length != sizeof(int32))
				return false;
			*value = Int32GetDatum((int32) read_network32(bytes));
			return true;
		case F_INT8RECV:
			if (length != sizeof(int64))
				return false;
			*value = Int64GetDatum((int64) read_network64(bytes));
			return true;
		case F_TIMESTAMP_RECV:
		case F_TIMESTAMPTZ_RECV:
			if (length != sizeof(int64))
				return false;
			moment = (Timestamp) read_network64(bytes);
			if (!TIMESTAMP_NOT_FINITE(moment) && !IS_VALID_TIMESTAMP(moment))
				return false;
			*value = TimestampGetDatum(moment);
			return true;
		case F_TEXTRECV:
			if (pg_get_client_encoding() != GetDatabaseEncoding() ||
				!pg_verifymbstr(bytes, length, true))
				return false;
			*value = PointerGetDatum(cstring_to_text_with_len(bytes, length));
			return true;
		default:
			return false;
	}
}

static Datum
read_binary(Column *column, char *bytes, int32 length)
{
	StringInfoData buf;
	Datum		value;

	if (column->direct && read_directly(column, bytes, length, &value))
		return value;
	buf.data = bytes;
	buf.len = length;
	buf.maxlen = length + 1;
	buf.cursor = 0;
	value = ReceiveFunctionCall(&column->receive, &buf, column->receive_param,
								column->receive_typmod);
	if (buf.cursor != length)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
				 errmsg("incorrect binary data format of a result column")));
	if (!column->by_text)
		return value;
	return InputFunctionCall(&column->input,
							 OutputFunctionCall(&column->output, value),
							 column->input_param, column->typmod);
}

static Datum
read_text(Column *column, char *str, int32 length)
{
	pg_verifymbstr(str, length, false);
	return InputFunctionCall(&column->input, str, column->input_param,
							 column->typmod);
}

/* bytes must have room for one more behind the value */
static void
set_value(PgmcRows *rows, int i, char *bytes, int32 length)
{
	Column	   *column = &rows->columns[i];

	rows->nulls[i] = length < 0;
	if (length < 0)
	{
		/* a domain may object */
		rows->values[i] = InputFunctionCall(&column->input, NULL,
											column->input_param, column->typmod);
		return;
	}
	/* cppcheck-suppress nullPointer ; without a value its length is -1 */
	bytes[length] = '\0';
	rows->values[i] = rows->binary ? read_binary(column, bytes, length) :
		read_text(column, bytes, length);
}

/* A row that fits into the buffer: as one piece, its values stay in there. */
static void
read_small_row(PgmcRows *rows, PgmcReader *reader, uint32 size)
{
	char	   *at = rows->buffer;
	char	   *end = at + size;
	int32		length;

	pgmc_reader_take(reader, at, size);
	memcpy(&length, at, sizeof(length));
	for (int i = 0; i < rows->desc->natts; i++)
	{
		char	   *bytes = at + sizeof(length);
		int32		next = 0;

		if (bytes + Max(length, 0) > end)
			elog(ERROR, "row of pgmc is shorter than its header says");
		at = bytes + Max(length, 0);

		/* the value's zero byte goes where the next length is */
		if (at + sizeof(next) <= end)
			memcpy(&next, at, sizeof(next));
		set_value(rows, i, bytes, length);
		length = next;
	}
}

static void
read_row(PgmcRows *rows, PgmcReader *reader, uint32 size)
{
	if (rows->desc->natts == 0)
		return;
	if (size <= ROW_BUFFER)
	{
		read_small_row(rows, reader, size);
		return;
	}
	for (int i = 0; i < rows->desc->natts; i++)
	{
		char	   *bytes = NULL;
		int32		length;

		pgmc_reader_take(reader, &length, sizeof(length));
		if (length >= 0)
		{
			bytes = palloc((Size) length + 1);
			pgmc_reader_take(reader, bytes, length);
		}
		set_value(rows, i, bytes, length);
	}
}

static void
take_row(PgmcSink *sink, PgmcReader *reader, uint32 length)
{
	PgmcRows   *rows = (PgmcRows *) sink;
	MemoryContext caller;

	if (rows->ncolumns != rows->desc->natts)
		return;
	caller = MemoryContextSwitchTo(rows->row_context);
	if (rows->binary && pg_get_client_encoding() != GetDatabaseEncoding())
	{
		int			saved = pgmc_transfer_begin_encoding();

		PG_TRY();
		{
			read_row(rows, reader, length);
		}
		PG_FINALLY();
		{
			pgmc_transfer_end_encoding(saved);
		}
		PG_END_TRY();
	}
	else
		read_row(rows, reader, length);
	tuplestore_putvalues(rows->store, rows->desc, rows->values, rows->nulls);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(rows->row_context);
}

static void
end_rows(PgmcSink *sink)
{
	check_columns((PgmcRows *) sink);
}

/* ---- the call's result ---- */

/* Calls can be nested: what converts a value may call pgmc. */
static char *
take_buffer(void)
{
	char	   *buffer = kept_buffer;

	kept_buffer = NULL;
	return buffer != NULL ? buffer :
		MemoryContextAlloc(TopMemoryContext, ROW_BUFFER + 1);
}

static void
give_buffer_back(char *buffer)
{
	if (kept_buffer != NULL)
		pfree(buffer);
	else
		kept_buffer = buffer;
}

static TupleDesc
expected_columns(FunctionCallInfo fcinfo)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	if (rsinfo == NULL || !IsA(rsinfo, ReturnSetInfo) ||
		(rsinfo->allowedModes & SFRM_Materialize) == 0 ||
		rsinfo->expectedDesc == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("function returning record called in context that cannot accept type record"),
				 errhint("Call it in FROM, with a column definition list: FROM pgmc.query('...') AS t(id int, at timestamptz).")));
	return rsinfo->expectedDesc;
}

void
pgmc_rows_check(FunctionCallInfo fcinfo)
{
	(void) expected_columns(fcinfo);
}

PgmcRows *
pgmc_rows_begin(FunctionCallInfo fcinfo, bool own_database)
{
	TupleDesc	expected = expected_columns(fcinfo);
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	PgmcRows   *rows;
	MemoryContext caller;

	/* the result outlives this call's own memory */
	caller = MemoryContextSwitchTo(rsinfo->econtext->ecxt_per_query_memory);
	rows = palloc0(sizeof(PgmcRows));
	rows->desc = CreateTupleDescCopy(expected);
	rows->store = tuplestore_begin_heap((rsinfo->allowedModes & SFRM_Materialize_Random) != 0,
										false, work_mem);
	MemoryContextSwitchTo(caller);

	rows->sink.describe = describe;
	rows->sink.row = take_row;
	rows->sink.end = end_rows;
	rows->rsinfo = rsinfo;
	rows->own_database = own_database;
	rows->ncolumns = -1;
	rows->context = CurrentMemoryContext;
	rows->row_context = AllocSetContextCreate(CurrentMemoryContext, "pgmc row",
											  ALLOCSET_DEFAULT_SIZES);
	rows->columns = palloc0(Max(rows->desc->natts, 1) * sizeof(Column));
	rows->values = palloc0(Max(rows->desc->natts, 1) * sizeof(Datum));
	rows->nulls = palloc0(Max(rows->desc->natts, 1) * sizeof(bool));
	rsinfo->returnMode = SFRM_Materialize;
	rsinfo->setResult = rows->store;
	rsinfo->setDesc = rows->desc;
	rows->buffer = take_buffer();
	return rows;
}

PgmcSink *
pgmc_rows_sink(PgmcRows *rows)
{
	return &rows->sink;
}

void
pgmc_rows_clean_up(PgmcRows *rows)
{
	end_settings(rows);
	give_buffer_back(rows->buffer);
	MemoryContextDelete(rows->row_context);
}
