-- execute_many: one command for many sets of parameters, from arrays.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgmc;
RESET client_min_messages;

CREATE SCHEMA many_s;
CREATE TABLE many_s.t (id int CONSTRAINT t_key PRIMARY KEY, name text);
CREATE TABLE many_s.deferred (id int CONSTRAINT deferred_key UNIQUE DEFERRABLE INITIALLY DEFERRED);
CREATE TYPE many_s.colour AS ENUM ('red', 'green');
CREATE TYPE many_s.pair AS (a int, b text);
CREATE DOMAIN many_s.ints AS int[];
CREATE TABLE many_s.types (n int, t text, v varchar(5), c char(3), b bool, f float8, x numeric, at timestamptz, d date, i interval,
	y bytea, u uuid, j jsonb, e many_s.colour, p many_s.pair, r int4range, reg regclass);
CREATE FUNCTION many_s.noisy(n int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	RAISE NOTICE 'this is %', n;
	RETURN n;
END
$$;

-- ---- without a hold, and what is refused at once ----

SELECT pgmc.execute_many('SELECT $1', ARRAY[1]);
SELECT pgmc.acquire();
\set ON_ERROR_ROLLBACK on
BEGIN;
SELECT pgmc.execute_many(NULL, ARRAY[1]);
SELECT pgmc.execute_many('SELECT $1', 1);
SELECT pgmc.execute_many('SELECT $1, $2', ARRAY[1], 'literal');
SELECT pgmc.execute_many('SELECT $1', VARIADIC ARRAY[1, 2]);
SELECT pgmc.execute_many('SELECT $1');
SELECT pgmc.execute_many('COPY many_s.t FROM STDIN', ARRAY[1]);
SELECT pgmc.execute_many(' /* a /* nested */ comment */ ; -- another
	copy many_s.t to stdout', ARRAY[1]);
SELECT pgmc.transaction_status();

-- ---- pairing ----

SELECT pgmc.execute_many('INSERT INTO many_s.t VALUES ($1, $2)', ARRAY[1, 2, 3], ARRAY['one', 'two', 'three']);
SELECT pgmc.transaction_status();
SELECT pgmc.execute_many('INSERT INTO many_s.t VALUES ($1, $2)', ARRAY[4, 5, 6], ARRAY['four']);
SELECT pgmc.execute_many('INSERT INTO many_s.t SELECT $1, $2', ARRAY[[7, 8], [9, 10]], ARRAY[[['seven', NULL]]]);
SELECT pgmc.execute_many('INSERT INTO many_s.t VALUES ($1, $2)', ARRAY[11, 12], NULL::text[]);
SELECT pgmc.execute_many('INSERT INTO many_s.t VALUES ($1, $2)', '[-5:-4]={13,14}'::int[], '[7:8]={thirteen,fourteen}'::text[]);
SELECT * FROM pgmc.query('SELECT * FROM many_s.t ORDER BY 1') AS q(id int, name text);
SELECT * FROM unnest(ARRAY[[7, 8], [9, 10]], ARRAY[[['seven', NULL]]]);

-- what counts are the rows of all of them
SELECT pgmc.execute_many('UPDATE many_s.t SET name = $2 WHERE id >= $1', ARRAY[13, 100, 12], ARRAY['x', 'y', 'z']);
SELECT pgmc.execute_many('SELECT generate_series(1, $1)', ARRAY[1, 2, 3]);
SELECT pgmc.execute_many('DELETE FROM many_s.t WHERE id = $1 RETURNING *', ARRAY[13, 14, 15]);
SELECT pgmc.execute_many('SELECT set_config(''many_s.x'', $1, false)', ARRAY['a', 'b']);

-- none at all: nothing is sent
SELECT pgmc.rollback();
SELECT pgmc.execute_many('no command', '{}'::int[]);
SELECT pgmc.execute_many('no command', NULL::int[], '{}'::text[]);
SELECT pgmc.execute_many('no command', VARIADIC NULL::int[]);
SELECT pgmc.execute_many('no command', VARIADIC '{}'::int[]);
SELECT pgmc.transaction_status();

-- a domain over arrays is one, and so are the elements of an array of them
SELECT pgmc.execute_many('INSERT INTO many_s.t (id) VALUES ($1)', '{1,2}'::many_s.ints);
SELECT pgmc.execute_many('INSERT INTO many_s.t VALUES ($1, $2)', VARIADIC ARRAY['{3,4}', '{30,40}']::many_s.ints[]);
SELECT * FROM pgmc.query('SELECT * FROM many_s.t ORDER BY 1') AS q(id int, name text);
SELECT pgmc.rollback();

-- arrays of PL/pgSQL, which aren't flat
DO $$
DECLARE
	ids int[];
	names text[];
BEGIN
	FOR i IN 1 .. 1000 LOOP
		ids[i] := i;
		names[i] := 'number ' || i;
	END LOOP;
	RAISE NOTICE '% rows', pgmc.execute_many('INSERT INTO many_s.t VALUES ($1, $2)', ids, names);
END
$$;
SELECT * FROM pgmc.query($$SELECT count(*), sum(id), count(*) FILTER (WHERE name = 'number ' || id) FROM many_s.t$$)
	AS q(n bigint, sum bigint, right_ones bigint);
SELECT pgmc.rollback();

-- ---- types: what arrives is what left, whatever the settings ----

CREATE TABLE many_s.source AS TABLE many_s.types;
INSERT INTO many_s.source VALUES
	(1, 'text', 'varc', 'cha', true, 0.1, 12345.678900, '2020-02-29 12:34:56.789+02', '0044-03-15 BC', '1 mon -2 days 03:04:05.6', '\x00ff',
		'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a": [1, null]}', 'green', '(1,"b,c")', '[1,5)', 'many_s.t'),
	(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	(-2147483648, '', '', '', false, '-Infinity', 'NaN', 'infinity', '-infinity', '-1 year', '', '00000000-0000-0000-0000-000000000000',
		'null', 'red', '(,)', 'empty', 'pg_class');
SET datestyle = 'SQL, DMY';
SET intervalstyle = sql_standard;
SET extra_float_digits = -10;
SET timezone = 'Asia/Kolkata';
SELECT pgmc.execute($$SET datestyle = 'German'$$);
SELECT pgmc.execute($$SET intervalstyle = 'postgres_verbose'$$);
SELECT pgmc.execute_many('INSERT INTO many_s.types VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)',
	array_agg(n ORDER BY n), array_agg(t ORDER BY n), array_agg(v ORDER BY n), array_agg(c ORDER BY n), array_agg(b ORDER BY n),
	array_agg(f ORDER BY n), array_agg(x ORDER BY n), array_agg(at ORDER BY n), array_agg(d ORDER BY n), array_agg(i ORDER BY n),
	array_agg(y ORDER BY n), array_agg(u ORDER BY n), array_agg(j ORDER BY n), array_agg(e ORDER BY n), array_agg(p ORDER BY n),
	array_agg(r ORDER BY n), array_agg(reg ORDER BY n)) FROM many_s.source;
SELECT pgmc.commit();
RESET datestyle;
RESET intervalstyle;
RESET extra_float_digits;
RESET timezone;
SELECT pgmc.execute('RESET datestyle; RESET intervalstyle');
SELECT pgmc.commit();
SELECT count(*) FROM many_s.types;
TABLE many_s.types EXCEPT TABLE many_s.source;

-- ---- errors name the set ----

SELECT pgmc.execute_many('INSERT INTO many_s.t VALUES ($1, $2)', ARRAY[1, 2, 1, 3], ARRAY['a', 'b', 'c', 'd']);
\set VERBOSITY terse
SELECT pgmc.transaction_status();
SELECT pgmc.execute('SELECT 1');
SELECT pgmc.commit();
SELECT pgmc.transaction_status();
SELECT count(*) FROM many_s.t;

CREATE FUNCTION many_s.fail(command text, VARIADIC ids int[]) RETURNS TABLE (field text, value text) LANGUAGE plpgsql AS $$
DECLARE
	state text; message text; detail text; constr text; context text;
BEGIN
	PERFORM pgmc.execute_many(command, ids);
	RAISE 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
		constr = CONSTRAINT_NAME, context = PG_EXCEPTION_CONTEXT;
	RETURN QUERY SELECT * FROM (VALUES ('state', state), ('message', message), ('detail', detail), ('constraint', constr),
		('context', substr(context, 1, position(E'\nSQL statement' IN context) - 1)), ('status', pgmc.transaction_status())) AS v(f, x) WHERE x <> '';
	PERFORM pgmc.rollback();
END
$$;

SELECT * FROM many_s.fail('INSERT INTO many_s.t VALUES ($1)', 1, 2, 1, 3);
SELECT * FROM many_s.fail('INSERT INTO many_s.t VALUES ($1)', 1, 1);
SELECT * FROM many_s.fail('SELECT 1 / $1', VARIADIC array_fill(1, ARRAY[9999]) || 0);
SELECT * FROM many_s.fail('SELECT many_s.noisy(1 / $1)', 2, 0, 5);
-- of the command itself, so there is no set
SELECT * FROM many_s.fail('SELECT nothing FROM many_s.t WHERE id = $1', 1, 2);
SELECT * FROM many_s.fail('INSERT INTO many_s.t VALUES ($1); SELECT 1', 1, 2);
SELECT * FROM many_s.fail('SELECT $1, $2', 1, 2);
-- all that the others have done in this transaction is lost as well
SELECT pgmc.execute('INSERT INTO many_s.t VALUES (77)');
SELECT * FROM many_s.fail('INSERT INTO many_s.t VALUES ($1)', 5, 77);
SELECT count(*) FROM many_s.t;
-- where the values have no type of their own
SELECT pgmc.execute_many('INSERT INTO many_s.types (e) VALUES ($1::text::many_s.colour)', ARRAY['red', 'blue']);
SELECT pgmc.rollback();
-- an error that is caught leaves the hold, but not what was done
DO $$
BEGIN
	PERFORM pgmc.execute('INSERT INTO many_s.t VALUES (1)');
	BEGIN
		PERFORM pgmc.execute_many('INSERT INTO many_s.t VALUES ($1)', ARRAY[2, 3, 1]);
	EXCEPTION WHEN unique_violation THEN
		RAISE NOTICE 'caught, and it is %', pgmc.transaction_status();
	END;
	BEGIN
		PERFORM pgmc.execute_many('INSERT INTO many_s.t VALUES ($1)', ARRAY[4]);
	EXCEPTION WHEN in_failed_sql_transaction THEN
		RAISE NOTICE 'still %', pgmc.transaction_status();
	END;
	PERFORM pgmc.rollback();
	RAISE NOTICE '% rows', pgmc.execute_many('INSERT INTO many_s.t VALUES ($1)', ARRAY[2, 3]);
	PERFORM pgmc.commit();
END
$$;
TABLE many_s.t;

-- ---- notices ----

SELECT pgmc.execute_many('SELECT many_s.noisy($1)', ARRAY[1, 2, 3]);
SELECT pgmc.rollback();

-- ---- autocommit: all of it is one transaction ----

SELECT pgmc.set_autocommit(true);
SELECT pgmc.execute_many('INSERT INTO many_s.t VALUES ($1)', ARRAY[10, 11, 12]);
SELECT pgmc.transaction_status();
SELECT count(*) FROM many_s.t;
SELECT pgmc.execute_many('INSERT INTO many_s.t VALUES ($1)', ARRAY[20, 21, 10, 22]);
SELECT pgmc.transaction_status();
SELECT count(*) FROM many_s.t;
SELECT pgmc.execute_many('INSERT INTO many_s.deferred VALUES ($1)', ARRAY[1, 2, 1]);
SELECT pgmc.transaction_status();
SELECT count(*) FROM many_s.deferred;
-- inside a transaction it is a part of that
SELECT pgmc.execute('BEGIN');
SELECT pgmc.execute_many('INSERT INTO many_s.t VALUES ($1)', ARRAY[30, 31]);
SELECT pgmc.transaction_status();
SELECT pgmc.rollback();
SELECT count(*) FROM many_s.t;
SELECT pgmc.set_autocommit(false);

-- ---- a cancelled one ----

SET statement_timeout = '1s';
SELECT pgmc.execute_many('SELECT pg_sleep($1)', ARRAY[0.001, 600, 0.001]);
RESET statement_timeout;
SELECT pgmc.transaction_status();
SELECT pgmc.rollback();
SELECT pgmc.execute_many('INSERT INTO many_s.t VALUES ($1)', ARRAY[40]);
SELECT pgmc.rollback();

-- ---- large values ----

SELECT pgmc.execute_many('INSERT INTO many_s.t VALUES ($1, $2)', ARRAY[50, 51, 52], ARRAY['small', repeat('large', 1600000), 'small']);
SELECT * FROM pgmc.query('SELECT id, length(name), md5(name) = md5(repeat(''large'', 1600000)) FROM many_s.t WHERE id BETWEEN 50 AND 52 ORDER BY 1')
	AS q(id int, n int, same bool);
SELECT pgmc.rollback();

-- ---- what ends transactions is nothing special ----

SELECT pgmc.execute_many('INSERT INTO many_s.t VALUES ($1)', ARRAY[60]);
SELECT pgmc.execute_many('COMMIT', ARRAY[1, 2]);
SELECT pgmc.transaction_status();
SELECT count(*) FROM many_s.t WHERE id = 60;

COMMIT;
SELECT pgmc.release_all();
SELECT pgmc.transaction_status();
\set ON_ERROR_ROLLBACK off
\set VERBOSITY default
SET client_min_messages = warning;
DROP SCHEMA many_s CASCADE;
