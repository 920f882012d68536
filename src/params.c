/*
 * params.c
 *		The arguments of a call as parameters of a command.
 *
 * What looks the same under all settings travels as text; the rest (numbers,
 * dates, arrays, ranges) in binary format where the type is built in, else as
 * text written so that every server reads it alike.
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "compat.h"
#include "params.h"
#include "transfer.h"

static void
spread_array(FunctionCallInfo fcinfo, int argno, PgmcArguments *args)
{
	ArrayType  *array;
	int16		typlen;
	bool		typbyval;
	char		typalign;
	Oid			elemtype;

	if (PG_ARGISNULL(argno))
		return;
	if (!OidIsValid(get_base_element_type(get_fn_expr_argtype(fcinfo->flinfo, argno))))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("VARIADIC argument must be an array")));
	array = PG_GETARG_ARRAYTYPE_P(argno);
	elemtype = ARR_ELEMTYPE(array);
	get_typlenbyvalalign(elemtype, &typlen, &typbyval, &typalign);
	deconstruct_array(array, elemtype, typlen, typbyval, typalign,
					  &args->values, &args->nulls, &args->n);
	args->types = palloc(Max(args->n, 1) * sizeof(Oid));
	for (int i = 0; i < args->n; i++)
		args->types[i] = elemtype;
}

static void
list_arguments(FunctionCallInfo fcinfo, int first, PgmcArguments *args)
{
	args->n = PG_NARGS() - first;
	args->types = palloc(Max(args->n, 1) * sizeof(Oid));
	args->values = palloc(Max(args->n, 1) * sizeof(Datum));
	args->nulls = palloc(Max(args->n, 1) * sizeof(bool));
	for (int i = 0; i < args->n; i++)
	{
		args->types[i] = get_fn_expr_argtype(fcinfo->flinfo, first + i);
		args->values[i] = PG_GETARG_DATUM(first + i);
		args->nulls[i] = PG_ARGISNULL(first + i);
		if (!OidIsValid(args->types[i]))
			elog(ERROR, "could not determine the type of argument %d", first + i + 1);
	}
}

static bool
is_built_in(Oid type)
{
	return type < FirstGenbkiObjectId;
}

/* Does the text of this type look the same whatever the settings are? */
static bool
is_plain_text(Oid type)
{
	char		category;
	bool		preferred;

	get_type_category_preferred(type, &category, &preferred);
	return category == TYPCATEGORY_STRING || category == TYPCATEGORY_BOOLEAN ||
		category == TYPCATEGORY_UNKNOWN || type == JSONOID || type == JSONBOID ||
		type == XMLOID || type == NAMEOID;
}

static void
write_binary(Oid type, Datum value, PgmcParam *param)
{
	Oid			send;
	bool		isvarlena;
	bytea	   *bytes;

	getTypeBinaryOutputInfo(type, &send, &isvarlena);
	bytes = OidSendFunctionCall(send, value);
	param->format = 1;
	param->value = VARDATA(bytes);
	param->length = VARSIZE(bytes) - VARHDRSZ;
}

static void
write_text(Oid type, Datum value, PgmcParam *param)
{
	Oid			output;
	bool		isvarlena;

	getTypeOutputInfo(type, &output, &isvarlena);
	param->format = 0;
	param->value = OidOutputFunctionCall(output, value);
	param->length = strlen(param->value);
}

static void
write_varlena_text(Datum value, PgmcParam *param)
{
	text	   *t = DatumGetTextPP(value);

	param->format = 0;
	param->value = text_to_cstring(t);
	param->length = VARSIZE_ANY_EXHDR(t);
}

static void
write_portable_text(Oid type, Datum value, PgmcParam *param)
{
	int			nestlevel = pgmc_transfer_begin_writing();

	PG_TRY();
	{
		write_text(type, value, param);
	}
	PG_FINALLY();
	{
		pgmc_transfer_end_settings(nestlevel);
	}
	PG_END_TRY();
}

static void
write_guarded_binary(Oid type, Datum value, PgmcParam *param)
{
	int			saved = pgmc_transfer_begin_encoding();

	PG_TRY();
	{
		write_binary(type, value, param);
	}
	PG_FINALLY();
	{
		pgmc_transfer_end_encoding(saved);
	}
	PG_END_TRY();
}

/* the way in which values of this type are written */
static PgmcWriting
writing_of(Oid type)
{
	if (type == TEXTOID || type == VARCHAROID || type == BPCHAROID)
		return PGMC_WRITE_VARLENA_TEXT;
	if (is_plain_text(type))
		return PGMC_WRITE_TEXT;
	if (is_built_in(type) && !pgmc_transfer_object_name(type) &&
		pgmc_transfer_binary_ok(type, false))
		return PGMC_WRITE_BINARY;
	return PGMC_WRITE_PORTABLE_TEXT;
}

static void
write_value(Oid type, Datum value, PgmcParam *param)
{
	switch (writing_of(type))
	{
		case PGMC_WRITE_VARLENA_TEXT:
			write_varlena_text(value, param);
			break;
		case PGMC_WRITE_TEXT:
			write_text(type, value, param);
			break;
		case PGMC_WRITE_BINARY:
			write_guarded_binary(type, value, param);
			break;
		case PGMC_WRITE_PORTABLE_TEXT:
			write_portable_text(type, value, param);
			break;
	}
}

/* the type that a parameter is said to have */
static Oid
declared_type(Oid type)
{
	return is_built_in(type) && type != UNKNOWNOID ? type : InvalidOid;
}

void
pgmc_params_list(FunctionCallInfo fcinfo, int first, PgmcArguments *args)
{
	memset(args, 0, sizeof(*args));
	if (PG_NARGS() > first && get_fn_expr_variadic(fcinfo->flinfo))
		spread_array(fcinfo, first, args);
	else if (PG_NARGS() > first)
		list_arguments(fcinfo, first, args);

	if (args->n > PG_UINT16_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a command can have at most %d parameters", PG_UINT16_MAX)));
}

void
pgmc_params_collect(FunctionCallInfo fcinfo, int first, PgmcExecute *exec)
{
	PgmcArguments args;

	pgmc_params_list(fcinfo, first, &args);
	exec->nparams = args.n;
	exec->params = palloc0(Max(args.n, 1) * sizeof(PgmcParam));
	for (int i = 0; i < args.n; i++)
	{
		PgmcParam  *param = &exec->params[i];

		param->type = declared_type(args.types[i]);
		if (args.nulls[i])
			param->length = -1;
		else
			write_value(args.types[i], args.values[i], param);
	}
}

/* ---- many values of one type ---- */

void
pgmc_writer_init(PgmcWriter *writer, Oid type, PgmcParam *param)
{
	Oid			function;
	bool		isvarlena;

	writer->writing = writing_of(type);
	if (writer->writing == PGMC_WRITE_BINARY)
		getTypeBinaryOutputInfo(type, &function, &isvarlena);
	else
		getTypeOutputInfo(type, &function, &isvarlena);
	fmgr_info(function, &writer->function);
	param->type = declared_type(type);
	param->format = writer->writing == PGMC_WRITE_BINARY ? 1 : 0;
	param->length = -1;
	param->value = NULL;
}

void
pgmc_writer_append(PgmcWriter *writer, Datum value, StringInfo buf)
{
	bytea	   *bytes;
	text	   *t;
	char	   *str;

	switch (writer->writing)
	{
		case PGMC_WRITE_VARLENA_TEXT:
			t = DatumGetTextPP(value);
			pgmc_wire_set_value(buf, VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t));
			break;
		case PGMC_WRITE_BINARY:
			bytes = SendFunctionCall(&writer->function, value);
			pgmc_wire_set_value(buf, VARDATA(bytes), VARSIZE(bytes) - VARHDRSZ);
			break;
		case PGMC_WRITE_TEXT:
		case PGMC_WRITE_PORTABLE_TEXT:
			str = OutputFunctionCall(&writer->function, value);
			pgmc_wire_set_value(buf, str, strlen(str));
			break;
	}
}

void
pgmc_writers_begin(const PgmcWriter *writers, int n, PgmcWritersState *state)
{
	bool		portable = false;
	bool		binary = false;

	for (int i = 0; i < n; i++)
	{
		portable = portable || writers[i].writing == PGMC_WRITE_PORTABLE_TEXT;
		binary = binary || writers[i].writing == PGMC_WRITE_BINARY;
	}
	state->encoding = binary ? pgmc_transfer_begin_encoding() : -1;
	state->nestlevel = portable ? pgmc_transfer_begin_writing() : -1;
}

void
pgmc_writers_end(const PgmcWritersState *state)
{
	if (state->nestlevel >= 0)
		pgmc_transfer_end_settings(state->nestlevel);
	if (state->encoding >= 0)
		pgmc_transfer_end_encoding(state->encoding);
}
