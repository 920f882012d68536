-- CALL pgmc.run: commands that wait for everybody's older snapshots, the caller's own included.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgmc;
RESET client_min_messages;

CREATE SERVER run_second FOREIGN DATA WRAPPER pgmc;
CREATE TABLE run_t WITH (autovacuum_enabled = off) AS SELECT n AS a, n % 10 AS b FROM generate_series(1, 1000) AS n;
CREATE VIEW run_indexes AS SELECT indexrelid::regclass AS index, indisvalid, indisready FROM pg_index WHERE indrelid = 'run_t'::regclass ORDER BY indexrelid::regclass::text;

-- These wait for the caller, or would, if it had a snapshot or a transaction.
CALL pgmc.run('CREATE INDEX CONCURRENTLY run_a ON run_t (a)');
CALL pgmc.run('CREATE UNIQUE INDEX CONCURRENTLY run_a_unique ON run_t (a)', 'run_second');
SELECT * FROM run_indexes;
CALL pgmc.run('REINDEX INDEX CONCURRENTLY run_a');
CALL pgmc.run('REINDEX TABLE CONCURRENTLY run_t');
CALL pgmc.run(server => 'run_second', command => 'DROP INDEX CONCURRENTLY run_a_unique');
SELECT * FROM run_indexes;

-- VACUUM removes what the caller has just deleted, and so gives pages back.
DO $$
BEGIN
	DELETE FROM run_t WHERE a > 10;
	CALL pgmc.run('VACUUM run_t');
END
$$;
SELECT count(*), pg_relation_size('run_t') = current_setting('block_size')::int AS one_page FROM run_t;

-- an ordinary command commits, several do as one transaction
CALL pgmc.run('INSERT INTO run_t VALUES (0, 0)');
CALL pgmc.run('INSERT INTO run_t VALUES (-1, 0); INSERT INTO run_t VALUES (-2, 0)');
CALL pgmc.run('INSERT INTO run_t VALUES (-3, 0); SELECT 1/0');
\echo :SQLSTATE
SELECT a FROM run_t WHERE a <= 0 ORDER BY a;

-- ---- where it can be called ----

-- not in a transaction block, nor in a function, for it commits
BEGIN;
CALL pgmc.run('INSERT INTO run_t VALUES (-4, 0)');
\echo :SQLSTATE
ROLLBACK;
CREATE FUNCTION run_function() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	CALL pgmc.run('INSERT INTO run_t VALUES (-5, 0)');
END
$$;
SELECT run_function();
\echo :SQLSTATE
BEGIN;
DO $$BEGIN CALL pgmc.run('INSERT INTO run_t VALUES (-6, 0)'); END$$;
\echo :SQLSTATE
ROLLBACK;
DO $$
BEGIN
	CALL pgmc.run('INSERT INTO run_t VALUES (-7, 0)');
EXCEPTION WHEN OTHERS THEN
	RAISE NOTICE '% %', sqlstate, sqlerrm;
END
$$;
SELECT count(*) FROM run_t WHERE a <= -4;

-- in a DO block and in a procedure, whose work until then is committed
DO $$
BEGIN
	INSERT INTO run_t VALUES (-10, 0);
	CALL pgmc.run('UPDATE run_t SET b = -1 WHERE a = -10');
	INSERT INTO run_t VALUES (-11, 0);
	CALL pgmc.run('CREATE INDEX CONCURRENTLY run_b ON run_t (b)');
	INSERT INTO run_t VALUES (-12, 0);
	RAISE 'in vain';
END
$$;
SELECT a, b FROM run_t WHERE a <= -10 ORDER BY a;
SELECT * FROM run_indexes;
CREATE PROCEDURE run_procedure(name text) LANGUAGE plpgsql AS $$
DECLARE
	r record;
	n int := 0;
BEGIN
	FOR r IN SELECT index FROM run_indexes LOOP
		CALL pgmc.run(format('REINDEX INDEX CONCURRENTLY %s', r.index));
		n := n + 1;
	END LOOP;
	CALL pgmc.run('COMMENT ON INDEX run_b IS ' || quote_literal(name));
	RAISE NOTICE '% indexes', n;
END
$$;
CALL run_procedure('a comment');
SELECT obj_description('run_b'::regclass, 'pg_class');
SELECT * FROM run_indexes;

-- ---- the caller's holds ----

-- A hold of the session lasts over the commit, and the command needs another connection.
SELECT pgmc.acquire('run_second');
CALL pgmc.run('INSERT INTO run_t VALUES (-20, 0)');
SELECT pgmc.execute('SELECT 1');
SELECT pgmc.rollback();
SELECT pgmc.release();
SELECT pgmc.acquire();
CALL pgmc.run('INSERT INTO run_t VALUES (-21, 0)');
\echo :SQLSTATE
SELECT a FROM run_t WHERE a <= -20 ORDER BY a;

-- one of the transaction ends with it, and where it is dirty, nothing runs
DO $$
BEGIN
	PERFORM pgmc.acquire_xact('run_second');
	PERFORM pgmc.execute('SELECT 1');
	CALL pgmc.run('INSERT INTO run_t VALUES (-22, 0)');
END
$$;
\echo :SQLSTATE
SELECT a FROM run_t WHERE a <= -22 ORDER BY a;

-- ---- bad input ----

CALL pgmc.run(NULL);
\echo :SQLSTATE
CALL pgmc.run('SELEKT 1');
\echo :SQLSTATE
CALL pgmc.run('SELECT 1', 'no_such_server');
\echo :SQLSTATE
CALL pgmc.run('BEGIN; SELECT 1');
\echo :SQLSTATE
\set VERBOSITY terse
CALL pgmc.run('COPY run_t TO STDOUT');
\set VERBOSITY default
\echo :SQLSTATE
CREATE ROLE regress_pgmc_run;
SET ROLE regress_pgmc_run;
CALL pgmc.run('SELECT 1');
\echo :SQLSTATE
RESET ROLE;
DROP ROLE regress_pgmc_run;
CALL pgmc.run('SELECT 1');

-- notices arrive
CALL pgmc.run('DROP TABLE IF EXISTS run_no_such_table');

SELECT pgmc.release_all(), pgmc.close(), pgmc.close('run_second');
DROP PROCEDURE run_procedure;
DROP FUNCTION run_function;
DROP VIEW run_indexes;
DROP TABLE run_t;
DROP SERVER run_second;
