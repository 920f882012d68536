-- Options of servers and user mappings: what may be set where and by whom. Bad ones are refused when
-- they are set, with the reason; no message repeats a value that may be a secret.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgmc;
RESET client_min_messages;

-- Set an option of a server, or of a user mapping, and tell what came of it.
CREATE FUNCTION try_command(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
	detail text;
	hint text;
BEGIN
	EXECUTE command;
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(' / ', SQLSTATE, message, nullif(detail, ''), nullif(hint, ''));
END
$$;
CREATE FUNCTION try_server(option text, value text) RETURNS text LANGUAGE sql AS $$
	SELECT try_command(format('CREATE SERVER options_s FOREIGN DATA WRAPPER pgmc OPTIONS (%I %L);
		DROP SERVER options_s', option, value))
$$;
CREATE FUNCTION try_mapping(option text, value text) RETURNS text LANGUAGE sql AS $$
	SELECT try_command(format('CREATE SERVER options_s FOREIGN DATA WRAPPER pgmc;
		CREATE USER MAPPING FOR CURRENT_USER SERVER options_s OPTIONS (%I %L);
		DROP SERVER options_s CASCADE', option, value))
$$;
SET client_min_messages = warning;
\pset format unaligned

-- ---- pgmc's own options ----

SELECT option, value, try_server(option, value) FROM (VALUES
	('pool_size', '1'), ('pool_size', ' 12 '), ('pool_size', '1024'),
	('pool_size', '0'), ('pool_size', '-1'), ('pool_size', '1025'), ('pool_size', 'four'), ('pool_size', ''),
	('pool_size', '4kB'), ('pool_size', '99999999999'),
	('idle_timeout', '0'), ('idle_timeout', '30s'), ('idle_timeout', '5 min'), ('idle_timeout', '1500'), ('idle_timeout', '2d'),
	('idle_timeout', '-1'), ('idle_timeout', '5 minutes'), ('idle_timeout', 'soon'), ('idle_timeout', ''), ('idle_timeout', '3kB'),
	('idle_timeout', '40d'),
	('max_lifetime', '1h'), ('max_lifetime', '1 hour'), ('max_lifetime', '-5'),
	('hold_timeout', '10s'), ('hold_timeout', '-1s'),
	('idle_hold_timeout', '250ms'), ('idle_hold_timeout', 'x'),
	('reset_query', 'DISCARD ALL'), ('reset_query', ''), ('reset_query', 'RESET ALL; SELECT pg_advisory_unlock_all()'),
	('on_error', 'close'), ('on_error', 'rollback'),
	('on_error', 'CLOSE'), ('on_error', 'ignore'), ('on_error', '')) AS v(option, value);

-- the nearest name
SELECT option, try_server(option, '1') FROM unnest(ARRAY['pol_size', 'poolsize', 'idletimeout', 'idle_hold_timeuot', 'max_life_time',
	'reset_qeury', 'onerror', 'hots', 'Host', 'dbnmae', 'sslmod', 'aplication_name']) AS option;
SELECT option, try_mapping(option, '1') FROM unnest(ARRAY['pasword', 'usr', 'password_require', 'sslky', 'pool_siz']) AS option;
-- nothing is near; the same name at the wrong place
SELECT try_server('zzz', '1'), try_mapping('zzz', '1');
SELECT option, try_mapping(option, '1') FROM unnest(ARRAY['pool_size', 'idle_timeout', 'dsn', 'host', 'dbname', 'application_name']) AS option;
SELECT option, try_server(option, 'secret') FROM unnest(ARRAY['user', 'password', 'sslpassword', 'password_required']) AS option;

-- the wrapper itself has none
ALTER FOREIGN DATA WRAPPER pgmc OPTIONS (ADD dsn 'dbname=x');
\echo :SQLSTATE

-- ---- libpq's options ----

SELECT option, value, try_server(option, value) FROM (VALUES
	('host', '127.0.0.1'), ('host', '/tmp'), ('host', 'a.example,b.example'), ('hostaddr', '127.0.0.1'), ('port', '5432'), ('port', '5432,5433'),
	('dbname', 'postgres'), ('connect_timeout', '3'), ('target_session_attrs', 'read-write'), ('sslmode', 'verify-full'),
	('application_name', 'mine'), ('options', '-c geqo=off'), ('keepalives_idle', '10'), ('channel_binding', 'require'),
	('sslrootcert', '/etc/ca.crt'), ('gssencmode', 'prefer'), ('krbsrvname', 'x'), ('passfile', '/x'), ('service', 'x')) AS v(option, value);
SELECT option, value, try_server(option, value) FROM (VALUES
	('port', 'five'), ('port', '0'), ('port', '65536'), ('port', '5432,x'), ('port', ''), ('port', '5432,,5433'), ('port', '-1'),
	('connect_timeout', '0'), ('connect_timeout', 'soon'), ('connect_timeout', '3s'),
	('sslmode', 'bogus'), ('sslmode', 'require '), ('sslmode', 'ver'), ('target_session_attrs', 'master'), ('channel_binding', 'yes'), ('gssencmode', 'no'),
	('dsn', 'sslmode=verify'), ('dsn', 'postgres://db:x/app'), ('dsn', 'connect_timeout=3.5s')) AS v(option, value);
-- those that would break pgmc
SELECT option, try_server(option, 'x') FROM unnest(ARRAY['client_encoding', 'replication', 'fallback_application_name']) AS option;
SELECT option, try_mapping(option, 'x') FROM unnest(ARRAY['client_encoding', 'replication', 'fallback_application_name']) AS option;
SELECT option, value, try_mapping(option, value) FROM (VALUES
	('user', 'somebody'), ('user', repeat('long', 16)), ('password', 'p'), ('password', ''), ('sslcert', '/c'), ('sslkey', '/k'), ('sslpassword', 'p'),
	('password_required', 'false'), ('password_required', 'yes'), ('password_required', 'maybe')) AS v(option, value);

-- ---- dsn ----

SELECT dsn, try_server('dsn', dsn) FROM unnest(ARRAY[
	'', 'postgres:///app', 'postgresql://db.example:5433/app?sslmode=verify-full&connect_timeout=3',
	'host=/tmp port=5432 dbname=app', 'postgresql://[::1],127.0.0.1:6543/app?target_session_attrs=any',
	'dbname=''a b''']) AS dsn;
SELECT dsn, try_server('dsn', dsn) FROM unnest(ARRAY[
	'app', 'host', 'postgres://[::1', 'nonsense=1', 'dbname=''open', 'postgres:///app?nonsense=1',
	'client_encoding=LATIN1', 'replication=database', 'postgres:///app?replication=true', 'postgres:///app?client_encoding=auto',
	'user=somebody', 'postgres://somebody@/app']) AS dsn;
-- A secret in it is refused and not repeated, not even where the string is broken.
SELECT try_server('dsn', dsn) FROM unnest(ARRAY[
	'password=s3cret dbname=app', 'postgres://:s3cret@/app', 'postgres:///app?password=s3cret', 'sslpassword=s3cret',
	'password=''s3cret dbname=app', 'postgres://ann:s3cret@/app', 'postgres:///app?password=s3cret%zz', 'passwort=s3cret', 'password = s3cret s3cret',
	'postgres:///app?s3cret', 'sslmode=require,password=s3cret']) AS dsn;
SELECT count(*) FILTER (WHERE answer LIKE '%s3cret%') AS repeated FROM (SELECT try_server('dsn', dsn) AS answer FROM unnest(ARRAY[
	'password=s3cret dbname=app', 'postgres://:s3cret@/app', 'postgres:///app?password=s3cret', 'sslpassword=s3cret',
	'password=''s3cret dbname=app', 'postgres://ann:s3cret@/app', 'postgres:///app?password=s3cret%zz', 'passwort=s3cret', 'password = s3cret s3cret',
	'postgres:///app?s3cret', 'sslmode=require,password=s3cret']) AS dsn) AS a;
SELECT count(*) FROM pg_foreign_server WHERE srvname = 'options_s';

-- ---- ALTER ----

CREATE SERVER options_s FOREIGN DATA WRAPPER pgmc OPTIONS (pool_size '2', dsn 'postgres:///app');
ALTER SERVER options_s OPTIONS (SET pool_size '0');
\echo :SQLSTATE
ALTER SERVER options_s OPTIONS (SET dsn 'password=s3cret');
\echo :SQLSTATE
ALTER SERVER options_s OPTIONS (ADD idle_timeout '1min', DROP dsn, SET pool_size '3');
SELECT srvoptions FROM pg_foreign_server WHERE srvname = 'options_s';
CREATE USER MAPPING FOR CURRENT_USER SERVER options_s OPTIONS (password 'one');
ALTER USER MAPPING FOR CURRENT_USER SERVER options_s OPTIONS (ADD pool_size '1');
\echo :SQLSTATE
ALTER USER MAPPING FOR CURRENT_USER SERVER options_s OPTIONS (SET password 'two', ADD "user" 'somebody');
SELECT umoptions FROM pg_user_mappings WHERE srvname = 'options_s' AND usename = CURRENT_USER;
DROP SERVER options_s CASCADE;

-- ---- who may ----

CREATE ROLE regress_pgmc_owner;
CREATE ROLE regress_pgmc_user;
GRANT USAGE ON FOREIGN DATA WRAPPER pgmc TO regress_pgmc_owner;
SET ROLE regress_pgmc_user;
SELECT try_server('pool_size', '1');
RESET ROLE;
SET ROLE regress_pgmc_owner;
-- what reaches the server process's files or environment, in the dsn as well
SELECT option, try_server(option, '/x') FROM unnest(ARRAY['passfile', 'service', 'sslcert', 'sslkey', 'sslrootcert', 'sslcrl', 'krbsrvname']) AS option;
SELECT dsn, try_server('dsn', dsn) FROM unnest(ARRAY['passfile=/x', 'service=x', 'postgres:///app?sslkey=/x', 'postgres:///app?sslrootcert=/x']) AS dsn;
SELECT option, value, try_server(option, value) FROM (VALUES ('host', '127.0.0.1'), ('sslmode', 'require'), ('pool_size', '2'), ('dsn', 'postgres:///app')) AS v(option, value);
SELECT option, value, try_mapping(option, value) FROM (VALUES ('user', 'x'), ('password', 'x'), ('sslpassword', 'x'),
	('sslcert', '/x'), ('sslkey', '/x'), ('password_required', 'false'), ('password_required', 'true')) AS v(option, value);
-- what a superuser has set is not the owner's to change around
CREATE SERVER options_owned FOREIGN DATA WRAPPER pgmc;
CREATE USER MAPPING FOR CURRENT_USER SERVER options_owned;
RESET ROLE;
ALTER USER MAPPING FOR regress_pgmc_owner SERVER options_owned OPTIONS (ADD password_required 'false');
SET ROLE regress_pgmc_owner;
ALTER USER MAPPING FOR CURRENT_USER SERVER options_owned OPTIONS (ADD "user" 'regress_pgmc_user');
\echo :SQLSTATE
ALTER USER MAPPING FOR CURRENT_USER SERVER options_owned OPTIONS (DROP password_required);
SELECT umoptions FROM pg_user_mappings WHERE srvname = 'options_owned' AND usename = CURRENT_USER;
RESET ROLE;
-- a mapping of one's own is the right of whoever has USAGE, a mapping of others the owner's
SET ROLE regress_pgmc_user;
CREATE USER MAPPING FOR CURRENT_USER SERVER options_owned OPTIONS (password 'x');
\echo :SQLSTATE
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER options_owned TO regress_pgmc_user;
SET ROLE regress_pgmc_user;
CREATE USER MAPPING FOR CURRENT_USER SERVER options_owned OPTIONS (password 'x');
CREATE USER MAPPING FOR PUBLIC SERVER options_owned OPTIONS (password 'x');
\echo :SQLSTATE
-- nobody else sees what is in it
SELECT usename, umoptions FROM pg_user_mappings WHERE srvname = 'options_owned' ORDER BY usename;
RESET ROLE;
SET ROLE regress_pgmc_owner;
SELECT usename, umoptions FROM pg_user_mappings WHERE srvname = 'options_owned' ORDER BY usename;
RESET ROLE;
DROP SERVER options_owned CASCADE;
REVOKE USAGE ON FOREIGN DATA WRAPPER pgmc FROM regress_pgmc_owner;

-- ---- the server that comes with the extension ----

-- pg_dump won't keep what is set on it, whether this session has used pgmc before or not
\c -
SET client_min_messages = warning;
CREATE USER MAPPING FOR regress_pgmc_user SERVER pgmc_loopback;
\c -
ALTER USER MAPPING FOR regress_pgmc_user SERVER pgmc_loopback OPTIONS (ADD "user" 'regress_pgmc_user');
\c -
SET client_min_messages = warning;
ALTER SERVER pgmc_loopback OPTIONS (ADD pool_size '2');
ALTER SERVER pgmc_loopback OPTIONS (DROP pool_size);
-- taking things away is nothing that a dump could lose, nor are rights, which pg_dump keeps
DROP USER MAPPING FOR regress_pgmc_user SERVER pgmc_loopback;
GRANT USAGE ON FOREIGN SERVER pgmc_loopback TO regress_pgmc_user;
REVOKE USAGE ON FOREIGN SERVER pgmc_loopback FROM regress_pgmc_user;
-- no other server warns
CREATE SERVER options_s FOREIGN DATA WRAPPER pgmc OPTIONS (pool_size '2');
CREATE USER MAPPING FOR regress_pgmc_user SERVER options_s;
ALTER SERVER options_s OPTIONS (SET pool_size '1');

DROP SERVER options_s CASCADE;
DROP ROLE regress_pgmc_owner, regress_pgmc_user;
DROP FUNCTION try_command, try_server, try_mapping;
