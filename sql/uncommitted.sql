-- What the loopback has changed and not committed is not known here: its values arrive all the same,
-- and nobody waits for its locks.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgmc;
RESET client_min_messages;
\set ON_ERROR_ROLLBACK on
\set VERBOSITY terse

CREATE TABLE uncommitted_t (a int, b text);
INSERT INTO uncommitted_t VALUES (1, 'one');
CREATE TYPE uncommitted_enum AS ENUM ('sad', 'ok');
BEGIN;
SELECT pgmc.acquire();

-- a row type whose table is locked over there, also where it was known before
SELECT * FROM pgmc.query('SELECT t FROM uncommitted_t AS t') AS q(a text);
SELECT pgmc.execute('ALTER TABLE uncommitted_t ADD c int DEFAULT 3');
SELECT * FROM pgmc.query('SELECT t FROM uncommitted_t AS t') AS q(a text);
SELECT * FROM pgmc.query('SELECT array_agg(t) FROM uncommitted_t AS t') AS q(a text);
SELECT pgmc.rollback();
SELECT * FROM pgmc.query('SELECT t FROM uncommitted_t AS t') AS q(a text);
SELECT pgmc.rollback();

-- names of what only the loopback sees
SELECT pgmc.execute('CREATE TABLE uncommitted_new (a int)');
SELECT * FROM pgmc.query('SELECT ''uncommitted_new''::regclass') AS q(a text);
SELECT * FROM pgmc.query('INSERT INTO uncommitted_new VALUES (1) RETURNING tableoid::regclass, a') AS q(a text, b int);
SELECT * FROM pgmc.query('SELECT ARRAY[''uncommitted_new''::regclass]') AS q(a text);
SELECT a = 'uncommitted_t'::regclass AS same
FROM pgmc.query('SELECT ''uncommitted_t''::regclass') AS q(a regclass);
SELECT pgmc.rollback();

-- labels, too
SELECT pgmc.execute('ALTER TYPE uncommitted_enum RENAME VALUE ''ok'' TO ''okay''');
SELECT * FROM pgmc.query('SELECT ''okay''::uncommitted_enum') AS q(a text);
SELECT * FROM pgmc.query('SELECT ARRAY[''okay''::uncommitted_enum]') AS q(a text);
SELECT pgmc.rollback();
SELECT * FROM pgmc.query('SELECT ''ok''::uncommitted_enum, ''sad''::uncommitted_enum') AS q(a text, b uncommitted_enum);

-- a cursor that doesn't exist is the loopback's error; one that does has columns
SELECT * FROM pgmc.query('FETCH 1 FROM uncommitted_cursor') AS q(a int);
\echo :SQLSTATE
SELECT pgmc.rollback();
SELECT pgmc.execute('DECLARE uncommitted_cursor CURSOR FOR SELECT generate_series(1, 3)');
SELECT * FROM pgmc.query('FETCH 2 FROM uncommitted_cursor') AS q(a int);
SELECT * FROM pgmc.query('FETCH 2 FROM uncommitted_cursor') AS q(a int, b int);
SELECT pgmc.rollback();
SELECT pgmc.release();
COMMIT;

-- a setting of the session's own that changes how arrays are read
SET array_nulls = off;
SELECT * FROM pgmc.autonomous_query('SELECT ARRAY[1, NULL]') AS q(a bigint[]);
RESET array_nulls;

SELECT pgmc.close();
DROP TABLE uncommitted_t;
DROP TYPE uncommitted_enum;
