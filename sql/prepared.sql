-- Commands that are repeated are prepared at the other end, and used by name from then on. Nothing
-- but time may be different by that.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgmc;
CREATE ROLE regress_pgmc_prepared;
RESET client_min_messages;

CREATE SCHEMA prepared_s;
CREATE SCHEMA prepared_other;
CREATE TABLE prepared_s.t (id int, name text);
CREATE TABLE prepared_other.t (id int, name text);
INSERT INTO prepared_s.t VALUES (1, 'one');
CREATE SEQUENCE prepared_s.runs;

-- how many statements there are at the other end
CREATE FUNCTION prepared_s.there() RETURNS bigint LANGUAGE SQL AS $$
	SELECT n FROM pgmc.query('SELECT count(*) FROM pg_prepared_statements WHERE name LIKE ''pgmc %'' AND statement LIKE ''% prepared_s.%''
		AND statement NOT LIKE ''%pg_prepared%''') AS q(n bigint)
$$;
-- runs a command so many times, each in a transaction of its own
CREATE FUNCTION prepared_s.repeat(command text, times int DEFAULT 3) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. times LOOP
		PERFORM pgmc.execute(command), pgmc.commit();
	END LOOP;
	RETURN 'done';
EXCEPTION WHEN OTHERS THEN
	PERFORM pgmc.rollback();
	RETURN SQLSTATE || ': ' || SQLERRM;
END
$$;
CREATE FUNCTION prepared_s.value(command text) RETURNS text LANGUAGE SQL
	AS 'SELECT value FROM pgmc.query(command) AS q(value text)';
CREATE FUNCTION prepared_s.run(command text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE command;
	RETURN 'done';
END
$$;
CREATE FUNCTION prepared_s.raise(code text) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	PERFORM nextval('prepared_s.runs');
	RAISE EXCEPTION 'raised' USING ERRCODE = code;
END
$$;

SELECT pgmc.acquire();

-- ---- when ----

-- the second run prepares it
SELECT pgmc.execute('SELECT * FROM prepared_s.t'), prepared_s.there();
SELECT pgmc.execute('SELECT * FROM prepared_s.t'), prepared_s.there();
SELECT pgmc.execute('SELECT * FROM prepared_s.t'), prepared_s.there();

-- types of parameters are a part of it; values, NULL among them, aren't
SELECT pgmc.execute('SELECT FROM prepared_s.t WHERE id = $1', i) FROM generate_series(1, 3) AS i;
SELECT pgmc.execute('SELECT FROM prepared_s.t WHERE id = $1', NULL::int);
SELECT pgmc.execute('SELECT FROM prepared_s.t WHERE id = $1', i::numeric) FROM generate_series(1, 3) AS i;
SELECT pgmc.execute('SELECT FROM prepared_s.t WHERE id = $1', '1') FROM generate_series(1, 3);
SELECT prepared_s.there();

-- others than queries gain nothing by it, nor do very long ones
SELECT prepared_s.repeat('COMMENT ON TABLE prepared_s.t IS ''a comment''');
SELECT prepared_s.repeat('SELECT length(''' || repeat('x', 20000) || ''') FROM prepared_s.t');
SELECT prepared_s.there();

-- what ends a transaction can be repeated like the rest
SELECT pgmc.execute('INSERT INTO prepared_s.t VALUES (2, ''two'')'), pgmc.execute('SAVEPOINT s'),
	pgmc.execute('INSERT INTO prepared_s.t VALUES (3, ''three'')'), pgmc.execute('ROLLBACK TO s'),
	pgmc.execute('COMMIT') FROM generate_series(1, 4);
SELECT pgmc.execute('INSERT INTO prepared_s.t VALUES (2, ''two'')'), pgmc.execute('ROLLBACK')
	FROM generate_series(1, 4);
SELECT id, count(*) FROM prepared_s.t GROUP BY id ORDER BY id;
DELETE FROM prepared_s.t WHERE id > 1;

-- no more statements than the other end shall keep
DO $$
BEGIN
	FOR i IN 1 .. 400 LOOP
		PERFORM prepared_s.repeat(format('SELECT %s FROM prepared_s.t', i));
	END LOOP;
END
$$;
SELECT prepared_s.there() BETWEEN 64 AND 256 AS bounded;
SELECT pgmc.rollback(), pgmc.set_autocommit(true), pgmc.execute('DISCARD ALL'), pgmc.set_autocommit(false);
SELECT prepared_s.there();

-- ---- tables that change ----

-- in the same transaction, and back
SELECT prepared_s.repeat('SELECT * FROM prepared_s.t');
SELECT pgmc.execute('ALTER TABLE prepared_s.t ADD at date');
SELECT * FROM pgmc.query('SELECT * FROM prepared_s.t') AS q(id int, name text, at date);
SELECT * FROM pgmc.query('SELECT * FROM prepared_s.t') AS q(id int, name text, at date);
SELECT pgmc.rollback();
SELECT pgmc.execute('SELECT 1');
SELECT * FROM pgmc.query('SELECT * FROM prepared_s.t') AS q(id int, name text);
SELECT pgmc.execute('SAVEPOINT s'), pgmc.execute('ALTER TABLE prepared_s.t ADD at date');
SELECT * FROM pgmc.query('SELECT * FROM prepared_s.t') AS q(id int, name text, at date);
SELECT * FROM pgmc.query('SELECT * FROM prepared_s.t') AS q(id int, name text, at date);
SELECT pgmc.execute('ROLLBACK TO s');
SELECT * FROM pgmc.query('SELECT * FROM prepared_s.t') AS q(id int, name text);
SELECT pgmc.rollback();

-- by a block; by several commands
SELECT prepared_s.repeat('SELECT * FROM prepared_s.t');
SELECT pgmc.execute('DO $d$ BEGIN ALTER TABLE prepared_s.t ADD at date; END $d$'), pgmc.execute('SELECT * FROM prepared_s.t');
SELECT prepared_s.repeat('SELECT * FROM prepared_s.t');
SELECT pgmc.execute('SELECT 1; ALTER TABLE prepared_s.t DROP at'), pgmc.execute('SELECT * FROM prepared_s.t'), pgmc.commit();

-- by somebody else: another time in full, where no transaction is lost by that
SELECT prepared_s.repeat('SELECT * FROM prepared_s.t');
ALTER TABLE prepared_s.t ADD at date;
SELECT * FROM pgmc.query('SELECT * FROM prepared_s.t') AS q(id int, name text, at date);
SELECT pgmc.transaction_status(), pgmc.commit();
SELECT pgmc.autonomous('SELECT * FROM prepared_s.t') FROM pgmc.release(), generate_series(1, 3);
ALTER TABLE prepared_s.t DROP at;
SELECT * FROM pgmc.autonomous_query('SELECT * FROM prepared_s.t') AS q(id int, name text);
SELECT pgmc.acquire();

-- else it fails as any prepared statement does, once
SELECT prepared_s.repeat('SELECT * FROM prepared_s.t');
SELECT pgmc.execute('SELECT 1'), pgmc.execute('SELECT prepared_s.run(''ALTER TABLE prepared_s.t ADD at date'')');
BEGIN;
SAVEPOINT s;
SELECT pgmc.execute('SELECT * FROM prepared_s.t');
\echo :SQLSTATE
ROLLBACK TO s;
SELECT pgmc.transaction_status(), pgmc.rollback();
COMMIT;
SELECT pgmc.execute('SELECT 1'), pgmc.execute('SELECT prepared_s.run(''ALTER TABLE prepared_s.t ADD at date'')'),
	pgmc.execute('SELECT * FROM prepared_s.t'), pgmc.rollback();

-- dropped and made again
SELECT prepared_s.repeat('INSERT INTO prepared_s.u SELECT');
CREATE TABLE prepared_s.u ();
SELECT prepared_s.repeat('INSERT INTO prepared_s.u SELECT');
DROP TABLE prepared_s.u;
SELECT prepared_s.repeat('INSERT INTO prepared_s.u SELECT');
CREATE TABLE prepared_s.u (id int DEFAULT 7);
SELECT prepared_s.repeat('INSERT INTO prepared_s.u SELECT');
TABLE prepared_s.u;

-- a parameter's type that the server has found out
SELECT pgmc.execute('INSERT INTO prepared_s.u VALUES ($1)', '8'), pgmc.commit() FROM generate_series(1, 3);
SELECT pgmc.execute('ALTER TABLE prepared_s.u ALTER id DROP DEFAULT, ALTER id TYPE text'),
	pgmc.execute('INSERT INTO prepared_s.u VALUES ($1)', 'nine'), pgmc.commit();
TABLE prepared_s.u;

-- the same, changed by somebody else: fails as any prepared statement does, once
SELECT pgmc.execute('INSERT INTO prepared_s.u VALUES ($1)', '10'), pgmc.commit() FROM generate_series(1, 3);
ALTER TABLE prepared_s.u ALTER id TYPE int USING 0;
BEGIN;
SAVEPOINT s;
SELECT pgmc.execute('INSERT INTO prepared_s.u VALUES ($1)', '10');
\echo :SQLSTATE
ROLLBACK TO s;
SELECT pgmc.rollback(), pgmc.execute('INSERT INTO prepared_s.u VALUES ($1)', '10'), pgmc.commit();
COMMIT;
SELECT prepared_s.repeat('DELETE FROM prepared_s.u');

-- names that stand for something else
SELECT pgmc.execute('SET search_path = prepared_s');
SELECT pgmc.execute('INSERT INTO t VALUES (10, $1)', 'ten') FROM generate_series(1, 3);
SELECT pgmc.execute('CREATE TEMP TABLE other (id int)'), pgmc.execute('INSERT INTO t VALUES (10, $1)', 'ten');
SELECT pgmc.execute('CREATE TEMP TABLE t (id int, name text)');
SELECT pgmc.execute('INSERT INTO t VALUES (10, $1)', 'ten') FROM generate_series(1, 3);
SELECT * FROM pgmc.query('SELECT (SELECT count(*) FROM pg_temp.t), (SELECT count(*) FROM prepared_s.t WHERE id = 10)') AS q(temp bigint, real bigint);
SELECT pgmc.execute('DROP TABLE pg_temp.t'), pgmc.execute('INSERT INTO t VALUES (10, $1)', 'ten') FROM generate_series(1, 1);
SELECT pgmc.execute('INSERT INTO t VALUES (10, $1)', 'ten') FROM generate_series(1, 2);
SELECT pgmc.execute('SELECT 0 AS id, ''zero'' AS name INTO TEMP t');
SELECT pgmc.execute('INSERT INTO t VALUES (10, $1)', 'ten') FROM generate_series(1, 3);
SELECT * FROM pgmc.query('SELECT (SELECT count(*) FROM pg_temp.t), (SELECT count(*) FROM prepared_s.t WHERE id = 10)') AS q(temp bigint, real bigint);
SELECT pgmc.rollback();

-- a search path that a query has set
SELECT pgmc.execute('SET search_path = prepared_s'), pgmc.execute('CREATE TABLE prepared_other.u (id int)'), pgmc.commit();
SELECT pgmc.execute('INSERT INTO u VALUES ($1)', 1) FROM generate_series(1, 3);
SELECT pgmc.execute('SELECT set_config(''search_path'', ''prepared_other'', false)');
SELECT pgmc.execute('INSERT INTO u VALUES ($1)', 1) FROM generate_series(1, 2);
SELECT * FROM pgmc.query('SELECT (SELECT count(*) FROM prepared_s.u), (SELECT count(*) FROM prepared_other.u)') AS q(s bigint, other bigint);
SELECT pgmc.rollback(), pgmc.execute('RESET search_path'), pgmc.commit();

-- ---- settings, the time, roles ----

SELECT pgmc.execute('SET DateStyle = ISO, MDY'), pgmc.execute('SET TimeZone = UTC'), pgmc.commit();
SELECT prepared_s.value('SELECT extract(month FROM ''01/02/2020''::date)') FROM generate_series(1, 3);
SELECT pgmc.execute('SELECT set_config(''DateStyle'', ''ISO, DMY'', true)'),
	prepared_s.value('SELECT extract(month FROM ''01/02/2020''::date)');
SELECT pgmc.rollback(), prepared_s.value('SELECT extract(month FROM ''01/02/2020''::date)');
SELECT prepared_s.value('SELECT extract(hour FROM ''2020-01-01 12:00''::timestamptz AT TIME ZONE ''UTC'')') FROM generate_series(1, 3);
SELECT pgmc.execute('SELECT set_config(''TimeZone'', ''Etc/GMT+5'', true)'),
	prepared_s.value('SELECT extract(hour FROM ''2020-01-01 12:00''::timestamptz AT TIME ZONE ''UTC'')');
SELECT pgmc.rollback();

-- literals that stand for a moment
CREATE TABLE prepared_s.moments (at timestamptz, since timestamptz DEFAULT now());
SELECT prepared_s.repeat('INSERT INTO prepared_s.moments VALUES (''now'')', 5);
SELECT prepared_s.repeat('INSERT INTO prepared_s.moments SELECT ''Now()''', 5);
SELECT count(*), count(DISTINCT at), bool_and(at = since) FROM prepared_s.moments;

-- who one is
GRANT USAGE ON SCHEMA prepared_s TO regress_pgmc_prepared;
GRANT SELECT ON prepared_s.moments TO regress_pgmc_prepared;
ALTER TABLE prepared_s.moments ENABLE ROW LEVEL SECURITY;
SELECT pgmc.execute('SELECT FROM prepared_s.moments') FROM generate_series(1, 3);
SELECT pgmc.execute('SELECT FROM prepared_s.t') FROM generate_series(1, 3);
SELECT pgmc.execute('SELECT set_config(''role'', ''regress_pgmc_prepared'', true)');
SELECT pgmc.execute('SELECT FROM prepared_s.moments');
BEGIN;
SAVEPOINT s;
SELECT pgmc.execute('SELECT FROM prepared_s.t');
\echo :SQLSTATE
ROLLBACK TO s;
SELECT pgmc.rollback();
COMMIT;

-- ---- statements that are taken away ----

SELECT prepared_s.repeat('SELECT * FROM prepared_s.t');
SELECT pgmc.execute('DEALLOCATE ALL'), pgmc.execute('SELECT * FROM prepared_s.t');
SELECT pgmc.rollback();
SELECT prepared_s.repeat('SELECT * FROM prepared_s.t');
SELECT pgmc.execute('DISCARD PLANS'), pgmc.execute('SELECT * FROM prepared_s.t');
SELECT pgmc.rollback();
SELECT prepared_s.repeat('SELECT * FROM prepared_s.t');
SELECT pgmc.execute('DO $d$ BEGIN EXECUTE ''DEALLOCATE ALL''; END $d$'), pgmc.execute('SELECT * FROM prepared_s.t');
SELECT pgmc.rollback();

-- unseen: it is made no more, and where that strikes a transaction, it is told
SELECT prepared_s.repeat('SELECT * FROM prepared_s.t');
SELECT pgmc.execute('SELECT prepared_s.run(''DEALLOCATE ALL'')'), pgmc.commit();
SELECT pgmc.execute('SELECT * FROM prepared_s.t'), pgmc.transaction_status(), pgmc.commit();
SELECT prepared_s.repeat('SELECT * FROM prepared_s.t');
SELECT prepared_s.there(), pgmc.rollback();
SELECT pgmc.release(close => true), pgmc.acquire();
SELECT prepared_s.repeat('SELECT * FROM prepared_s.t');
SELECT pgmc.execute('SELECT prepared_s.run(''DEALLOCATE ALL'')');
SELECT regexp_replace(prepared_s.repeat('SELECT * FROM prepared_s.t'), '[0-9a-f]{8}', 'NAME');
SELECT prepared_s.repeat('SELECT * FROM prepared_s.t');
SELECT pgmc.release(close => true), pgmc.acquire();

-- ---- errors ----

-- What looks like that, and isn't, runs once. The statement goes on.
SELECT prepared_s.repeat('SELECT 1 / (id - 1) FROM prepared_s.t WHERE id = 1') FROM generate_series(1, 4);
SELECT prepared_s.repeat('SELECT prepared_s.raise(''0A000'')') FROM generate_series(1, 4);
SELECT prepared_s.repeat('SELECT prepared_s.raise(''26000'')') FROM generate_series(1, 4);
SELECT last_value FROM prepared_s.runs;
SELECT pgmc.execute('PREPARE s AS SELECT * FROM prepared_s.t'), pgmc.commit();
SELECT prepared_s.repeat('SELECT nextval(''prepared_s.runs''), prepared_s.run(''EXECUTE s'')');
ALTER TABLE prepared_s.t ADD later int;
SELECT prepared_s.repeat('SELECT nextval(''prepared_s.runs''), prepared_s.run(''EXECUTE s'')');
SELECT last_value FROM prepared_s.runs;

-- ---- other sessions ----

CREATE SERVER prepared_shared FOREIGN DATA WRAPPER pgmc OPTIONS (reset_query '');
CREATE SERVER prepared_partly FOREIGN DATA WRAPPER pgmc OPTIONS (reset_query 'RESET ALL');
SELECT pgmc.release();
SET pgmc.default_server = 'prepared_shared';
SELECT pgmc.acquire(), prepared_s.repeat('SELECT * FROM prepared_s.t'), prepared_s.there();
SELECT pgmc.rollback(), pgmc.release();
SET pgmc.default_server = 'prepared_partly';
SELECT pgmc.acquire(), prepared_s.repeat('SELECT * FROM prepared_s.t'), prepared_s.there();
SELECT pgmc.rollback(), pgmc.release();
\c
SET pgmc.default_server = 'prepared_shared';
SELECT pgmc.acquire(), prepared_s.repeat('SELECT * FROM prepared_s.t'), prepared_s.there();
SELECT pgmc.execute('DEALLOCATE ALL'), pgmc.commit(), prepared_s.repeat('SELECT * FROM prepared_s.t'), prepared_s.there();
SELECT pgmc.rollback(), pgmc.release();
SET pgmc.default_server = 'prepared_partly';
SELECT pgmc.acquire(), prepared_s.repeat('SELECT * FROM prepared_s.t');
SELECT pgmc.release();
RESET pgmc.default_server;

SELECT srvname, state, xact_status FROM pgmc.connections WHERE srvname LIKE 'prepared%' ORDER BY srvname;
SET client_min_messages = warning;
DROP SERVER prepared_shared;
DROP SERVER prepared_partly;
DROP SCHEMA prepared_s CASCADE;
DROP SCHEMA prepared_other CASCADE;
DROP ROLE regress_pgmc_prepared;
