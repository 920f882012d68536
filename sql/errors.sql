-- Errors of the loopback statement arrive as they were, with all their fields; notices and warnings
-- arrive, too; and a connection that is lost stays lost until it is released.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgmc;
RESET client_min_messages;

CREATE SCHEMA errors_s;
CREATE DOMAIN errors_s.small AS int CONSTRAINT small_check CHECK (value < 10);
CREATE TABLE errors_s.t (id int CONSTRAINT t_key PRIMARY KEY, name text NOT NULL, s errors_s.small);
CREATE FUNCTION errors_s.complain(level text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	CASE level
		WHEN 'debug' THEN RAISE DEBUG 'a debug message';
		WHEN 'info' THEN RAISE INFO 'an info';
		WHEN 'notice' THEN RAISE NOTICE 'a notice' USING DETAIL = 'Its detail.', HINT = 'Its hint.';
		WHEN 'warning' THEN RAISE WARNING 'a warning' USING ERRCODE = '01P99';
		ELSE RAISE EXCEPTION 'an error' USING ERRCODE = 'PX001', DETAIL = E'A detail\nof two lines.', HINT = 'A %s hint.',
			SCHEMA = 'some schema', TABLE = 'some table', COLUMN = 'some column', CONSTRAINT = 'some constraint', DATATYPE = 'some type';
	END CASE;
END
$$;

-- Shows all that there is of a command's error, once from pgmc and once had directly
CREATE FUNCTION errors_s.diagnose(command text) RETURNS TABLE (field text, directly text, with_pgmc text) LANGUAGE plpgsql AS $$
DECLARE
	d text[];
	p text[];
	f1 text; f2 text; f3 text; f4 text; f5 text; f6 text; f7 text; f8 text; f9 text; f10 text;
BEGIN
	FOR i IN 1 .. 2 LOOP
		BEGIN
			IF i = 1 THEN
				EXECUTE command;
			ELSE
				PERFORM pgmc.execute(command);
			END IF;
			RAISE 'no error';
		EXCEPTION WHEN OTHERS THEN
			GET STACKED DIAGNOSTICS f1 = RETURNED_SQLSTATE, f2 = MESSAGE_TEXT, f3 = PG_EXCEPTION_DETAIL, f4 = PG_EXCEPTION_HINT,
				f5 = SCHEMA_NAME, f6 = TABLE_NAME, f7 = COLUMN_NAME, f8 = CONSTRAINT_NAME, f9 = PG_DATATYPE_NAME, f10 = PG_EXCEPTION_CONTEXT;
			f10 := substr(f10, 1, CASE i WHEN 1 THEN position('PL/pgSQL function errors_s.diagnose' IN f10)
				ELSE position(E'\nSQL statement "SELECT pgmc.execute' IN f10) END - 1);
			IF i = 1 THEN
				d := ARRAY[f1, f2, f3, f4, f5, f6, f7, f8, f9, f10];
			ELSE
				p := ARRAY[f1, f2, f3, f4, f5, f6, f7, f8, f9, f10];
			END IF;
		END;
	END LOOP;
	PERFORM pgmc.rollback();
	RETURN QUERY SELECT * FROM unnest(ARRAY['sqlstate', 'message', 'detail', 'hint', 'schema', 'table', 'column', 'constraint', 'datatype', 'context'], d, p)
		AS u(a, b, c) WHERE b <> '' OR c <> '';
END
$$;

SELECT pgmc.acquire();
SELECT pgmc.execute($$INSERT INTO errors_s.t VALUES (1, 'one')$$);
SELECT pgmc.commit();

SELECT * FROM errors_s.diagnose($$INSERT INTO errors_s.t VALUES (1, 'again')$$);
SELECT * FROM errors_s.diagnose($$INSERT INTO errors_s.t VALUES (2, NULL)$$);
SELECT * FROM errors_s.diagnose($$INSERT INTO errors_s.t VALUES (2, 'two', 11)$$);
SELECT * FROM errors_s.diagnose($$SELECT errors_s.complain('error')$$);
SELECT * FROM errors_s.diagnose('SELECT nothing FROM errors_s.t');
SELECT * FROM errors_s.diagnose('SELECT 1; SELECT 1/0');

-- ---- where the error is ----

-- the position is one in the command, not in the caller's statement
\set ON_ERROR_ROLLBACK on
BEGIN;
SELECT 'a long prefix', pgmc.execute('SELECT 1, 2 FORM errors_s.t');
SELECT pgmc.rollback();
SELECT pgmc.execute('SELECT $1 + nothing', 1);
SELECT pgmc.rollback();
SELECT * FROM pgmc.query(E'SELECT 1;\nSELEKT 2') AS t(a int);
SELECT pgmc.rollback();
DO $$
BEGIN
	PERFORM pgmc.execute('SELEKT 1');
END
$$;
SELECT pgmc.rollback();

-- or in a statement of a function over there
CREATE FUNCTION errors_s.broken() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM nothing FROM errors_s.t;
END
$$;
COMMIT;
BEGIN;
SELECT pgmc.execute('SELECT errors_s.broken()');
SELECT pgmc.rollback();

-- ---- notices and warnings ----

SELECT pgmc.execute('SELECT errors_s.complain($1)', 'notice');
SELECT pgmc.execute('SELECT errors_s.complain($1)', 'warning');
\set VERBOSITY sqlstate
SELECT pgmc.execute('SELECT errors_s.complain($1)', 'warning');
\set VERBOSITY default
SELECT pgmc.execute('SELECT errors_s.complain($1)', 'info');
SELECT pgmc.execute($$DROP TABLE IF EXISTS errors_s.no_such_table$$);
SELECT * FROM pgmc.query($$SELECT 1 FROM errors_s.complain('notice')$$) AS t(a int);

-- several of them, and before an error
SELECT pgmc.execute($$DO 'BEGIN RAISE NOTICE ''one''; RAISE WARNING ''two''; RAISE ''three''; END'$$);
SELECT pgmc.rollback();

-- what both sides let through: the loopback its own level, the session its own
SELECT pgmc.execute('SET client_min_messages = debug1');
SELECT pgmc.execute('SELECT errors_s.complain($1)', 'debug');
SET client_min_messages = debug1;
SELECT pgmc.execute('SELECT errors_s.complain($1)', 'debug');
RESET client_min_messages;
SELECT pgmc.execute('SET client_min_messages = error');
SELECT pgmc.execute('SELECT errors_s.complain($1)', 'warning');
SELECT pgmc.execute('RESET client_min_messages');
SET client_min_messages = error;
SELECT pgmc.execute('SELECT errors_s.complain($1)', 'warning');
RESET client_min_messages;
SELECT pgmc.rollback();
COMMIT;
SELECT pgmc.release();

-- ---- errors of autonomous commands ----

SELECT pgmc.autonomous($$INSERT INTO errors_s.t VALUES (1, 'again')$$);
\echo :SQLSTATE :LAST_ERROR_SQLSTATE
SELECT pgmc.transaction_status();
SELECT pgmc.autonomous('SELECT errors_s.complain($1)', 'notice');
SELECT pgmc.autonomous('SELEKT 1');

-- ---- a connection that is lost ----

SELECT pgmc.acquire();
SELECT pgmc.execute($$INSERT INTO errors_s.t VALUES (2, 'two')$$);
SELECT pgmc.commit();
BEGIN;
SELECT pgmc.execute($$INSERT INTO errors_s.t VALUES (3, 'three')$$);
SELECT pgmc.execute('SELECT pg_terminate_backend(pg_backend_pid())');
\echo :SQLSTATE

-- from now on everything is an error, until it is released; nothing goes elsewhere
SELECT pgmc.execute($$INSERT INTO errors_s.t VALUES (4, 'four')$$);
\echo :SQLSTATE
SELECT * FROM pgmc.query('SELECT 1') AS t(a int);
\echo :SQLSTATE
SELECT pgmc.commit();
\echo :SQLSTATE
SELECT pgmc.rollback();
\echo :SQLSTATE
SELECT pgmc.set_autocommit(true);
\echo :SQLSTATE
SELECT pgmc.execute_on('pgmc_loopback', 'SELECT 1');
\echo :SQLSTATE
SELECT pgmc.acquire();
\echo :SQLSTATE
SELECT pgmc.transaction_status(), pgmc.is_closed(), pgmc.describe() LIKE '%(closed)>' AS described;
SELECT state, xact_status, backend_pid, holder_pid = pg_backend_pid() AS mine, last_error FROM pgmc.connections WHERE datname = current_database();
COMMIT;
SELECT pgmc.release();
SELECT id FROM errors_s.t ORDER BY id;

-- Release says what a lost transaction was, and is no error; then it works again.
BEGIN;
SELECT pgmc.acquire();
SELECT pgmc.execute($$INSERT INTO errors_s.t VALUES (5, 'five')$$);
SELECT pgmc.execute('SELECT pg_terminate_backend(pg_backend_pid())');
SELECT pgmc.release();
COMMIT;
SELECT pgmc.acquire();
SELECT pgmc.execute($$INSERT INTO errors_s.t VALUES (6, 'six')$$);
SELECT pgmc.commit();
SELECT pgmc.release();

-- Somebody catches the error and goes on: the second insert must not begin afresh.
BEGIN;
SELECT pgmc.acquire();
DO $$
BEGIN
	PERFORM pgmc.execute($i$INSERT INTO errors_s.t VALUES (7, 'seven')$i$);
	BEGIN
		PERFORM pgmc.execute('SELECT pg_terminate_backend(pg_backend_pid())');
	EXCEPTION WHEN connection_failure THEN
		RAISE NOTICE 'caught: %', sqlerrm;
	END;
	BEGIN
		PERFORM pgmc.execute($i$INSERT INTO errors_s.t VALUES (8, 'eight')$i$);
	EXCEPTION WHEN connection_failure THEN
		RAISE NOTICE 'caught again: %', sqlerrm;
	END;
	PERFORM pgmc.execute($i$INSERT INTO errors_s.t VALUES (9, 'nine')$i$);
END
$$;
\echo :SQLSTATE

SELECT pgmc.release();
COMMIT;
SELECT id FROM errors_s.t ORDER BY id;

-- from outside, while nothing runs
SELECT pgmc.acquire();
SELECT pgmc.execute('SELECT 1');
SELECT pg_terminate_backend(backend_pid, 60000) FROM pgmc.connections WHERE datname = current_database();
BEGIN;
SELECT pgmc.execute('SELECT 1');
\echo :SQLSTATE
SELECT pgmc.commit();
\echo :SQLSTATE
COMMIT;
SELECT pgmc.release();

CREATE PROCEDURE errors_s.wait_until(condition text) LANGUAGE plpgsql AS $$
DECLARE
	fulfilled boolean;
	since timestamptz := clock_timestamp();
BEGIN
	LOOP
		EXECUTE 'SELECT ' || condition INTO fulfilled;
		EXIT WHEN fulfilled;
		IF clock_timestamp() > since + interval '30 s' THEN
			RAISE 'waited in vain until %', condition;
		END IF;
		COMMIT;
		PERFORM pg_sleep(0.01);
	END LOOP;
END
$$;

-- a lost idle connection is noticed without a call, and opened again by the next one
SELECT pgmc.acquire();
SELECT pgmc.release();
SELECT pg_terminate_backend(backend_pid, 60000) FROM pgmc.connections WHERE datname = current_database();
CALL errors_s.wait_until('count(*) = 0 FROM pgmc.connections WHERE datname = current_database()');
SELECT pgmc.autonomous('SELECT 1');

-- an autonomous command whose connection is lost is not done, and the next one is
SELECT pgmc.autonomous('SELECT pg_terminate_backend(pg_backend_pid())');
\echo :SQLSTATE
SELECT pgmc.autonomous('SELECT 1');

\unset ON_ERROR_ROLLBACK
SELECT pgmc.release_all(), pgmc.close();
SET client_min_messages = warning;
DROP SCHEMA errors_s CASCADE;
