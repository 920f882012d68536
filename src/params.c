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

/* the arguments as they come, whichever way they are written */
typedef struct Arguments
{
	int			n;
	Oid		   *types;
	Datum	   *values;
	bool	   *nulls;
} Arguments;

static void
spread_array(FunctionCallInfo fcinfo, int argno, Arguments *args)
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
list_arguments(FunctionCallInfo fcinfo, int first, Arguments *args)
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

/* names of database objects, whose number may be another one at the other end */
static bool
is_object_name(Oid type)
{
	switch (type)
	{
		case REGPROCOID:
		case REGPROCEDUREOID:
		case REGOPEROID:
		case REGOPERATOROID:
		case REGCLASSOID:
		case REGCOLLATIONOID:
		case REGTYPEOID:
		case REGROLEOID:
		case REGNAMESPACEOID:
		case REGCONFIGOID:
		case REGDICTIONARYOID:
			return true;
		default:
			return false;
	}
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

static void
write_value(Oid type, Datum value, PgmcParam *param)
{
	if (type == TEXTOID || type == VARCHAROID || type == BPCHAROID)
		write_varlena_text(value, param);
	else if (is_plain_text(type))
		write_text(type, value, param);
	else if (is_built_in(type) && !is_object_name(type) &&
			 pgmc_transfer_binary_ok(type, false))
		write_guarded_binary(type, value, param);
	else
		write_portable_text(type, value, param);
}

void
pgmc_params_collect(FunctionCallInfo fcinfo, int first, PgmcExecute *exec)
{
	Arguments	args = {0};

	if (PG_NARGS() > first && get_fn_expr_variadic(fcinfo->flinfo))
		spread_array(fcinfo, first, &args);
	else if (PG_NARGS() > first)
		list_arguments(fcinfo, first, &args);

	if (args.n > PG_UINT16_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a command can have at most %d parameters", PG_UINT16_MAX)));
	exec->nparams = args.n;
	exec->params = palloc0(Max(args.n, 1) * sizeof(PgmcParam));
	for (int i = 0; i < args.n; i++)
	{
		Oid			type = args.types[i];
		PgmcParam  *param = &exec->params[i];

		param->type = is_built_in(type) && type != UNKNOWNOID ? type : InvalidOid;
		if (args.nulls[i])
			param->length = -1;
		else
			write_value(type, args.values[i], param);
	}
}
