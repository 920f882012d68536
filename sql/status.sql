-- Looking at connections and closing them, with a hold and without.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgmc;
RESET client_min_messages;

CREATE SERVER status_second FOREIGN DATA WRAPPER pgmc;
-- what differs from machine to machine left out
CREATE FUNCTION status_describe(server name DEFAULT NULL) RETURNS text LANGUAGE sql AS $$
	SELECT regexp_replace(pgmc.describe(server), 'host=\S+ port=\d+ dbname=.* user=.* \(', 'CONNINFO (')
$$;
CREATE VIEW status_look AS SELECT status_describe(), pgmc.transaction_status(), pgmc.is_closed(),
	status_describe('status_second') AS second, pgmc.transaction_status('status_second') AS second_status, pgmc.is_closed('status_second') AS second_closed;
CREATE VIEW status_connections AS SELECT srvname, datname = current_database() AS here, usename = current_user AS me, state, xact_status,
		backend_pid IN (SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'pgmc%' AND usename = current_user) AS backend,
		backend_start BETWEEN now() - interval '1 hour' AND clock_timestamp() AS started, holder_pid = pg_backend_pid() AS mine, holder_usename = current_user AS holder,
		holder_application_name AS application, hold_start BETWEEN now() - interval '1 hour' AND clock_timestamp() AS held_since, waiters, last_error
	FROM pgmc.connections WHERE datname = current_database() ORDER BY srvname;
\x on

-- this is what is left out below
SELECT pgmc.describe() LIKE '%dbname=%' || current_database() || '% user=%' || current_user || '%' AS conninfo;

-- closed
SELECT * FROM status_look;
SELECT * FROM status_connections;

-- acquired
SET application_name = 'status test';
SELECT pgmc.acquire();
SELECT * FROM status_look;
SELECT * FROM status_connections;

-- in a transaction, in a failed one, after it
\set ON_ERROR_ROLLBACK on
BEGIN;
SELECT pgmc.execute('SELECT 1');
SELECT * FROM status_look;
SELECT state, xact_status FROM status_connections;
SELECT pgmc.execute('SELECT 1/0');
SELECT * FROM status_look;
SELECT state, xact_status FROM status_connections;
SELECT pgmc.rollback();
SELECT * FROM status_look;

-- with two
SELECT pgmc.acquire('status_second');
SELECT pgmc.execute('SELECT 1');
SELECT * FROM status_look;
SELECT pgmc.transaction_status('pgmc_loopback'), pgmc.is_closed('pgmc_loopback'), status_describe('pgmc_loopback');
SELECT srvname, xact_status, mine FROM status_connections;
SELECT pgmc.rollback();
SELECT pgmc.release();
SELECT pgmc.release();
COMMIT;

-- free again, and open
SELECT * FROM status_look;
SELECT * FROM status_connections;

-- while it runs something, as the loopback itself sees it: nobody waits for the holder
SELECT * FROM pgmc.autonomous_query($$SELECT pgmc.transaction_status(), pgmc.is_closed(), pgmc.describe() LIKE '%(open, active)>'$$) AS t(transaction_status text, is_closed boolean, described boolean);

-- the loopback's own name for itself
SELECT * FROM pgmc.autonomous_query('SELECT application_name, backend_type FROM pg_stat_activity WHERE pid = pg_backend_pid()') AS t(application_name text, backend_type text);

-- one worker for all, which is connected to no database
SELECT count(*), count(datname) AS in_a_database FROM pg_stat_activity WHERE backend_type = 'pgmc worker';
\x off

-- ---- closing ----

-- idle ones
SELECT pgmc.close();
SELECT pgmc.is_closed(), pgmc.is_closed('status_second');
SELECT pgmc.close();
SELECT pgmc.close('status_second'), pgmc.close('status_second');
SELECT srvname FROM status_connections;

-- held ones can't be, whoever holds them
BEGIN;
SELECT pgmc.acquire();
SELECT pgmc.execute('SELECT 1');
SELECT pgmc.close();
\echo :SQLSTATE
SELECT pgmc.transaction_status();
SELECT pgmc.commit();
SELECT pgmc.release();
COMMIT;
SELECT pgmc.close();
SELECT pgmc.autonomous('SELECT pgmc.close()');
\echo :SQLSTATE
SELECT pgmc.is_closed();

-- the setting names the server
SET pgmc.default_server = 'status_second';
SELECT pgmc.is_closed(), pgmc.close(), status_describe();
SELECT pgmc.acquire();
SELECT srvname FROM status_connections WHERE mine;
RESET pgmc.default_server;
SELECT pgmc.is_closed('status_second'), pgmc.close();
SELECT pgmc.execute('SELECT 1'), pgmc.rollback(), pgmc.release();

-- ---- what others may see ----

-- that it is there, but no details, unless it is a connection of one's own key
SELECT pgmc.acquire();
CREATE ROLE regress_pgmc_status;
SET ROLE regress_pgmc_status;
SELECT srvname, datname = current_database() AS here, usename IS NOT NULL AS usename, state, xact_status, backend_start, holder_pid, holder_usename, holder_application_name,
	hold_start, waiters, last_error FROM pgmc.connections WHERE datname = current_database() AND srvname = 'pgmc_loopback';
RESET ROLE;
GRANT pg_read_all_stats TO regress_pgmc_status;
SET ROLE regress_pgmc_status;
SELECT srvname, state, xact_status, holder_pid = pg_backend_pid() AS mine FROM pgmc.connections WHERE datname = current_database() AND srvname = 'pgmc_loopback';
RESET ROLE;
REVOKE pg_read_all_stats FROM regress_pgmc_status;

-- another role means another connection
GRANT USAGE ON FOREIGN SERVER pgmc_loopback TO regress_pgmc_status;
SET ROLE regress_pgmc_status;
SELECT pgmc.is_closed('pgmc_loopback'), pgmc.describe('pgmc_loopback') LIKE '% user=regress\_pgmc\_status (closed)>' AS described;
RESET ROLE;
SELECT pgmc.release();
DROP OWNED BY regress_pgmc_status;
DROP ROLE regress_pgmc_status;

-- ---- stopping the worker ----

CREATE PROCEDURE status_wait_until(condition text) LANGUAGE plpgsql AS $$
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

SELECT pgmc.stop_worker();
CALL status_wait_until($$count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'pgmc worker' OR application_name LIKE 'pgmc%' AND datname = current_database()$$);
SELECT count(*) FROM status_connections;
SELECT pgmc.is_closed(), pgmc.stop_worker();

-- a holder is told, and the next acquire starts it again
SELECT pgmc.acquire();
SELECT pgmc.execute('SELECT 1');
SELECT pgmc.stop_worker();
BEGIN;
SELECT pgmc.execute('SELECT 1');
\echo :SQLSTATE
SELECT pgmc.is_closed();
SELECT pgmc.release();
COMMIT;
SELECT pgmc.acquire();
SELECT pgmc.execute('SELECT 1');
SELECT pgmc.rollback();
SELECT pgmc.release();

\unset ON_ERROR_ROLLBACK
SELECT pgmc.release_all(), pgmc.close();
DROP VIEW status_look, status_connections;
DROP FUNCTION status_describe;
DROP PROCEDURE status_wait_until;
DROP SERVER status_second;
