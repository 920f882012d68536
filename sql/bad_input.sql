-- Bad input of all kinds: a clear error each, and the connection usable afterwards.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgmc;
RESET client_min_messages;

CREATE TABLE bad_input_t (a int);
\set ON_ERROR_ROLLBACK on
BEGIN;
SELECT pgmc.acquire();

-- ---- NULLs ----

SELECT pgmc.execute(NULL);
\echo :SQLSTATE
SELECT pgmc.execute(NULL, 1);
\echo :SQLSTATE
SELECT pgmc.execute_on('pgmc_loopback', NULL);
\echo :SQLSTATE
SELECT * FROM pgmc.query(NULL) AS t(a int);
\echo :SQLSTATE
SELECT * FROM pgmc.query_on('pgmc_loopback', NULL) AS t(a int);
\echo :SQLSTATE
SELECT pgmc.autonomous(NULL);
\echo :SQLSTATE
SELECT pgmc.autonomous_on('pgmc_loopback', NULL);
\echo :SQLSTATE
SELECT * FROM pgmc.autonomous_query(NULL) AS t(a int);
\echo :SQLSTATE
SELECT * FROM pgmc.autonomous_query_on('pgmc_loopback', NULL) AS t(a int);
\echo :SQLSTATE
SELECT pgmc.set_autocommit(NULL);
\echo :SQLSTATE
SELECT pgmc.transaction_status();

-- ---- time-outs ----

CREATE SERVER bad_input_second FOREIGN DATA WRAPPER pgmc;
COMMIT;
BEGIN;
SELECT pgmc.acquire('bad_input_second', '-1 s');
\echo :SQLSTATE
SELECT pgmc.acquire('bad_input_second', '-1 month +1 day');
\echo :SQLSTATE
SELECT pgmc.acquire_xact('bad_input_second', '-1 us');
\echo :SQLSTATE
SELECT pgmc.acquire('bad_input_second', '1000000 years');
SELECT pgmc.release();
SELECT pgmc.acquire('bad_input_second', '0');
SELECT pgmc.release();
SELECT pgmc.acquire('bad_input_second', '25 days');
SELECT pgmc.release();

-- ---- servers ----

CREATE FOREIGN DATA WRAPPER bad_input_wrapper;
CREATE SERVER bad_input_other FOREIGN DATA WRAPPER bad_input_wrapper;
SELECT pgmc.acquire('no_such_server');
\echo :SQLSTATE
SELECT pgmc.acquire('bad_input_other');
\echo :SQLSTATE
SELECT pgmc.try_acquire('no_such_server');
\echo :SQLSTATE
SELECT pgmc.autonomous_on('no_such_server', 'SELECT 1');
\echo :SQLSTATE
SELECT pgmc.autonomous_on('bad_input_other', 'SELECT 1');
\echo :SQLSTATE
SELECT pgmc.execute_on('no_such_server', 'SELECT 1');
\echo :SQLSTATE
SELECT pgmc.release('no_such_server');
\echo :SQLSTATE
SELECT pgmc.describe('no_such_server');
\echo :SQLSTATE
SELECT pgmc.is_closed('bad_input_other');
\echo :SQLSTATE
SELECT pgmc.transaction_status('no_such_server');
\echo :SQLSTATE
SELECT pgmc.close('no_such_server');
\echo :SQLSTATE
SELECT pgmc.acquire('');
\echo :SQLSTATE
SET pgmc.default_server = 'no_such_server';
SELECT pgmc.autonomous('SELECT 1');
\echo :SQLSTATE
RESET pgmc.default_server;
DROP FOREIGN DATA WRAPPER bad_input_wrapper CASCADE;
DROP SERVER bad_input_second;

-- ---- columns ----

SELECT * FROM pgmc.query('SELECT 1, 2') AS t(a int);
\echo :SQLSTATE
SELECT * FROM pgmc.query('SELECT 1') AS t(a int, b int);
\echo :SQLSTATE
SELECT * FROM pgmc.query('UPDATE bad_input_t SET a = 1') AS t(a int);
\echo :SQLSTATE
SELECT * FROM pgmc.query('CREATE TABLE bad_input_u (a int)') AS t(a int);
\echo :SQLSTATE
SELECT * FROM pgmc.query('SELECT 1; SELECT 1, 2') AS t(a int);
\echo :SQLSTATE
SELECT * FROM pgmc.query('SELECT 1');
\echo :SQLSTATE
SELECT pgmc.query('SELECT 1');
\echo :SQLSTATE
SELECT pgmc.autonomous_query('SELECT 1');
\echo :SQLSTATE
SELECT * FROM pgmc.query('SELECT $$x$$::text') AS t(a int);
\echo :SQLSTATE

-- twice, now that the command is known
SELECT * FROM pgmc.query('SELECT 1, 2') AS t(a int);
\echo :SQLSTATE
SELECT * FROM pgmc.query('SELECT 1, 2') AS t(a int, b int);
SELECT * FROM pgmc.query('SELECT 1, 2') AS t(a int);
\echo :SQLSTATE

-- a command of which the rows can't be had has not been run
SELECT pgmc.commit();
SELECT to_regclass('bad_input_u');

-- ---- commands ----

-- an empty one is none, and no error either
SELECT pgmc.execute('');
SELECT pgmc.execute(' ; -- nothing');
SELECT pgmc.execute('/* ; */');
SELECT * FROM pgmc.query('') AS t(a int);
\echo :SQLSTATE
SELECT pgmc.rollback();

SELECT pgmc.execute('SELEKT 1');
\echo :SQLSTATE
SELECT pgmc.rollback();
SELECT pgmc.execute('SELECT ''unterminated');
\echo :SQLSTATE
SELECT pgmc.rollback();
SELECT pgmc.execute('SELECT $1');
\echo :SQLSTATE
SELECT pgmc.rollback();
\set SHOW_CONTEXT never
SELECT pgmc.execute('SELECT $1::int', 'not a number');
\set SHOW_CONTEXT errors
\echo :SQLSTATE
SELECT pgmc.rollback();
SELECT pgmc.execute('SELECT $2::int', 1);
\echo :SQLSTATE
SELECT pgmc.rollback();
SELECT pgmc.execute('COMMIT PREPARED ''no_such_transaction''');
\echo :SQLSTATE
SELECT pgmc.rollback();
SELECT pgmc.execute('SELECT 1');
SELECT pgmc.rollback();

-- ---- COPY to and from us ----

SELECT pgmc.execute('COPY bad_input_t FROM STDIN');
\echo :SQLSTATE
SELECT pgmc.rollback();
SELECT pgmc.execute('COPY bad_input_t TO STDOUT');
\echo :SQLSTATE
SELECT pgmc.rollback();
SELECT * FROM pgmc.query('COPY (SELECT generate_series(1, 100000)) TO STDOUT') AS t(a text);
\echo :SQLSTATE
SELECT pgmc.rollback();
SELECT pgmc.execute('/* a comment */ copy bad_input_t FROM STDIN');
\echo :SQLSTATE
SELECT pgmc.rollback();
SELECT pgmc.execute('SELECT 1; COPY bad_input_t FROM STDIN; SELECT 2');
\echo :SQLSTATE
SELECT pgmc.rollback();
SELECT pgmc.execute('COPY bad_input_t (a) FROM STDIN', VARIADIC ARRAY[1]);
\echo :SQLSTATE
SELECT pgmc.rollback();
SELECT pgmc.release();
SELECT pgmc.autonomous('');
SELECT pgmc.autonomous('COPY bad_input_t FROM STDIN');
\echo :SQLSTATE
\set VERBOSITY terse
SELECT pgmc.autonomous('COPY bad_input_t TO STDOUT');
\set VERBOSITY default
\echo :SQLSTATE
SELECT pgmc.autonomous('INSERT INTO bad_input_t VALUES (1); COPY bad_input_t FROM STDIN');
\echo :SQLSTATE
\set VERBOSITY terse
SELECT * FROM pgmc.autonomous_query('COPY bad_input_t TO STDOUT') AS t(a text);
\set VERBOSITY default
\echo :SQLSTATE
SELECT * FROM bad_input_t;
SELECT pgmc.acquire();
SELECT pgmc.execute('SELECT 1');
SELECT pgmc.transaction_status();
SELECT pgmc.rollback();

-- in autocommit mode
SELECT pgmc.set_autocommit(true);
SELECT pgmc.execute('COPY bad_input_t FROM STDIN');
\echo :SQLSTATE
SELECT pgmc.transaction_status();
SELECT pgmc.execute('INSERT INTO bad_input_t VALUES (2)');
SELECT pgmc.set_autocommit(false);
SELECT a FROM bad_input_t ORDER BY a;

-- ---- a huge command ----

SELECT pgmc.execute('SELECT 1 ' || repeat('-- x' || chr(10), 1000000));
SELECT pgmc.execute('SELECT ' || repeat('1 + ', 2000) || '1');
SELECT pgmc.execute($$SELECT '$$ || repeat('x', 8000000) || $$'$$);
SELECT octet_length(a) FROM pgmc.query($$SELECT '$$ || repeat('y', 8000000) || $$'$$) AS t(a text);
SELECT pgmc.transaction_status();
SELECT pgmc.rollback();
\set VERBOSITY terse
SELECT pgmc.execute('SELECT ' || repeat(' ', 3000000) || '1/0');
\echo :SQLSTATE
SELECT pgmc.rollback();
\set VERBOSITY default
SELECT pgmc.execute('SELECT 1', VARIADIC array_fill(1, ARRAY[70000]));
\echo :SQLSTATE
SELECT pgmc.rollback();
SELECT pgmc.release();
COMMIT;

-- ---- rights ----

CREATE ROLE regress_pgmc_bad;
SET ROLE regress_pgmc_bad;
SELECT pgmc.acquire();
\echo :SQLSTATE
SELECT pgmc.try_acquire_xact();
\echo :SQLSTATE
SELECT pgmc.autonomous('SELECT 1');
\echo :SQLSTATE
SELECT * FROM pgmc.autonomous_query('SELECT 1') AS t(a int);
\echo :SQLSTATE
SELECT pgmc.describe();
\echo :SQLSTATE
SELECT pgmc.is_closed();
\echo :SQLSTATE
SELECT pgmc.transaction_status();
\echo :SQLSTATE
SELECT pgmc.close();
\echo :SQLSTATE
SELECT pgmc.stop_worker();
\echo :SQLSTATE
RESET ROLE;

-- membership in a role that has it counts, and so does ownership
CREATE ROLE regress_pgmc_group;
GRANT USAGE ON FOREIGN SERVER pgmc_loopback TO regress_pgmc_group;
GRANT regress_pgmc_group TO regress_pgmc_bad;
GRANT USAGE ON FOREIGN DATA WRAPPER pgmc TO regress_pgmc_bad;
SET ROLE regress_pgmc_bad;
SELECT pgmc.is_closed();
CREATE SERVER bad_input_own FOREIGN DATA WRAPPER pgmc;
SELECT pgmc.is_closed('bad_input_own'), pgmc.close('bad_input_own');
DROP SERVER bad_input_own;
RESET ROLE;
DROP OWNED BY regress_pgmc_bad, regress_pgmc_group;
DROP ROLE regress_pgmc_bad, regress_pgmc_group;

-- ---- where nothing of it may be called ----

-- in an index expression, which ANALYZE and others run with the owner's rights
CREATE FUNCTION bad_input_call() RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
	IF current_setting('bad_input.call', true) = 'yes' THEN
		PERFORM pgmc.autonomous('INSERT INTO bad_input_t VALUES (3)');
	END IF;
	RETURN 1;
END
$$;
CREATE INDEX bad_input_index ON bad_input_t ((bad_input_call() + a));
SET bad_input.call = 'yes';
ANALYZE bad_input_t;
\echo :SQLSTATE
DROP INDEX bad_input_index;
RESET bad_input.call;

-- in a materialized view
SET bad_input.call = 'no';
CREATE MATERIALIZED VIEW bad_input_view AS SELECT bad_input_call();
SET bad_input.call = 'yes';
REFRESH MATERIALIZED VIEW bad_input_view;
\echo :SQLSTATE
DROP MATERIALIZED VIEW bad_input_view;

-- each function, also those that only look
CREATE FUNCTION bad_input_each() RETURNS int IMMUTABLE LANGUAGE plpgsql AS $f$
DECLARE
	command text;
BEGIN
	IF current_setting('bad_input.call') = 'yes' THEN
		FOREACH command IN ARRAY ARRAY['acquire()', 'acquire_xact()', 'try_acquire()', 'try_acquire_xact()', 'release()', 'execute($$SELECT 1$$)',
				'commit()', 'rollback()', 'set_autocommit(true)', 'autonomous($$SELECT 1$$)', 'transaction_status()', 'is_closed()', 'describe()', 'close()', 'stop_worker()',
				'release_all()', 'stat_reset($$pgmc_loopback$$)', 'get_connections()', 'get_stat_connections()', 'execute_many($$SELECT $1$$, ARRAY[1])'] LOOP
			BEGIN
				EXECUTE 'SELECT pgmc.' || command;
				RAISE NOTICE 'works: %', command;
			EXCEPTION WHEN insufficient_privilege THEN
				NULL;
			END;
		END LOOP;
		RAISE NOTICE 'all tried';
	END IF;
	RETURN 1;
END
$f$;
SET bad_input.call = 'no';
CREATE MATERIALIZED VIEW bad_input_view AS SELECT bad_input_each();
SET bad_input.call = 'yes';
REFRESH MATERIALIZED VIEW bad_input_view;
DROP MATERIALIZED VIEW bad_input_view;
SELECT count(*) FROM bad_input_t WHERE a = 3;

-- in a parallel worker, where somebody lies about what is safe there
ALTER FUNCTION bad_input_call PARALLEL SAFE;
ALTER FUNCTION bad_input_call STABLE;
CREATE TABLE bad_input_big AS SELECT generate_series(1, 1000) AS a;
ANALYZE bad_input_big;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET max_parallel_workers_per_gather = 2;
\set VERBOSITY terse
SELECT count(*) FROM bad_input_big WHERE a + bad_input_call() > 0;
\echo :SQLSTATE
\set VERBOSITY default
RESET parallel_setup_cost;
RESET parallel_tuple_cost;
RESET min_parallel_table_scan_size;
RESET max_parallel_workers_per_gather;
SELECT count(*) FROM bad_input_t WHERE a = 3;

-- and still everything works
SELECT pgmc.autonomous('SELECT 1');

\unset ON_ERROR_ROLLBACK
SELECT pgmc.release_all(), pgmc.close();
DROP TABLE bad_input_t, bad_input_big;
DROP FUNCTION bad_input_call, bad_input_each;
