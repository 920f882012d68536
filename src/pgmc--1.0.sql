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
	OUT last_error text)
	RETURNS SETOF record AS 'MODULE_PATHNAME', 'pgmc_get_connections'
	LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED;

CREATE VIEW connections AS SELECT * FROM get_connections();

-- ---- rights: whoever may use a server may use these ----

GRANT USAGE ON SCHEMA pgmc TO PUBLIC;
GRANT SELECT ON connections TO PUBLIC;
