/*
 * many.c
 *		A command for many sets of parameters, from arrays.
 *
 * The arrays are walked through in step, and sets are written a frame at a
 * time, when the frame before is on its way: so it takes no more memory than
 * the arrays do, however many there are.  What a column's values need to be
 * written is looked up once.
 */
#include "postgres.h"

#include "utils/array.h"
#include "utils/arrayaccess.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "channel.h"
#include "command.h"
#include "many.h"
#include "params.h"
#include "registry.h"

/* a frame of sets isn't begun to be larger than what is copied at a time */
#define FRAME_TARGET	(PGMC_COPY_MAX - 512)

/* the values of one parameter */
typedef struct Column
{
	array_iter	values;
	int			nvalues;
	int16		typlen;
	bool		typbyval;
	char		typalign;
} Column;

typedef struct Many
{
	PgmcSource	source;			/* what send takes it for */
	int			ncolumns;
	Column	   *columns;
	PgmcWriter *writers;
	int			nsets;
	int			at;				/* sets before it are written */
	MemoryContext frame_context;	/* garbage of one frame */
} Many;

/* ---- reading the arrays ---- */

static Oid
element_type(Oid type, int number)
{
	Oid			elemtype = get_base_element_type(type);

	if (!OidIsValid(elemtype))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("parameter %d of pgmc.execute_many() must be an array",
						number),
				 errhint("Each parameter of the command needs an array of its values, of a known type.")));
	return elemtype;
}

/* A NULL array is as good as an empty one. */
static void
open_column(Column *column, Oid elemtype, Datum value, bool isnull)
{
	AnyArrayType *array;

	column->nvalues = 0;
	get_typlenbyvalalign(elemtype, &column->typlen, &column->typbyval,
						 &column->typalign);
	if (isnull)
		return;
	array = DatumGetAnyArrayP(value);
	column->nvalues = ArrayGetNItems(AARR_NDIM(array), AARR_DIMS(array));
	if (column->nvalues > 0)
		array_iter_setup(&column->values, array);
}

static void
open_columns(Many *many, const PgmcArguments *args, PgmcExecute *exec)
{
	many->ncolumns = exec->nparams = args->n;
	many->columns = palloc0(Max(args->n, 1) * sizeof(Column));
	many->writers = palloc0(Max(args->n, 1) * sizeof(PgmcWriter));
	exec->params = palloc0(Max(args->n, 1) * sizeof(PgmcParam));
	for (int i = 0; i < args->n; i++)
	{
		Oid			elemtype = element_type(args->types[i], i + 1);

		open_column(&many->columns[i], elemtype, args->values[i],
					args->nulls[i]);
		pgmc_writer_init(&many->writers[i], elemtype, &exec->params[i]);
		many->nsets = Max(many->nsets, many->columns[i].nvalues);
	}
}

/* ---- writing sets ---- */

static void
append_value(Column *column, PgmcWriter *writer, int at, StringInfo frame)
{
	Datum		value;
	bool		isnull = true;

	if (at < column->nvalues)
		value = array_iter_next(&column->values, &isnull, at, column->typlen,
								column->typbyval, column->typalign);
	if (isnull)
		pgmc_wire_set_null(frame);
	else
		pgmc_writer_append(writer, value, frame);
}

static void
append_sets(Many *many, StringInfo frame)
{
	for (; many->at < many->nsets && frame->len < FRAME_TARGET; many->at++)
		for (int i = 0; i < many->ncolumns; i++)
			append_value(&many->columns[i], &many->writers[i], many->at, frame);
}

static bool
next_sets(PgmcSource *source, StringInfo frame)
{
	Many	   *many = (Many *) source;
	PgmcWritersState state;
	MemoryContext caller = MemoryContextSwitchTo(many->frame_context);

	MemoryContextReset(many->frame_context);
	pgmc_writers_begin(many->writers, many->ncolumns, &state);
	PG_TRY();
	{
		append_sets(many, frame);
	}
	PG_FINALLY();
	{
		pgmc_writers_end(&state);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	return many->at < many->nsets;
}

/* ---- the call ---- */

int64
pgmc_many_execute(FunctionCallInfo fcinfo, int first, PgmcHold *hold,
				  const char *command)
{
	PgmcArguments args;
	PgmcExecute exec = {0};
	PgmcDone	done;
	Many		many = {.source.next = next_sets};

	/* it can't be told apart from the sets behind it */
	if (pgmc_command_is(command, "copy"))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("COPY is not supported by pgmc.execute_many()")));
	exec.session = pgmc_registry_session();
	exec.command = command;
	pgmc_params_list(fcinfo, first, &args);
	open_columns(&many, &args, &exec);
	if (many.nsets == 0)
	{
		pgmc_session_check_usable(hold);
		return 0;
	}
	many.frame_context = AllocSetContextCreate(CurrentMemoryContext,
											   "pgmc parameter sets",
											   ALLOCSET_DEFAULT_SIZES);
	pgmc_session_execute_many(hold, &exec, pgmc_session_exec_flags(hold),
							  &many.source, &done);
	MemoryContextDelete(many.frame_context);
	return done.rows;
}
