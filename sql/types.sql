-- Values of every type come back as they are, as rows and as parameters, whatever DateStyle,
-- IntervalStyle, TimeZone and extra_float_digits the session has and the holder has set on the
-- loopback. What is compared is the same expression computed by the session itself.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgmc;
RESET client_min_messages;

CREATE TYPE types_enum AS ENUM ('low', 'high "est"', '');
CREATE TYPE types_inner AS (a timestamptz, b float8, c text);
CREATE TYPE types_composite AS (a int, b types_inner, c types_enum[], d bytea);
CREATE TYPE types_with_acl AS (a aclitem, b timestamptz, c interval, d date);
CREATE TYPE types_range AS RANGE (subtype = timestamptz);
CREATE DOMAIN types_domain AS numeric(10, 3) CHECK (value >= 0);
CREATE DOMAIN types_domain_array AS types_enum[];
CREATE TABLE types_table (a int, dropped text, b date);
ALTER TABLE types_table DROP dropped;

CREATE TABLE types_sample (type text, expr text, PRIMARY KEY (type, expr));
INSERT INTO types_sample VALUES
	('boolean', 'true'), ('boolean', 'false'),
	('smallint', '-32768'), ('int', '-2147483648'), ('bigint', '-9223372036854775808'),
	('int', '2147483647'), ('int', '0'), ('bigint', '9223372036854775807'), ('bigint', '-1'),
	('timestamp', '$q$4714-11-24 00:00:00 BC$q$'), ('timestamp', '$q$294276-12-31 23:59:59.999999$q$'), ('timestamp', '$q$-infinity$q$'),
	('timestamptz', '$q$4714-11-24 00:00:00+00 BC$q$'), ('timestamptz', '$q$294276-12-31 23:59:59.999999+00$q$'), ('timestamptz', '$q$infinity$q$'),
	('oid', '4294967295'), ('xid', '$q$4294967295$q$'), ('xid8', '$q$18446744073709551615$q$'),
	('cid', '$q$7$q$'), ('tid', '$q$(4294967295,65535)$q$'), ('pg_lsn', '$q$FF/1$q$'),
	('pg_snapshot', '$q$10:20:10,14,15$q$'), ('txid_snapshot', '$q$10:20:10,14,15$q$'),
	('real', '1.0 / 3'), ('real', '$q$NaN$q$'), ('real', '$q$-Infinity$q$'), ('real', '1.17549435e-38'),
	('float8', '1.0 / 3'), ('float8', '0.1::float8 + 0.2::float8'), ('float8', '$q$-0$q$'), ('float8', '$q$NaN$q$'),
	('float8', '$q$Infinity$q$'), ('float8', '2.2250738585072014e-308'), ('float8', '1.7976931348623157e308'),
	('numeric', '$q$NaN$q$'), ('numeric', '$q$Infinity$q$'), ('numeric', '$q$-Infinity$q$'),
	('numeric', '1.500'), ('numeric', '-1e130'), ('numeric', '1e-130'), ('numeric', '2::numeric ^ 300'), ('numeric', '0.000'),
	('numeric(12,4)', '12345678.9'), ('money', '-1234567.89'),
	('text', '$q$$q$'), ('text', 'E''a\tb\nc\\d"e''''f{},()'''), ('text', 'repeat($q$x$q$, 10000)'), ('text', '$q$NULL$q$'), ('text', '$q$\N$q$'),
	('varchar', '$q$x  $q$'), ('varchar(3)', '$q$abc$q$'), ('bpchar', '$q$x  $q$'), ('char(5)', '$q$x$q$'), ('"char"', '$q$x$q$'), ('name', '$q$some name$q$'),
	('bytea', '$q$\x00ff0a5c27$q$'), ('bytea', '$q$$q$'), ('bytea', 'sha256($q$x$q$)'),
	('date', '$q$2001-02-03$q$'), ('date', '$q$infinity$q$'), ('date', '$q$-infinity$q$'), ('date', '$q$4713-01-01 BC$q$'), ('date', '$q$5874897-12-31$q$'),
	('time', '$q$23:59:59.999999$q$'), ('time', '$q$24:00$q$'), ('timetz', '$q$12:00:00.5-07:30:15$q$'),
	('timestamp', '$q$2001-02-03 04:05:06.789012$q$'), ('timestamp', '$q$infinity$q$'), ('timestamp', '$q$0044-03-15 BC$q$'), ('timestamp(1)', '$q$2001-02-03 04:05:06.7$q$'),
	('timestamptz', '$q$2001-02-03 04:05:06.789012+13:45$q$'), ('timestamptz', '$q$-infinity$q$'), ('timestamptz', '$q$1883-01-01 00:00:00.000001+00$q$'), ('timestamptz', '$q$1996-10-27 01:30:00+00$q$'), ('timestamptz', '$q$1996-10-27 00:30:00+00$q$'),
	('interval', '$q$-1 year -2 mons +3 days -04:05:06.789012$q$'), ('interval', '$q$1 mon -1 day$q$'), ('interval', '$q$-1 day +00:00:01$q$'), ('interval', '$q$0$q$'), ('interval', '$q$178000000 years$q$'),
	('interval', '$q$-00:00:00.000001$q$'),
	('inet', '$q$::ffff:1.2.3.4/96$q$'), ('cidr', '$q$10.0.0.0/8$q$'), ('macaddr', '$q$08:00:2b:01:02:03$q$'), ('macaddr8', '$q$08:00:2b:01:02:03:04:05$q$'),
	('uuid', '$q$a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11$q$'),
	('bit(3)', 'B''101'''), ('varbit', 'B''1011101'''), ('varbit', 'B'''''),
	('json', '$q${"a" :  [1, "x\u0041", null], "a": 2}$q$'), ('json', '$q$null$q$'), ('jsonb', '$q${"a": [1, 1.50, "x\"y", {}], "b": null}$q$'), ('jsonpath', '$q$$.a[*] ? (@.b > 1)$q$'),
	('point', '$q$(0.1,-1e300)$q$'), ('line', '$q${1,2,3.3}$q$'), ('lseg', '$q$[(0.1,0.2),(3,4)]$q$'), ('box', '$q$(2,2),(0.1,0.1)$q$'), ('path', '$q$[(0,0),(0.1,0.3)]$q$'), ('polygon', '$q$((0,0),(1,0.1),(1,0))$q$'), ('circle', '$q$<(0.1,0.2),0.3>$q$'),
	('tsvector', 'to_tsvector($q$simple$q$, $q$a fat cat''s hat$q$)'), ('tsquery', '$q$fat & (rat | !cat:AB) <-> hat$q$'),
	('int4range', '$q$[1,10)$q$'), ('int4range', '$q$empty$q$'), ('int8range', '$q$(,5)$q$'), ('numrange', '$q$(0.1,NaN]$q$'), ('daterange', '$q$[2001-01-31,infinity)$q$'),
	('tsrange', '$q$["2001-02-03 04:05:06.7",)$q$'), ('tstzrange', '$q$("2001-02-03 04:05:06.7+00",infinity]$q$'),
	('tstzmultirange', '$q${[2001-01-02 00:00+00,2001-01-03 00:00+00),[2002-01-01 00:00+05,)}$q$'), ('nummultirange', '$q${}$q$'),
	('int[]', '$q$[-1:1]={1,NULL,3}$q$'), ('int[]', '$q${}$q$'), ('int[]', '$q${{1,2},{3,4}}$q$'), ('text[]', 'ARRAY[$q$NULL$q$, NULL, $q$$q$, $q$a,"b"\$q$]'), ('timestamptz[]', 'ARRAY[$q$2001-02-03 04:05:06+00$q$::timestamptz, $q$infinity$q$]'),
	('interval[]', 'ARRAY[$q$-1 mon +2 days -00:00:03.4$q$::interval]'), ('float8[]', 'ARRAY[1.0::float8 / 3, $q$NaN$q$]'), ('bytea[]', 'ARRAY[$q$\x00$q$::bytea]'), ('date[]', 'ARRAY[$q$2001-02-03$q$::date]'), ('money[]', 'ARRAY[1.5::numeric::money]'),
	('oidvector', '$q$1 2 3$q$'), ('int2vector', '$q$1 2 3$q$'),
	('regclass', '$q$pg_class$q$'), ('regclass', '$q$types_sample$q$'), ('regclass', '$q$-$q$'), ('regtype', '$q$timestamptz$q$'), ('regtype', '$q$types_enum$q$'), ('regproc', '$q$now$q$'), ('regprocedure', '$q$abs(int)$q$'), ('regoper', '$q$pg_catalog.||/$q$'), ('regoperator', '$q$+(int,int)$q$'), ('regnamespace', '$q$pgmc$q$'), ('regconfig', '$q$simple$q$'), ('regdictionary', '$q$simple$q$'), ('regcollation', '$q$"C"$q$'), ('regrole', 'quote_ident(current_user)'), ('regclass[]', 'ARRAY[$q$pg_class$q$::regclass]'),
	('aclitem', 'makeaclitem(10, 10, $q$SELECT$q$, true)'), ('aclitem[]', 'ARRAY[makeaclitem(10, 10, $q$SELECT$q$, true)]'), ('refcursor', '$q$c 1$q$'),
	('types_enum', '$q$high "est"$q$'), ('types_enum', '$q$$q$'), ('types_enum[]', 'enum_range(NULL::types_enum)'), ('types_domain', '1.5'), ('types_domain[]', 'ARRAY[1.5]'), ('types_domain_array', 'ARRAY[$q$low$q$]'),
	('types_range', '$q$[2001-02-03 04:05+00,2001-02-04 04:05+00)$q$'),
	('types_composite', 'ROW(1, ROW($q$2001-02-03 04:05:06.7+00$q$, 1.0::float8 / 3, E''x,\t"''), enum_range(NULL::types_enum), $q$\x00$q$::bytea)'),
	('types_composite', 'ROW(NULL, NULL, NULL, NULL)'), ('types_composite[]', 'ARRAY[ROW(1, ROW($q$2001-02-03 00:00+05$q$, 0.1, NULL), NULL, NULL)]'),
	('types_with_acl', 'ROW(makeaclitem(10, 10, $q$SELECT$q$, true), $q$2001-02-03 04:05:06.7+00$q$, $q$-1 mon +2 days -00:00:03.4$q$, $q$2001-02-03$q$)'),
	('types_table', 'ROW(1, $q$2001-02-03$q$::date)'), ('pg_catalog.pg_am', '(SELECT am FROM pg_am am WHERE amname = $q$btree$q$)');

-- XML only where the server was built with it
DO $$
BEGIN
	PERFORM xml '<a/>';
	INSERT INTO types_sample VALUES ('xml', '$q$<a b="c">&lt;x/></a>$q$'), ('xml', 'xmlcomment($q$hey$q$)');
EXCEPTION WHEN feature_not_supported THEN
	NULL;
END
$$;

-- Each sample in five ways: as a row, as a parameter, as one whose type only pgmc tells, in an
-- array, and as NULL. Those that differ, with what came.
CREATE FUNCTION types_differences() RETURNS TABLE (way text, type text, expr text, got text) LANGUAGE plpgsql AS $$
DECLARE
	ways text[] := ARRAY[
		'row', 'SELECT a::text, CAST(%2$s AS %1$s)::text FROM pgmc.query(%4$L) AS t(a %1$s)',
		'parameter', 'SELECT a::text, CAST(%2$s AS %1$s)::text FROM pgmc.query(%5$L, CAST(%2$s AS %1$s)) AS t(a %1$s)',
		'bare parameter', 'SELECT a::text, CAST(%2$s AS %1$s)::text FROM pgmc.query(%6$L, CAST(%2$s AS %1$s)) AS t(a %1$s)',
		'array', 'SELECT a::text, ARRAY[CAST(%2$s AS %1$s)]::text FROM pgmc.query(%7$L, ARRAY[CAST(%2$s AS %1$s)]) AS t(a %3$s[])',
		'null', 'SELECT coalesce(a::text, %8$L), %8$L FROM pgmc.query(%5$L, NULL::%1$s) AS t(a %1$s)'];
	sample record;
	want text;
BEGIN
	FOR sample IN SELECT * FROM types_sample s ORDER BY s.type COLLATE "C", s.expr COLLATE "C" LOOP
		type := sample.type;
		expr := sample.expr;
		FOR i IN 1 .. cardinality(ways) BY 2 LOOP
			way := ways[i];
			CONTINUE WHEN way = 'array' AND (type LIKE '%[]' OR type IN ('oidvector', 'int2vector', 'types_domain_array'));
			CONTINUE WHEN way = 'bare parameter' AND type LIKE '%types\_%';
			BEGIN
				EXECUTE format(ways[i + 1], type, expr, replace(type, '(12,4)', ''),
					format('SELECT CAST(%s AS %s)', expr, type), format('SELECT CAST($1 AS %s)', type), 'SELECT $1',
					format('SELECT CAST($1 AS %s[])', type), 'nothing')
					INTO got, want;
				CONTINUE WHEN got = want;
			EXCEPTION WHEN OTHERS THEN
				got := format('%s %s', sqlstate, sqlerrm);
			END;
			RETURN NEXT;
		END LOOP;
	END LOOP;
END
$$;

SELECT count(*) > 140 AS many_samples, count(DISTINCT type) > 80 AS of_many_types FROM types_sample;

-- Autocommit, so that what is set on the loopback stays set, and an error is one sample's only.
SELECT pgmc.acquire();
SELECT pgmc.set_autocommit(true);

-- It does see a difference
INSERT INTO types_sample VALUES ('int', 'pg_backend_pid()');
SELECT way, type, expr, got <> '' AS got FROM types_differences();
DELETE FROM types_sample WHERE expr = 'pg_backend_pid()';

-- as it is
SELECT * FROM types_differences();

-- the session with settings of its own
SET datestyle = 'SQL, DMY';
SET intervalstyle = 'sql_standard';
SET timezone = 'Asia/Kathmandu';
SET extra_float_digits = -15;
SET bytea_output = 'escape';
SELECT * FROM types_differences();

-- the loopback with others
SELECT pgmc.execute($$SET datestyle = 'German, YMD'$$), pgmc.execute($$SET intervalstyle = 'postgres_verbose'$$),
	pgmc.execute($$SET timezone = 'America/New_York'$$), pgmc.execute($$SET extra_float_digits = -10$$),
	pgmc.execute($$SET bytea_output = 'escape'$$), pgmc.execute($$SET xmlbinary = 'hex'$$), pgmc.execute('SET quote_all_identifiers = on');
SELECT * FROM types_differences();

-- a conversion to another type loses no digits by the session's setting
SELECT * FROM pgmc.query('SELECT 0.1::float8 + 0.2') AS t(n numeric);

-- they are really set there
SELECT * FROM pgmc.query($$SELECT '2001-02-03'::date::text, '-1 day'::interval::text, 0.1::float8::text$$) AS t(a text, b text, c text);

-- the session as usual, the loopback not
RESET datestyle;
RESET intervalstyle;
RESET timezone;
RESET extra_float_digits;
RESET bytea_output;
SELECT * FROM types_differences();
SELECT pgmc.execute($$SET datestyle = 'SQL, MDY'$$), pgmc.execute($$SET intervalstyle = 'iso_8601'$$),
	pgmc.execute($$SET timezone = 'Europe/Paris'$$);
SET timezone = '<+0330>-03:30';
SET datestyle = 'ISO, YMD';
SELECT * FROM types_differences();

-- A search_path that differs: what is a name over there is the same object here, and a text as it is
-- written there.
SELECT pgmc.execute('SET search_path = pg_catalog');
SELECT a, b = 'types_sample'::regclass AS b FROM pgmc.query('SELECT $1, $1', 'types_sample'::regclass) AS t(a text, b regclass);
SELECT * FROM pgmc.query('SELECT $1 = $2', 'types_sample'::regclass, 'types_sample'::regclass::oid) AS t(same boolean);
SELECT pgmc.execute('RESET search_path');

-- What can't be received again comes as text all the same, alone or beside values that depend on
-- the settings over there.
SELECT a = '2001-02-03 04:05:06.7+00' AS a, b IS NOT NULL AS b, c = '-1 mon +2 days -00:00:03.4' AS c
	FROM pgmc.query($$SELECT '2001-02-03 04:05:06.7+00'::timestamptz, makeaclitem(10, 10, 'SELECT', false), '-1 mon +2 days -00:00:03.4'::interval$$)
	AS t(a timestamptz, b aclitem, c interval);
CREATE TABLE types_default (a int DEFAULT 42);
SELECT a LIKE '{CONST%' AS node_tree FROM pgmc.query($$SELECT adbin FROM pg_attrdef WHERE adrelid = 'types_default'::regclass$$) AS t(a text);
DROP TABLE types_default;
SELECT * FROM pgmc.query($$SELECT 'x', NULL, pg_typeof('y'), ROW(1, 'a'), void FROM pg_notify('types', '') AS void$$) AS t(a text, b text, c regtype, d text, e text);
SELECT count(*), sum(f) > 0 AS f FROM pgmc.query('SELECT oid, proname, procost, proacl, proargtypes, proargmodes FROM pg_proc LIMIT 10') AS t(o oid, n name, f real, a aclitem[], t oidvector, m "char"[]);

-- a domain of the caller's is checked
CREATE DOMAIN types_positive AS int NOT NULL CHECK (value > 0);
SELECT * FROM pgmc.query('SELECT 1') AS t(a types_positive);
\set ON_ERROR_ROLLBACK on
BEGIN;
SELECT * FROM pgmc.query('SELECT -1') AS t(a types_positive);
\echo :SQLSTATE
SELECT * FROM pgmc.query('SELECT NULL::int') AS t(a types_positive);
\echo :SQLSTATE
COMMIT;
\unset ON_ERROR_ROLLBACK

-- the session's own settings are as they were
SHOW datestyle;
SHOW timezone;
SHOW intervalstyle;

SELECT pgmc.release();
SELECT pgmc.release_all(), pgmc.close();
DROP FUNCTION types_differences;
DROP TABLE types_sample, types_table;
DROP DOMAIN types_positive, types_domain, types_domain_array;
DROP TYPE types_range, types_with_acl, types_composite, types_inner, types_enum;
