-- Making queries: commands with parameters of all kinds, their rows and their counts.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgmc;
RESET client_min_messages;

CREATE TABLE queries_item (id int PRIMARY KEY, name text, price numeric);
CREATE TYPE queries_mood AS ENUM ('sad', 'it''s, "fine"');
CREATE TYPE queries_pair AS (a int, b text);
CREATE DOMAIN queries_small AS int CHECK (value < 10);

-- An error that isn't caught ends the hold. Here psql catches each of them with a savepoint.
\set ON_ERROR_ROLLBACK on
BEGIN;
SELECT pgmc.acquire();

-- ---- the first example of all ----

SELECT * FROM pgmc.query('SELECT 1') AS t(n int);
SELECT pgmc.commit();

-- ---- execute tells how many rows it affected or returned ----

SELECT pgmc.execute('INSERT INTO queries_item VALUES (1, $1, $2), (2, NULL, $3)', 'one', 1.5, 2.50);
SELECT pgmc.execute('UPDATE queries_item SET price = price + 1');
SELECT pgmc.execute('DELETE FROM queries_item WHERE id = $1', 99);
SELECT pgmc.execute('SELECT * FROM queries_item');
SELECT pgmc.execute('INSERT INTO queries_item SELECT n FROM generate_series(11, 20) AS n RETURNING id');
SELECT pgmc.execute('SELECT FROM queries_item');
SELECT pgmc.execute('CREATE TEMP TABLE queries_temp (a int)');
SELECT pgmc.execute('CREATE TEMP TABLE queries_temp2 AS SELECT generate_series(1, 7)');
SELECT pgmc.execute('LOCK TABLE queries_temp');
SELECT pgmc.execute('DO $do$ BEGIN NULL; END $do$');

-- of several commands in one string, the last one's count
SELECT pgmc.execute('SELECT generate_series(1, 3); SELECT generate_series(1, 5)');
SELECT pgmc.execute('SELECT generate_series(1, 3); SET search_path = public');
SELECT pgmc.execute('SET search_path = public; SELECT generate_series(1, 5);');
SELECT pgmc.execute($$INSERT INTO queries_temp VALUES (1); INSERT INTO queries_temp VALUES (2), (3);$$);
SELECT pgmc.execute($$SELECT ';'$$);
SELECT pgmc.execute($$SELECT 1;;$$);
SELECT pgmc.execute('SELECT 1 -- ; SELECT 2');
SELECT pgmc.execute('/* ; */ SELECT generate_series(1, 4)');

-- but only without parameters
SELECT pgmc.execute('SELECT $1::int; SELECT 2', 1);
\echo :SQLSTATE
SELECT pgmc.rollback();

-- ---- query returns the rows ----

SELECT pgmc.execute('INSERT INTO queries_item VALUES (1, $1, $2), (2, NULL, $3)', 'one', 1.5, 2.50);
SELECT pgmc.commit();
SELECT * FROM queries_item ORDER BY id;
SELECT * FROM pgmc.query('SELECT * FROM queries_item ORDER BY id') AS t(id int, name text, price numeric);
SELECT * FROM pgmc.query('SELECT * FROM queries_item WHERE id = $1', 2) AS t(id int, name text, price numeric);
SELECT * FROM pgmc.query('SELECT * FROM queries_item WHERE false') AS t(id int, name text, price numeric);
SELECT * FROM pgmc.query('INSERT INTO queries_item VALUES (3, $1) RETURNING id, name, price', 'three')
	AS t(id int, name text, price numeric);
SELECT * FROM pgmc.query('VALUES (1), (2)') AS t(n int);
SELECT * FROM pgmc.query('SHOW server_encoding') AS t(e text) WHERE e = '';
SELECT * FROM pgmc.query('EXPLAIN (COSTS OFF) SELECT 1') AS t(line text);
SELECT * FROM pgmc.query('TABLE queries_item ORDER BY id DESC LIMIT 1') AS t(id int, name text, price numeric);

-- The columns' types are the caller's: a value of another type is converted, as a cast by way of
-- text would do it.
SELECT * FROM pgmc.query('SELECT 42, $q$7$q$::text, 1.5, true') AS t(a text, b int, c float8, d varchar(2));
SELECT * FROM pgmc.query('SELECT 12.345::numeric') AS t(a numeric(5, 1));
SELECT * FROM pgmc.query($$SELECT '2001-02-03'::date$$) AS t(a timestamp) WHERE a = '2001-02-03';
SELECT * FROM pgmc.query($$SELECT 'abcdef'::text$$) AS t(a char(3));
\echo :SQLSTATE
SELECT pgmc.execute('SELECT 1');
SELECT * FROM pgmc.query($$SELECT 'not a number'::text$$) AS t(a int);
\echo :SQLSTATE

-- that was an error of the session's, which the loopback knows nothing of
SELECT pgmc.transaction_status();
SELECT * FROM pgmc.query('SELECT 1') AS t(n int);

-- several commands: the rows of the last one
SELECT * FROM pgmc.query('SELECT 1; SELECT 2 UNION SELECT 3 ORDER BY 1') AS t(n int);
SELECT * FROM pgmc.query('SELECT 1, 2, 3; SELECT 4') AS t(n int);

-- many columns, few columns, none
SELECT count(*), sum(a1 + a9) FROM pgmc.query('SELECT 1, 2, 3, 4, 5, 6, 7, 8, 9')
	AS t(a1 int, a2 int, a3 int, a4 int, a5 int, a6 int, a7 int, a8 int, a9 int);

-- in joins, subqueries, CTEs, LIMIT, twice in one statement
SELECT i.id, r.n FROM queries_item i JOIN pgmc.query('SELECT 2 UNION SELECT 3') AS r(n int) ON r.n = i.id
	ORDER BY i.id;
SELECT i.id, r.n FROM queries_item i, LATERAL pgmc.query('SELECT $1 * 10', i.id) AS r(n int) ORDER BY i.id;
WITH q AS (SELECT * FROM pgmc.query('SELECT generate_series(1, 3)') AS t(n int)) SELECT sum(a.n * b.n) FROM q a, q b;
SELECT * FROM pgmc.query('SELECT generate_series(1, 1000)') AS t(n int) LIMIT 2;
SELECT a.n, b.n FROM pgmc.query('SELECT 1') AS a(n int), pgmc.query('SELECT 2') AS b(n int);

-- a cursor over the rows moves in both directions
DECLARE c SCROLL CURSOR FOR SELECT * FROM pgmc.query('SELECT generate_series(1, 5)') AS t(n int);
FETCH 3 FROM c;
FETCH BACKWARD 1 FROM c;
CLOSE c;
SELECT pgmc.rollback();

-- ---- parameters ----

-- built-in types are typed
SELECT * FROM pgmc.query('SELECT pg_typeof($1), pg_typeof($2), pg_typeof($3), pg_typeof($4), pg_typeof($5), pg_typeof($6)',
	1, 1::bigint, 1.0, 'x'::text, now(), ARRAY[1]) AS t(a text, b text, c text, d text, e text, f text);

-- unknown literals are left to the server to infer, and so are NULLs without a type
SELECT * FROM pgmc.query('SELECT pg_typeof($1 + 1), $2 || $q$!$q$, $3::date - 1, $4::int IS NULL',
	'41', 'hey', '2001-01-02', NULL) AS t(a text, b text, c date, d boolean) WHERE c = '2001-01-01';
SELECT * FROM pgmc.query('SELECT id FROM queries_item WHERE id = $1', '2') AS t(id int);
SELECT * FROM pgmc.query('SELECT $1 + 1', NULL) AS t(a int);

-- NULLs of a type
SELECT * FROM pgmc.query('SELECT $1 IS NULL, pg_typeof($1), $2 IS NULL', NULL::date, NULL::int[]) AS t(a boolean, b text, c boolean);
SELECT pgmc.execute('INSERT INTO queries_item VALUES ($1, $2, $3)', 4, NULL, NULL::numeric);
SELECT * FROM pgmc.query('SELECT name IS NULL, price IS NULL FROM queries_item WHERE id = 4') AS t(a boolean, b boolean);

-- types that are not built in travel by their text
SELECT * FROM pgmc.query('SELECT $1::queries_mood, ($2::queries_pair).b, $3::queries_small, $4::queries_mood[]',
	'it''s, "fine"'::queries_mood, ROW(1, 'x,"y')::queries_pair, 9::queries_small, '{sad}'::queries_mood[])
	AS t(a queries_mood, b text, c queries_small, d queries_mood[]);

-- VARIADIC spreads an array over the parameters
SELECT * FROM pgmc.query('SELECT $1, $2, $3', VARIADIC ARRAY['a', NULL, 'c']) AS t(a text, b text, c text);
SELECT * FROM pgmc.query('SELECT $1 + $2', VARIADIC ARRAY[1, 2]) AS t(a int);
SELECT pgmc.execute('SELECT 1', VARIADIC ARRAY[]::int[]);
SELECT pgmc.execute('SELECT 1', VARIADIC NULL::int[]);
SELECT * FROM pgmc.query('SELECT cardinality($1), $1[2]', ARRAY[5, 6]) AS t(a int, b int);
SELECT pgmc.execute('SELECT 1', VARIADIC 1);
\echo :SQLSTATE

-- more than anybody writes by hand
SELECT total FROM (SELECT 'SELECT ' || string_agg('$' || n, '+') AS c, array_agg(n) AS a
	FROM generate_series(1, 1000) AS n) s, LATERAL pgmc.query(s.c, VARIADIC s.a) AS t(total int);

-- too few: an error of the server
SELECT pgmc.execute('SELECT $1::int, $2::int', 1);
\echo :SQLSTATE
SELECT pgmc.rollback();
-- a parameter is a value, whatever it looks like
SELECT * FROM pgmc.query('SELECT $1', $$'; DROP TABLE queries_item; --$$) AS t(a text);
SELECT * FROM pgmc.query('SELECT length($1), $1 = repeat(E''\n\t\\'', 2)', E'\n\t\\\n\t\\') AS t(a int, b boolean);

-- from PL/pgSQL, with variables
CREATE FUNCTION queries_total(minimum numeric) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE
	r record;
	total numeric := 0;
BEGIN
	FOR r IN SELECT * FROM pgmc.query('SELECT price FROM queries_item WHERE price > $1', minimum) AS t(price numeric) LOOP
		total := total + r.price;
	END LOOP;
	RETURN total;
END
$$;
SELECT queries_total(0), queries_total(2), queries_total(1000);

-- the server is named where it is not the innermost hold that is meant
SELECT pgmc.execute_on('pgmc_loopback', 'SELECT 1'), pgmc.execute_on('pgmc_loopback', 'SELECT $1', 'x');
SELECT * FROM pgmc.query_on('pgmc_loopback', 'SELECT 1') AS t(a int),
	pgmc.query_on('pgmc_loopback', 'SELECT $1', 'x'::text) AS u(b text);

SELECT pgmc.rollback();

-- prepared statements, plans made again, one function call with different columns each time
PREPARE q AS SELECT * FROM pgmc.query('SELECT $1 * 2', $1::int) AS t(n int);
EXECUTE q(1);
EXECUTE q(2);
SELECT * FROM pgmc.query('SELECT 1, 2') AS t(a int, b int);
SELECT * FROM pgmc.query('SELECT 1, 2') AS t(a text, b numeric);

-- a command whose columns change between two calls
SELECT pgmc.execute('CREATE TEMP TABLE queries_changing AS SELECT 1 AS a, 2 AS b');
SELECT * FROM pgmc.query('SELECT * FROM queries_changing') AS t(a int, b int);
SELECT pgmc.execute('ALTER TABLE queries_changing ALTER b TYPE text USING $$two$$');
SELECT * FROM pgmc.query('SELECT * FROM queries_changing') AS t(a int, b text);
SELECT pgmc.execute('ALTER TABLE queries_changing DROP b');
SELECT * FROM pgmc.query('SELECT * FROM queries_changing') AS t(a int);
SELECT * FROM pgmc.query('SELECT * FROM queries_changing') AS t(a int, b int);
\echo :SQLSTATE
SELECT pgmc.rollback();
COMMIT;
\unset ON_ERROR_ROLLBACK

-- What was learnt of a command's columns is forgotten when a table changes, here to a type that
-- can't come in binary format.
SELECT * FROM pgmc.query('SELECT price FROM queries_item WHERE id = 2') AS t(a text);
SELECT pgmc.rollback();
ALTER TABLE queries_item ALTER price TYPE aclitem USING makeaclitem(10, 10, 'SELECT', false);
SELECT a IS NOT NULL AS came FROM pgmc.query('SELECT price FROM queries_item WHERE id = 2') AS t(a text);
SELECT pgmc.rollback();
SELECT pgmc.release();
SELECT pgmc.release_all(), pgmc.close();
DROP FUNCTION queries_total;
DROP TYPE queries_mood;
DROP TYPE queries_pair;
DROP DOMAIN queries_small;
DROP TABLE queries_item;
