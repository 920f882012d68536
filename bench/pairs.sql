-- What bench/run compares: the table pair. Here is what one session measures: a function pgmc_NAME
-- and a function other_NAME do the same work n times in a loop. sessions.sql adds what many
-- sessions measure.

CREATE EXTENSION pgmc;
CREATE EXTENSION dblink;

CREATE TABLE journal (at timestamptz DEFAULT clock_timestamp(), who text, what text);
CREATE TABLE big AS
	SELECT n::bigint AS id, md5(n::text) AS what, timestamptz '2000-01-01' + n * interval '1 s' AS at
	FROM generate_series(1, :rows) AS n;
VACUUM (ANALYZE) big;

-- with what dblink connects: to this server and database, as the same role; and by way of pgbouncer
CREATE FUNCTION conninfo(port text) RETURNS text LANGUAGE sql AS $$
	SELECT format('host=%s port=%s dbname=%s user=%s application_name=dblink',
		split_part(current_setting('unix_socket_directories'), ',', 1),
		port, current_database(), current_user)
$$;
CREATE FUNCTION loopback() RETURNS text LANGUAGE sql AS 'SELECT conninfo(current_setting(''port''))';
CREATE FUNCTION bouncer() RETURNS text LANGUAGE sql AS 'SELECT conninfo(current_setting(''bench.bouncer_port''))';

CREATE TABLE pair (
	place serial,
	name text PRIMARY KEY,
	work text,
	other text,
	calls int,							-- in a round; null: the shell scripts measure it
	more int DEFAULT 1,					-- of ours for each of the other's, which takes so much longer
	pause float8 DEFAULT 0,				-- seconds before a round
	needs text DEFAULT 'dblink',		-- the extension
	unit text DEFAULT 'us',				-- of both figures
	sense text DEFAULT '<=',			-- of the target; null: there is none
	target text);						-- of pgmc's figure divided by the other's

INSERT INTO pair (name, work, other, calls, more, pause) VALUES
	('held', 'held "select 1", in a transaction', 'dblink, connection kept', 5000, 1, 0),
	('insert', 'autonomous insert', 'dblink_exec, connection kept', 5000, 1, 0),
	('first', 'one of the first 20 autonomous inserts after a pause', 'dblink_exec, connection kept', 20, 1, 0.5),
	('block', 'acquire, insert, commit, release', 'dblink begin, insert, commit', 3000, 1, 0),
	('many', 'insert, a row of execute_many', 'dblink_exec, connection kept', 20000, 1, 0),
	('connect', 'autonomous insert', 'dblink_exec, connecting per call', 200, 25, 0),
	('lock', 'acquire, release', 'pg_advisory_lock, unlock', 100000, 1, 0),
	('rows', :rows || ' rows of (bigint, text, timestamptz)', 'dblink, connection kept', 1, 1, 0);
INSERT INTO pair (name, work, other, calls, more, needs) VALUES
	('background', 'autonomous insert', 'pg_background launch, result', 200, 25, 'pg_background');

CREATE TABLE measurement (
	name text,
	round int,
	ours float8,						-- in the pair's unit: microseconds per call, ...
	other float8);

-- the same works by limit.c, pgmc and dblink
CREATE TABLE limits (
	name text,
	round int,
	bare float8,						-- microseconds per call, all four
	polling float8,
	ours float8,
	other float8);

-- ---- one statement after the other in one transaction over there ----

CREATE FUNCTION pgmc_held(n int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pgmc.acquire();
	PERFORM pgmc.execute('SELECT 1');
	FOR i IN 1 .. n LOOP
		PERFORM * FROM pgmc.query('SELECT 1') AS t(i int);
	END LOOP;
	PERFORM pgmc.rollback();
	PERFORM pgmc.release();
END
$$;

CREATE FUNCTION other_held(n int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM dblink_exec('bench', 'BEGIN');
	FOR i IN 1 .. n LOOP
		PERFORM * FROM dblink('bench', 'SELECT 1') AS t(i int);
	END LOOP;
	PERFORM dblink_exec('bench', 'ROLLBACK');
END
$$;

-- ---- what commits on its own ----

CREATE FUNCTION pgmc_insert(n int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		PERFORM pgmc.autonomous('INSERT INTO journal (who, what) VALUES (''bench'', ''a line of the log'')');
	END LOOP;
END
$$;

CREATE FUNCTION other_insert(n int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		PERFORM dblink_exec('bench', 'INSERT INTO journal (who, what) VALUES (''bench'', ''a line of the log'')');
	END LOOP;
END
$$;

CREATE FUNCTION pgmc_first(n int) RETURNS void LANGUAGE sql AS 'SELECT pgmc_insert(n)';

CREATE FUNCTION other_first(n int) RETURNS void LANGUAGE sql AS 'SELECT other_insert(n)';

CREATE FUNCTION pgmc_block(n int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		PERFORM pgmc.acquire();
		PERFORM pgmc.execute('INSERT INTO journal (who, what) VALUES (''bench'', ''a line of the log'')');
		PERFORM pgmc.commit();
		PERFORM pgmc.release();
	END LOOP;
END
$$;

CREATE FUNCTION other_block(n int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		PERFORM dblink_exec('bench', 'BEGIN');
		PERFORM dblink_exec('bench', 'INSERT INTO journal (who, what) VALUES (''bench'', ''a line of the log'')');
		PERFORM dblink_exec('bench', 'COMMIT');
	END LOOP;
END
$$;

-- n rows in one call
CREATE FUNCTION pgmc_many(n int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pgmc.acquire();
	PERFORM pgmc.execute_many('INSERT INTO journal (who, what) VALUES ($1, $2)',
		array_fill('bench'::text, ARRAY[n]), array_fill('a line of the log'::text, ARRAY[n]));
	PERFORM pgmc.commit();
	PERFORM pgmc.release();
END
$$;

CREATE FUNCTION other_many(n int) RETURNS void LANGUAGE sql AS 'SELECT other_insert(n)';

CREATE FUNCTION pgmc_connect(n int) RETURNS void LANGUAGE sql AS 'SELECT pgmc_insert(n)';

CREATE FUNCTION other_connect(n int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	conninfo text := loopback();
BEGIN
	FOR i IN 1 .. n LOOP
		PERFORM dblink_exec(conninfo, 'INSERT INTO journal (who, what) VALUES (''bench'', ''a line of the log'')');
	END LOOP;
END
$$;

-- through pgbouncer, where bench/run says that it is there: for it, logging in is cheap
CREATE FUNCTION pgmc_bouncer(n int) RETURNS void LANGUAGE sql AS 'SELECT pgmc_insert(n)';

CREATE FUNCTION other_bouncer(n int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	conninfo text := bouncer();
BEGIN
	FOR i IN 1 .. n LOOP
		PERFORM dblink_exec(conninfo, 'INSERT INTO journal (who, what) VALUES (''bench'', ''a line of the log'')');
	END LOOP;
END
$$;

CREATE FUNCTION pgmc_background(n int) RETURNS void LANGUAGE sql AS 'SELECT pgmc_insert(n)';

CREATE FUNCTION other_background(n int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		PERFORM * FROM pg_background_result(pg_background_launch(
			'INSERT INTO journal (who, what) VALUES (''bench'', ''a line of the log'')')) AS t(result text);
	END LOOP;
END
$$;

-- ---- the hold alone ----

CREATE FUNCTION pgmc_lock(n int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		PERFORM pgmc.acquire();
		PERFORM pgmc.release();
	END LOOP;
END
$$;

CREATE FUNCTION other_lock(n int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		PERFORM pg_advisory_lock(1);
		PERFORM pg_advisory_unlock(1);
	END LOOP;
END
$$;

-- ---- a large result ----

CREATE FUNCTION pgmc_rows(n int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		PERFORM count(*) FROM pgmc.autonomous_query('SELECT id, what, at FROM big')
			AS t(id bigint, what text, at timestamptz);
	END LOOP;
END
$$;

CREATE FUNCTION other_rows(n int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		PERFORM count(*) FROM dblink('bench', 'SELECT id, what, at FROM big')
			AS t(id bigint, what text, at timestamptz);
	END LOOP;
END
$$;

-- ---- measuring ----

-- microseconds that a call takes
CREATE FUNCTION clocked(function_name text, n int) RETURNS float8 LANGUAGE plpgsql AS $$
DECLARE
	since timestamptz := clock_timestamp();
BEGIN
	EXECUTE format('SELECT %I(%s)', function_name, n);
	RETURN extract(epoch FROM clock_timestamp() - since) * 1e6 / n;
END
$$;

-- Both sides in turn; round 0 is to warm up.
CREATE PROCEDURE measure(pair_name text, calls int, more int, pause float8, rounds int)
LANGUAGE plpgsql AS $$
DECLARE
	ours float8;
	other float8;
BEGIN
	FOR round IN 0 .. rounds LOOP
		PERFORM pg_sleep(pause);
		ours := clocked('pgmc_' || pair_name, calls * more);
		COMMIT;
		PERFORM pg_sleep(pause);
		other := clocked('other_' || pair_name, calls);
		IF round > 0 THEN
			INSERT INTO measurement VALUES (pair_name, round, ours, other);
		END IF;
		COMMIT;
	END LOOP;
END
$$;
