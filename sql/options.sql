-- Options of servers and user mappings: refused when they are set, or in effect at the next acquire.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgmc;
RESET client_min_messages;

-- ---- names ----

CREATE SERVER options_bad FOREIGN DATA WRAPPER pgmc OPTIONS (pool_sise '2');
\echo :SQLSTATE
CREATE SERVER options_bad FOREIGN DATA WRAPPER pgmc OPTIONS (hots '/tmp');
\echo :SQLSTATE
CREATE SERVER options_bad FOREIGN DATA WRAPPER pgmc OPTIONS (nothing_like_it 'x');
\echo :SQLSTATE
CREATE SERVER options_bad FOREIGN DATA WRAPPER pgmc OPTIONS ("user" 'somebody');
\echo :SQLSTATE
CREATE SERVER options_bad FOREIGN DATA WRAPPER pgmc OPTIONS (replication 'database');
\echo :SQLSTATE
CREATE SERVER options FOREIGN DATA WRAPPER pgmc;
CREATE USER MAPPING FOR CURRENT_USER SERVER options OPTIONS (host '/tmp');
\echo :SQLSTATE
CREATE USER MAPPING FOR CURRENT_USER SERVER options OPTIONS (usr 'x');
\echo :SQLSTATE

-- ---- values ----

ALTER SERVER options OPTIONS (pool_size '0');
\echo :SQLSTATE
ALTER SERVER options OPTIONS (pool_size 'many');
\echo :SQLSTATE
ALTER SERVER options OPTIONS (idle_timeout '-1');
\echo :SQLSTATE
ALTER SERVER options OPTIONS (idle_timeout '1 fortnight');
\echo :SQLSTATE
ALTER SERVER options OPTIONS (on_error 'ignore');
\echo :SQLSTATE
CREATE USER MAPPING FOR CURRENT_USER SERVER options OPTIONS (password_required 'perhaps');
\echo :SQLSTATE

-- ---- passwords are nobody's business ----

-- refused without being repeated
CREATE FUNCTION options_refused(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	m text; d text; h text;
BEGIN
	EXECUTE command;
	RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS m = MESSAGE_TEXT, d = PG_EXCEPTION_DETAIL, h = PG_EXCEPTION_HINT;
	RETURN sqlstate || CASE WHEN m || d || h LIKE '%sesame%' THEN ' and told' ELSE '' END;
END
$$;
SELECT dsn, options_refused(format('CREATE SERVER options_bad FOREIGN DATA WRAPPER pgmc OPTIONS (dsn %L)', dsn)) FROM (VALUES
	('host=/tmp password=sesame'), ('host=/tmp password = ''ses\''sesame'''), ('postgres://me:sesame@localhost/db'),
	('postgresql://localhost/db?password=sesame'), ('postgres:///db?user=me&password=%73%65sesame'), ('host=/tmp sslpassword=sesame'),
	('host=/tmp user=me'), ('host=/tmp passwrd=sesame'), ('password=sesame host'), ('postgres://[sesame'), ('host=/tmp sesame')) AS v(dsn);
SELECT options_refused($$CREATE SERVER options_bad FOREIGN DATA WRAPPER pgmc OPTIONS (password 'sesame')$$);
SELECT srvname FROM pg_foreign_server WHERE srvname = 'options_bad';

-- ---- what leads elsewhere ----

-- all that is left out means this server, this database and the current role
ALTER SERVER options OPTIONS (application_name 'options test', ADD options '-c work_mem=1234kB -c options.test=yes');
SELECT database = current_database() AS database, role = current_user AS role, application, mem, test FROM pgmc.autonomous_query_on('options',
		$$SELECT current_database(), current_user, current_setting('application_name'), current_setting('work_mem'), current_setting('options.test')$$)
	AS t(database name, role name, application text, mem text, test text);

-- changed options take effect at the next acquire
ALTER SERVER options OPTIONS (SET application_name 'options changed', DROP options);
SELECT * FROM pgmc.autonomous_query_on('options', $$SELECT current_setting('application_name'), current_setting('options.test', true)$$) AS t(application text, test text);

-- also those that are held meanwhile
SELECT pgmc.acquire('options');
ALTER SERVER options OPTIONS (SET application_name 'options changed again');
SELECT * FROM pgmc.query('SHOW application_name') AS t(a text);
SELECT pgmc.rollback();
SELECT pgmc.release();
SELECT pgmc.acquire('options');
SELECT * FROM pgmc.query('SHOW application_name') AS t(a text);
SELECT pgmc.rollback();
SELECT pgmc.release();

-- a dsn instead of options one by one, in both forms
CREATE SERVER options_dsn FOREIGN DATA WRAPPER pgmc OPTIONS (dsn 'application_name=''the dsn''''s''');
\echo :SQLSTATE
CREATE SERVER options_dsn FOREIGN DATA WRAPPER pgmc OPTIONS (dsn 'application_name=''the dsn''');
SELECT * FROM pgmc.autonomous_query_on('options_dsn', 'SELECT current_setting($$application_name$$)') AS t(a text);
ALTER SERVER options_dsn OPTIONS (SET dsn 'postgres:///postgres?application_name=the%20uri');
SELECT * FROM pgmc.autonomous_query_on('options_dsn', 'SELECT current_setting($$application_name$$), current_database()') AS t(a text, d text);
SELECT pgmc.describe('options_dsn') LIKE '% dbname=postgres user=%(open, idle)>' AS described;
DROP SERVER options_dsn;

-- one that leads nowhere: 08001, the hold is free, and the next one may try
CREATE SERVER options_nowhere FOREIGN DATA WRAPPER pgmc OPTIONS (dbname 'contrib_regression_pgmc_nowhere');
\set ON_ERROR_ROLLBACK on
BEGIN;
\set VERBOSITY sqlstate
SELECT pgmc.acquire('options_nowhere');
SELECT pgmc.autonomous_on('options_nowhere', 'SELECT 1');
ALTER SERVER options_nowhere OPTIONS (ADD host '/no/such/directory');
COMMIT;
SELECT pgmc.acquire('options_nowhere');
\set VERBOSITY default
SELECT count(*) FROM pgmc.connections WHERE srvname = 'options_nowhere' AND holder_pid IS NOT NULL;
SELECT pgmc.is_closed('options_nowhere');
DROP SERVER options_nowhere;
\unset ON_ERROR_ROLLBACK

-- ---- pool_size ----

-- autonomous commands beside a hold, and below one
ALTER SERVER options OPTIONS (ADD pool_size '2');
BEGIN;
SELECT pgmc.acquire('options');
SELECT * FROM pgmc.query('SELECT pg_backend_pid()') AS t(pid int) \gset held_
SELECT pid <> :held_pid AS another FROM pgmc.autonomous_query_on('options', 'SELECT pg_backend_pid()') AS t(pid int);
SELECT pgmc.transaction_status('options');
SELECT count(*) FROM pgmc.connections WHERE srvname = 'options';
SAVEPOINT s;
SELECT pgmc.acquire('options');
\echo :SQLSTATE
ROLLBACK TO s;
SELECT pgmc.rollback();
SELECT pgmc.release();
COMMIT;
SELECT pgmc.autonomous_on('options', $$SELECT pgmc.autonomous_on('options', 'SELECT 1')$$);
SELECT pgmc.autonomous_on('options', $$SELECT pgmc.autonomous_on('options', $i$SELECT pgmc.autonomous_on('options', 'SELECT 1')$i$)$$);
\echo :SQLSTATE
SELECT pgmc.close('options'), pgmc.close('options');

-- ---- on_error ----

ALTER SERVER options OPTIONS (ADD on_error 'close');
SET client_min_messages = error;
BEGIN;
SELECT pgmc.acquire('options');
SELECT pgmc.execute('SELECT 1');
SELECT 1/0;
ROLLBACK;
SELECT pgmc.is_closed('options');
ALTER SERVER options OPTIONS (SET on_error 'rollback');
BEGIN;
SELECT pgmc.acquire('options');
SELECT pgmc.execute('SELECT 1');
SELECT 1/0;
ROLLBACK;
RESET client_min_messages;
SELECT pgmc.is_closed('options'), pgmc.transaction_status('options');

-- ---- reset_query ----

-- by default the next session finds nothing of this one's state; with an empty one it shares it
ALTER SERVER options OPTIONS (ADD reset_query '', DROP pool_size);
SELECT pgmc.close('options') IS NOT NULL AS closed;
SELECT pgmc.autonomous_on('options', $$SET options.state = 'kept'$$);
\c -
SELECT * FROM pgmc.autonomous_query_on('options', $$SELECT current_setting('options.state', true)$$) AS t(state text);
ALTER SERVER options OPTIONS (SET reset_query 'RESET options.state; SET options.reset = on');
SELECT pgmc.autonomous_on('options', $$SET options.state = 'kept'$$);
\c -
SELECT * FROM pgmc.autonomous_query_on('options', $$SELECT coalesce(current_setting('options.state', true), '') = '', current_setting('options.reset', true)$$) AS t(state bool, reset text);

-- ---- on the server that comes with the extension ----

-- pg_dump wouldn't keep it
ALTER SERVER pgmc_loopback OPTIONS (pool_size '1');
ALTER SERVER pgmc_loopback OPTIONS (DROP pool_size);
CREATE USER MAPPING FOR CURRENT_USER SERVER pgmc_loopback;
DROP USER MAPPING FOR CURRENT_USER SERVER pgmc_loopback;

-- ---- what is the superuser's to set ----

CREATE ROLE regress_pgmc_options;
ALTER SERVER options OPTIONS (DROP reset_query);
GRANT USAGE ON FOREIGN DATA WRAPPER pgmc TO regress_pgmc_options;
-- (what is neither options nor mappings of the extension's server is no reason for that warning)
ALTER SERVER pgmc_loopback OWNER TO regress_pgmc_options;
ALTER SERVER pgmc_loopback OWNER TO CURRENT_USER;
ALTER SERVER pgmc_loopback RENAME TO pgmc_options_loopback;
ALTER SERVER pgmc_options_loopback RENAME TO pgmc_loopback;
ALTER SERVER options OWNER TO regress_pgmc_options;
SET ROLE regress_pgmc_options;
ALTER SERVER options OPTIONS (passfile '/etc/passwd');
\echo :SQLSTATE
ALTER SERVER options OPTIONS (dsn 'service=x');
\echo :SQLSTATE
CREATE USER MAPPING FOR regress_pgmc_options SERVER options OPTIONS (password_required 'false');
\echo :SQLSTATE
CREATE USER MAPPING FOR regress_pgmc_options SERVER options OPTIONS (sslkey '/etc/ssl/key');
\echo :SQLSTATE

-- Nobody becomes somebody else without a password: not by a mapping, not by a server elsewhere.
ALTER SERVER options OPTIONS (ADD host '127.0.0.1');
SELECT pgmc.acquire('options');
\echo :SQLSTATE
ALTER SERVER options OPTIONS (DROP host);
RESET ROLE;
SELECT format('CREATE USER MAPPING FOR regress_pgmc_options SERVER options OPTIONS ("user" %L)', current_user) AS command \gset
SET ROLE regress_pgmc_options;
:command;
SELECT pgmc.acquire('options');
\echo :SQLSTATE
RESET ROLE;
SET client_min_messages = warning;
DROP SERVER options CASCADE;
DROP OWNED BY regress_pgmc_options;
DROP ROLE regress_pgmc_options;

SELECT pgmc.release_all(), pgmc.close();
DROP FUNCTION options_refused;
