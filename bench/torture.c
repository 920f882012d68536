/*
 * torture.c
 *		Sessions that use pgmc in every orderly and disorderly way, and one who
 *		kills whatever they depend on.  bench/torture compiles and starts it.
 *
 *	torture --seed N --seconds N --sessions N --kill-ms N --crash-s N
 *		[--data DIRECTORY --pg-ctl PROGRAM --log FILE]
 *
 * The server is the one that PGHOST and PGPORT name, the database PGDATABASE,
 * the user a superuser.  With --data, the server is restarted now and then, and
 * backends are killed with SIGKILL: every --crash-s seconds one of these.
 *
 * Each session is a process of its own, so it can be killed.  What it has done
 * is in shared memory, written before the command is sent and after its end:
 * of each job (a row to be inserted through the managed connection) how it
 * stands, and of each hold the moments at which it certainly existed.  In the
 * end both go into tables, and queries compare them with the rows that are
 * there.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "libpq-fe.h"

#define MAX_SESSIONS	128
#define MAX_JOBS		100000	/* of a session */
#define MAX_SEEN		200000
#define MAX_STATES		64
#define HANG_S			60		/* a command that takes longer hangs */
#define ID_BASE			INT64_C(1000000000)

/* how a job stands; the letters are those of the table job */
typedef enum JobState
{
	JOB_OPEN = 'o',				/* its COMMIT was never sent: must not be
								 * there */
	JOB_COMMITTING = 'c',		/* its session died meanwhile: may be there */
	JOB_DOUBT = 'd',			/* reported in doubt: may be there */
	JOB_CANCELLED = 'l',		/* cancelled before pgmc's call or after it,
								 * and nothing tells which: may be there */
	JOB_COMMITTED = 'y',		/* acknowledged: must be there */
	JOB_FAILED = 'n'			/* failed or rolled back: must not be there */
} JobState;

typedef struct Seen
{
	int64_t		token;			/* of the hold */
	int64_t		at;				/* microseconds, by the server's clock */
	int			pid;			/* of the loopback backend */
	int			server;
}			Seen;

typedef struct Session
{
	/* written by the session's process only, read at the end */
	int			njobs;
	int			nholds;
	int			nlives;
	int			nseen;
	int64_t		wait_most;		/* microseconds in an acquire that succeeded */
	int64_t		fail_most;		/* ... that did not */
	int64_t		operations;
	int64_t		acquired;
	char		job[MAX_JOBS];
	unsigned char job_server[MAX_JOBS];
	char		job_note[MAX_JOBS][200];	/* how its commit has failed */
	Seen		seen[MAX_SEEN];
	struct
	{
		char		code[6];
		int64_t		n;
	}			states[MAX_STATES];

	volatile int backend_pid;
	pid_t		process;		/* the parent's */
} Session;

typedef struct Shared
{
	volatile int stop;
	volatile int violations;
	volatile int down;			/* restarting: waits don't count */
	volatile	int64_t down_until; /* end of the last restart */
	Session		session[MAX_SESSIONS];
}			Shared;

static const struct
{
	const char *name;
	const char *options;
	int			pool_size;
	bool		resets;
}			servers[] = {
	{"one", "application_name 'pgmc one'", 1, true},
	{"two", "application_name 'pgmc two'", 1, true},
	{"pool", "application_name 'pgmc pool', pool_size '3'", 3, true},
	{"state", "application_name 'pgmc state', reset_query ''", 1, false},
	{"strict", "application_name 'pgmc strict', on_error 'close'", 1, true},
	{"lease", "application_name 'pgmc lease', hold_timeout '150ms', idle_hold_timeout '100ms'", 1, true},
};

#define NSERVERS ((int) (sizeof(servers) / sizeof(servers[0])))

static Shared * shared;
static Session *me;
static int	my_number;
static PGconn *conn;
static bool in_block;			/* of a transaction */
static char state[6];			/* SQLSTATE of the last command, "" if it went
								 * well */
static char message[256];
static char detail[1024];
static char context[256];
static char notice[6];			/* SQLSTATE of the last notice */
static char value[1024];		/* its first column */
static uint64_t random_state;

static int	opt_seed = 1;
static int	opt_seconds = 30;
static int	opt_sessions = 32;
static int	opt_kill_ms = 200;
static int	opt_crash_s = 10;
static const char *opt_data;
static const char *opt_pg_ctl = "pg_ctl";
static const char *opt_log = "/dev/null";

/* ---- tools ---- */

static int64_t
now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t) t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void
sleep_us(int64_t us)
{
	struct timespec t = {us / 1000000, us % 1000000 * 1000};

	nanosleep(&t, NULL);
}

static void
seed_random(uint64_t seed)
{
	random_state = seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
}

/* 0 .. below - 1 */
static int
pick(int below)
{
	uint64_t	x = random_state += UINT64_C(0x9E3779B97F4A7C15);

	x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
	return (int) ((x ^ (x >> 31)) % (uint64_t) below);
}

static bool
chance(int percent)
{
	return pick(100) < percent;
}

static void violation(const char *format,...) __attribute__((format(printf, 1, 2)));

static void
violation(const char *format,...)
{
	va_list		args;
	char text[	2000];
	char		stamp[32];
	time_t		now = time(NULL);

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	strftime(stamp, sizeof(stamp), "%H:%M:%S", localtime(&now));
	__atomic_add_fetch(&shared->violations, 1, __ATOMIC_SEQ_CST);
	printf("VIOLATION %s session %d pid %d: %s\n", stamp, my_number,
		   conn != NULL ? PQbackendPID(conn) : 0, text);
	fflush(stdout);
}

static void
note_notice(void *arg, const PGresult *res)
{
	const char *code = PQresultErrorField(res, PG_DIAG_SQLSTATE);

	if (code != NULL)
		snprintf(notice, sizeof(notice), "%s", code);
}

static void
copy_field(char *dst, size_t size, const char *src)
{
	snprintf(dst, size, "%s", src != NULL ? src : "");
}

static void
count_state(const char *code)
{
	for (int i = 0; me != NULL && i < MAX_STATES; i++)
	{
		if (me->states[i].code[0] == '\0')
			strcpy(me->states[i].code, code);
		if (strcmp(me->states[i].code, code) != 0)
			continue;
		me->states[i].n++;
		return;
	}
}

/* ---- commands of a session ---- */

/* Errors that kills, cancels, time-outs and the sessions' own doings explain */
static bool
expected(const char *code)
{
	static const char *const codes[] = {
		"08001", "08003", "08006", "08007", "22012", "22023", "25001", "25P01",
		"25P02", "25P03", "40P01", "42601", "53300", "55000", "55006", "55P03",
		"57014", "57P01", "57P02", "57P03", "LOST"
	};

	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
		if (strcmp(code, codes[i]) == 0)
			return true;
	return false;
}

static void
take(PGresult *res)
{
	ExecStatusType status = PQresultStatus(res);

	if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK)
	{
		if (PQntuples(res) > 0)
			copy_field(value, sizeof(value), PQgetvalue(res, 0, 0));
	}
	else
	{
		const char *code = PQresultErrorField(res, PG_DIAG_SQLSTATE);

		copy_field(state, sizeof(state), code != NULL ? code : "LOST");
		copy_field(message, sizeof(message),
				   PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY));
		copy_field(detail, sizeof(detail),
				   PQresultErrorField(res, PG_DIAG_MESSAGE_DETAIL));
		copy_field(context, sizeof(context),
				   PQresultErrorField(res, PG_DIAG_CONTEXT));
		if (!expected(state))
			violation("unexpected error %s: %s", state, PQresultErrorMessage(res));
	}
	PQclear(res);
}

static void
cancel(PGconn *which)
{
	PGcancel   *handle = PQgetCancel(which);
	char		error[256];

	if (handle != NULL)
		PQcancel(handle, error, sizeof(error));
	PQfreeCancel(handle);
}

/*
 * Wait for the command that was sent, up to HANG_S; cancel it after cancel_us
 * where that isn't negative.
 */
static void
await(const char *sql, int64_t cancel_us)
{
	int64_t		begin = now_us();
	PGresult   *res;

	for (;;)
	{
		struct pollfd fd = {PQsocket(conn), POLLIN, 0};
		int64_t		passed = now_us() - begin;
		int64_t		left = HANG_S * INT64_C(1000000) - passed;

		while (!PQisBusy(conn))
		{
			res = PQgetResult(conn);
			if (res == NULL)
				return;
			take(res);
		}
		if (left <= 0)
		{
			violation("hangs for %d s: %s", HANG_S, sql);
			cancel(conn);
			sleep_us(2000000);
			PQconsumeInput(conn);
			violation("after a cancel it %s", PQisBusy(conn) ? "still hangs" : "ended");
			_exit(3);
		}
		if (cancel_us >= 0 && passed >= cancel_us)
		{
			cancel(conn);
			cancel_us = -1;
		}
		if (cancel_us >= 0 && cancel_us - passed < left)
			left = cancel_us - passed;
		if (left < 1000)
			sleep_us(left);
		if (poll(&fd, 1, left < 1000 ? 0 : (int) (left / 1000)) > 0 &&
			!PQconsumeInput(conn))
		{
			/* its last words may have come; no more will */
			while (!PQisBusy(conn) && (res = PQgetResult(conn)) != NULL)
				take(res);
			if (state[0] == '\0')
				strcpy(state, "LOST");
			return;
		}
	}
}

static bool
vrun(int64_t cancel_us, const char *format, va_list args)
{
	char		sql[2000];

	vsnprintf(sql, sizeof(sql), format, args);
	state[0] = message[0] = detail[0] = context[0] = notice[0] = value[0] = '\0';
	if (me != NULL)
		me->operations++;
	if (!PQsendQuery(conn, sql))
		strcpy(state, "LOST");
	else
		await(sql, cancel_us);
	if (state[0] != '\0')
		count_state(state);
	return state[0] == '\0';
}

static bool run(const char *format,...) __attribute__((format(printf, 1, 2)));
static bool run_cancel(int64_t cancel_us, const char *format,...) __attribute__((format(printf, 2, 3)));

/* True when it went well; else state says why not. */
static bool
run(const char *format,...)
{
	va_list		args;
	bool		ok;

	va_start(args, format);
	ok = vrun(-1, format, args);
	va_end(args);
	return ok;
}

static bool
run_cancel(int64_t cancel_us, const char *format,...)
{
	va_list		args;
	bool		ok;

	va_start(args, format);
	ok = vrun(cancel_us, format, args);
	va_end(args);
	return ok;
}

static bool
lost(void)
{
	return PQstatus(conn) != CONNECTION_OK;
}

/* Die as a client does that is killed. */
static void
drop_dead(void)
{
	kill(getpid(), SIGKILL);
}

/* ---- jobs and holds ---- */

static int64_t
new_job(int server)
{
	int			n = me->njobs;

	if (n >= MAX_JOBS)
		_exit(0);
	me->job[n] = JOB_OPEN;
	me->job_server[n] = (unsigned char) server;
	me->njobs = n + 1;
	return my_number * ID_BASE + n;
}

static void
set_job(int64_t id, JobState to)
{
	me->job[id % ID_BASE] = (char) to;
}

static void
note_job(int64_t id, const char *what)
{
	char	   *note = me->job_note[id % ID_BASE];

	snprintf(note, sizeof(me->job_note[0]), "%.20s, backend %d: %s %.60s %.40s %.40s", what,
			 PQbackendPID(conn), state, message, detail, context);
	for (; *note != '\0'; note++)
		if (*note == '\n' || *note == '\t' || *note == '\\')
			*note = ' ';
}

static int64_t
new_token(void)
{
	return my_number * ID_BASE + me->nholds++;
}

/*
 * The command that commits has ended: what does it say of the job?  A cancel or
 * termination may strike after pgmc's function has returned, too, in the rest
 * of the session's own command, and no DETAIL can tell of that.  The context
 * tells where, if there is one, or a lock: see run_committing.
 */
static JobState
fate(bool ok)
{
	bool		inside = strstr(context, "line 2 at assignment") != NULL;

	if (ok)
		return JOB_COMMITTED;
	if (strstr(detail, "not known") != NULL || strcmp(state, "08007") == 0)
		return JOB_DOUBT;
	if (strstr(detail, "managed connection was committed") != NULL)
		return JOB_COMMITTED;
	if (strstr(detail, "was not committed") != NULL)
		return JOB_FAILED;
	if (strstr(context, "line 3") != NULL)
		return JOB_COMMITTED;
	if (inside)
		return JOB_FAILED;
	if (lost())
		return JOB_DOUBT;
	return strcmp(state, "57014") == 0 ? JOB_CANCELLED : JOB_FAILED;
}

/* A statement that fails in the session ends its holds (in a block, with it). */
static void
end_block(void)
{
	if (in_block && !lost())
		run("ROLLBACK");
	in_block = false;
}

/*
 * The command was cancelled, not in pgmc's call: before it, or behind it?  It
 * would have taken a lock right behind it, where no cancel is heeded in between,
 * and that outlives the error.
 */
static JobState
fate_by_lock(int64_t id)
{
	char		was[sizeof(state)];
	JobState	fate = JOB_CANCELLED;

	strcpy(was, state);
	end_block();
	/* there may be more cancels on their way */
	while (fate == JOB_CANCELLED && !lost())
		if (run("SET statement_timeout = 0") &&
			run("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
				" AND classid::bigint << 32 | objid::bigint = %lld", (long long) id))
			fate = value[0] == '0' ? JOB_FAILED : JOB_COMMITTED;
	strcpy(state, was);
	return fate;
}

/*
 * A call that may commit this job, with a lock right behind it unless the call
 * returns rows.  In the second form both are simple expressions, and what strikes
 * behind the call strikes in line 3 or after the lock.
 */
static bool
run_committing(int64_t id, int percent, const char *call)
{
	int64_t		cancel_us = chance(percent) ? pick(3000) : -1;
	bool		rows = strstr(call, " FROM pgmc.") != NULL;
	JobState	to;
	bool		ok;

	set_job(id, JOB_COMMITTING);
	if (rows)
		ok = run_cancel(cancel_us, "SELECT %s", call);
	else if (chance(50))
		ok = run_cancel(cancel_us, "SELECT %s, pg_advisory_lock(%lld)", call, (long long) id);
	else
		ok = run_cancel(cancel_us, "DO $do$ DECLARE r text; BEGIN\nr := %s;\nr := pg_advisory_lock(%lld); END $do$",
						call, (long long) id);
	note_job(id, ok ? "" : call);
	to = fate(ok);
	if (to == JOB_CANCELLED && !rows)
		to = fate_by_lock(id);
	set_job(id, to);
	return ok;
}

static const char *
insert_sql(int64_t id, int server, int64_t token)
{
	static char sql[300];

	snprintf(sql, sizeof(sql),
			 "INSERT INTO work SELECT %lld, %d, %lld, pg_backend_pid(), now_us()",
			 (long long) id, server, (long long) token);
	return sql;
}

/* A connection that has just been acquired is idle, or lost already. */
static bool
check_idle(int server)
{
	if (!run("SELECT pgmc.transaction_status('%s')", servers[server].name))
		return false;
	if (value[0] != '\0' && strcmp(value, "idle") != 0)
		violation("server %s was acquired %s", servers[server].name, value);
	return true;
}

/* Note that this hold exists; also that nothing of somebody else is in it. */
static bool
note_hold(int server, int64_t token)
{
	char	   *at;
	Seen	   *seen;

	if (!run("SELECT pid || ' ' || at || ' ' || owner FROM pgmc.query_on('%s',"
			 " 'SELECT pg_backend_pid(), now_us(), coalesce(current_setting(''torture.owner'', true), '''')')"
			 " AS t(pid int, at bigint, owner text)", servers[server].name))
		return false;
	if (me->nseen >= MAX_SEEN)
		return true;
	seen = &me->seen[me->nseen];
	seen->token = token;
	seen->server = server;
	seen->pid = (int) strtol(value, &at, 10);
	seen->at = strtoll(at, &at, 10);
	me->nseen++;
	if (servers[server].resets && at[0] == ' ' && at[1] != '\0' &&
		strtoll(at, NULL, 10) != my_number * ID_BASE + me->nlives)
		violation("server %s: session state of%s, I am %lld", servers[server].name,
				  at, (long long) (my_number * ID_BASE + me->nlives));
	return true;
}

static void
note_wait(int64_t begin, bool ok)
{
	int64_t		waited;

	/* while the server is down nobody gets anything */
	if (shared->down)
		return;
	if (shared->down_until > begin)
		begin = shared->down_until;
	waited = now_us() - begin;
	if (ok && waited > me->wait_most)
		me->wait_most = waited;
	if (!ok && waited > me->fail_most)
		me->fail_most = waited;
}

static bool
acquire(int server, bool xact)
{
	int64_t		begin = now_us();
	char		timeout[40] = "";
	int64_t		cancel_us = -1;
	bool		ok;

	if (chance(20))
		snprintf(timeout, sizeof(timeout), ", '%d ms'", 1 + pick(3000));
	if (chance(10))
		cancel_us = pick(chance(50) ? 2000 : 500000);
	if (chance(10))
	{
		ok = run("SELECT pgmc.try_acquire%s('%s')", xact ? "_xact" : "",
				 servers[server].name) && value[0] == 't';
		if (ok)
			me->acquired++;
		return ok;
	}
	ok = run_cancel(cancel_us, "SELECT pgmc.acquire%s('%s'%s)",
					xact ? "_xact" : "", servers[server].name, timeout);
	note_wait(begin, ok);
	if (ok)
		me->acquired++;
	return ok;
}

static const char *
insert_call(int server, int64_t token, int64_t id, const char *function)
{
	static char call[400];

	snprintf(call, sizeof(call), "pgmc.%s_on('%s', $$%s$$)", function,
			 servers[server].name, insert_sql(id, server, token));
	return call;
}

static bool
insert(int server, int64_t token, int64_t id)
{
	int64_t		cancel_us = chance(5) ? pick(3000) : -1;

	return run_cancel(cancel_us, "SELECT %s", insert_call(server, token, id, "execute"));
}

static bool
commit(int server, int64_t id)
{
	char		call[100];

	bool		ok;

	snprintf(call, sizeof(call), "pgmc.commit('%s')", servers[server].name);
	ok = run_committing(id, 20, call);

	/* a row was written in this cluster, so the transaction has a number */
	if (strcmp(state, "08007") == 0)
		violation("commit is in doubt: %s", detail);
	return ok;
}

/* ---- what is done in a hold; each returns whether the hold is still there ---- */

static bool
do_commit(int server, int64_t token)
{
	int64_t		id = new_job(server);

	return insert(server, token, id) && commit(server, id);
}

static bool
do_rollback(int server, int64_t token)
{
	int64_t		id = new_job(server);

	return insert(server, token, id) &&
		run("SELECT pgmc.rollback('%s')", servers[server].name);
}

static bool
do_autocommit(int server, int64_t token)
{
	int64_t		id = new_job(server);
	bool		ok;

	if (!run("SELECT pgmc.set_autocommit(true, '%s')", servers[server].name))
		return false;
	ok = run_committing(id, 20, insert_call(server, token, id, "execute"));
	return ok && run("SELECT pgmc.set_autocommit(false, '%s')", servers[server].name);
}

/* An error of the loopback, caught; then a commit that must not pass. */
static bool
do_caught(int server, int64_t token)
{
	int64_t		id = new_job(server);

	if (!insert(server, token, id))
		return false;
	if (!run("DO $do$ BEGIN PERFORM pgmc.execute_on('%s', 'SELECT 1 / 0');"
			 " EXCEPTION WHEN division_by_zero THEN NULL; END $do$", servers[server].name))
		return false;
	if (chance(50))
		return run("SELECT pgmc.rollback('%s')", servers[server].name);
	return commit(server, id);
}

static bool
do_rows(int server, int64_t token)
{
	int			n = 1 + pick(chance(20) ? 20000 : 50);
	bool		ok = run("SELECT count(*) FILTER (WHERE g <= %d AND who = %lld) FROM"
						 " pgmc.query_on('%s', 'SELECT g, %lld FROM generate_series(1, %d) AS g')"
						 " AS t(g int, who bigint)", n, (long long) token,
						 servers[server].name, (long long) token, n);

	if (ok && atoi(value) != n)
		violation("%s of %d rows are mine", value, n);
	if (ok && chance(30))
		ok = run("DO $do$ BEGIN PERFORM * FROM pgmc.query_on('%s', 'SELECT 1 / (500 - g) FROM generate_series(1, 1000) AS g')"
				 " AS t(g int); EXCEPTION WHEN division_by_zero THEN NULL; END $do$",
				 servers[server].name);
	return ok && run("SELECT pgmc.rollback('%s')", servers[server].name);
}

static bool
do_large(int server, int64_t token)
{
	int			n = 1 + pick(300000);

	if (!run("SELECT l FROM pgmc.query_on('%s', 'SELECT length($1)', repeat('x', %d)) AS t(l int)",
			 servers[server].name, n))
		return false;
	if (atoi(value) != n)
		violation("%s of %d bytes have arrived", value, n);
	return run("SELECT pgmc.rollback('%s')", servers[server].name);
}

static bool
do_slow(int server, int64_t token)
{
	int64_t		cancel_us = chance(50) ? pick(30000) : -1;

	return run_cancel(cancel_us, "SELECT pgmc.execute_on('%s', 'SELECT pg_sleep(%g)')",
					  servers[server].name, pick(20) / 1000.0);
}

static bool
do_state(int server, int64_t token)
{
	return run("SELECT pgmc.execute_on('%s', 'SET torture.owner = ''%lld''')", servers[server].name,
			   (long long) (my_number * ID_BASE + me->nlives)) &&
		run("SELECT pgmc.commit('%s')", servers[server].name);
}

typedef bool (*Doing) (int server, int64_t token);

static const Doing doings[] = {
	do_commit, do_commit, do_commit, do_rollback, do_autocommit, do_caught,
	do_rows, do_large, do_slow, do_state
};

/* ---- how a hold ends ---- */

static void
leave(int server, int64_t token)
{
	int64_t		id;

	switch (pick(12))
	{
		case 0:					/* forgets to commit */
			id = new_job(server);
			if (insert(server, token, id) &&
				run("SELECT pgmc.release('%s')", servers[server].name) &&
				strcmp(notice, "25001") != 0)	/* of one that was lost */
				violation("release with a transaction open has succeeded");
			break;
		case 1:					/* fails */
			id = new_job(server);
			if (insert(server, token, id))
				run("SELECT 1 / 0");
			break;
		case 2:
			if (chance(30))
			{
				id = new_job(server);
				insert(server, token, id);
				drop_dead();
			}
			break;
		case 3:					/* leaves */
			id = new_job(server);
			insert(server, token, id);
			PQfinish(conn);
			conn = NULL;
			return;
		case 4:
			run("SELECT pgmc.release('%s', close => true)", servers[server].name);
			break;
		case 5:
			run("SELECT pgmc.release_all()");
			break;
		case 6:
			if (!in_block)
				run("DISCARD ALL");
			break;
		default:
			run("SELECT pgmc.release('%s')", servers[server].name);
			break;
	}
}

static void
use_hold(int server, bool nested)
{
	int64_t		token = new_token();
	bool		there = check_idle(server) && note_hold(server, token) &&
	run("SELECT pgmc.rollback('%s')", servers[server].name);

	for (int i = 0; there && i < 4 && chance(60); i++)
		there = doings[pick(sizeof(doings) / sizeof(doings[0]))] (server, token);
	if (there && nested && chance(30))
	{
		int			other = pick(NSERVERS);

		if (other != server && acquire(other, in_block))
			use_hold(other, false);
	}
	if (conn == NULL || lost())
		return;
	if (there && state[0] == '\0')
		there = note_hold(server, token);
	if (there)
		leave(server, token);
}

/* ---- what a session does ---- */

static void
turn_with_hold(void)
{
	int			server = pick(NSERVERS);

	if (acquire(server, false))
		use_hold(server, true);
}

/* In a transaction block; its end is the hold's. */
static void
turn_in_block(void)
{
	int			server = pick(NSERVERS);

	if (!run("BEGIN"))
		return;
	in_block = true;
	if (acquire(server, chance(50)))
		use_hold(server, true);
	if (conn == NULL || lost())
		return;
	if (state[0] == '\0' && chance(60))
	{
		run("COMMIT");
		in_block = false;
		if (!lost())
			run("SELECT pgmc.release_all()");
	}
	else
		end_block();
}

static void
turn_in_savepoint(void)
{
	int			server = pick(NSERVERS);

	if (!run("BEGIN"))
		return;
	in_block = true;
	if (run("SAVEPOINT s") && acquire(server, false))
	{
		int64_t		token = new_token();

		if (check_idle(server) && note_hold(server, token) &&
			do_commit(server, token))
		{
			int64_t		id = new_job(server);

			insert(server, token, id);
		}
	}
	if (!lost() && run("ROLLBACK TO s"))
		if (run("SELECT pgmc.rollback('%s')", servers[server].name))
			violation("the hold of an aborted subtransaction is still there");
	if (!lost())
		end_block();
}

static void
turn_autonomous(void)
{
	int			server = pick(NSERVERS);
	int64_t		id = new_job(server);
	int64_t		token = new_token();
	int64_t		begin = now_us();
	char		call[500];
	bool		ok;

	if (chance(70))
		snprintf(call, sizeof(call), "%s", insert_call(server, token, id, "autonomous"));
	else
		snprintf(call, sizeof(call), "j FROM pgmc.autonomous_query_on('%s', $$%s RETURNING job$$) AS t(j bigint)",
				 servers[server].name, insert_sql(id, server, token));
	ok = run_committing(id, 20, call);
	note_wait(begin, ok);
	if (ok)
		me->acquired++;
}

/* A time-out of the session's own that may strike anywhere. */
static void
turn_with_timeout(void)
{
	if (!run("SET statement_timeout = %d", 1 + pick(chance(50) ? 5 : 100)))
		return;
	if (chance(50))
		turn_autonomous();
	else
		turn_with_hold();
	if (conn == NULL || lost())
		return;
	end_block();
	run("RESET statement_timeout");
}

static void
turn_of_others(void)
{
	switch (pick(8))
	{
		case 0:
			run("SELECT pgmc.close('%s')", servers[pick(NSERVERS)].name);
			break;
		case 1:
			run("SELECT count(*), min(waiters) FROM pgmc.connections");
			break;
		case 2:
			run("SELECT pgmc.describe('%s')", servers[pick(NSERVERS)].name);
			break;
		case 3:
			if (chance(10))
				run("SELECT pgmc.stop_worker()");
			break;
		case 4:
			run("CALL pgmc.run('SELECT 1', '%s')", servers[pick(NSERVERS)].name);
			break;
		default:
			sleep_us(pick(20000));
			break;
	}
}

static void
take_turn(void)
{
	int			which = pick(100);

	if (which < 35)
		turn_with_hold();
	else if (which < 50)
		turn_in_block();
	else if (which < 58)
		turn_in_savepoint();
	else if (which < 83)
		turn_autonomous();
	else if (which < 90)
		turn_with_timeout();
	else
		turn_of_others();
}

/* An error has ended the holds, a caught or swallowed one may not have. */
static void
tidy_up(void)
{
	if (conn == NULL || lost())
		return;
	end_block();
	if (!lost())
		run("SELECT pgmc.release_all(), pg_advisory_unlock_all()");
}

static bool
connect_session(void)
{
	conn = PQconnectdb("application_name=torture");
	if (PQstatus(conn) != CONNECTION_OK)
	{
		PQfinish(conn);
		conn = NULL;
		return false;
	}
	PQsetNoticeReceiver(conn, note_notice, NULL);
	if (me != NULL)
	{
		me->nlives++;
		me->backend_pid = PQbackendPID(conn);
	}
	in_block = false;
	return true;
}

static void
session_main(int number, int life)
{
	my_number = number;
	me = &shared->session[number];
	seed_random((uint64_t) opt_seed * 1000003 + (uint64_t) number * 10007 + (uint64_t) life);
	signal(SIGPIPE, SIG_IGN);
	while (!shared->stop)
	{
		if (conn == NULL && !connect_session())
		{
			sleep_us(20000);
			continue;
		}
		take_turn();
		tidy_up();
		if (conn != NULL && (lost() || chance(1)))
		{
			PQfinish(conn);
			conn = NULL;
		}
	}
	if (conn != NULL)
		PQfinish(conn);
	_exit(0);
}

/* ---- the killer ---- */

typedef enum Fault
{
	FAULT_TERMINATE_WORKER,
	FAULT_TERMINATE_LOOPBACK,
	FAULT_CANCEL_LOOPBACK,
	FAULT_TERMINATE_SESSION,
	FAULT_CANCEL_SESSION,
	FAULT_KILL_CLIENT,
	FAULT_KILL_BACKEND,
	FAULT_RESTART_FAST,
	FAULT_RESTART_IMMEDIATE,
	FAULT_COUNT
}			Fault;

static const char *const fault_names[] = {
	"worker terminated", "loopback terminated", "loopback cancelled",
	"session terminated", "session cancelled", "client killed",
	"backend SIGKILLed", "fast restart", "immediate restart"
};

static int	faults[FAULT_COUNT];
static int64_t lasted;			/* the torture, in microseconds */
static int	lives[MAX_SESSIONS];

static void
start_session(int number)
{
	pid_t		pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0)
	{
		conn = NULL;			/* the parent's */
		session_main(number, lives[number]);
	}
	shared->session[number].process = pid;
	lives[number]++;
}

/* Start those anew that have died. */
static void
revive(void)
{
	int			status;
	pid_t		pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (int i = 0; i < opt_sessions; i++)
			if (shared->session[i].process == pid)
			{
				if (!(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) &&
					!(WIFEXITED(status) && WEXITSTATUS(status) == 3))
					violation("session %d of the test has ended: %x", i, status);
				start_session(i);
			}
}

static void
restart(const char *mode)
{
	char		command[1000];

	shared->down = 1;
	/* the program beside pg_ctl, be it another one than what is running */
	snprintf(command, sizeof(command),
			 "'%s' restart -D '%s' -p '%.*spostgres' -l '%s' -m %s -t 60 -w -s >/dev/null",
			 opt_pg_ctl, opt_data, (int) (strlen(opt_pg_ctl) - strlen("pg_ctl")),
			 opt_pg_ctl, opt_log, mode);
	if (system(command) != 0)
		violation("restart failed: %s", command);
	PQfinish(conn);
	conn = NULL;
	shared->down_until = now_us();
	shared->down = 0;
}

/* The server restarts itself after a crash; wait for that. */
static void
await_server(void)
{
	int64_t		limit = now_us() + 60 * INT64_C(1000000);

	while (conn == NULL || lost())
	{
		if (conn != NULL)
			PQfinish(conn);
		conn = NULL;
		if (now_us() > limit)
		{
			violation("the server doesn't come back");
			exit(1);
		}
		if (!connect_session())
			sleep_us(20000);
	}
}

/* True when there was one. */
static bool
signal_one(const char *function, const char *which)
{
	return run("SELECT %s(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND %s"
			   " ORDER BY random() LIMIT 1", function, which) && value[0] == 't';
}

/* The same with a SIGKILL, upon which the server restarts itself. */
static bool
crash_one(const char *which)
{
	bool		found;

	shared->down = 1;
	found = run("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND %s"
				" ORDER BY random() LIMIT 1", which) && atoi(value) > 1;
	if (found)
	{
		kill(atoi(value), SIGKILL);
		/* until all have heard of it */
		for (int i = 0; i < 1000 && run("SELECT 1"); i++)
			sleep_us(10000);
	}
	await_server();
	shared->down_until = now_us();
	shared->down = 0;
	return found;
}

static bool
kill_client(void)
{
	pid_t		victim = shared->session[pick(opt_sessions)].process;

	return victim > 0 && kill(victim, SIGKILL) == 0;
}

/* False where there was nobody whom it could hit. */
static bool
do_fault(Fault fault)
{
	switch (fault)
	{
		case FAULT_TERMINATE_WORKER:
			return signal_one("pg_terminate_backend", "backend_type = 'pgmc worker'");
		case FAULT_TERMINATE_LOOPBACK:
			return signal_one("pg_terminate_backend", "application_name LIKE 'pgmc%'");
		case FAULT_CANCEL_LOOPBACK:
			return signal_one("pg_cancel_backend", "application_name LIKE 'pgmc%'");
		case FAULT_TERMINATE_SESSION:
			return signal_one("pg_terminate_backend", "application_name = 'torture'");
		case FAULT_CANCEL_SESSION:
			return signal_one("pg_cancel_backend", "application_name = 'torture'");
		case FAULT_KILL_CLIENT:
			return kill_client();
		case FAULT_KILL_BACKEND:
			return crash_one("(application_name LIKE 'pgmc%' OR application_name = 'torture'"
							 " OR backend_type = 'pgmc worker')");
		case FAULT_RESTART_FAST:
			restart("fast");
			return true;
		case FAULT_RESTART_IMMEDIATE:
			restart("immediate");
			return true;
		case FAULT_COUNT:
			break;
	}
	return false;
}

/*
 * Those of a range of faults, each once before any comes again, in an order that
 * changes from one time to the next.
 */
typedef struct Deck
{
	int			first;
	int			n;
	int			left;			/* of the n that are due in this round */
	int			due[FAULT_COUNT];
}			Deck;

static Deck kills =
{
	FAULT_TERMINATE_WORKER, FAULT_KILL_BACKEND - FAULT_TERMINATE_WORKER
};
static Deck crashes =
{
	FAULT_KILL_BACKEND, FAULT_COUNT - FAULT_KILL_BACKEND
};

/* One that hits nobody stays due. */
static void
deal_fault(Deck * deck)
{
	int			i;
	int			fault;

	if (deck->left == 0)
		for (; deck->left < deck->n; deck->left++)
			deck->due[deck->left] = deck->first + deck->left;
	i = pick(deck->left);
	fault = deck->due[i];
	if (!do_fault(fault))
		return;
	faults[fault]++;
	deck->due[i] = deck->due[--deck->left];
}

static bool
crashes_wanted(void)
{
	return opt_data != NULL && opt_crash_s > 0;
}

static bool
all_faults_happened(void)
{
	for (int i = 0; i < FAULT_COUNT; i++)
		if (faults[i] == 0 && (i < crashes.first || crashes_wanted()))
			return false;
	return true;
}

/* On a slow machine it goes on until there was a fault of each kind. */
static void
torture(void)
{
	int64_t		begin = now_us();
	int64_t		end = begin + opt_seconds * INT64_C(1000000);
	int64_t		crash_at = begin + opt_crash_s * INT64_C(1000000);

	while (now_us() < end || !all_faults_happened())
	{
		if (now_us() > end + HANG_S * INT64_C(1000000))
		{
			violation("faults of some kind hit nobody");
			break;
		}
		sleep_us(opt_kill_ms * INT64_C(1000));
		revive();
		await_server();
		if (crashes_wanted() && now_us() >= crash_at)
		{
			deal_fault(&crashes);
			await_server();
			crash_at = now_us() + opt_crash_s * INT64_C(1000000);
		}
		else
			deal_fault(&kills);
	}
	lasted = now_us() - begin;
}

/* ---- the proof ---- */

static void
must(const char *sql)
{
	if (!run("%s", sql))
	{
		printf("%s\n%s %s", sql, state, PQerrorMessage(conn));
		exit(1);
	}
}

/* A number that must be 0 */
static long long
count_bad(const char *what, const char *sql)
{
	long long	n;

	must(sql);
	n = atoll(value);
	if (n != 0)
		violation("%s: %lld", what, n);
	return n;
}

static void
put_line(const char *format,...)
{
	char		line[400];
	va_list		args;
	int			n;

	va_start(args, format);
	n = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	PQputCopyData(conn, line, n);
}

static void
end_copy(void)
{
	PGresult   *res;

	PQputCopyEnd(conn, NULL);
	while ((res = PQgetResult(conn)) != NULL)
	{
		if (PQresultStatus(res) != PGRES_COMMAND_OK)
			violation("%s", PQerrorMessage(conn));
		PQclear(res);
	}
}

static void
write_tables(void)
{
	must("CREATE TABLE job (job bigint, server int, state \"char\", note text)");
	must("CREATE TABLE seen (server int, token bigint, pid int, at bigint)");
	PQclear(PQexec(conn, "COPY job FROM STDIN"));
	for (int s = 0; s < opt_sessions; s++)
		for (int i = 0; i < shared->session[s].njobs; i++)
			put_line("%lld\t%d\t%c\t%s\n", (long long) (s * ID_BASE + i),
					 shared->session[s].job_server[i], shared->session[s].job[i],
					 shared->session[s].job_note[i]);
	end_copy();
	PQclear(PQexec(conn, "COPY seen FROM STDIN"));
	for (int s = 0; s < opt_sessions; s++)
		for (int i = 0; i < shared->session[s].nseen; i++)
		{
			Seen	   *seen = &shared->session[s].seen[i];

			put_line("%d\t%lld\t%d\t%lld\n", seen->server, (long long) seen->token,
					 seen->pid, (long long) seen->at);
		}
	end_copy();
	must("CREATE INDEX ON work (job)");
	must("CREATE INDEX ON job (job)");
	must("ANALYZE");
	/* the moments at which a hold certainly existed */
	must("CREATE TABLE moment AS SELECT server, token, pid, at FROM seen"
		 " UNION ALL SELECT w.server, token, pid, at FROM work w JOIN job USING (job) WHERE state = 'y'");
}

/* Everything that is over is over: idle connections, no waiter, no lock. */
static void
check_left_overs(void)
{
	static const char *const left =
	"SELECT (SELECT count(*) FROM pgmc.connections WHERE state <> 'idle' OR xact_status <> 'idle' OR waiters <> 0)"
	" + (SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgmc%'"
	"	AND (state <> 'idle' OR xact_start IS NOT NULL))"
	" + (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'torture' AND pid <> pg_backend_pid())"
	" + (SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgmc%' AND NOT EXISTS"
	"	(SELECT FROM pgmc.connections WHERE backend_pid = pid))";
	int64_t		limit = now_us() + 10 * INT64_C(1000000);

	for (;;)
	{
		must(left);
		if (atoi(value) == 0)
			return;
		if (now_us() > limit)
			break;
		sleep_us(50000);
	}
	run("SELECT string_agg(x, E'\\n') FROM (SELECT c::text FROM pgmc.connections AS c UNION ALL"
		" SELECT concat_ws(' | ', pid, application_name, backend_type, state, wait_event, left(query, 100))"
		" FROM pg_stat_activity WHERE backend_type LIKE 'pgmc%%' OR backend_type = 'client backend') AS t(x)");
	violation("something is left behind:\n%s", value);
}

static void
check_usable(void)
{
	/* on a busy machine this may take longer than the lease */
	must("ALTER SERVER lease OPTIONS (DROP hold_timeout, DROP idle_hold_timeout)");
	for (int i = 0; i < NSERVERS; i++)
		if (!run("SELECT pgmc.acquire('%s', '10 s')", servers[i].name) ||
			!run("SELECT pgmc.execute_on('%s', 'INSERT INTO work VALUES (-1, %d, 0, 0, 0)')", servers[i].name, i) ||
			!run("SELECT pgmc.commit('%s')", servers[i].name) ||
			!run("SELECT pgmc.release('%s')", servers[i].name) ||
			!run("SELECT pgmc.autonomous_on('%s', 'DELETE FROM work WHERE job = -1')", servers[i].name))
			violation("server %s is not usable: %s %s", servers[i].name, state,
					  PQerrorMessage(conn));
}

static void
prove(void)
{
	long long	losses,
				ghosts,
				twice,
				both;
	int64_t		operations = 0,
				acquired = 0,
				longest = 0,
				longest_failed = 0;
	long long	states[MAX_STATES] = {0};
	char		codes[MAX_STATES][6] = {""};

	check_left_overs();
	check_usable();
	write_tables();
	losses = count_bad("acknowledged commits that are not there",
					   "SELECT count(*) FROM job WHERE state = 'y' AND NOT EXISTS (SELECT FROM work WHERE work.job = job.job)");
	ghosts = count_bad("rows that are there, though their commit failed or was never asked for",
					   "SELECT count(*) FROM job WHERE state IN ('n', 'o') AND EXISTS (SELECT FROM work WHERE work.job = job.job)");
	if (losses + ghosts > 0)
	{
		run("SELECT string_agg(concat_ws(' ', job, server, state, note, '- row by', pid, to_timestamp(at / 1e6)), E'\\n')"
			" FROM (SELECT job, job.server, state, note, pid, at FROM job LEFT JOIN work USING (job)"
			" WHERE state = 'y' AND pid IS NULL OR state IN ('n', 'o') AND pid IS NOT NULL LIMIT 5) AS t");
		puts(value);
	}
	twice = count_bad("rows inserted twice",
					  "SELECT count(*) FROM (SELECT FROM work GROUP BY job HAVING count(*) > 1) AS t");

	/* a hold whose moments on a connection are not in one piece */
	both = count_bad("connections with two holders at once",
					 "SELECT count(*) FROM (SELECT FROM (SELECT server, pid, token,"
					 " lag(token) OVER (PARTITION BY server, pid ORDER BY at, token) IS DISTINCT FROM token AS first FROM moment) AS t"
					 " WHERE first GROUP BY server, pid, token HAVING count(*) > 1) AS t");
	for (int i = 0; i < NSERVERS; i++)
	{
		char		sql[600];

		if (servers[i].pool_size > 1)
			continue;
		snprintf(sql, sizeof(sql),
				 "SELECT count(*) FROM (SELECT FROM (SELECT token,"
				 " lag(token) OVER (ORDER BY at, token) IS DISTINCT FROM token AS first FROM moment WHERE server = %d) AS t"
				 " WHERE first GROUP BY token HAVING count(*) > 1) AS t", i);
		both += count_bad("servers with two holders at once", sql);
	}
	count_bad("holds that went on with another connection",
			  "SELECT count(*) FROM (SELECT FROM moment GROUP BY token HAVING count(DISTINCT pid) > 1) AS t");

	for (int s = 0; s < opt_sessions; s++)
	{
		Session    *session = &shared->session[s];

		operations += session->operations;
		acquired += session->acquired;
		if (session->wait_most > longest)
			longest = session->wait_most;
		if (session->fail_most > longest_failed)
			longest_failed = session->fail_most;
		for (int i = 0; i < MAX_STATES && session->states[i].code[0] != '\0'; i++)
			for (int j = 0; j < MAX_STATES; j++)
			{
				if (codes[j][0] == '\0')
					strcpy(codes[j], session->states[i].code);
				if (strcmp(codes[j], session->states[i].code) != 0)
					continue;
				states[j] += session->states[i].n;
				break;
			}
	}

	/* in the end all get their turn: one that is passed over waits until then */
	if (longest > 30 * INT64_C(1000000) ||
		(longest > lasted / 2 && longest > 5 * INT64_C(1000000)))
		violation("somebody has waited for %.1f s of %.1f", longest / 1e6, lasted / 1e6);

	printf("%-34s %lld\n", "commands", (long long) operations);
	printf("%-34s %lld\n", "holds and autonomous commands", (long long) acquired);
	must("SELECT concat_ws(' ', count(*) FILTER (WHERE state = 'y'), '/',"
		 " count(*) FILTER (WHERE state IN ('n', 'o')), '/',"
		 " count(*) FILTER (WHERE state = 'd'), '/',"
		 " count(*) FILTER (WHERE state = 'c')) FROM job");
	printf("%-34s %s\n", "committed / not / in doubt / died", value);
	must("SELECT count(*) FROM job JOIN work USING (job) WHERE state IN ('c', 'd')");
	printf("%-34s %s\n", "of those in doubt or died, there", value);
	must("SELECT concat_ws(' ', count(*), '/', count(work)) FROM job LEFT JOIN work USING (job) WHERE state = 'l'");
	printf("%-34s %s\n", "cancelled outside pgmc / there", value);
	for (int i = 0; i < FAULT_COUNT; i++)
		printf("%-34s %d\n", fault_names[i], faults[i]);
	printf("%-34s", "errors");
	for (int j = 0; j < MAX_STATES && codes[j][0] != '\0'; j++)
		printf(" %s:%lld", codes[j], states[j]);
	printf("\n%-34s %.3f s (of a failed one: %.3f s)\n", "longest wait", longest / 1e6,
		   longest_failed / 1e6);
	printf("%-34s %lld\n", "losses", losses);
	printf("%-34s %lld\n", "rows nobody was told of", ghosts + twice);
	printf("%-34s %lld\n", "double holds", both);
}

/* ---- the whole ---- */

static void
set_up(void)
{
	if (!connect_session())
	{
		fprintf(stderr, "torture: cannot connect\n");
		exit(1);
	}
	must("SET client_min_messages = error");
	must("CREATE EXTENSION IF NOT EXISTS pgmc");
	must("CREATE FUNCTION now_us() RETURNS bigint LANGUAGE sql VOLATILE AS"
		 " 'SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint'");
	must("CREATE TABLE work (job bigint, server int, token bigint, pid int, at bigint)");
	for (int i = 0; i < NSERVERS; i++)
	{
		char		sql[400];

		snprintf(sql, sizeof(sql), "CREATE SERVER %s FOREIGN DATA WRAPPER pgmc OPTIONS (%s)",
				 servers[i].name, servers[i].options);
		must(sql);
	}
}

static void
stop_sessions(void)
{
	int64_t		limit = now_us() + (HANG_S + 10) * INT64_C(1000000);

	shared->stop = 1;
	for (int i = 0; i < opt_sessions; i++)
		for (;;)
		{
			int			status;
			pid_t		got = waitpid(shared->session[i].process, &status, WNOHANG);

			if (got != 0)
				break;
			if (now_us() > limit)
			{
				violation("session %d does not end", i);
				kill(shared->session[i].process, SIGKILL);
				limit = now_us() + 1000000;
			}
			sleep_us(1000);
		}
}

static void
read_options(int argc, char **argv)
{
	static const struct
	{
		const char *name;
		int		   *number;
		const char **text;
	}			options[] = {
		{"--seed", &opt_seed, NULL},
		{"--seconds", &opt_seconds, NULL},
		{"--sessions", &opt_sessions, NULL},
		{"--kill-ms", &opt_kill_ms, NULL},
		{"--crash-s", &opt_crash_s, NULL},
		{"--data", NULL, &opt_data},
		{"--pg-ctl", NULL, &opt_pg_ctl},
		{"--log", NULL, &opt_log},
	};

	for (int i = 1; i < argc; i += 2)
	{
		bool		known = false;

		for (size_t o = 0; o < sizeof(options) / sizeof(options[0]); o++)
			if (strcmp(argv[i], options[o].name) == 0 && i + 1 < argc)
			{
				known = true;
				if (options[o].number != NULL)
					*options[o].number = atoi(argv[i + 1]);
				else
					*options[o].text = argv[i + 1];
			}
		if (!known)
		{
			fprintf(stderr, "torture: unknown option %s\n", argv[i]);
			exit(2);
		}
	}
	if (opt_sessions < 1 || opt_sessions > MAX_SESSIONS)
		opt_sessions = MAX_SESSIONS;
}

int
main(int argc, char **argv)
{
	read_options(argc, argv);
	shared = mmap(NULL, sizeof(Shared), PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (shared == MAP_FAILED)
	{
		perror("mmap");
		return 1;
	}
	signal(SIGPIPE, SIG_IGN);
	my_number = -1;
	seed_random((uint64_t) opt_seed);
	set_up();
	for (int i = 0; i < opt_sessions; i++)
		start_session(i);
	torture();
	stop_sessions();
	PQfinish(conn);				/* may be dead already */
	conn = NULL;
	await_server();
	prove();
	printf("%-34s %d\n", "violations", shared->violations);
	return shared->violations == 0 ? 0 : 1;
}
