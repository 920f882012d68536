-- The extension itself: it comes with a schema, functions for everybody and a server for
-- nobody, and goes without leaving anything behind but that schema, which is empty.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS pgmc CASCADE;
CREATE EXTENSION pgmc;
RESET client_min_messages;

SELECT extversion IS NOT NULL AS has_version, extrelocatable, nspname
	FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'pgmc';

-- what one can call
SELECT p.oid::regprocedure AS function, pg_get_function_result(p.oid) AS result
	FROM pg_proc p WHERE pronamespace = 'pgmc'::regnamespace
		AND proname NOT IN ('fdw_validator', 'get_connections', 'get_stat_connections')
	ORDER BY p.oid::regprocedure::text COLLATE "C";
SELECT attname, atttypid::regtype FROM pg_attribute
	WHERE attrelid = 'pgmc.connections'::regclass AND attnum > 0 ORDER BY attnum;
SELECT attname, atttypid::regtype FROM pg_attribute
	WHERE attrelid = 'pgmc.stat_connections'::regclass AND attnum > 0 ORDER BY attnum;

-- none of them may be moved to a parallel worker or called once for many
SELECT p.oid::regprocedure AS wrong FROM pg_proc p
	WHERE pronamespace = 'pgmc'::regnamespace AND prokind = 'f'
		AND proname <> 'fdw_validator'
		AND (provolatile <> 'v' OR proparallel <> 'u');

-- The first call of a session loads the library. The words "server" and "timeout" are the names
-- of the arguments.
SELECT pgmc.acquire(server => 'pgmc_loopback', timeout => '1 min');
SELECT pgmc.release(server => 'pgmc_loopback', close => false);

-- ---- rights ----

-- schema and functions are open to all, the server to none but its owner
CREATE ROLE regress_pgmc_role;
SELECT has_schema_privilege('regress_pgmc_role', 'pgmc', 'USAGE') AS schema,
	has_table_privilege('regress_pgmc_role', 'pgmc.connections', 'SELECT') AS view,
	has_table_privilege('regress_pgmc_role', 'pgmc.stat_connections', 'SELECT') AS stat_view,
	has_server_privilege('regress_pgmc_role', 'pgmc_loopback', 'USAGE') AS server;
SELECT p.oid::regprocedure AS not_for_all FROM pg_proc p
	WHERE pronamespace = 'pgmc'::regnamespace
		AND NOT has_function_privilege('regress_pgmc_role', p.oid, 'EXECUTE');
SET ROLE regress_pgmc_role;
SELECT pgmc.acquire();
\echo :SQLSTATE
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER pgmc_loopback TO regress_pgmc_role;
SELECT has_server_privilege('regress_pgmc_role', 'pgmc_loopback', 'USAGE') AS server;
REVOKE USAGE ON FOREIGN SERVER pgmc_loopback FROM regress_pgmc_role;
DROP ROLE regress_pgmc_role;

-- ---- where it lives ----

ALTER EXTENSION pgmc SET SCHEMA public;
\echo :SQLSTATE
DROP SERVER pgmc_loopback;
\echo :SQLSTATE

-- an option that doesn't exist is refused when it is set
DO $$
BEGIN
	CREATE SERVER regress_pgmc_bad FOREIGN DATA WRAPPER pgmc OPTIONS (no_such_option 'x');
EXCEPTION WHEN OTHERS THEN
	RAISE NOTICE 'refused';
END
$$;
DO $$
BEGIN
	CREATE USER MAPPING FOR CURRENT_USER SERVER pgmc_loopback OPTIONS (no_such_option 'x');
EXCEPTION WHEN OTHERS THEN
	RAISE NOTICE 'refused';
END
$$;
SELECT srvname FROM pg_foreign_server WHERE srvname = 'regress_pgmc_bad';

-- ---- removing it ----

-- it doesn't take somebody's servers away unasked
CREATE SERVER regress_pgmc_second FOREIGN DATA WRAPPER pgmc;
DROP EXTENSION pgmc;
\echo :SQLSTATE
DROP SERVER regress_pgmc_second;
BEGIN;
DROP EXTENSION pgmc;
DROP SCHEMA pgmc;	-- which the server has made for it, but doesn't take for a part of it
ROLLBACK;

-- It can be removed by a session that holds a connection. The hold ends with an error or with the
-- session; the extension made anew has a server of its own, which is not the one held.
SELECT pgmc.acquire();
SELECT pgmc.execute('SELECT 1');
DROP EXTENSION pgmc;
CREATE EXTENSION pgmc;
SELECT pgmc.is_closed();
SELECT pgmc.acquire();
SELECT pgmc.execute('SELECT 1');
SELECT pgmc.rollback();
SELECT pgmc.release();
SELECT pgmc.release_all();

-- Connections of a server that is no more are closed: idle ones with it, held ones when their holds
-- end, be it in disorder.
CREATE PROCEDURE wait_until(condition text) LANGUAGE plpgsql AS $$
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
SELECT pgmc.close();
CALL wait_until($$count(*) = 0 FROM pg_stat_activity WHERE application_name LIKE 'pgmc%' AND datname = current_database()$$);
CREATE SERVER regress_pgmc_idle FOREIGN DATA WRAPPER pgmc;
CREATE SERVER regress_pgmc_held FOREIGN DATA WRAPPER pgmc;
SELECT pgmc.acquire('regress_pgmc_idle');
SELECT pgmc.release();
SELECT pgmc.acquire('regress_pgmc_held');
DROP SERVER regress_pgmc_idle, regress_pgmc_held;
CALL wait_until($$count(*) = 1 FROM pg_stat_activity WHERE application_name LIKE 'pgmc%' AND datname = current_database()$$);
SELECT pgmc.release_all();
CALL wait_until($$count(*) = 0 FROM pg_stat_activity WHERE application_name LIKE 'pgmc%' AND datname = current_database()$$);
DROP PROCEDURE wait_until;

-- in another session it works just the same
\c -
SELECT pgmc.try_acquire();
SELECT pgmc.release();
SELECT pgmc.close();
