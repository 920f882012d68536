-- All objects of the extension, in full: what version 1.0 consists of.
--
-- If this fails because an object was added or changed, then servers that have the extension can't
-- know it: the change belongs into a new version (default_version in pgmc.control) with an upgrade
-- script (pgmc--1.0--1.1.sql) beside the script of the whole (pgmc--1.1.sql), and the expected
-- output of version 1.0 stays. As long as 1.0 isn't released, its output is made anew:
--
--   KEEP=1 sh tools/test regress objects    (the last line but one names the directory that it keeps)
--   cp DIRECTORY/source/results/objects.out expected/
--
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS pgmc CASCADE;
RESET client_min_messages;

-- Names in definitions are to be full, whatever the caller's path is. Older servers qualify a view's
-- columns where newer ones don't.
CREATE FUNCTION pg_temp.definition(class oid, object oid) RETURNS text LANGUAGE plpgsql
	SET search_path = pg_catalog AS $$
BEGIN
	CASE class::regclass::text
		WHEN 'pg_proc' THEN
			RETURN pg_get_functiondef(object);
		WHEN 'pg_class' THEN
			RETURN (SELECT string_agg(format('%s %s', attname, format_type(atttypid, atttypmod)), E',\n' ORDER BY attnum)
					FROM pg_attribute WHERE attrelid = object AND attnum > 0) || E'\nAS' ||
				regexp_replace(pg_get_viewdef(object), '\m(a|c|get_\w+)\.', '', 'g');
		WHEN 'pg_foreign_data_wrapper' THEN
			RETURN (SELECT format('handler %s, validator %s, options %s', fdwhandler::regproc, fdwvalidator::regproc, fdwoptions)
				FROM pg_foreign_data_wrapper WHERE oid = object);
		WHEN 'pg_foreign_server' THEN
			RETURN (SELECT format('wrapper %s, type %s, version %s, options %s', fdwname, srvtype, srvversion, srvoptions)
				FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = srvfdw WHERE s.oid = object);
		WHEN 'pg_namespace' THEN
			RETURN '';
	END CASE;
	-- an object of another kind raises an error: have its definition here, too
END
$$;

-- what others than its owner may do with it
CREATE FUNCTION pg_temp.rights(class oid, object oid) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END || ' ' || privilege_type || CASE WHEN is_grantable THEN '*' ELSE '' END,
			', ' ORDER BY grantee::regrole::text COLLATE "C", privilege_type)
		FROM (SELECT 'pg_proc'::regclass, oid, proowner, coalesce(proacl, acldefault('f', proowner)) FROM pg_proc
			UNION ALL SELECT 'pg_class'::regclass, oid, relowner, coalesce(relacl, acldefault('r', relowner)) FROM pg_class
			UNION ALL SELECT 'pg_namespace'::regclass, oid, nspowner, coalesce(nspacl, acldefault('n', nspowner)) FROM pg_namespace
			UNION ALL SELECT 'pg_foreign_server'::regclass, oid, srvowner, coalesce(srvacl, acldefault('S', srvowner)) FROM pg_foreign_server
			UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, oid, fdwowner, coalesce(fdwacl, acldefault('F', fdwowner)) FROM pg_foreign_data_wrapper
		) AS o(classid, objid, owner, acl), LATERAL aclexplode(acl) AS a
		WHERE classid = class AND objid = object AND grantee <> owner
$$;

-- a type that came with a view, or its array: from 17 on these are objects of the extension, too
CREATE FUNCTION pg_temp.is_rowtype(type oid) RETURNS boolean LANGUAGE sql AS $$
	SELECT EXISTS (SELECT FROM pg_type t LEFT JOIN pg_type e ON e.oid = t.typelem
		JOIN pg_class c ON c.oid IN (t.typrelid, e.typrelid) WHERE t.oid = type AND c.relkind <> 'c')
$$;

CREATE FUNCTION pg_temp.objects() RETURNS SETOF text LANGUAGE sql AS $$
	SELECT format(E'== %s\n%s\nrights: %s\ncomment: %s\n', pg_describe_object(classid, objid, objsubid),
			rtrim(pg_temp.definition(classid, objid), E'\n'), coalesce(pg_temp.rights(classid, objid), 'none'),
			coalesce(obj_description(objid, classid::regclass::name), 'none'))
		FROM (SELECT classid, objid, objsubid FROM pg_depend JOIN pg_extension e ON e.oid = refobjid
				WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e' AND extname = 'pgmc'
					AND NOT (classid = 'pg_type'::regclass AND pg_temp.is_rowtype(objid))
			UNION ALL SELECT 'pg_namespace'::regclass, extnamespace, 0 FROM pg_extension WHERE extname = 'pgmc') AS o
		ORDER BY pg_describe_object(classid, objid, objsubid) COLLATE "C"
$$;

-- ---- what comes by an upgrade is what comes at once ----

CREATE EXTENSION pgmc;
CREATE TEMP TABLE at_once AS SELECT * FROM pg_temp.objects() AS object;
SELECT extversion AS newest FROM pg_extension WHERE extname = 'pgmc' \gset
DROP EXTENSION pgmc;
CREATE EXTENSION pgmc VERSION '1.0';
SET client_min_messages = warning; -- a notice that there is nothing to do
ALTER EXTENSION pgmc UPDATE;
RESET client_min_messages;
SELECT extversion = :'newest' AS is_newest FROM pg_extension WHERE extname = 'pgmc';
(TABLE at_once EXCEPT SELECT pg_temp.objects()) UNION ALL (SELECT pg_temp.objects() EXCEPT TABLE at_once);
DROP EXTENSION pgmc;

-- ---- version 1.0 ----

CREATE EXTENSION pgmc VERSION '1.0';
SELECT extversion, extrelocatable, extconfig, nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = extnamespace
	WHERE extname = 'pgmc';
\pset format unaligned
\pset tuples_only on
SELECT * FROM pg_temp.objects();
