/*
 * sqlfuncs.c
 *		The functions that SQL calls: they check arguments and rights, and call
 *		the modules that do the work.
 */
#include "postgres.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "acquire.h"
#include "compat.h"
#include "launch.h"
#include "many.h"
#include "params.h"
#include "registry.h"
#include "rows.h"
#include "session.h"
#include "settings.h"

PG_FUNCTION_INFO_V1(pgmc_acquire);
PG_FUNCTION_INFO_V1(pgmc_acquire_xact);
PG_FUNCTION_INFO_V1(pgmc_try_acquire);
PG_FUNCTION_INFO_V1(pgmc_try_acquire_xact);
PG_FUNCTION_INFO_V1(pgmc_release);
PG_FUNCTION_INFO_V1(pgmc_release_all);
PG_FUNCTION_INFO_V1(pgmc_execute);
PG_FUNCTION_INFO_V1(pgmc_execute_on);
PG_FUNCTION_INFO_V1(pgmc_execute_many);
PG_FUNCTION_INFO_V1(pgmc_query);
PG_FUNCTION_INFO_V1(pgmc_query_on);
PG_FUNCTION_INFO_V1(pgmc_commit);
PG_FUNCTION_INFO_V1(pgmc_rollback);
PG_FUNCTION_INFO_V1(pgmc_set_autocommit);
PG_FUNCTION_INFO_V1(pgmc_autonomous);
PG_FUNCTION_INFO_V1(pgmc_autonomous_on);
PG_FUNCTION_INFO_V1(pgmc_autonomous_query);
PG_FUNCTION_INFO_V1(pgmc_autonomous_query_on);
PG_FUNCTION_INFO_V1(pgmc_run);
PG_FUNCTION_INFO_V1(pgmc_transaction_status);
PG_FUNCTION_INFO_V1(pgmc_is_closed);
PG_FUNCTION_INFO_V1(pgmc_describe);
PG_FUNCTION_INFO_V1(pgmc_close);
PG_FUNCTION_INFO_V1(pgmc_stop_worker);

/* ---- arguments and circumstances ---- */

/*
 * Where nothing of pgmc may be called: index expressions and the like run with
 * somebody else's rights, and a parallel worker's session is not its own.
 */
static void
check_circumstances(void)
{
	if (IsParallelWorker() || IsInParallelMode())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("functions of pgmc cannot be called during a parallel operation")));
	pgmc_session_check_unrestricted();
}

/* the server argument, NULL where there is none */
static const char *
server_argument(FunctionCallInfo fcinfo, int argno)
{
	return argno >= PG_NARGS() || PG_ARGISNULL(argno) ? NULL :
		NameStr(*PG_GETARG_NAME(argno));
}

static const PgmcServer *
resolve_or_default(const char *name)
{
	return pgmc_server_resolve(name != NULL ? name : pgmc_default_server);
}

static void
check_command(FunctionCallInfo fcinfo, int argno)
{
	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("command must not be null")));
}

static const char *
command_argument(FunctionCallInfo fcinfo, int argno)
{
	check_command(fcinfo, argno);
	return text_to_cstring(PG_GETARG_TEXT_PP(argno));
}

/* a time-out in milliseconds; 0: none */
static int64
timeout_argument(FunctionCallInfo fcinfo, int argno)
{
	Interval   *interval;
	int64		usecs;
	double		days;

	if (argno >= PG_NARGS() || PG_ARGISNULL(argno))
		return 0;
	interval = PG_GETARG_INTERVAL_P(argno);
	days = interval->month * (double) DAYS_PER_MONTH + interval->day;
	if (days * USECS_PER_DAY + interval->time < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout must not be negative")));
	if (days > INT_MAX / (double) SECS_PER_DAY / 1000 * 1000)
		return 0;				/* longer than anybody lives to see */
	usecs = (int64) (days * USECS_PER_DAY) + interval->time;

	/* what isn't none shall not become none by rounding */
	return usecs == 0 ? 0 : Max(usecs / 1000, 1);
}

static void
fill_execute(FunctionCallInfo fcinfo, int command_argno, PgmcExecute *exec)
{
	memset(exec, 0, sizeof(*exec));
	exec->session = pgmc_registry_session();
	exec->command = command_argument(fcinfo, command_argno);
	pgmc_params_collect(fcinfo, command_argno + 1, exec);
	if (pgmc_wire_execute_size(exec) > MaxAllocSize)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("command and parameters exceed %zu bytes",
						(size_t) MaxAllocSize)));
}

/* ---- acquiring and releasing ---- */

static void
check_session_holds(PgmcScope scope)
{
	if (scope == PGMC_SCOPE_SESSION && !pgmc_session_holds)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("holds that last over transactions are switched off"),
				 errdetail("Setting \"pgmc.session_holds\" is off."),
				 errhint("Use pgmc.acquire_xact() or pgmc.autonomous().")));
}

static bool
acquire(FunctionCallInfo fcinfo, PgmcScope scope, bool try)
{
	const char *server = server_argument(fcinfo, 0);
	int64		timeout = try ? 0 : timeout_argument(fcinfo, 1);

	check_circumstances();
	check_session_holds(scope);
	return pgmc_acquire_hold(resolve_or_default(server), scope, try,
							 timeout) != NULL;
}

Datum
pgmc_acquire(PG_FUNCTION_ARGS)
{
	(void) acquire(fcinfo, PGMC_SCOPE_SESSION, false);
	PG_RETURN_VOID();
}

Datum
pgmc_acquire_xact(PG_FUNCTION_ARGS)
{
	(void) acquire(fcinfo, PGMC_SCOPE_XACT, false);
	PG_RETURN_VOID();
}

Datum
pgmc_try_acquire(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(acquire(fcinfo, PGMC_SCOPE_SESSION, true));
}

Datum
pgmc_try_acquire_xact(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(acquire(fcinfo, PGMC_SCOPE_XACT, true));
}

Datum
pgmc_release(PG_FUNCTION_ARGS)
{
	bool		close = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);

	check_circumstances();
	pgmc_session_release(pgmc_session_hold_to_release(server_argument(fcinfo, 0)),
						 close);
	PG_RETURN_VOID();
}

Datum
pgmc_release_all(PG_FUNCTION_ARGS)
{
	pgmc_session_check_unrestricted();
	PG_RETURN_INT32(pgmc_session_release_all());
}

/* ---- running commands in a hold ---- */

static Datum
execute(FunctionCallInfo fcinfo, const char *server, int command_argno)
{
	PgmcHold   *hold;
	PgmcExecute exec;
	PgmcDone	done;

	check_circumstances();
	check_command(fcinfo, command_argno);
	hold = pgmc_session_hold(server);
	fill_execute(fcinfo, command_argno, &exec);
	pgmc_session_execute(hold, &exec, pgmc_session_exec_flags(hold), NULL, &done);
	PG_RETURN_INT64(done.rows);
}

Datum
pgmc_execute(PG_FUNCTION_ARGS)
{
	return execute(fcinfo, NULL, 0);
}

Datum
pgmc_execute_on(PG_FUNCTION_ARGS)
{
	return execute(fcinfo, server_argument(fcinfo, 0), 1);
}

Datum
pgmc_execute_many(PG_FUNCTION_ARGS)
{
	PgmcHold   *hold;

	check_circumstances();
	check_command(fcinfo, 0);
	hold = pgmc_session_hold(NULL);
	PG_RETURN_INT64(pgmc_many_execute(fcinfo, 1, hold, command_argument(fcinfo, 0)));
}

/* Run a command for its rows, which become the result of the call. */
static void
fetch_rows(FunctionCallInfo fcinfo, PgmcHold *hold, const PgmcExecute *exec,
		   uint8 flags)
{
	PgmcRows   *rows = pgmc_rows_begin(fcinfo, pgmc_hold_own_database(hold));
	PgmcDone	done;

	PG_TRY();
	{
		flags |= pgmc_rows_flags(rows, exec);
		pgmc_session_execute(hold, exec, flags, pgmc_rows_sink(rows), &done);
	}
	PG_FINALLY();
	{
		pgmc_rows_clean_up(rows);
	}
	PG_END_TRY();
}

static Datum
query(FunctionCallInfo fcinfo, const char *server, int command_argno)
{
	PgmcHold   *hold;
	PgmcExecute exec;

	check_circumstances();
	check_command(fcinfo, command_argno);
	pgmc_rows_check(fcinfo);
	hold = pgmc_session_hold(server);
	fill_execute(fcinfo, command_argno, &exec);
	fetch_rows(fcinfo, hold, &exec, pgmc_session_exec_flags(hold));
	return (Datum) 0;
}

Datum
pgmc_query(PG_FUNCTION_ARGS)
{
	return query(fcinfo, NULL, 0);
}

Datum
pgmc_query_on(PG_FUNCTION_ARGS)
{
	return query(fcinfo, server_argument(fcinfo, 0), 1);
}

Datum
pgmc_commit(PG_FUNCTION_ARGS)
{
	check_circumstances();
	pgmc_session_commit(pgmc_session_hold(server_argument(fcinfo, 0)));
	PG_RETURN_VOID();
}

Datum
pgmc_rollback(PG_FUNCTION_ARGS)
{
	check_circumstances();
	pgmc_session_rollback(pgmc_session_hold(server_argument(fcinfo, 0)));
	PG_RETURN_VOID();
}

Datum
pgmc_set_autocommit(PG_FUNCTION_ARGS)
{
	check_circumstances();
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("enabled must not be null")));
	pgmc_session_set_autocommit(pgmc_session_hold(server_argument(fcinfo, 1)),
								PG_GETARG_BOOL(0));
	PG_RETURN_VOID();
}

/* ---- whole blocks in one call ---- */

/*
 * Acquire, run as a transaction of its own, release.  With rows, they become
 * the call's result.
 */
static int64
run_block(FunctionCallInfo fcinfo, const PgmcServer *server,
		  const PgmcExecute *exec, bool rows)
{
	PgmcHold   *hold = rows ?
	pgmc_acquire_hold(server, PGMC_SCOPE_CALL, false, 0) :
	pgmc_acquire_for_call(server, exec, PGMC_EXEC_AUTONOMOUS);
	PgmcDone	done = {0};

	PG_TRY();
	{
		if (rows)
			fetch_rows(fcinfo, hold, exec, PGMC_EXEC_AUTONOMOUS);
		else
			pgmc_session_execute(hold, exec, PGMC_EXEC_AUTONOMOUS, NULL, &done);
	}
	PG_CATCH();
	{
		pgmc_session_end_call(hold, true);
		PG_RE_THROW();
	}
	PG_END_TRY();
	pgmc_session_end_call(hold, false);
	return done.rows;
}

static Datum
autonomous(FunctionCallInfo fcinfo, const char *server, int command_argno,
		   bool rows)
{
	const PgmcServer *resolved;
	PgmcExecute exec;

	check_circumstances();
	check_command(fcinfo, command_argno);
	if (rows)
		pgmc_rows_check(fcinfo);
	pgmc_registry_attach();
	fill_execute(fcinfo, command_argno, &exec);
	resolved = resolve_or_default(server);
	if (rows)
	{
		(void) run_block(fcinfo, resolved, &exec, true);
		return (Datum) 0;
	}
	PG_RETURN_INT64(run_block(fcinfo, resolved, &exec, false));
}

Datum
pgmc_autonomous(PG_FUNCTION_ARGS)
{
	return autonomous(fcinfo, NULL, 0, false);
}

Datum
pgmc_autonomous_on(PG_FUNCTION_ARGS)
{
	return autonomous(fcinfo, server_argument(fcinfo, 0), 1, false);
}

Datum
pgmc_autonomous_query(PG_FUNCTION_ARGS)
{
	return autonomous(fcinfo, NULL, 0, true);
}

Datum
pgmc_autonomous_query_on(PG_FUNCTION_ARGS)
{
	return autonomous(fcinfo, server_argument(fcinfo, 0), 1, true);
}

/*
 * CALL run(): everything is looked up first, then the caller's transaction is
 * committed, and the new one that the server begins waits with no snapshot, so
 * that commands which wait for older ones don't wait for this session.
 */
Datum
pgmc_run(PG_FUNCTION_ARGS)
{
	CallContext *context = (CallContext *) fcinfo->context;
	const PgmcServer *server;
	PgmcExecute exec;

	check_circumstances();
	if (context == NULL || !IsA(context, CallContext) || context->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("pgmc.run() cannot be called inside a transaction block"),
				 errdetail("It commits the transaction of its caller before it runs the command.")));

	pgmc_registry_attach();
	memset(&exec, 0, sizeof(exec));
	exec.session = pgmc_registry_session();
	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	exec.command = command_argument(fcinfo, 0); /* in memory that outlives a
												 * commit */
	server = resolve_or_default(server_argument(fcinfo, 1));
	SPI_commit();
	(void) run_block(fcinfo, server, &exec, false);
	SPI_finish();
	PG_RETURN_VOID();
}

/* ---- looking, without a hold ---- */

static PgmcXactStatus
status_of_key(const PgmcKey *key)
{
	PgmcSlot	slot;
	int			i = pgmc_registry_find(key, &slot);

	if (i >= 0 && slot.recovery != 0)
	{
		(void) pgmc_session_await_recovery(i, slot.recovery);
		i = pgmc_registry_find(key, &slot);
	}
	return i >= 0 && slot.open ? slot.xact_status : PGMC_XACT_CLOSED;
}

static PgmcXactStatus
status_of_server(const PgmcServer *server)
{
	PgmcHold   *hold;

	pgmc_registry_attach();
	hold = pgmc_session_find(server);
	return hold != NULL ? pgmc_session_status(hold) : status_of_key(&server->key);
}

Datum
pgmc_transaction_status(PG_FUNCTION_ARGS)
{
	const char *name = server_argument(fcinfo, 0);
	const char *status;

	check_circumstances();
	if (name == NULL && pgmc_session_innermost() != NULL)
		status = pgmc_xact_status_name(pgmc_session_status(pgmc_session_hold_to_look_at()));
	else
		status = pgmc_xact_status_name(status_of_server(resolve_or_default(name)));
	if (status == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(status));
}

Datum
pgmc_is_closed(PG_FUNCTION_ARGS)
{
	check_circumstances();
	PG_RETURN_BOOL(status_of_server(resolve_or_default(server_argument(fcinfo, 0))) ==
				   PGMC_XACT_CLOSED);
}

Datum
pgmc_describe(PG_FUNCTION_ARGS)
{
	const PgmcServer *server;
	const char *status;

	check_circumstances();
	server = resolve_or_default(server_argument(fcinfo, 0));
	status = pgmc_xact_status_name(status_of_server(server));
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("<pgmc %s: %s (%s%s)>",
											  NameStr(server->srvname),
											  server->description,
											  status ? "open, " : "closed",
											  status ? status : "")));
}

/* ---- closing ---- */

Datum
pgmc_close(PG_FUNCTION_ARGS)
{
	const char *name = server_argument(fcinfo, 0);
	Oid			serverid;
	int			held = 0;
	int			closed;

	check_circumstances();
	if (name == NULL)
		name = pgmc_default_server;
	serverid = pgmc_server_oid(name);
	if (!pgmc_server_owner_ok(serverid, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of foreign server %s", name)));
	pgmc_registry_attach();
	closed = pgmc_session_close_idle(serverid, &held);
	if (held > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("%d connection(s) of server \"%s\" are held", held, name),
				 errdetail("%d idle connection(s) have been closed.", closed)));
	PG_RETURN_BOOL(closed > 0);
}

Datum
pgmc_stop_worker(PG_FUNCTION_ARGS)
{
	check_circumstances();
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser to stop the pgmc worker")));
	pgmc_registry_attach();
	PG_RETURN_BOOL(pgmc_launch_stop());
}
