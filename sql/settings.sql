-- Settings: what they are called, what they are when nobody has set them, who may set them.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgmc;
RESET client_min_messages;

-- loads the library
SELECT pgmc.release_all();

-- spin_time is 0 where there is one processor only
SELECT name, CASE name WHEN 'pgmc.spin_time' THEN (boot_val IN ('0', '50'))::text ELSE boot_val END AS boot_val, unit, context, vartype
	FROM pg_settings WHERE name LIKE 'pgmc.%' ORDER BY name COLLATE "C";

-- the prefix is reserved
SET pgmc.no_such_setting = 1;
\echo :SQLSTATE

-- ---- default_server ----

CREATE SERVER settings_second FOREIGN DATA WRAPPER pgmc;
SET pgmc.default_server = 'settings_second';
SELECT pgmc.acquire();
SELECT srvname FROM pgmc.connections WHERE holder_pid = pg_backend_pid();

-- for commands it is the innermost hold, whatever the setting
RESET pgmc.default_server;
SELECT pgmc.acquire();
SELECT pgmc.execute('SET application_name = settings_inner');
SELECT pgmc.execute_on('settings_second', 'SET application_name = settings_outer');
SET pgmc.default_server = 'settings_second';
SELECT * FROM pgmc.query('SHOW application_name') AS t(a text);
SELECT pgmc.transaction_status(), pgmc.rollback(), pgmc.release();
SELECT * FROM pgmc.query('SHOW application_name') AS t(a text);
SELECT pgmc.rollback(), pgmc.release();
SELECT pgmc.autonomous('SELECT 1');
BEGIN;
SET LOCAL pgmc.default_server = 'no_such_server';
SELECT pgmc.acquire();
\echo :SQLSTATE
ROLLBACK;
RESET pgmc.default_server;

-- ---- time-outs ----

-- Waiting can't be shown by one session. But no time-out is so short that a free connection isn't
-- had.
SET pgmc.acquire_timeout = '1ms';
SET lock_timeout = '1ms';
SELECT pgmc.acquire();
SELECT pgmc.release();
RESET pgmc.acquire_timeout;
RESET lock_timeout;
SELECT pgmc.acquire(timeout => '1 us');
SELECT pgmc.release();
\set VERBOSITY sqlstate
SET pgmc.acquire_timeout = -1;
\echo :SQLSTATE
SET pgmc.acquire_timeout = '1 fortnight';
\set VERBOSITY default
\echo :SQLSTATE

-- ---- the worker's are set for all ----

SET pgmc.spin_time = 0;
\echo :SQLSTATE
SET pgmc.worker_linger = 0;
\echo :SQLSTATE
SET pgmc.max_connections = 1;
\echo :SQLSTATE

-- ---- of the loopback session ----

-- It starts as a login of its own: with the database's and the role's settings, not the caller's.
SET work_mem = '777kB';
SELECT * FROM pgmc.autonomous_query('SHOW work_mem') AS t(m text) WHERE m = '777kB';
SELECT pgmc.close(), pgmc.close('settings_second');
SELECT format('ALTER DATABASE %I SET pgmc_test.setting = %L', current_database(), 'of the database') AS command \gset
:command;
SELECT * FROM pgmc.autonomous_query($$SELECT current_setting('pgmc_test.setting')$$) AS t(s text);
SELECT format('ALTER DATABASE %I RESET pgmc_test.setting', current_database()) AS command \gset
:command;
RESET work_mem;

SELECT pgmc.release_all(), pgmc.close();
DROP SERVER settings_second;
