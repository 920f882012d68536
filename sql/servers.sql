-- What the options of a server do, seen from one session: pools, what an error does, session state,
-- time-outs, and that a change is there at the next acquire.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgmc;
CREATE SERVER servers_s FOREIGN DATA WRAPPER pgmc;
RESET client_min_messages;
\set VERBOSITY default
\pset format unaligned

CREATE TABLE servers_t (id int);

-- what there is of this test's connections
CREATE FUNCTION look() RETURNS TABLE (srvname name, state text, xact_status text, mine boolean) LANGUAGE sql AS $$
	SELECT srvname, state, xact_status, holder_pid = pg_backend_pid() FROM pgmc.connections
		WHERE datname = current_database() AND srvname LIKE 'servers_%' ORDER BY srvname, state, xact_status
$$;
-- Wait until so many connections are there
CREATE PROCEDURE await_connections(wanted int) LANGUAGE plpgsql AS $$
DECLARE
	n int;
BEGIN
	FOR i IN 1 .. 3000 LOOP
		SELECT count(*) INTO n FROM look();
		EXIT WHEN n = wanted;
		PERFORM pg_sleep(0.01);
	END LOOP;
	IF n <> wanted THEN
		RAISE '% connections instead of %', n, wanted;
	END IF;
END
$$;

-- ---- describe ----

SELECT regexp_replace(pgmc.describe('servers_s'), 'host=\S+ port=\d+ dbname=\S+ user=\S+', 'host=H port=P dbname=D user=U');
SELECT pgmc.acquire('servers_s');
SELECT regexp_replace(pgmc.describe('servers_s'), 'host=\S+ port=\d+ dbname=\S+ user=\S+', 'host=H port=P dbname=D user=U');
SELECT pgmc.execute('SELECT 1');
SELECT regexp_replace(pgmc.describe('servers_s'), '.*\(', '(');
SELECT pgmc.rollback(), pgmc.release();
-- no secret, however it is written
CREATE SERVER servers_d FOREIGN DATA WRAPPER pgmc OPTIONS (dsn 'postgresql://db.example:5433,other.example/app?sslmode=verify-full&connect_timeout=3',
	application_name 'it''s \ mine', dbname 'overridden');
CREATE USER MAPPING FOR CURRENT_USER SERVER servers_d OPTIONS ("user" 'some body', password 's3cret', sslpassword 's3cret2');
SELECT pgmc.describe('servers_d');
SELECT pgmc.is_closed('servers_d'), pgmc.transaction_status('servers_d') IS NULL AS no_status;
ALTER SERVER servers_d OPTIONS (SET dsn '', DROP dbname, DROP application_name, ADD hostaddr '127.0.0.1', ADD port '1');
SELECT regexp_replace(pgmc.describe('servers_d'), 'dbname=\S+', 'dbname=D');
SET client_min_messages = warning;	-- the NOTICE names the superuser
DROP SERVER servers_d CASCADE;
RESET client_min_messages;

-- ---- pool_size ----

-- one connection: what needs another one beside the hold is refused at once
SELECT pgmc.acquire('servers_s');
SELECT pgmc.execute('INSERT INTO servers_t VALUES (1)');
DO $$ BEGIN PERFORM pgmc.autonomous_on('servers_s', 'INSERT INTO servers_t VALUES (2)');
EXCEPTION WHEN object_in_use THEN RAISE INFO '%', SQLERRM; END $$;
SET client_min_messages = error;
SELECT pgmc.try_acquire('servers_s');
\echo :SQLSTATE
RESET client_min_messages;
-- the error has taken the hold and the transaction in it; two connections now
ALTER SERVER servers_s OPTIONS (ADD pool_size '2');
SELECT pgmc.acquire('servers_s');
SELECT pgmc.execute('INSERT INTO servers_t VALUES (3)');
SELECT pgmc.autonomous_on('servers_s', 'INSERT INTO servers_t VALUES (4)');
SELECT * FROM look();
SELECT id FROM servers_t ORDER BY id;
-- a second hold by hand is still one's own fault
DO $$ BEGIN PERFORM pgmc.acquire('servers_s');
EXCEPTION WHEN object_in_use THEN RAISE INFO '%', SQLERRM; END $$;
-- and one more inside needs a third
DO $$ BEGIN PERFORM pgmc.autonomous_on('servers_s', 'SELECT pgmc.autonomous_on(''servers_s'', ''SELECT 1'')');
EXCEPTION WHEN object_in_use THEN RAISE INFO '%', SQLERRM; END $$;
SELECT pgmc.commit(), pgmc.release();
SELECT id FROM servers_t ORDER BY id;
-- what isn't needed isn't opened: four rounds, one after the other, with a larger pool
ALTER SERVER servers_s OPTIONS (SET pool_size '8');
SELECT pgmc.close('servers_s');
CALL await_connections(0);
DO $$ BEGIN FOR i IN 1 .. 4 LOOP
	PERFORM pgmc.acquire('servers_s'); PERFORM pgmc.execute('SELECT 1'); PERFORM pgmc.commit(); PERFORM pgmc.release();
	PERFORM pgmc.autonomous_on('servers_s', 'SELECT 1');
END LOOP; END $$;
SELECT * FROM look();
ALTER SERVER servers_s OPTIONS (SET pool_size '1');

-- ---- on_error ----

CREATE FUNCTION loopback_pid() RETURNS int LANGUAGE sql AS $$ SELECT pid FROM pgmc.query('SELECT pg_backend_pid()') AS t(pid int) $$;
-- by default the connection outlives an error; with 'close' it doesn't
CREATE FUNCTION survives(command text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	before int;
	after int;
BEGIN
	PERFORM pgmc.acquire('servers_s');
	before := loopback_pid();
	PERFORM pgmc.commit();
	PERFORM pgmc.release();
	BEGIN
		EXECUTE command;
		RAISE 'no error';
	EXCEPTION WHEN division_by_zero OR raise_exception THEN NULL;
	END;
	PERFORM pgmc.acquire('servers_s');
	after := loopback_pid();
	PERFORM pgmc.commit();
	PERFORM pgmc.release();
	RETURN before = after;
END
$$;
SET client_min_messages = error;
SELECT mode, survives('SELECT pgmc.acquire(''servers_s''), pgmc.execute(''SELECT 1/0'')') AS by_a_hold,
	survives('SELECT pgmc.autonomous_on(''servers_s'', ''SELECT 1/0'')') AS autonomous,
	survives('DO $d$ BEGIN PERFORM pgmc.acquire(''servers_s''); PERFORM pgmc.execute(''SELECT 1''); RAISE ''of one''''s own''; END $d$') AS own_error
	FROM (VALUES ('default')) AS v(mode);
ALTER SERVER servers_s OPTIONS (ADD on_error 'close');
SELECT mode, survives('SELECT pgmc.acquire(''servers_s''), pgmc.execute(''SELECT 1/0'')') AS by_a_hold,
	survives('SELECT pgmc.autonomous_on(''servers_s'', ''SELECT 1/0'')') AS autonomous
	FROM (VALUES ('close')) AS v(mode);
-- an error that is handled inside the hold, and the end of a block left dirty, are none
SELECT pgmc.acquire('servers_s');
SELECT loopback_pid() AS pid \gset
DO $$ BEGIN PERFORM pgmc.execute('SELECT 1/0'); EXCEPTION WHEN division_by_zero THEN NULL; END $$;
SELECT pgmc.transaction_status(), pgmc.rollback();
SELECT loopback_pid() = :pid AS same;
SELECT pgmc.commit(), pgmc.release();
SELECT pgmc.acquire('servers_s');
SELECT loopback_pid() = :pid AS same;
SELECT pgmc.commit(), pgmc.release();
ALTER SERVER servers_s OPTIONS (SET on_error 'rollback');
SELECT mode, survives('SELECT pgmc.acquire(''servers_s''), pgmc.execute(''SELECT 1/0'')') AS by_a_hold,
	survives('SELECT pgmc.autonomous_on(''servers_s'', ''SELECT 1/0'')') AS autonomous FROM (VALUES ('rollback')) AS v(mode);
RESET client_min_messages;

-- ---- session state ----

-- the same session finds its own again; another one, without this option, would not: see t/
SELECT pgmc.acquire('servers_s');
SELECT pgmc.execute('CREATE TEMP TABLE state_t AS SELECT 42 AS n'), pgmc.execute('SET application_name = ''mine'''), pgmc.commit();
SELECT pgmc.release();
SELECT pgmc.acquire('servers_s');
SELECT * FROM pgmc.query('SELECT n, current_setting(''application_name'') FROM state_t') AS t(n int, name text);
SELECT pgmc.rollback(), pgmc.release();
-- the next session: DISCARD ALL before its first command
\c -
SELECT pgmc.acquire('servers_s');
SELECT * FROM pgmc.query('SELECT to_regclass(''state_t''), current_setting(''application_name'')') AS t(n regclass, name text);
SELECT pgmc.execute('CREATE TEMP TABLE state_t AS SELECT 43 AS n'), pgmc.commit(), pgmc.release();
-- none at all
ALTER SERVER servers_s OPTIONS (ADD reset_query '');
SELECT pgmc.acquire('servers_s');
SELECT * FROM pgmc.query('SELECT to_regclass(''state_t'')') AS t(n regclass);
SELECT pgmc.execute('CREATE TEMP TABLE state_t AS SELECT 44 AS n'), pgmc.commit(), pgmc.release();
\c -
SELECT pgmc.acquire('servers_s');
SELECT * FROM pgmc.query('SELECT n FROM state_t') AS t(n int);
SELECT pgmc.commit(), pgmc.release();
-- one's own, of several commands
ALTER SERVER servers_s OPTIONS (SET reset_query 'DROP TABLE IF EXISTS state_t; SET application_name = ''after reset''');
SELECT pgmc.acquire('servers_s');
SELECT pgmc.execute('CREATE TEMP TABLE state_t AS SELECT 45 AS n'), pgmc.commit(), pgmc.release();
\c -
SELECT pgmc.acquire('servers_s');
SELECT * FROM pgmc.query('SELECT to_regclass(''state_t''), current_setting(''application_name'')') AS t(n regclass, name text);
SELECT pgmc.commit(), pgmc.release();

-- ---- changes are there at the next acquire ----

SELECT pgmc.acquire('servers_s');
ALTER SERVER servers_s OPTIONS (ADD application_name 'second');
SELECT * FROM pgmc.query('SELECT current_setting(''application_name'')') AS t(name text);
SELECT pgmc.commit(), pgmc.release();
SELECT pgmc.acquire('servers_s');
SELECT * FROM pgmc.query('SELECT current_setting(''application_name'')') AS t(name text);
SELECT pgmc.commit(), pgmc.release();
SELECT count(*) FROM look();
-- a mapping makes another key
CREATE ROLE regress_pgmc_login LOGIN SUPERUSER PASSWORD 'regress_pgmc_pw';
SELECT pgmc.autonomous_on('servers_s', 'INSERT INTO servers_t VALUES (100)');
CREATE USER MAPPING FOR CURRENT_USER SERVER servers_s OPTIONS ("user" 'regress_pgmc_login', password 'regress_pgmc_pw');
SELECT u FROM pgmc.autonomous_query_on('servers_s', 'SELECT CURRENT_USER') AS t(u name);
DROP USER MAPPING FOR CURRENT_USER SERVER servers_s;
SELECT u = CURRENT_USER AS own FROM pgmc.autonomous_query_on('servers_s', 'SELECT CURRENT_USER') AS t(u name);
DROP ROLE regress_pgmc_login;
-- a bad value that only the server knows is an error of the opening, with its SQLSTATE
ALTER SERVER servers_s OPTIONS (ADD options '-c no_such_setting=1');
\set VERBOSITY terse
SELECT pgmc.acquire('servers_s');
\echo :SQLSTATE
\set VERBOSITY default
ALTER SERVER servers_s OPTIONS (SET options '-c geqo_threshold=17');
SELECT * FROM pgmc.autonomous_query_on('servers_s', 'SHOW geqo_threshold') AS t(n text);
ALTER SERVER servers_s OPTIONS (DROP options);

-- ---- idle_timeout, max_lifetime ----

SELECT pgmc.close('servers_s');
CALL await_connections(0);
ALTER SERVER servers_s OPTIONS (SET pool_size '2', ADD idle_timeout '1ms');
SELECT pgmc.acquire('servers_s');
SELECT pgmc.autonomous_on('servers_s', 'SELECT 1');
CALL await_connections(1);
-- not the one that is held
SELECT * FROM look();
SELECT pgmc.execute('SELECT 1'), pgmc.commit(), pgmc.release();
CALL await_connections(0);
ALTER SERVER servers_s OPTIONS (SET idle_timeout '0');
SELECT pgmc.autonomous_on('servers_s', 'SELECT 1');
SELECT * FROM look();
-- replaced on release, and not before
ALTER SERVER servers_s OPTIONS (ADD max_lifetime '1ms');
SELECT pgmc.acquire('servers_s');
SELECT loopback_pid() AS pid \gset
SELECT pg_sleep(0.002), pgmc.commit(), loopback_pid() = :pid AS same, pgmc.commit();
SELECT pgmc.release();
CALL await_connections(0);
-- whichever way it is released
SELECT pgmc.acquire('servers_s');
SELECT pg_sleep(0.002), loopback_pid() = :pid AS same;
SELECT pgmc.release();
CALL await_connections(0);
ALTER SERVER servers_s OPTIONS (SET max_lifetime '0');
SELECT pgmc.autonomous_on('servers_s', 'SELECT 1');
SELECT * FROM look();

-- ---- two servers at once ----

CREATE SERVER servers_two FOREIGN DATA WRAPPER pgmc OPTIONS (dbname 'postgres');
SELECT pgmc.acquire('servers_s');
SELECT pgmc.acquire('servers_two');
SELECT * FROM pgmc.query('SELECT current_database()') AS t(db name);
SELECT db = current_database() AS own FROM pgmc.query_on('servers_s', 'SELECT current_database()') AS t(db name);
SELECT * FROM look();
SELECT pgmc.release_all();

-- ---- dropping closes ----

DROP SERVER servers_two;
CALL await_connections(1);
-- one that is held ends with its hold
SELECT pgmc.acquire('servers_s');
DROP SERVER servers_s;
SELECT srvname, state FROM look();
SELECT pgmc.release_all();
CALL await_connections(0);

DROP TABLE servers_t;
DROP FUNCTION survives, loopback_pid;
DROP PROCEDURE await_connections;
DROP FUNCTION look;
