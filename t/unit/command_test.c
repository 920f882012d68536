/*
 * command_test.c
 *		What the scanner takes for one command, and what for several.
 */
#include "postgres_fe.h"

#include "command.h"

static int	number = 0;
static bool all_ok = true;

static void
several(const char *command, bool expected)
{
	bool		got = pgmc_command_may_be_several(command);

	printf("%sok %d - %s: ", got == expected ? "" : "not ", ++number,
		   expected ? "may be several" : "one");
	for (const char *p = command; *p != '\0'; p++)
		putchar(*p == '\n' ? ' ' : *p == '#' ? 'H' : *p);
	putchar('\n');
	all_ok = all_ok && got == expected;
}

static void
copy(const char *command, bool expected)
{
	bool		got = pgmc_command_may_be_copy(command);

	printf("%sok %d - copy: %s\n", got == expected ? "" : "not ", ++number, command);
	all_ok = all_ok && got == expected;
}

/* commits: c, may be one that does; w, or that does before its end; p, a PREPARE */
static void
commits(const char *command, const char *expected)
{
	char		got[4] = "";

	if (pgmc_command_may_commit(command))
		strcat(got, "c");
	if (pgmc_command_may_commit_within(command))
		strcat(got, "w");
	if (pgmc_command_may_prepare(command))
		strcat(got, "p");
	printf("%sok %d - commits (%s): %s\n", strcmp(got, expected) == 0 ? "" : "not ",
		   ++number, expected, command);
	all_ok = all_ok && strcmp(got, expected) == 0;
}

static void
repeatable(const char *command, bool expected)
{
	bool		got = pgmc_command_is_repeatable(command);

	printf("%sok %d - %srepeatable: %s\n", got == expected ? "" : "not ", ++number,
		   expected ? "" : "not ", command);
	all_ok = all_ok && got == expected;
}

int
main(void)
{
	commits("", "");
	commits("SELECT 1", "");
	commits("COMMIT", "c");
	commits(" ;\t commit AND CHAIN", "c");
	commits("End", "c");
	commits("INSERT INTO t VALUES (1); COMMIT", "c");
	commits("PREPARE TRANSACTION 'p'", "cp");
	commits("COMMIT PREPARED 'p'", "c");
	commits("SELECT 1; prepare transaction 'p'", "cp");
	commits("CALL p()", "w");
	commits("DO $$ BEGIN COMMIT; END $$", "cw");
	commits("VACUUM t", "w");
	commits("ANALYZE", "w");
	commits("reindex TABLE CONCURRENTLY t", "w");
	commits("CREATE INDEX CONCURRENTLY ON t (i)", "w");
	commits("create unique index concurrently i on t (i)", "w");
	commits("CREATE /* an */ INDEX -- one\n\tCONCURRENTLY ON t (i)", "w");
	commits("CREATE INDEX concurrently_not ON t (i)", "");
	commits("CREATE UNIQUE INDEX ON concurrently (i)", "");
	commits("CREATE TABLE concurrently (i int)", "");
	commits("DROP INDEX CONCURRENTLY IF EXISTS i", "w");
	commits("DROP UNIQUE INDEX CONCURRENTLY i", "");
	commits("DROP INDEX i", "");
	commits("ALTER TABLE t DETACH PARTITION p CONCURRENTLY", "w");
	commits("ALTER TABLE t DETACH PARTITION \"a;b\"/**/concurrently;", "w");
	commits("ALTER TABLE t DETACH PARTITION p", "");
	commits("ALTER TABLE t RENAME TO \"concurrently\"", "");
	commits("ALTER TABLE t RENAME TO not_concurrently", "");
	commits("ALTER TABLE t ADD CHECK (x <> 'concurrently')", "");
	commits("SELECT 1; DROP INDEX CONCURRENTLY i", "w");
	commits("-- why\nCOMMIT", "c");
	commits("/* why /* and */ how */ ; -- so\n CALL p()", "w");
	commits("/* COMMIT", "");
	commits("-- COMMIT", "");
	commits("SELECT 1; /* */ COMMIT", "c");
	commits("ending", "");
	commits("COMMIT; SELECT 1; CALL p(); PREPARE x AS SELECT 1", "cwp");
	commits("SELECT 'commit'", "");
	commits("ROLLBACK", "");
	several("", false);
	several("SELECT 1", false);
	several("SELECT 1;", false);
	several("SELECT 1; \n\t;", false);
	several("SELECT 1; SELECT 2", true);
	several("SELECT 1;SELECT 2;", true);
	several("SELECT ';'", false);
	several("SELECT 'it''s; this'", false);
	several("SELECT 'a'; SELECT 'b'", true);
	several("SELECT \"a;b\" FROM t", false);
	several("SELECT \"a\"\"b\"; SELECT 1", true);
	several("SELECT E'\\'; SELECT 1 --'", true);
	several("SELECT '\\'; SELECT 1", true);
	several("SELECT ';\\x'", true); /* can't tell, so it says so */
	several("DO $$ BEGIN PERFORM 1; END $$", false);
	several("DO $a$ BEGIN PERFORM $$;$$; END $a$; SELECT 1", true);
	several("DO $a$ ; $b$ ; $a$", false);
	several("DO $a$ ; $a", true);
	several("SELECT $1; SELECT $2", true);
	several("SELECT a$b$c; SELECT d$b$", true);
	several("SELECT 1 -- ; not here\n", false);
	several("SELECT 1 -- ; not here\n; SELECT 2", true);
	several("SELECT /* ; /* ; */ ; */ 1", false);
	several("SELECT /* ; /* ; */ ; 1", true);
	several("SELECT 1 /* ; */; /* behind */", true);
	several("SELECT 'open ;", true);
	several("SELECT '\xc3\xa4;'", false);
	copy("COPY t TO STDOUT", true);
	copy("  (copy", true);
	copy("-- hidden\nCOPY t TO STDOUT", true);
	copy("/* x */ SELECT 1", false);
	copy("/* x */ -- y\n ; /**/ (copy(SELECT 1) TO STDOUT)", true);
	copy("-- SELECT 1\rCOPY t TO STDOUT", true);
	copy("-- COPY t TO STDOUT", false);
	copy("/* no end: COPY t TO STDOUT", true);
	copy("copying", false);
	copy("SELECT 1", false);
	copy("", false);
	repeatable("SELECT 1", true);
	repeatable("  -- behind a comment \\ 'now\r select 1", true);
	repeatable("INSERT INTO t VALUES ($1)", true);
	repeatable("WITH a AS (SELECT 1) DELETE FROM t", true);
	repeatable("selection", false);
	repeatable("COMMIT", false);
	repeatable("CALL p()", false);
	repeatable("EXECUTE s", false);
	repeatable("", false);
	repeatable("SELECT now(), \"now\", current_date", true);
	repeatable("SELECT 'now'::timestamptz", false);
	repeatable("SELECT 'NOW()'::timestamptz", false);
	repeatable("SELECT 'Today'::date", false);
	repeatable("SELECT '[yesterday,tomorrow)'::daterange", false);
	repeatable("SELECT $$today$$::date", false);
	repeatable("SELECT $now$2000-01-01$now$::date", false); /* can't hurt */
	repeatable("SELECT 'I know', 'nowhere', 'todays'", true);
	repeatable("SELECT 'know now'", false);
	repeatable("SELECT 'unclear \\'", false);
	repeatable("SELECT 'open", false);
	printf("1..%d\n", number);
	return all_ok ? 0 : 1;
}
