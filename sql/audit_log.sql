-- The thing that pgmc is used for most: a trigger that logs even what the caller takes back.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgmc;
RESET client_min_messages;

CREATE TABLE audit_log_account (id int PRIMARY KEY, balance numeric NOT NULL CHECK (balance >= 0));
CREATE TABLE audit_log (id bigserial, at timestamptz DEFAULT clock_timestamp(), who name DEFAULT current_user, op text NOT NULL, old jsonb, new jsonb);
INSERT INTO audit_log_account VALUES (1, 100), (2, 200);

CREATE FUNCTION audit_log_write() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pgmc.autonomous_on('pgmc_loopback', 'INSERT INTO audit_log (op, old, new) VALUES ($1, $2, $3)', tg_op, to_jsonb(old), to_jsonb(new));
	RETURN coalesce(new, old);
END
$$;
CREATE TRIGGER audit_log_write BEFORE INSERT OR UPDATE OR DELETE ON audit_log_account FOR EACH ROW EXECUTE FUNCTION audit_log_write();

CREATE VIEW audit_log_new AS SELECT op, old, new FROM audit_log ORDER BY id;

-- kept
UPDATE audit_log_account SET balance = balance + 1 WHERE id = 1;
SELECT * FROM audit_log_new;

-- taken back
BEGIN;
UPDATE audit_log_account SET balance = 1000000 WHERE id = 1;
DELETE FROM audit_log_account WHERE id = 2;
INSERT INTO audit_log_account VALUES (3, 0);
SELECT * FROM audit_log_account ORDER BY id;
ROLLBACK;
SELECT * FROM audit_log_account ORDER BY id;
SELECT * FROM audit_log_new;
TRUNCATE audit_log;

-- refused
UPDATE audit_log_account SET balance = balance - 150;
SELECT * FROM audit_log_account ORDER BY id;
SELECT * FROM audit_log_new;
TRUNCATE audit_log;

-- partly taken back
BEGIN;
UPDATE audit_log_account SET balance = 1 WHERE id = 1;
SAVEPOINT s;
UPDATE audit_log_account SET balance = 2 WHERE id = 1;
ROLLBACK TO s;
COMMIT;
SELECT * FROM audit_log_account ORDER BY id;
SELECT * FROM audit_log_new;
TRUNCATE audit_log;

-- by a function that fails, with a log of the error
CREATE FUNCTION audit_log_transfer(source int, destination int, amount numeric) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	UPDATE audit_log_account SET balance = balance + amount WHERE id = destination;
	UPDATE audit_log_account SET balance = balance - amount WHERE id = source;
EXCEPTION WHEN OTHERS THEN
	PERFORM pgmc.autonomous_on('pgmc_loopback', 'INSERT INTO audit_log (op, new) VALUES ($1, $2)', 'ERROR',
		jsonb_build_object('sqlstate', sqlstate, 'message', sqlerrm));
	RAISE;
END
$$;
SELECT audit_log_transfer(1, 2, 1000);
SELECT audit_log_transfer(2, 1, 50);
SELECT * FROM audit_log_account ORDER BY id;
SELECT * FROM audit_log_new;
TRUNCATE audit_log;

-- many rows at once; the log says who did it
BEGIN;
INSERT INTO audit_log_account SELECT n, n FROM generate_series(1000, 1499) AS n;
ROLLBACK;
SELECT count(*), min((new->>'id')::int), max((new->>'id')::int), bool_and(who = current_user) AS mine, count(DISTINCT xmin::text) AS transactions FROM audit_log;
SELECT count(*) FROM audit_log_account;
TRUNCATE audit_log;

-- where the log itself fails, so does the statement
ALTER TABLE audit_log ADD CHECK (op <> 'DELETE');
\set VERBOSITY terse
DELETE FROM audit_log_account WHERE id = 1;
\set VERBOSITY default
\echo :SQLSTATE
SELECT * FROM audit_log_account ORDER BY id;

-- All of it went through one connection.
SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgmc%' AND datname = current_database();

SELECT pgmc.release_all(), pgmc.close();
DROP VIEW audit_log_new;
DROP TABLE audit_log, audit_log_account;
DROP FUNCTION audit_log_write, audit_log_transfer;
