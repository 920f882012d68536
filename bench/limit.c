/*
 * limit.c
 *		What to measure the asking of a backend over libpq by: a client that
 *		does no more than that.
 *
 *	limit WORK COUNT [poll]
 *
 * does the WORK of a pair of pairs.sql COUNT times and prints the microseconds
 * that each took.  It sleeps for a reply, as libpq does, or polls.  Statements
 * are prepared, rows are binary, and what can go out together does; there is no
 * SQL, no worker and no shared memory on this side.  bench/limit.sh compares.
 * The server is the one that PGHOST, PGPORT and PGDATABASE name.
 */
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "libpq-fe.h"

#define INSERT	"INSERT INTO journal (who, what) VALUES ('bench', 'a line of the log')"

static PGconn *conn;
static bool polling = false;

static void
fail(void)
{
	fprintf(stderr, "limit: %s\n", PQerrorMessage(conn));
	exit(1);
}

/* The next result, as PQgetResult. */
static PGresult *
next_result(void)
{
	while (polling && PQisBusy(conn))
	{
		if (!PQconsumeInput(conn))
			fail();
		sched_yield();
	}
	return PQgetResult(conn);
}

/* Take all results of a statement, or of all up to a Sync. */
static void
take_results(ExecStatusType last)
{
	PGresult   *result;
	ExecStatusType status = PGRES_COMMAND_OK;

	do
	{
		while ((result = next_result()) != NULL)
		{
			status = PQresultStatus(result);
			PQclear(result);
			if (status == PGRES_FATAL_ERROR || status == PGRES_PIPELINE_ABORTED)
				fail();
			if (status == PGRES_PIPELINE_SYNC)
				return;
		}
	} while (status != last);
}

static void
run(const char *command)
{
	PGresult   *result = PQexec(conn, command);

	if (PQresultStatus(result) != PGRES_COMMAND_OK)
		fail();
	PQclear(result);
}

static void
prepare(const char *command)
{
	PGresult   *result = PQprepare(conn, "s", command, 0, NULL);

	if (PQresultStatus(result) != PGRES_COMMAND_OK)
		fail();
	PQclear(result);
}

static void
send_prepared(void)
{
	if (!PQsendQueryPrepared(conn, "s", 0, NULL, NULL, NULL, 1))
		fail();
}

static void
send_sync(void)
{
	if (!PQpipelineSync(conn))
		fail();
}

/* ---- the works ---- */

static void
held(int count)
{
	run("BEGIN");
	for (int i = 0; i < count; i++)
	{
		send_prepared();
		take_results(PGRES_TUPLES_OK);
	}
	run("ROLLBACK");
}

static void
insert(int count)
{
	for (int i = 0; i < count; i++)
	{
		send_prepared();
		take_results(PGRES_COMMAND_OK);
	}
}

/* a transaction in two round trips: nobody knows that its COMMIT comes next */
static void
block(int count)
{
	if (!PQenterPipelineMode(conn))
		fail();
	for (int i = 0; i < count; i++)
	{
		if (!PQsendQueryParams(conn, "BEGIN", 0, NULL, NULL, NULL, NULL, 0))
			fail();
		send_prepared();
		send_sync();
		take_results(PGRES_PIPELINE_SYNC);
		if (!PQsendQueryParams(conn, "COMMIT", 0, NULL, NULL, NULL, NULL, 0))
			fail();
		send_sync();
		take_results(PGRES_PIPELINE_SYNC);
	}
}

static void
rows(int count)
{
	for (int i = 0; i < count; i++)
	{
		send_prepared();
		if (!PQsetSingleRowMode(conn))
			fail();
		take_results(PGRES_TUPLES_OK);
	}
}

/* ---- the whole ---- */

static const struct Work
{
	const char *name;
	const char *statement;
	void		(*run) (int count);
}			works[] = {
	{"held", "SELECT 1", held},
	{"insert", INSERT, insert},
	{"block", INSERT, block},
	{"rows", "SELECT id, what, at FROM big", rows}
};

static double
clock_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

int
main(int argc, char **argv)
{
	const struct Work *work = NULL;
	bool		usable = argc == 3 || (argc == 4 && strcmp(argv[3], "poll") == 0);
	int			count = usable ? atoi(argv[2]) : 0;
	double		begin;

	polling = argc == 4;
	for (size_t i = 0; usable && i < sizeof(works) / sizeof(works[0]); i++)
		if (strcmp(argv[1], works[i].name) == 0)
			work = &works[i];
	if (work == NULL || count <= 0)
	{
		fprintf(stderr, "usage: limit held|insert|block|rows COUNT [poll]\n");
		return 2;
	}
	conn = PQconnectdb("");
	if (PQstatus(conn) != CONNECTION_OK)
		fail();
	prepare(work->statement);
	begin = clock_us();
	work->run(count);
	printf("%.3f\n", (clock_us() - begin) / count);
	PQfinish(conn);
	return 0;
}
