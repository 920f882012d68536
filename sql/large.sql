-- Many rows and large values, both ways, and whoever takes only some of them.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgmc;
RESET client_min_messages;

SELECT pgmc.acquire();

-- ---- many rows ----

SELECT count(*), sum(n), count(DISTINCT t) FROM pgmc.query($$SELECT n, 'row ' || n FROM generate_series(1, 150000) AS n$$) AS r(n int, t text);
SELECT count(*), sum(length(t)) FROM pgmc.query($$SELECT repeat('x', n * 7 % 20000) FROM generate_series(1, 1000) AS n$$) AS r(t text);

-- the same from a string of several commands, and one after the other in one statement
SELECT count(*), sum(n) FROM pgmc.query('SELECT 1; SELECT n FROM generate_series(1, 50000) AS n') AS r(n int);
SELECT a.count, b.count FROM (SELECT count(*) FROM pgmc.query('SELECT generate_series(1, 20000)') AS r(n int)) AS a,
	(SELECT count(*) FROM pgmc.query('SELECT generate_series(1, 30000)') AS r(n int)) AS b;

-- counted, not sent
SELECT pgmc.execute('SELECT repeat($$x$$, 100) FROM generate_series(1, 100000)');
SELECT pgmc.execute('CREATE TEMP TABLE large_t AS SELECT n, md5(n::text) AS h FROM generate_series(1, 50000) AS n');
SELECT pgmc.execute('UPDATE large_t SET h = h WHERE n % 2 = 0');
SELECT count(*) FROM pgmc.query('SELECT n, h FROM large_t') AS r(n int, h text) WHERE h = md5(n::text);

-- many columns and wide rows
SELECT 'SELECT ' || string_agg(format('%s AS c%s', n, n), ', ') || ' FROM generate_series(1, 100)' AS command,
	string_agg(format('c%s int', n), ', ') AS columns FROM generate_series(1, 1000) AS n \gset
SELECT count(*), sum(c1 + c1000) FROM pgmc.query(:'command') AS r(:columns);

-- Over and over, each time another command: so large a description comes in parts.
CREATE FUNCTION large_columns(command text, columns text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	n int;
	total bigint := 0;
BEGIN
	FOR i IN 1 .. 10 LOOP
		EXECUTE format('SELECT count(*) FROM pgmc.query(%L) AS r(%s)', command || ' LIMIT ' || i, columns) INTO n;
		total := total + n;
	END LOOP;
	RETURN total;
END
$$;
SELECT large_columns(:'command', :'columns');
DROP FUNCTION large_columns;

-- ---- those that are not taken ----

-- A result is taken whole, even where the query wants only a part.
SELECT n FROM pgmc.query('SELECT generate_series(1, 50000)') AS r(n int) LIMIT 2;
SELECT EXISTS (SELECT FROM pgmc.query('SELECT generate_series(1, 50000)') AS r(n int) WHERE n = 5);

-- An error in the middle, here or there: the rest is dropped, and the connection is usable.
\set ON_ERROR_ROLLBACK on
BEGIN;
SELECT sum(n) FROM pgmc.query('SELECT CASE WHEN n = 50000 THEN $$x$$ ELSE n::text END FROM generate_series(1, 200000) AS n') AS r(n int);
SELECT pgmc.transaction_status() IN ('inerror', 'intrans') AS in_transaction;
SELECT pgmc.rollback();
SELECT sum(n) FROM pgmc.query('SELECT 1 / (50000 - n) FROM generate_series(1, 200000) AS n') AS r(n int);
SELECT pgmc.transaction_status();
SELECT pgmc.rollback();
SET LOCAL statement_timeout = '50ms'\; SELECT count(*) FROM pgmc.query('SELECT generate_series(1, 1000000000)') AS r(n int);
\echo :SQLSTATE
SELECT pgmc.rollback();
SELECT * FROM pgmc.query('SELECT 1') AS r(n int);
SELECT pgmc.rollback();
COMMIT;
\unset ON_ERROR_ROLLBACK

-- ---- large values: larger than what the worker keeps its buffers for (BLOATED_SIZE) ----

-- there
CREATE TEMP TABLE large_value AS SELECT string_agg(md5(n::text), '') AS t FROM generate_series(1, 160000) AS n;
SELECT length(t), md5(t) = (SELECT md5(r.t) FROM large_value, pgmc.query('SELECT $1', t) AS r(t text)) AS same FROM large_value;
SELECT * FROM pgmc.query('SELECT length($1), $1 = $2', (SELECT t FROM large_value), (SELECT t FROM large_value)) AS r(length int, same boolean);

-- and back
SELECT length(t), md5(t) = (SELECT md5(t) FROM large_value) AS same
	FROM pgmc.query($$SELECT string_agg(md5(n::text), '') FROM generate_series(1, 160000) AS n$$) AS r(t text);
SELECT length(b), md5(b) = md5(decode(t, 'hex')) AS same FROM large_value, pgmc.query('SELECT decode($1, $$hex$$)', t) AS r(b bytea);
SELECT length(r.b), r.b = decode(t, 'hex') AS same FROM large_value, pgmc.query('SELECT $1', decode(t, 'hex')) AS r(b bytea);

-- several in one row, in arrays, beside NULLs
SELECT length(a), b, c = a AS same, cardinality(d), length(d[2]) FROM large_value,
	pgmc.query('SELECT $1, NULL::text, $1, ARRAY[$2, $1]', t, 'x'::text) AS r(a text, b text, c text, d text[]);
SELECT cardinality(a), (SELECT sum(x) FROM unnest(a) AS x) FROM pgmc.query('SELECT $1', (SELECT array_agg(n) FROM generate_series(1, 300000) AS n)) AS r(a int[]);

-- in a command of its own
SELECT * FROM pgmc.autonomous_query('SELECT 1') AS r(n int) WHERE false AND n = 2;
SELECT pgmc.rollback();
SELECT pgmc.release();
SELECT pgmc.autonomous('SELECT length($1)', t) FROM large_value;
SELECT md5(r.t) = md5(v.t) AS same FROM large_value v, pgmc.autonomous_query('SELECT $1', v.t) AS r(t text);
CREATE TABLE large_kept (t text);
SELECT pgmc.autonomous('INSERT INTO large_kept VALUES ($1)', t) FROM large_value;
SELECT length(t), md5(t) = (SELECT md5(t) FROM large_value) AS same FROM large_kept;

-- (A connection that large values have passed may be closed already.)
SELECT pgmc.release_all(), pgmc.close() IS NOT NULL AS closed;
DROP TABLE large_value, large_kept;
