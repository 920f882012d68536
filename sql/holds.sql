-- Holds: they nest, end in any order, last until they are released or an abort takes them.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgmc;
RESET client_min_messages;

CREATE SERVER holds_second FOREIGN DATA WRAPPER pgmc;
CREATE TABLE holds_t (a int);
CREATE VIEW holds_mine AS SELECT srvname, coalesce(holder_pid = pg_backend_pid(), false) AS mine,
		pgmc.transaction_status(srvname)
	FROM pgmc.connections WHERE datname = current_database() ORDER BY srvname;

-- ---- nesting ----

-- the innermost one is meant where none is named
SELECT pgmc.acquire();
SELECT pgmc.acquire('holds_second');
SELECT pgmc.execute('SET application_name = holds_inner');
SELECT pgmc.execute_on('pgmc_loopback', 'SET application_name = holds_outer');
SELECT * FROM pgmc.query('SHOW application_name') AS t(a text);
SELECT * FROM pgmc.query_on('pgmc_loopback', 'SHOW application_name') AS t(a text);
SELECT * FROM holds_mine;
SELECT pgmc.commit('pgmc_loopback');
SELECT pgmc.transaction_status(), pgmc.transaction_status('holds_second'), pgmc.transaction_status('pgmc_loopback');
SELECT pgmc.commit();
SELECT pgmc.release();
SELECT * FROM pgmc.query('SHOW application_name') AS t(a text);
SELECT pgmc.rollback();
SELECT pgmc.release();

-- released in the other order
SELECT pgmc.acquire();
SELECT pgmc.acquire('holds_second');
SELECT pgmc.release('pgmc_loopback');
SELECT * FROM holds_mine;
SELECT pgmc.execute('SELECT 1');
SELECT pgmc.transaction_status('holds_second'), pgmc.transaction_status('pgmc_loopback');
SELECT pgmc.rollback();
SELECT pgmc.release();

-- two transactions at once, one committed, the other not
SELECT pgmc.acquire(), pgmc.acquire('holds_second');
SELECT pgmc.execute_on(s, 'INSERT INTO holds_t VALUES ($1)', n) FROM (VALUES ('pgmc_loopback'::name, 1), ('holds_second', 2)) AS v(s, n);
SELECT pgmc.commit('holds_second'), pgmc.rollback('pgmc_loopback');
SELECT pgmc.release('holds_second'), pgmc.release('pgmc_loopback');
TABLE holds_t;
TRUNCATE holds_t;

-- NULL is as good as nothing
SELECT pgmc.acquire(NULL, NULL);
SELECT pgmc.execute_on(NULL, 'SELECT 1');
SELECT pgmc.rollback(NULL), pgmc.release(NULL, NULL);

-- ---- what can't be ----

\set ON_ERROR_ROLLBACK on
BEGIN;

-- no hold
SELECT pgmc.execute('SELECT 1');
\echo :SQLSTATE
SELECT * FROM pgmc.query('SELECT 1') AS t(a int);
\echo :SQLSTATE
SELECT pgmc.commit();
\echo :SQLSTATE
SELECT pgmc.rollback();
\echo :SQLSTATE
SELECT pgmc.release();
\echo :SQLSTATE
SELECT pgmc.set_autocommit(true);
\echo :SQLSTATE
SELECT pgmc.execute_on('holds_second', 'SELECT 1');
\echo :SQLSTATE

-- not of that server
SELECT pgmc.acquire();
SELECT pgmc.release('holds_second');
\echo :SQLSTATE
SELECT pgmc.commit('holds_second');
\echo :SQLSTATE

-- holding it already; try_acquire would not get it from "somebody else" either
SELECT pgmc.acquire();
\echo :SQLSTATE
SELECT pgmc.acquire('pgmc_loopback', '1 ms');
\echo :SQLSTATE
SELECT pgmc.acquire_xact();
\echo :SQLSTATE
SELECT pgmc.try_acquire();
\echo :SQLSTATE
SELECT pgmc.try_acquire_xact();
\echo :SQLSTATE
SELECT pgmc.execute('SELECT 1');
SELECT pgmc.rollback();
SELECT pgmc.release();
COMMIT;

-- ---- over transactions ----

SELECT pgmc.acquire();
BEGIN;
SELECT pgmc.execute('INSERT INTO holds_t VALUES (1)');
COMMIT;
SELECT pgmc.transaction_status();
SELECT pgmc.commit();
SELECT pgmc.release();
TABLE holds_t;
TRUNCATE holds_t;

-- ---- aborts ----

\unset ON_ERROR_ROLLBACK

-- who misses a hold is told what became of it
CREATE FUNCTION holds_detail(server name DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
BEGIN
	PERFORM CASE WHEN server IS NULL THEN pgmc.execute('SELECT 1') ELSE pgmc.execute_on(server, 'SELECT 1') END;
	RETURN 'none';
EXCEPTION WHEN object_not_in_prerequisite_state THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN regexp_replace(detail, 'ended at .*,', 'ended at ...,');
END
$$;

SELECT holds_detail();
BEGIN;
SELECT pgmc.acquire();
SELECT 1/0;
ROLLBACK;
SELECT holds_detail();

-- of all that it held, an abort takes everything, also what other transactions acquired
SELECT pgmc.acquire();
BEGIN;
SELECT pgmc.acquire('holds_second');
SELECT pgmc.execute_on('pgmc_loopback', 'INSERT INTO holds_t VALUES (1)');
SELECT pgmc.execute('INSERT INTO holds_t VALUES (2)');
ROLLBACK;
SELECT * FROM holds_mine;
TABLE holds_t;

-- so does an error outside a transaction block
SELECT pgmc.acquire();
SELECT 1/0;
SELECT holds_detail();

-- A ROLLBACK where there is no transaction is an abort, too.
SELECT pgmc.acquire();
SELECT pgmc.execute('INSERT INTO holds_t VALUES (3)');
ROLLBACK;
SELECT holds_detail();
TABLE holds_t;

-- a hold released before the abort is not missed
BEGIN;
SELECT pgmc.acquire();
SELECT pgmc.release();
ROLLBACK;
SELECT pgmc.acquire();
SELECT pgmc.release();
SELECT holds_detail();

-- ---- savepoints ----

-- acquired in one that is rolled back
BEGIN;
SELECT pgmc.acquire();
SAVEPOINT s;
SELECT pgmc.acquire('holds_second');
SELECT pgmc.execute('INSERT INTO holds_t VALUES (4)');
SELECT pgmc.execute_on('pgmc_loopback', 'INSERT INTO holds_t VALUES (5)');
ROLLBACK TO s;
SELECT * FROM holds_mine;
SELECT pgmc.commit();
SELECT pgmc.release();
SELECT holds_detail();
COMMIT;
TABLE holds_t;
TRUNCATE holds_t;

-- acquired before it
BEGIN;
SELECT pgmc.acquire();
SAVEPOINT s;
SELECT pgmc.execute('INSERT INTO holds_t VALUES (6)');
SELECT 1/0;
ROLLBACK TO s;
SELECT pgmc.transaction_status();
SELECT pgmc.commit();
COMMIT;
TABLE holds_t;
TRUNCATE holds_t;
SELECT pgmc.release();

-- acquired in one that is released into another that is rolled back
BEGIN;
SAVEPOINT outer_s;
SAVEPOINT s;
SELECT pgmc.acquire();
RELEASE s;
SAVEPOINT s;
ROLLBACK TO s;
SELECT pgmc.transaction_status();
SELECT mine FROM holds_mine WHERE srvname = 'pgmc_loopback';
ROLLBACK TO outer_s;
SELECT mine FROM holds_mine WHERE srvname = 'pgmc_loopback';
COMMIT;

-- Acquired in a savepoint that is released: the subtransactions of the next transactions are others,
-- though their numbers start again.
BEGIN;
SAVEPOINT s;
SELECT pgmc.acquire();
RELEASE s;
COMMIT;
BEGIN;
SAVEPOINT s;
SELECT pgmc.execute('INSERT INTO holds_t VALUES (7)');
ROLLBACK TO s;
SAVEPOINT s2;
SAVEPOINT s3;
ROLLBACK TO s2;
SELECT pgmc.transaction_status();
COMMIT;
SELECT pgmc.commit();
SELECT pgmc.release();
TABLE holds_t;
TRUNCATE holds_t;

-- released in a savepoint that is rolled back: it is gone all the same
BEGIN;
SELECT pgmc.acquire();
SAVEPOINT s;
SELECT pgmc.release();
ROLLBACK TO s;
SELECT mine FROM holds_mine WHERE srvname = 'pgmc_loopback';
COMMIT;

-- ---- EXCEPTION blocks ----

-- around less than the acquire: hold and loopback transaction stay as they are
DO $$
BEGIN
	PERFORM pgmc.acquire();
	PERFORM pgmc.execute('INSERT INTO holds_t VALUES (1)');
	BEGIN
		PERFORM pgmc.execute('INSERT INTO holds_t VALUES (2)');
		PERFORM 1/0;
	EXCEPTION WHEN division_by_zero THEN
		RAISE NOTICE 'caught, and the loopback is %', pgmc.transaction_status();
	END;
	PERFORM pgmc.commit();
	BEGIN
		PERFORM pgmc.execute('SELECT 1/0');
	EXCEPTION WHEN division_by_zero THEN
		RAISE NOTICE 'caught, and the loopback is %', pgmc.transaction_status();
		PERFORM pgmc.rollback();
	END;
	PERFORM pgmc.release();
END
$$;
SELECT a FROM holds_t ORDER BY a;
TRUNCATE holds_t;

-- around the acquire: both end
DO $$
BEGIN
	BEGIN
		PERFORM pgmc.acquire();
		PERFORM pgmc.execute('INSERT INTO holds_t VALUES (3)');
		PERFORM 1/0;
	EXCEPTION WHEN division_by_zero THEN
		RAISE NOTICE 'caught, and the loopback is %', pgmc.transaction_status();
	END;
	PERFORM pgmc.acquire();
	PERFORM pgmc.execute('INSERT INTO holds_t VALUES (4)');
	PERFORM pgmc.commit();
	PERFORM pgmc.release();
END
$$;
TABLE holds_t;
TRUNCATE holds_t;

-- a hundred times
DO $$
BEGIN
	FOR i IN 1 .. 100 LOOP
		BEGIN
			PERFORM pgmc.acquire();
			PERFORM pgmc.execute('INSERT INTO holds_t VALUES ($1)', i);
			IF i % 10 = 0 THEN
				PERFORM pgmc.commit();
			ELSE
				PERFORM pgmc.rollback();
			END IF;
			PERFORM 1/0;
		EXCEPTION WHEN division_by_zero THEN
			NULL;
		END;
	END LOOP;
END
$$;
SELECT count(*) FROM holds_t;
TRUNCATE holds_t;

-- released in an EXCEPTION handler
DO $$
BEGIN
	PERFORM pgmc.acquire();
	BEGIN
		PERFORM pgmc.execute('INSERT INTO holds_t VALUES (1)');
		RAISE 'of the caller''s own';
	EXCEPTION WHEN raise_exception THEN
		PERFORM pgmc.rollback();
		PERFORM pgmc.release();
	END;
END
$$;
SELECT * FROM holds_mine;

-- COMMIT and ROLLBACK in a procedure: the one keeps a hold, the other ends it
CREATE PROCEDURE holds_procedure() LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pgmc.acquire();
	PERFORM pgmc.execute('INSERT INTO holds_t VALUES (1)');
	COMMIT;
	PERFORM pgmc.execute('INSERT INTO holds_t VALUES (2)');
	PERFORM pgmc.commit();
	COMMIT;
	PERFORM pgmc.execute('INSERT INTO holds_t VALUES (3)');
	ROLLBACK;
	RAISE NOTICE '%', holds_detail();
END
$$;
CALL holds_procedure();
SELECT a FROM holds_t ORDER BY a;
TRUNCATE holds_t;

-- ---- holds of one transaction ----

BEGIN;
SELECT pgmc.acquire_xact();
SELECT pgmc.execute('INSERT INTO holds_t VALUES (1)');
SELECT pgmc.commit();
COMMIT;
SELECT holds_detail();
SELECT mine, transaction_status FROM holds_mine WHERE srvname = 'pgmc_loopback';

-- nothing was done at all
BEGIN;
SELECT pgmc.try_acquire_xact();
COMMIT;
SELECT mine, transaction_status FROM holds_mine WHERE srvname = 'pgmc_loopback';

-- dirty: COMMIT fails, and with it the session's own work
BEGIN;
INSERT INTO holds_t VALUES (2);
SELECT pgmc.acquire_xact();
SELECT pgmc.execute('INSERT INTO holds_t VALUES (3)');
COMMIT;
\echo :SQLSTATE
SELECT a FROM holds_t ORDER BY a;
SELECT mine, transaction_status FROM holds_mine WHERE srvname = 'pgmc_loopback';

-- a statement of its own is a transaction of its own
SELECT pgmc.acquire_xact();
SELECT mine, transaction_status FROM holds_mine WHERE srvname = 'pgmc_loopback';
SELECT pgmc.acquire_xact(), pgmc.execute('INSERT INTO holds_t VALUES (4)'), pgmc.commit();
SELECT pgmc.acquire_xact(), pgmc.execute('INSERT INTO holds_t VALUES (5)');
\echo :SQLSTATE
SELECT a FROM holds_t ORDER BY a;

-- released early, and acquired again, for the session this time
BEGIN;
SELECT pgmc.acquire_xact();
SELECT pgmc.release();
SELECT pgmc.acquire();
SELECT pgmc.acquire_xact('holds_second');
COMMIT;
SELECT srvname, mine FROM holds_mine;
SELECT pgmc.release();

-- in a savepoint
BEGIN;
SAVEPOINT s;
SELECT pgmc.acquire_xact();
RELEASE s;
SELECT mine FROM holds_mine WHERE srvname = 'pgmc_loopback';
COMMIT;
SELECT mine FROM holds_mine WHERE srvname = 'pgmc_loopback';

-- a connection that was lost has no transaction that could be rolled back; COMMIT says so
BEGIN;
SELECT pgmc.acquire_xact();
SELECT pgmc.execute('INSERT INTO holds_t VALUES (6)');
SELECT pg_terminate_backend(backend_pid, 60000) FROM pgmc.connections WHERE holder_pid = pg_backend_pid();
DO $$ BEGIN
	WHILE (SELECT state <> 'broken' FROM pgmc.connections WHERE holder_pid = pg_backend_pid()) LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
END $$;
-- (psql may show the WARNING that comes after the ERROR before it)
SET LOCAL client_min_messages = error;
COMMIT;
\echo :SQLSTATE
SELECT count(*) FROM holds_t WHERE a = 6;

-- also where the loss was in a statement whose error was caught
BEGIN;
SELECT pgmc.acquire_xact();
SELECT pgmc.execute('INSERT INTO holds_t VALUES (6)');
SAVEPOINT s;
SELECT pgmc.execute('SELECT pg_terminate_backend(pg_backend_pid())');
ROLLBACK TO s;
SET LOCAL client_min_messages = error;
COMMIT;
\echo :SQLSTATE

-- ---- all at once ----

SELECT pgmc.release_all();
SELECT pgmc.acquire(), pgmc.acquire('holds_second');
SELECT pgmc.execute('INSERT INTO holds_t VALUES (7)');
SELECT pgmc.release_all();
SELECT * FROM holds_mine;
SELECT pgmc.acquire(), pgmc.acquire('holds_second');
SELECT pgmc.release_all();

-- it doesn't fail in a handler, nor in a transaction that wasn't the acquirer's
SELECT pgmc.acquire();
DO $$
BEGIN
	PERFORM pgmc.execute('SELECT 1/0');
EXCEPTION WHEN OTHERS THEN
	RAISE NOTICE 'released: %', pgmc.release_all();
END
$$;

-- DISCARD ALL does the same, other DISCARDs don't
SELECT pgmc.acquire(), pgmc.acquire('holds_second');
SELECT pgmc.execute('INSERT INTO holds_t VALUES (8)');
DISCARD TEMP;
DISCARD PLANS;
SELECT count(*) FROM holds_mine WHERE mine;
DISCARD ALL;
SELECT * FROM holds_mine;
SELECT count(*) FROM holds_t WHERE a > 6;

-- ---- where sessions are shared ----

SET pgmc.session_holds = off;
SELECT pgmc.acquire();
\echo :SQLSTATE
SELECT pgmc.try_acquire();
\echo :SQLSTATE
BEGIN;
SELECT pgmc.acquire_xact();
SELECT pgmc.execute('SELECT 1');
SELECT pgmc.rollback();
COMMIT;
SELECT pgmc.autonomous('SELECT 1');
RESET pgmc.session_holds;
CREATE ROLE regress_pgmc_holds;
GRANT USAGE ON FOREIGN SERVER pgmc_loopback TO regress_pgmc_holds;
SET ROLE regress_pgmc_holds;
SET pgmc.session_holds = off;
\echo :SQLSTATE
RESET ROLE;

-- ---- whose hold it is ----

-- A hold is of use only to who resolves to the same connection: the current user counts.
\set ON_ERROR_ROLLBACK on
\set VERBOSITY terse
BEGIN;
SELECT pgmc.acquire();
SELECT pgmc.execute('INSERT INTO holds_t VALUES (20)');
SET ROLE regress_pgmc_holds;
SELECT pgmc.execute('SELECT 1');
\echo :SQLSTATE
SELECT * FROM pgmc.query_on('pgmc_loopback', 'SELECT 1') AS t(a int);
\echo :SQLSTATE
SELECT pgmc.commit();
\echo :SQLSTATE
SELECT pgmc.release('pgmc_loopback');
\echo :SQLSTATE
RESET ROLE;

-- So what a SECURITY DEFINER function of one role holds its caller can't use, and the other way round.
GRANT CREATE ON SCHEMA public TO regress_pgmc_holds;
SET ROLE regress_pgmc_holds;
CREATE FUNCTION holds_use() RETURNS bigint SECURITY DEFINER LANGUAGE sql AS $$SELECT pgmc.execute('SELECT 1')$$;
RESET ROLE;
SELECT holds_use();
\echo :SQLSTATE

-- A right that was revoked is missed at once, also by who holds.
REVOKE USAGE ON FOREIGN SERVER pgmc_loopback FROM regress_pgmc_holds;
SELECT holds_use();
\echo :SQLSTATE
SELECT pgmc.transaction_status();
SELECT pgmc.rollback();
SELECT pgmc.release();
COMMIT;
\set VERBOSITY default
\unset ON_ERROR_ROLLBACK
DROP FUNCTION holds_use;
DROP OWNED BY regress_pgmc_holds;
DROP ROLE regress_pgmc_holds;

-- ---- a server that changes while it is held ----

-- It may get another name: it is the same connection.
\set ON_ERROR_ROLLBACK on
\set VERBOSITY terse
CREATE SERVER holds_before FOREIGN DATA WRAPPER pgmc;
SELECT pgmc.acquire('holds_before');
SELECT pgmc.execute('INSERT INTO holds_t VALUES (21)');
ALTER SERVER holds_before RENAME TO holds_after;
SELECT pgmc.execute('INSERT INTO holds_t VALUES (22)');
SELECT pgmc.transaction_status(), pgmc.transaction_status('holds_after');
SELECT pgmc.commit();
SELECT pgmc.execute_on('holds_after', 'DELETE FROM holds_t WHERE a IN (21, 22)');
SELECT pgmc.commit('holds_after');

-- Another one that has the old name now is another one.
CREATE SERVER holds_before FOREIGN DATA WRAPPER pgmc;
BEGIN;
SELECT pgmc.execute_on('holds_before', 'SELECT 1');
\echo :SQLSTATE
COMMIT;
SELECT pgmc.acquire('holds_before');
SELECT pgmc.release('holds_after');
SELECT pgmc.release('holds_before');
DROP SERVER holds_before;

-- With another mapping it would be another connection, though nobody else's.
SELECT pgmc.acquire('holds_after');
CREATE USER MAPPING FOR CURRENT_USER SERVER holds_after;
BEGIN;
SELECT pgmc.execute('SELECT 1');
\echo :SQLSTATE
SELECT pgmc.commit('holds_after');
\echo :SQLSTATE
SELECT pgmc.release('holds_after');
COMMIT;
SELECT pgmc.acquire('holds_after');
ALTER USER MAPPING FOR CURRENT_USER SERVER holds_after OPTIONS (ADD "user" 'regress_pgmc_nobody');
BEGIN;
SELECT pgmc.execute('SELECT 1');
\echo :SQLSTATE
\set VERBOSITY default
SELECT pgmc.release();
COMMIT;
SELECT pgmc.close('holds_after');
DROP USER MAPPING FOR CURRENT_USER SERVER holds_after;

-- A server that was dropped is no more, but its hold can be ended.
SELECT pgmc.acquire('holds_after');
DROP SERVER holds_after;
BEGIN;
SELECT pgmc.execute('SELECT 1');
\echo :SQLSTATE
SELECT pgmc.release('holds_after');
COMMIT;
\unset ON_ERROR_ROLLBACK

-- ---- several holds that an abort took: each is remembered, and the innermost is the one meant ----

SELECT pgmc.acquire(), pgmc.acquire('holds_second');
SELECT 1/0;
SELECT holds_detail('pgmc_loopback'), holds_detail('holds_second'), holds_detail();

-- a subtransaction that takes nothing changes nothing
BEGIN;
SAVEPOINT s;
ROLLBACK TO s;
COMMIT;
SELECT holds_detail();

-- who acquires again knows; the others are still remembered
SELECT pgmc.acquire('holds_second'), pgmc.release('holds_second');
SELECT holds_detail('pgmc_loopback'), holds_detail('holds_second'), holds_detail();

-- ---- a session's end ----

-- What it held is rolled back and free when the next one comes, who finds nothing of its state.
SELECT pgmc.acquire();
SELECT pgmc.execute('INSERT INTO holds_t VALUES (9)');
SELECT pgmc.execute('CREATE TEMP TABLE holds_temp (a int)');
SELECT pgmc.commit();
SELECT pgmc.execute('SET work_mem = $$1234kB$$');
SELECT pgmc.commit();
SELECT pgmc.execute('INSERT INTO holds_t VALUES (10)');
\c -
SELECT pgmc.acquire();
SELECT * FROM pgmc.query($$SELECT a, to_regclass('holds_temp'), current_setting('work_mem') = '1234kB' FROM holds_t WHERE a >= 9$$) AS t(a int, temp regclass, mem bool);
SELECT pgmc.rollback();
SELECT pgmc.execute('SET work_mem = $$1234kB$$');
SELECT pgmc.commit();
SELECT pgmc.release();

-- The same session finds its own again.
SELECT pgmc.acquire();
SELECT * FROM pgmc.query('SHOW work_mem') AS t(mem text);
SELECT pgmc.rollback();
SELECT pgmc.release();

SELECT pgmc.release_all(), pgmc.close(), pgmc.close('holds_second');
DROP VIEW holds_mine;
DROP PROCEDURE holds_procedure;
DROP FUNCTION holds_detail;
DROP TABLE holds_t;
DROP SERVER holds_second;
