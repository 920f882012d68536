-- Text of any language, whatever encoding the session's client has, or a holder has set on the
-- loopback. Everything is compared on the server, and this file has nothing but ASCII.
-- (A database of another encoding than UTF8 has less to show: the other expected file.)
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgmc;
RESET client_min_messages;
SELECT getdatabaseencoding() <> 'UTF8' AS skip \gset
\if :skip
\echo skipped
\quit
\endif

CREATE TYPE encodings_enum AS ENUM (U&'caf\00e9', U&'\20ac');
CREATE TYPE encodings_pair AS (a text, b xid);
CREATE TABLE encodings_t (id int PRIMARY KEY, t text, j jsonb, e encodings_enum, "c" "char");
INSERT INTO encodings_t VALUES (1, U&'na\00efve caf\00e9', U&'{"k\00e9y": "\00fc"}', U&'caf\00e9', 'x'),
	(2, U&'\20ac \4f60\597d \+01f600', U&'["\20ac"]', U&'\20ac', 'y'),
	(3, convert_from('\x7f01', 'UTF8') || chr(160) || repeat(chr(233), 10000), '{}', NULL, NULL);

-- Those that come back differently: as a row, as a parameter, in an array, in a composite, in text
-- that several commands return
CREATE FUNCTION encodings_differences() RETURNS TABLE (id int, way text) LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY
	SELECT s.id, 'row' FROM encodings_t s LEFT JOIN pgmc.query('SELECT id, t, j, e, c FROM encodings_t') AS r(id int, t text, j jsonb, e encodings_enum, c "char") USING (id)
		WHERE (s.t, s.j, s.e, s.c) IS DISTINCT FROM (r.t, r.j, r.e, r.c)
	UNION ALL
	SELECT s.id, 'text' FROM encodings_t s LEFT JOIN pgmc.query('SELECT 1; SELECT id, t, j, e FROM encodings_t') AS r(id int, t text, j jsonb, e encodings_enum) USING (id)
		WHERE (s.t, s.j, s.e) IS DISTINCT FROM (r.t, r.j, r.e)
	UNION ALL
	SELECT s.id, 'parameter' FROM encodings_t s,
		LATERAL pgmc.query('SELECT $1, $2, $3::encodings_enum, t = $1 AND j = $2 AND e IS NOT DISTINCT FROM $3 FROM encodings_t WHERE id = $4', s.t, s.j, s.e, s.id) AS r(t text, j jsonb, e encodings_enum, same boolean)
		WHERE (s.t, s.j, s.e) IS DISTINCT FROM (r.t, r.j, r.e) OR same IS NOT TRUE
	UNION ALL
	SELECT s.id, 'name' FROM encodings_t s, LATERAL pgmc.query('SELECT $1', s.t::name) AS r(t name) WHERE s.t::name <> r.t
	UNION ALL
	SELECT s.id, 'array' FROM encodings_t s, LATERAL pgmc.query('SELECT $1, $2::encodings_pair', ARRAY[s.t, 'x'], ROW(s.t, '1')::encodings_pair) AS r(a text[], p encodings_pair)
		WHERE s.t <> r.a[1] OR s.t <> (r.p).a
	UNION ALL
	SELECT s.id, 'literal' FROM encodings_t s, LATERAL pgmc.query(format('SELECT %L', s.t)) AS r(t text) WHERE s.t <> r.t;
END
$$;

SELECT pgmc.acquire();

-- as it is
SELECT * FROM encodings_differences();

-- the client's encoding, which has neither Chinese nor smileys
SET client_encoding = 'LATIN1';
SELECT * FROM encodings_differences();
SHOW client_encoding;
SET client_encoding = 'SJIS';
SELECT * FROM encodings_differences();
SET client_encoding = 'SQL_ASCII';
SELECT * FROM encodings_differences();
RESET client_encoding;

-- The holder sets it on the loopback: put back at once.
SELECT pgmc.execute($$SET client_encoding = 'LATIN1'$$);
SELECT * FROM encodings_differences();
SELECT pgmc.commit();
SELECT pgmc.execute($$SET LOCAL client_encoding = 'LATIN1'; SELECT 1$$);
SELECT * FROM encodings_differences();
SELECT pgmc.rollback();
SELECT * FROM encodings_differences();
SELECT pgmc.rollback();

-- Messages, too, and the place of an error behind letters of several bytes.
CREATE TABLE encodings_message AS SELECT U&'caf\00e9' AS t;
SET client_encoding = 'LATIN1';
CREATE FUNCTION encodings_error(command text) RETURNS TABLE (is_utf8 boolean, has_accent boolean) LANGUAGE plpgsql AS $$
DECLARE
	message text;
BEGIN
	PERFORM pgmc.execute(command);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT;
	PERFORM pgmc.rollback();
	RETURN QUERY SELECT message = convert_from(convert_to(message, 'UTF8'), 'UTF8'), position(chr(233) IN message) > 0;
END
$$;
SELECT * FROM encodings_error(U&'SELECT "caf\00e9"');
SELECT * FROM encodings_error(U&'DO $d$BEGIN RAISE ''\00e9 and \00e8''; END$d$');
SET client_encoding = 'UTF8';
\set ON_ERROR_ROLLBACK on
BEGIN;
SELECT pgmc.execute('SELECT ' || quote_literal(repeat(chr(233), 3)) || ', nothing FROM encodings_t') / 0;
ROLLBACK;
\unset ON_ERROR_ROLLBACK

-- an error in between leaves the session's encoding as it was
SET client_encoding = 'LATIN1';
SELECT * FROM pgmc.autonomous_query('SELECT $$x$$::text') AS t(a int);
SELECT pgmc.autonomous('SELECT 1/0');
SHOW client_encoding;
RESET client_encoding;

SELECT pgmc.release_all(), pgmc.close();
DROP TABLE encodings_t, encodings_message;
DROP FUNCTION encodings_differences, encodings_error;
DROP TYPE encodings_enum, encodings_pair;
