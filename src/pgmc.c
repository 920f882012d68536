/*
 * pgmc.c
 *		Loading the library: settings, callbacks, hooks.
 *
 * The library is loaded by the first call of one of its functions in a session
 * (or by shared_preload_libraries), so nothing here may need the postmaster.
 */
#include "postgres.h"

#include <limits.h>
#include <unistd.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/guc.h"

#include "build.h"
#include "compat.h"
#include "hooks.h"
#include "registry.h"
#include "server.h"
#include "session.h"
#include "settings.h"
#include "static_area.h"

PG_MODULE_MAGIC;

char	   *pgmc_default_server = NULL;
int			pgmc_acquire_timeout = 0;
bool		pgmc_session_holds = true;
int			pgmc_log_waits = -1;
int			pgmc_spin_time = 50;
int			pgmc_max_connections = 32;
int			pgmc_worker_linger = 60000;
int			pgmc_log_level = LOG;

/* all levels that only say something */
static const struct config_enum_entry log_levels[] = {
	{"debug5", DEBUG5, false},
	{"debug4", DEBUG4, false},
	{"debug3", DEBUG3, false},
	{"debug2", DEBUG2, false},
	{"debug1", DEBUG1, false},
	{"debug", DEBUG2, true},
	{"info", INFO, false},
	{"notice", NOTICE, false},
	{"warning", WARNING, false},
	{"log", LOG, false},
	{NULL, 0, false}
};

extern PGDLLEXPORT void _PG_init(void);

static void
define_settings(void)
{
	DefineCustomStringVariable("pgmc.default_server",
							   "Server that is meant where a call names none.",
							   NULL, &pgmc_default_server, "pgmc_loopback",
							   PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("pgmc.acquire_timeout",
							"Longest time to wait for a managed connection.",
							"0 means no limit of its own; lock_timeout applies as well.",
							&pgmc_acquire_timeout, 0, 0, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomBoolVariable("pgmc.session_holds",
							 "Allows holds that last over transactions.",
							 "Switch it off where sessions are shared by a transaction pooler.",
							 &pgmc_session_holds, true,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("pgmc.log_waits",
							"Tells who holds a connection after waiting this long for it.",
							"-1 means never.",
							&pgmc_log_waits, -1, -1, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("pgmc.spin_time",
							"Microseconds that the worker and a holder poll for each other before they sleep.",
							"The worker never polls while no connection is held, nor does a session that has sent no request.",
							&pgmc_spin_time,
							sysconf(_SC_NPROCESSORS_ONLN) > 1 ? 50 : 0, 0, 10000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("pgmc.max_connections",
							"Largest number of managed connections of the cluster.",
							NULL, &pgmc_max_connections, 32, 1,
							PGMC_MAX_CONNECTIONS,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("pgmc.worker_linger",
							"Time that the worker stays after its last connection was closed.",
							NULL, &pgmc_worker_linger, 60000, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomEnumVariable("pgmc.log_level",
							 "Message level at which the worker logs what it does by itself.",
							 "Lost connections, rollbacks and revoked holds, say, with their reasons.",
							 &pgmc_log_level, LOG, log_levels,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	MarkGUCPrefixReserved("pgmc");
}

void
_PG_init(void)
{
	pgmc_build_init();
	define_settings();
	if (process_shared_preload_libraries_in_progress)
		pgmc_static_preload();
	pgmc_server_init();
	pgmc_session_init();
	pgmc_hooks_init();
}
