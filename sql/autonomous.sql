-- Autonomous commands: a whole managed block in one call, committed whatever the caller does.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgmc;
RESET client_min_messages;

CREATE TABLE autonomous_t (id int PRIMARY KEY, a text);
CREATE SERVER autonomous_second FOREIGN DATA WRAPPER pgmc;

-- ---- it survives the caller ----

BEGIN;
SELECT pgmc.autonomous('INSERT INTO autonomous_t VALUES ($1, $2)', 1, 'survives');
SELECT * FROM autonomous_t;
ROLLBACK;
SELECT * FROM autonomous_t;
SELECT state, xact_status, holder_pid FROM pgmc.connections WHERE datname = current_database();

-- the caller's error included
SELECT pgmc.autonomous($$INSERT INTO autonomous_t VALUES (2, 'too')$$) / 0;
SELECT * FROM autonomous_t ORDER BY id;

-- it doesn't see what the caller hasn't committed
BEGIN;
INSERT INTO autonomous_t VALUES (3, 'not yet');
SELECT pgmc.autonomous('SELECT * FROM autonomous_t');
ROLLBACK;

-- the number of rows, as of pgmc.execute
SELECT pgmc.autonomous('UPDATE autonomous_t SET a = upper(a)'), pgmc.autonomous('SET work_mem = 64'),
	pgmc.autonomous('SELECT generate_series(1, $1)', 7), pgmc.autonomous('DELETE FROM autonomous_t WHERE id = $1', '2');
SELECT * FROM autonomous_t;

-- ---- rows ----

SELECT * FROM pgmc.autonomous_query('INSERT INTO autonomous_t VALUES ($1, $2) RETURNING *', 4, 'four') AS t(id int, a text);
SELECT * FROM pgmc.autonomous_query('SELECT id, a FROM autonomous_t ORDER BY id') AS t(id int, a text);
SELECT * FROM pgmc.autonomous_query('SELECT $1 + $2', VARIADIC ARRAY[1, 2]) AS t(sum int);
SELECT * FROM pgmc.autonomous_query('SELECT now() - $1 < $2', now(), interval '1 hour') AS t(soon boolean);

-- an error in taking the rows comes with what became of the command
\set ON_ERROR_ROLLBACK on
BEGIN;
SELECT * FROM pgmc.autonomous_query($$INSERT INTO autonomous_t VALUES (5, 'five') RETURNING a$$) AS t(a int);
\echo :SQLSTATE
COMMIT;
SELECT count(*) FROM autonomous_t WHERE id = 5;
DELETE FROM autonomous_t WHERE id = 5;

-- a wrong column list is noticed before anything is done
SELECT * FROM pgmc.autonomous_query($$INSERT INTO autonomous_t VALUES (6, 'six') RETURNING id$$) AS t(id int, a text);
\echo :SQLSTATE
SELECT count(*) FROM autonomous_t WHERE id = 6;

-- also behind a comment
SELECT * FROM pgmc.autonomous_query($$/* six */ INSERT INTO autonomous_t VALUES (6, 'six') RETURNING id -- too few$$) AS t(id int, a text);
\echo :SQLSTATE
SELECT count(*) FROM autonomous_t WHERE id = 6;
-- Of several commands only the last one counts, which is known when they are done: then the error says so.
BEGIN;
SELECT * FROM pgmc.autonomous_query($$INSERT INTO autonomous_t VALUES (6, 'six'); SELECT 1$$) AS t(id int, a text);
\echo :SQLSTATE
COMMIT;
BEGIN;
SELECT pgmc.acquire();
SELECT pgmc.set_autocommit(true);
SELECT * FROM pgmc.query($$INSERT INTO autonomous_t VALUES (61, 'six'); UPDATE autonomous_t SET a = 'and one' WHERE id = 61$$) AS t(id int);
\echo :SQLSTATE
SELECT pgmc.set_autocommit(false);
SELECT * FROM pgmc.query('SELECT 1; SELECT 1, 2') AS t(id int);
\echo :SQLSTATE
SELECT pgmc.rollback();
SELECT pgmc.release();
COMMIT;
SELECT id, a FROM autonomous_t WHERE id IN (6, 61) ORDER BY id;
BEGIN;
SELECT pgmc.autonomous($$UPDATE autonomous_t SET a = 'copied' WHERE id = 6; COPY autonomous_t TO STDOUT; SELECT 1$$);
\echo :SQLSTATE
COMMIT;
SELECT id, a FROM autonomous_t WHERE id IN (6, 61) ORDER BY id;
DELETE FROM autonomous_t WHERE id IN (6, 61);

-- ---- on another server ----

SELECT pgmc.autonomous_on('autonomous_second', $$INSERT INTO autonomous_t VALUES (7, 'seven')$$),
	pgmc.autonomous_on('autonomous_second', 'INSERT INTO autonomous_t VALUES ($1, $2)', 8, 'eight');
SELECT * FROM pgmc.autonomous_query_on('autonomous_second', 'SELECT count(*) FROM autonomous_t WHERE id > 6') AS t(n int);
SELECT * FROM pgmc.autonomous_query_on('autonomous_second', 'SELECT a FROM autonomous_t WHERE id = $1', 8) AS t(a text);
SELECT pgmc.autonomous_on(NULL, 'SELECT 1');

-- ---- commands that don't run in a function ----

CREATE FUNCTION autonomous_vacuum() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE 'VACUUM autonomous_t';
EXCEPTION WHEN active_sql_transaction THEN
	PERFORM pgmc.autonomous('VACUUM (ANALYZE) autonomous_t');
END
$$;
SELECT autonomous_vacuum();
SELECT reltuples FROM pg_class WHERE relname = 'autonomous_t';
SELECT pgmc.autonomous('CREATE DATABASE contrib_regression_pgmc_autonomous TEMPLATE template0');
SELECT datname FROM pg_database WHERE datname LIKE 'contrib_regression_pgmc%';
SELECT pgmc.autonomous('DROP DATABASE contrib_regression_pgmc_autonomous');
SELECT datname FROM pg_database WHERE datname LIKE 'contrib_regression_pgmc%';

-- ---- several commands ----

SELECT pgmc.autonomous($$INSERT INTO autonomous_t VALUES (10, 'ten'); UPDATE autonomous_t SET a = 'x' WHERE id > 6$$);
SELECT id, a FROM autonomous_t WHERE id > 6 ORDER BY id;
SELECT * FROM pgmc.autonomous_query($$INSERT INTO autonomous_t VALUES (11, 'eleven'); SELECT id FROM autonomous_t WHERE id > 9 ORDER BY id$$) AS t(id int);

-- all of them or none, as one transaction
SELECT pgmc.autonomous($$INSERT INTO autonomous_t VALUES (12, 'twelve'); SELECT 1/0$$);
\echo :SQLSTATE
SELECT count(*) FROM autonomous_t WHERE id = 12;

-- with a transaction of their own
SELECT pgmc.autonomous($$BEGIN; INSERT INTO autonomous_t VALUES (13, 'thirteen'); COMMIT$$);
SELECT count(*) FROM autonomous_t WHERE id = 13;

-- one that is left open is rolled back, and an error
SELECT pgmc.autonomous($$BEGIN; INSERT INTO autonomous_t VALUES (14, 'fourteen')$$);
\echo :SQLSTATE
SELECT pgmc.autonomous('BEGIN');
\echo :SQLSTATE
SELECT pgmc.autonomous($$BEGIN; INSERT INTO autonomous_t VALUES (14, 'fourteen'); SELECT 1/0$$);
\echo :SQLSTATE
SELECT pgmc.transaction_status();
SELECT count(*) FROM autonomous_t WHERE id = 14;
SELECT pgmc.autonomous('SELECT 1');

-- a deferred constraint fails at the end
SELECT pgmc.autonomous($$CREATE TABLE autonomous_deferred (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)$$);
SELECT pgmc.autonomous('INSERT INTO autonomous_deferred VALUES (1), (1)');
\echo :SQLSTATE
SELECT count(*) FROM autonomous_deferred;
DROP TABLE autonomous_deferred;

-- ---- beside a hold ----

-- It needs a connection of its own. Where there is only one, it says what to do.
BEGIN;
SELECT pgmc.acquire();
SELECT pgmc.execute('INSERT INTO autonomous_t VALUES (20)');
SELECT pgmc.autonomous('SELECT 1');
\echo :SQLSTATE
SELECT * FROM pgmc.autonomous_query('SELECT 1') AS t(a int);
\echo :SQLSTATE

-- the hold is as it was; another server is another connection
SELECT pgmc.transaction_status();
SELECT pgmc.autonomous_on('autonomous_second', $$INSERT INTO autonomous_t VALUES (21, 'twenty-one')$$);
SELECT pgmc.rollback();
SELECT pgmc.release();
COMMIT;
SELECT id FROM autonomous_t WHERE id >= 20;

-- The loopback fires a trigger that calls it: who waits for the loopback holds the connection, so
-- waiting for it would be for ever.
CREATE FUNCTION autonomous_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pgmc.autonomous_on(tg_argv[0], 'SELECT 1');
	RETURN new;
END
$$;
CREATE TABLE autonomous_fired (a int);
CREATE TRIGGER fire BEFORE INSERT ON autonomous_fired FOR EACH ROW EXECUTE FUNCTION autonomous_trigger('pgmc_loopback');
BEGIN;
SELECT pgmc.acquire();
SELECT pgmc.execute('INSERT INTO autonomous_fired VALUES (1)');
\echo :SQLSTATE
SELECT pgmc.rollback();
SELECT pgmc.release();
SELECT pgmc.autonomous('INSERT INTO autonomous_fired VALUES (1)');
\echo :SQLSTATE
COMMIT;

-- also through another server in between
SELECT pgmc.autonomous_on('autonomous_second', $$SELECT pgmc.autonomous_on('pgmc_loopback', 'SELECT 1')$$);
SELECT pgmc.autonomous_on('autonomous_second', $$SELECT pgmc.autonomous_on('pgmc_loopback', $i$SELECT pgmc.autonomous_on('autonomous_second', 'SELECT 1')$i$)$$);
\echo :SQLSTATE
SELECT pgmc.autonomous($$SELECT pgmc.acquire()$$);
\echo :SQLSTATE

-- a trigger that fires in the session, not in the loopback, may
INSERT INTO autonomous_fired VALUES (2);

-- what the loopback itself acquires ends with its turn at the latest
SELECT pgmc.autonomous($$SELECT pgmc.acquire('autonomous_second')$$);
\c -
SELECT pgmc.acquire('autonomous_second', '1 min');
SELECT pgmc.release();

-- ---- many ----

DO $$
BEGIN
	FOR i IN 101 .. 400 LOOP
		BEGIN
			PERFORM pgmc.autonomous('INSERT INTO autonomous_t VALUES ($1, $2)', i, 'many');
			PERFORM 1 / (i % 3);
		EXCEPTION WHEN division_by_zero THEN
			NULL;
		END;
	END LOOP;
	RAISE 'in vain';
END
$$;
SELECT count(*) FROM autonomous_t WHERE a = 'many';
SELECT sum(pgmc.autonomous('DELETE FROM autonomous_t WHERE id = $1', n)) FROM generate_series(101, 500) AS n;

SELECT pgmc.release_all(), pgmc.close(), pgmc.close('autonomous_second');
DROP TABLE autonomous_t, autonomous_fired;
DROP FUNCTION autonomous_vacuum, autonomous_trigger;
DROP SERVER autonomous_second;
