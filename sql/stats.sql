-- stat_connections: what is counted and what isn't, how long it is kept, who sees it. What takes
-- several sessions is in t/070_stats.pl.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgmc;
RESET client_min_messages;
\set VERBOSITY terse
\set ON_ERROR_ROLLBACK off

-- every test from here on tells what is new in these
CREATE SERVER stats FOREIGN DATA WRAPPER pgmc;
CREATE VIEW stats_counts AS SELECT acquires AS acq, waits, timeouts, dirty_releases AS dirty, forced_rollbacks AS forced,
		deadlocks, revoked_holds AS revoked, opens, failures, commands, rows
	FROM pgmc.stat_connections WHERE datname = current_database() AND srvname = 'stats';
CREATE TABLE stats_t (i int PRIMARY KEY);

-- nothing is counted of what was never used, nor does looking count
SELECT * FROM stats_counts;
SELECT pgmc.describe('stats') IS NOT NULL, pgmc.is_closed('stats'), pgmc.transaction_status('stats');
SELECT * FROM stats_counts;

-- ---- holds, openings, commands and rows ----

-- rows are those that were affected or returned; BEGIN, COMMIT and the reset are nobody's commands
SELECT pgmc.acquire('stats');
SELECT pgmc.execute('INSERT INTO stats_t SELECT generate_series(1, 3)');
SELECT count(*) FROM pgmc.query('SELECT i FROM stats_t WHERE i > $1', 1) AS t(i int);
SELECT pgmc.execute('CREATE TEMP TABLE stats_temp ()');
SELECT pgmc.commit();
SELECT pgmc.release();
SELECT * FROM stats_counts;

-- the connection stays open, and is acquired once more
SELECT pgmc.stat_reset('stats');
SELECT * FROM stats_counts;
SELECT pgmc.autonomous_on('stats', 'INSERT INTO stats_t VALUES (4)');
SELECT pgmc.try_acquire('stats'), pgmc.release();
SELECT * FROM stats_counts;

-- of several commands in one string it is the last one's count that is told
SELECT pgmc.stat_reset('stats');
SELECT pgmc.autonomous_on('stats', 'DELETE FROM stats_t WHERE i = 4; SELECT generate_series(1, 5)');
SELECT commands, rows FROM stats_counts;

-- a command that fails is one, without rows
SELECT pgmc.stat_reset('stats');
SELECT pgmc.autonomous_on('stats', 'INSERT INTO stats_t VALUES (1)');
\echo :SQLSTATE
SELECT * FROM stats_counts;

-- ---- transactions that were left open ----

-- by those who release
SELECT pgmc.stat_reset('stats');
SELECT pgmc.acquire('stats');
SELECT pgmc.execute('SELECT 1');
SELECT pgmc.release();
\echo :SQLSTATE
SELECT * FROM stats_counts;
BEGIN;
SELECT pgmc.acquire_xact('stats');
SELECT pgmc.execute('SELECT 1');
COMMIT;
\echo :SQLSTATE
SELECT dirty, forced FROM stats_counts;
SELECT pgmc.acquire('stats');
SELECT pgmc.execute('SELECT 1');
SET client_min_messages = error;
SELECT pgmc.release_all();
RESET client_min_messages;
SELECT dirty, forced FROM stats_counts;
SELECT pgmc.acquire('stats');
SELECT pgmc.execute('SELECT 1');
SELECT pgmc.release(close => true);
\echo :SQLSTATE
SELECT dirty, forced FROM stats_counts;

-- and by an error
SELECT pgmc.stat_reset('stats');
SELECT pgmc.acquire('stats');
SELECT pgmc.execute('SELECT 1');
SET client_min_messages = error;
SELECT 1/0;
RESET client_min_messages;
SELECT * FROM stats_counts;

-- not so where there is none: by an error in a hold that is clean, nor by one of autonomous
SELECT pgmc.acquire('stats');
SELECT 1/0;
SELECT pgmc.autonomous_on('stats', 'SELECT 1/0');
SELECT dirty, forced FROM stats_counts;

-- nor where a transaction is lost together with the connection
SELECT pgmc.acquire('stats');
SELECT pgmc.execute('SELECT 1');
SELECT pgmc.stat_reset('stats');
SELECT pg_terminate_backend(backend_pid, 60000) FROM pgmc.connections WHERE holder_pid = pg_backend_pid();
SELECT pgmc.commit();
\echo :SQLSTATE
SELECT * FROM stats_counts;

-- ---- failures ----

CREATE SERVER stats_bad FOREIGN DATA WRAPPER pgmc OPTIONS (dbname 'no such database');
SELECT pgmc.acquire('stats_bad');
\echo :SQLSTATE
SELECT acquires, opens, failures, commands FROM pgmc.stat_connections WHERE srvname = 'stats_bad';

-- ---- times ----

SELECT pgmc.stat_reset('stats');
SELECT pgmc.acquire('stats'), pg_sleep(0.05), pgmc.release();
SELECT hold_time BETWEEN 50 AND 30000 AS held, wait_time FROM pgmc.stat_connections WHERE srvname = 'stats';
SELECT pgmc.stat_reset('stats');
SELECT hold_time, wait_time, clock_timestamp() - stats_reset < '30 s' AS just_now
	FROM pgmc.stat_connections WHERE srvname = 'stats';

-- a hold that is older than the reset counts from there
SELECT pgmc.acquire('stats'), pg_sleep(0.2);
SELECT pgmc.stat_reset('stats'), clock_timestamp() AS reset_at \gset
SELECT pgmc.release('stats');
SELECT hold_time <= 1000 * extract(epoch FROM clock_timestamp() - :'reset_at') + 1 AS only_the_rest
	FROM pgmc.stat_connections WHERE srvname = 'stats';

-- ---- they are cumulative ----

-- without the connection, and without the worker
SELECT pgmc.stat_reset('stats');
SELECT pgmc.autonomous_on('stats', 'SELECT 1');
SELECT pgmc.close('stats');
SELECT acq, opens, commands FROM stats_counts;
SELECT pgmc.autonomous_on('stats', 'SELECT 1');
SELECT pgmc.stop_worker();
SELECT acq, opens, commands FROM stats_counts;
SELECT pgmc.autonomous_on('stats', 'SELECT 1');
SELECT acq, opens, failures, commands FROM stats_counts;

-- another name is the same server
ALTER SERVER stats RENAME TO stats_renamed;
SELECT pgmc.autonomous_on('stats_renamed', 'SELECT 1');
SELECT srvname, acquires FROM pgmc.stat_connections WHERE srvname IN ('stats', 'stats_renamed');
ALTER SERVER stats_renamed RENAME TO stats;
SELECT acq FROM stats_counts;

-- ---- resetting ----

-- of one server, of all of this database; no such server, and one of another wrapper
SELECT pgmc.stat_reset('stats_bad');
SELECT sum(acquires) FROM pgmc.stat_connections WHERE srvname = 'stats_bad';
SELECT acq FROM stats_counts;
SELECT pgmc.stat_reset();
SELECT sum(acquires) FROM pgmc.stat_connections WHERE datname = current_database();
SELECT pgmc.stat_reset('no such server');
\echo :SQLSTATE
CREATE FOREIGN DATA WRAPPER stats_wrapper;
CREATE SERVER stats_other FOREIGN DATA WRAPPER stats_wrapper;
SELECT pgmc.stat_reset('stats_other');
\echo :SQLSTATE
DROP FOREIGN DATA WRAPPER stats_wrapper CASCADE;

-- ---- rights ----

CREATE ROLE regress_pgmc_stats;
SELECT pgmc.autonomous_on('stats', 'SELECT 1');
SET ROLE regress_pgmc_stats;
SELECT srvname, usename IS NOT NULL AS usename, acquires, waits, wait_time, hold_time, timeouts, dirty_releases, forced_rollbacks, deadlocks,
	revoked_holds, opens, failures, commands, rows, stats_reset FROM pgmc.stat_connections WHERE srvname = 'stats';
SELECT pgmc.stat_reset('stats');
\echo :SQLSTATE
SELECT pgmc.stat_reset();
\echo :SQLSTATE
RESET ROLE;
SELECT acq FROM stats_counts;
GRANT pg_read_all_stats TO regress_pgmc_stats;
SET ROLE regress_pgmc_stats;
SELECT acquires, commands, stats_reset IS NOT NULL AS since FROM pgmc.stat_connections WHERE srvname = 'stats';
SELECT pgmc.stat_reset('stats');
\echo :SQLSTATE
RESET ROLE;
REVOKE pg_read_all_stats FROM regress_pgmc_stats;

-- each login role has its own row, which it sees; the owner of a server resets both, but no other server
ALTER SERVER stats OWNER TO regress_pgmc_stats;
CREATE USER MAPPING FOR regress_pgmc_stats SERVER stats OPTIONS (password_required 'false');
SET ROLE regress_pgmc_stats;
SELECT pgmc.try_acquire('stats');
SELECT usename = current_user AS mine, acquires, opens, failures FROM pgmc.stat_connections WHERE srvname = 'stats' ORDER BY 1;
SELECT pgmc.stat_reset('stats');
SELECT pgmc.stat_reset('stats_bad');
\echo :SQLSTATE
SELECT pgmc.stat_reset();
\echo :SQLSTATE
RESET ROLE;
SELECT usename = 'regress_pgmc_stats' AS theirs, acquires FROM pgmc.stat_connections WHERE srvname = 'stats' ORDER BY 1;
DROP USER MAPPING FOR regress_pgmc_stats SERVER stats;
SELECT usename = 'regress_pgmc_stats' AS theirs, acquires FROM pgmc.stat_connections WHERE srvname = 'stats' ORDER BY 1;
ALTER SERVER stats OWNER TO CURRENT_USER;

-- ---- what was dropped is gone ----

DROP SERVER stats_bad;
SELECT count(*) FROM pgmc.stat_connections WHERE srvname = 'stats_bad';
BEGIN;
DROP SERVER stats CASCADE;
SELECT count(*) FROM pgmc.stat_connections WHERE srvname = 'stats';
ROLLBACK;
SELECT count(*) FROM pgmc.stat_connections WHERE srvname = 'stats';

-- ---- what a connection runs, in the view connections ----

-- the latest command, without the values of its parameters; nothing once it is over
SELECT pgmc.acquire('stats');
SELECT query, waiters, waiter_pids, wait_starts FROM pgmc.connections WHERE holder_pid = pg_backend_pid();
SELECT pgmc.execute('INSERT INTO stats_t VALUES ($1)', 17);
SELECT query FROM pgmc.connections WHERE holder_pid = pg_backend_pid();
SELECT pgmc.rollback();
SELECT query FROM pgmc.connections WHERE holder_pid = pg_backend_pid();
SELECT pgmc.release(), pgmc.acquire('stats');
SELECT query FROM pgmc.connections WHERE holder_pid = pg_backend_pid();
SELECT pgmc.execute('SELECT $1', 'secret');

-- under the rules of pg_stat_activity
SET ROLE regress_pgmc_stats;
SELECT query, waiter_pids, wait_starts FROM pgmc.connections WHERE srvname = 'stats';
RESET ROLE;
GRANT pg_read_all_stats TO regress_pgmc_stats;
SET ROLE regress_pgmc_stats;
SELECT query, waiter_pids, wait_starts FROM pgmc.connections WHERE srvname = 'stats';
RESET ROLE;
SELECT pgmc.rollback(), pgmc.release();
SELECT query IS NULL AS nothing FROM pgmc.connections WHERE srvname = 'stats';

-- and at no cost where nobody asks
EXPLAIN (COSTS OFF) SELECT srvname, state, waiters FROM pgmc.connections;

DROP OWNED BY regress_pgmc_stats;
DROP ROLE regress_pgmc_stats;
SELECT pgmc.close('stats');
DROP VIEW stats_counts;
DROP TABLE stats_t;
DROP SERVER stats;
