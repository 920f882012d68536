/* pgmc 1.0 */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION pgmc" to load this file. \quit

-- ---- servers ----

CREATE FUNCTION fdw_validator(options text[], catalog oid) RETURNS void
	AS 'MODULE_PATHNAME', 'pgmc_fdw_validator' LANGUAGE C STRICT;

CREATE FOREIGN DATA WRAPPER pgmc NO HANDLER VALIDATOR fdw_validator;

CREATE SERVER pgmc_loopback FOREIGN DATA WRAPPER pgmc;

COMMENT ON SERVER pgmc_loopback IS 'managed connection to this database itself';

-- ---- holds ----

CREATE FUNCTION acquire(server name DEFAULT NULL, timeout interval DEFAULT NULL)
	RETURNS void AS 'MODULE_PATHNAME', 'pgmc_acquire'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION acquire_xact(server name DEFAULT NULL, timeout interval DEFAULT NULL)
	RETURNS void AS 'MODULE_PATHNAME', 'pgmc_acquire_xact'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION try_acquire(server name DEFAULT NULL)
	RETURNS boolean AS 'MODULE_PATHNAME', 'pgmc_try_acquire'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION try_acquire_xact(server name DEFAULT NULL)
	RETURNS boolean AS 'MODULE_PATHNAME', 'pgmc_try_acquire_xact'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION release(server name DEFAULT NULL, close boolean DEFAULT false)
	RETURNS void AS 'MODULE_PATHNAME', 'pgmc_release'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION release_all()
	RETURNS integer AS 'MODULE_PATHNAME', 'pgmc_release_all'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

-- ---- commands in a hold ----

CREATE FUNCTION execute(command text)
	RETURNS bigint AS 'MODULE_PATHNAME', 'pgmc_execute'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION execute(command text, VARIADIC params "any")
	RETURNS bigint AS 'MODULE_PATHNAME', 'pgmc_execute'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION execute_on(server name, command text)
	RETURNS bigint AS 'MODULE_PATHNAME', 'pgmc_execute_on'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION execute_on(server name, command text, VARIADIC params "any")
	RETURNS bigint AS 'MODULE_PATHNAME', 'pgmc_execute_on'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION execute_many(command text, VARIADIC arrays "any")
	RETURNS bigint AS 'MODULE_PATHNAME', 'pgmc_execute_many'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION query(command text)
	RETURNS SETOF record AS 'MODULE_PATHNAME', 'pgmc_query'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION query(command text, VARIADIC params "any")
	RETURNS SETOF record AS 'MODULE_PATHNAME', 'pgmc_query'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION query_on(server name, command text)
	RETURNS SETOF record AS 'MODULE_PATHNAME', 'pgmc_query_on'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION query_on(server name, command text, VARIADIC params "any")
	RETURNS SETOF record AS 'MODULE_PATHNAME', 'pgmc_query_on'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION commit(server name DEFAULT NULL)
	RETURNS void AS 'MODULE_PATHNAME', 'pgmc_commit'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION rollback(server name DEFAULT NULL)
	RETURNS void AS 'MODULE_PATHNAME', 'pgmc_rollback'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION set_autocommit(enabled boolean, server name DEFAULT NULL)
	RETURNS void AS 'MODULE_PATHNAME', 'pgmc_set_autocommit'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

-- ---- whole blocks in one call ----

CREATE FUNCTION autonomous(command text)
	RETURNS bigint AS 'MODULE_PATHNAME', 'pgmc_autonomous'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION autonomous(command text, VARIADIC params "any")
	RETURNS bigint AS 'MODULE_PATHNAME', 'pgmc_autonomous'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION autonomous_on(server name, command text)
	RETURNS bigint AS 'MODULE_PATHNAME', 'pgmc_autonomous_on'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION autonomous_on(server name, command text, VARIADIC params "any")
	RETURNS bigint AS 'MODULE_PATHNAME', 'pgmc_autonomous_on'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION autonomous_query(command text)
	RETURNS SETOF record AS 'MODULE_PATHNAME', 'pgmc_autonomous_query'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION autonomous_query(command text, VARIADIC params "any")
	RETURNS SETOF record AS 'MODULE_PATHNAME', 'pgmc_autonomous_query'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION autonomous_query_on(server name, command text)
	RETURNS SETOF record AS 'MODULE_PATHNAME', 'pgmc_autonomous_query_on'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION autonomous_query_on(server name, command text, VARIADIC params "any")
	RETURNS SETOF record AS 'MODULE_PATHNAME', 'pgmc_autonomous_query_on'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE PROCEDURE run(command text, server name DEFAULT NULL)
	AS 'MODULE_PATHNAME', 'pgmc_run' LANGUAGE C;

-- ---- looking and closing ----

CREATE FUNCTION transaction_status(server name DEFAULT NULL)
	RETURNS text AS 'MODULE_PATHNAME', 'pgmc_transaction_status'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION is_closed(server name DEFAULT NULL)
	RETURNS boolean AS 'MODULE_PATHNAME', 'pgmc_is_closed'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION describe(server name DEFAULT NULL)
	RETURNS text AS 'MODULE_PATHNAME', 'pgmc_describe'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION close(server name DEFAULT NULL)
	RETURNS boolean AS 'MODULE_PATHNAME', 'pgmc_close'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION stop_worker()
	RETURNS boolean AS 'MODULE_PATHNAME', 'pgmc_stop_worker'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION get_connections(
	OUT datname name,
	OUT srvname name,
	OUT usename name,
	OUT state text,
	OUT xact_status text,
	OUT backend_pid integer,
	OUT backend_start timestamptz,
	OUT holder_pid integer,
	OUT holder_usename name,
	OUT holder_application_name text,
	OUT hold_start timestamptz,
	OUT waiters integer,
	OUT last_error text,
	OUT same_cluster boolean,
	OUT waiter_pids integer[],
	OUT wait_starts timestamptz[])
	RETURNS SETOF record AS 'MODULE_PATHNAME', 'pgmc_get_connections'
	LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;

-- The command comes from pg_stat_activity, under its rules of who may see it (query_start is null
-- for others); what looks it up is left out of the plan where nobody asks for it.
CREATE VIEW connections AS
	SELECT c.datname, c.srvname, c.usename, c.state, c.xact_status, c.backend_pid, c.backend_start,
		c.holder_pid, c.holder_usename, c.holder_application_name, c.hold_start, c.waiters,
		c.last_error,
		CASE WHEN c.same_cluster AND c.holder_pid IS NOT NULL THEN (
			SELECT a.query FROM pg_catalog.pg_stat_activity AS a
				WHERE a.pid = c.backend_pid AND a.query_start >= c.hold_start)
		END AS query,
		c.waiter_pids, c.wait_starts
	FROM get_connections() AS c;

CREATE FUNCTION get_stat_connections(
	OUT datname name,
	OUT srvname name,
	OUT usename name,
	OUT acquires bigint,
	OUT waits bigint,
	OUT wait_time double precision,
	OUT hold_time double precision,
	OUT timeouts bigint,
	OUT dirty_releases bigint,
	OUT forced_rollbacks bigint,
	OUT deadlocks bigint,
	OUT revoked_holds bigint,
	OUT opens bigint,
	OUT failures bigint,
	OUT commands bigint,
	OUT rows bigint,
	OUT stats_reset timestamptz)
	RETURNS SETOF record AS 'MODULE_PATHNAME', 'pgmc_get_stat_connections'
	LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;

CREATE VIEW stat_connections AS SELECT * FROM get_stat_connections();

CREATE FUNCTION stat_reset(server name DEFAULT NULL)
	RETURNS void AS 'MODULE_PATHNAME', 'pgmc_stat_reset'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

-- ---- what \d+ says ----

COMMENT ON FOREIGN DATA WRAPPER pgmc IS 'managed connections, shared by many sessions';
COMMENT ON FUNCTION fdw_validator(text[], oid) IS 'checks options of servers and user mappings';
COMMENT ON FUNCTION acquire(name, interval) IS 'take the hold of a server''s connection until it is released';
COMMENT ON FUNCTION acquire_xact(name, interval) IS 'take the hold of a server''s connection until the transaction ends';
COMMENT ON FUNCTION try_acquire(name) IS 'acquire without waiting: false if another session has it';
COMMENT ON FUNCTION try_acquire_xact(name) IS 'acquire_xact without waiting: false if another session has it';
COMMENT ON FUNCTION release(name, boolean) IS 'end a hold; an open transaction is rolled back and is an error';
COMMENT ON FUNCTION release_all() IS 'end all holds of the session; open transactions are rolled back';
COMMENT ON FUNCTION execute(text) IS 'run a command in the innermost hold; number of rows';
COMMENT ON FUNCTION execute(text, "any") IS 'run a command with parameters in the innermost hold; number of rows';
COMMENT ON FUNCTION execute_on(name, text) IS 'run a command in the hold of a server; number of rows';
COMMENT ON FUNCTION execute_on(name, text, "any") IS 'run a command with parameters in the hold of a server; number of rows';
COMMENT ON FUNCTION execute_many(text, "any") IS 'run a command for each set of parameters';
COMMENT ON FUNCTION query(text) IS 'run a command in the innermost hold; its rows';
COMMENT ON FUNCTION query(text, "any") IS 'run a command with parameters in the innermost hold; its rows';
COMMENT ON FUNCTION query_on(name, text) IS 'run a command in the hold of a server; its rows';
COMMENT ON FUNCTION query_on(name, text, "any") IS 'run a command with parameters in the hold of a server; its rows';
COMMENT ON FUNCTION commit(name) IS 'commit the transaction of a hold';
COMMENT ON FUNCTION rollback(name) IS 'roll back the transaction of a hold';
COMMENT ON FUNCTION set_autocommit(boolean, name) IS 'whether each command of a hold is a transaction of its own';
COMMENT ON FUNCTION autonomous(text) IS 'run a command as a transaction of its own; number of rows';
COMMENT ON FUNCTION autonomous(text, "any") IS 'run a command with parameters as a transaction of its own; number of rows';
COMMENT ON FUNCTION autonomous_on(name, text) IS 'run a command as a transaction of its own on a server; number of rows';
COMMENT ON FUNCTION autonomous_on(name, text, "any") IS 'run a command with parameters as a transaction of its own on a server; number of rows';
COMMENT ON FUNCTION autonomous_query(text) IS 'run a command as a transaction of its own; its rows';
COMMENT ON FUNCTION autonomous_query(text, "any") IS 'run a command with parameters as a transaction of its own; its rows';
COMMENT ON FUNCTION autonomous_query_on(name, text) IS 'run a command as a transaction of its own on a server; its rows';
COMMENT ON FUNCTION autonomous_query_on(name, text, "any") IS 'run a command with parameters as a transaction of its own on a server; its rows';
COMMENT ON PROCEDURE run(text, name) IS 'commit, then run a command that waits for older snapshots';
COMMENT ON FUNCTION transaction_status(name) IS 'transaction status of a connection; NULL if closed';
COMMENT ON FUNCTION is_closed(name) IS 'whether a connection is closed';
COMMENT ON FUNCTION describe(name) IS 'where a server leads, and how its connection stands';
COMMENT ON FUNCTION close(name) IS 'close the idle connections of a server';
COMMENT ON FUNCTION stop_worker() IS 'end the worker and all managed connections';
COMMENT ON FUNCTION get_connections() IS 'rows of the view connections';
COMMENT ON VIEW connections IS 'managed connections of the cluster';
COMMENT ON FUNCTION get_stat_connections() IS 'rows of the view stat_connections';
COMMENT ON VIEW stat_connections IS 'what has happened on managed connections, added up';
COMMENT ON FUNCTION stat_reset(name) IS 'set the statistics of a server to zero, or those of all servers of the database';

-- ---- rights: whoever may use a server may use these ----

GRANT USAGE ON SCHEMA pgmc TO PUBLIC;
GRANT SELECT ON connections, stat_connections TO PUBLIC;
