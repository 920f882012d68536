-- What many sessions measure, by bench/sessions.sh and bench/memory.sh, with the servers they
-- use; and the targets of all pairs.

CREATE SERVER shared FOREIGN DATA WRAPPER pgmc OPTIONS (reset_query '');
CREATE SERVER pool FOREIGN DATA WRAPPER pgmc OPTIONS (pool_size '8');
CREATE SERVER pool_shared FOREIGN DATA WRAPPER pgmc OPTIONS (pool_size '8', reset_query '');

-- its commits are durable, those of everybody else needn't be
CREATE ROLE durable SUPERUSER LOGIN;
ALTER ROLE durable SET synchronous_commit = on;

-- How many server processes have such a name, at most, from now until pgbench has come and gone?
CREATE FUNCTION most_backends(its_name text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	until timestamptz := clock_timestamp() + interval '5 min';
	come boolean := false;
	there boolean;
	found bigint;
	most bigint := 0;
BEGIN
	WHILE clock_timestamp() < until LOOP
		PERFORM pg_stat_clear_snapshot();
		SELECT count(*) FILTER (WHERE application_name LIKE its_name),
				count(*) FILTER (WHERE application_name = 'pgbench') > 0
			INTO found, there
			FROM pg_stat_activity WHERE backend_type = 'client backend';
		EXIT WHEN come AND NOT there;
		come := come OR there;
		most := greatest(most, found);
		PERFORM pg_sleep(0.2);
	END LOOP;
	RETURN most;
END
$$;

INSERT INTO pair (name, needs, work, other, calls, more)
	SELECT 'bouncer', 'dblink', 'autonomous insert', 'dblink_exec, connecting per call by way of pgbouncer', 200, 5
		WHERE :bouncer_port > 0;

\set n :sessions' sessions, '
INSERT INTO pair (name, unit, sense, work, other) VALUES
	('flat', 'kB', '<=', 'most private memory of the worker while that result passes', 'while a tenth of it passes'),
	('alone', 'calls/s', '>=', :'n' || 'one connection, reset_query ''''', 'one session alone on it'),
	('alone_plain', 'calls/s', NULL, :'n' || 'inserting by themselves, without pgmc', 'one session alone'),
	('fair', 'calls/s', '>=', 'the slowest of those sessions', 'the fastest of them'),
	('alone_reset', 'calls/s', NULL, :'n' || 'one connection, a reset between sessions', 'one session alone on it'),
	('pool', 'calls/s', '>=', :'n' || 'durable, pool of 8', 'dblink, a connection for each'),
	('pool_backends', 'backends', '<=', 'server processes at the other end', 'of dblink'),
	('pool_shared', 'calls/s', NULL, :'n' || 'durable, pool of 8, reset_query ''''', 'dblink, a connection for each'),
	('reset', 'us', '<=', :'n' || 'durable, one connection, a reset between sessions', 'the same with reset_query '''''),
	('memory', 'kB', '<=', 'memory (Pss) of all processes added for ' || :crowd || ' sessions',
		'dblink, a connection kept for each');

UPDATE pair SET target = aim FROM (VALUES
	('held', '0.6'),
	('insert', '0.7'),
	('block', '0.5'),
	('connect', '1/60'),
	('background', '1/60'),
	('lock', '1.5'),
	('rows', '0.7'),
	('many', '0.1'),
	('flat', '1.1'),
	('alone', '0.95'),
	('fair', '0.9'),
	('pool', '0.9'),
	('pool_backends', '1/8'),
	('reset', '1.3'),
	('memory', '1/30')) AS t(its_name, aim)
	WHERE name = its_name;
