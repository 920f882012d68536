-- pgmc lets many sessions share one connection, one at a time, and lets none of them leave a
-- transaction open on it. Here is what that is good for.

CREATE DATABASE app;
\c app
CREATE EXTENSION pgmc;

-- The right to a connection is the right to its server. pgmc_loopback leads back to this very
-- server and database, as the role that asks. Let ann use it (and see everybody's state in
-- pg_stat_activity, for what follows).

CREATE ROLE ann LOGIN;
CREATE ROLE bob LOGIN;
GRANT CREATE ON SCHEMA public TO ann;
GRANT USAGE ON FOREIGN SERVER pgmc_loopback TO ann;
GRANT pg_read_all_stats TO ann;

-- bob may not: this fails with 42501.
\c - bob
SELECT pgmc.acquire();

\c - ann
CREATE TABLE note (id int PRIMARY KEY, body text);


-- 1. One session
-- ==============

-- The connection is opened by the first who needs it.
SELECT pgmc.describe();
SELECT pgmc.acquire();
SELECT pgmc.describe();

-- A command starts a transaction over there, as in Python's DB API. It is another transaction
-- than the session's own.
SELECT pgmc.execute('INSERT INTO note VALUES ($1, $2)', 1, 'kept');
SELECT pgmc.transaction_status();
SELECT count(*) FROM note;
SELECT pgmc.commit();
SELECT count(*) FROM note;

-- Rows come back, with the types that the caller says.
SELECT * FROM pgmc.query('SELECT id, body, now() FROM note') AS t(id int, body text, at timestamptz);
SELECT pgmc.rollback();
SELECT pgmc.release();

-- Whoever leaves with a transaction open hears of it: this release fails with 25001. The work is
-- rolled back, and the connection is idle and free for the next one.
SELECT pgmc.acquire();
SELECT pgmc.execute('INSERT INTO note VALUES (2, $1)', 'forgotten');
SELECT pgmc.release();
SELECT pgmc.describe();
SELECT * FROM note;

-- The same where an error ends the holder's transaction. It fails with 22012 here.
BEGIN;
SELECT pgmc.acquire();
SELECT pgmc.execute('INSERT INTO note VALUES (3, $1)', 'of no avail');
SELECT 1/0;
ROLLBACK;
SELECT pgmc.describe();

-- So there is no hold any more: this fails with 55000, and says why.
SELECT pgmc.commit();

-- Errors arrive as they were raised over there: this fails with 23505.
SELECT pgmc.autonomous('INSERT INTO note VALUES (1, $1)', 'once more');

-- And one may close the connection on leaving.
SELECT pgmc.acquire();
SELECT pgmc.release(close => true);
SELECT pgmc.is_closed();


-- 2. Work that commits on its own
-- ===============================

-- An audit log that keeps what was tried, also where the one who tried rolls back.
CREATE TABLE account (id int PRIMARY KEY, balance numeric NOT NULL);
CREATE TABLE audit_log (at timestamptz DEFAULT clock_timestamp(), who text, what text);
INSERT INTO account SELECT n, 100 FROM generate_series(1, 8) AS n;

CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pgmc.autonomous('INSERT INTO audit_log (who, what) VALUES ($1, $2)',
		current_setting('application_name'),
		format('account %s: %s to %s', new.id, old.balance, new.balance));
	RETURN new;
END
$$;
CREATE TRIGGER audit BEFORE UPDATE ON account FOR EACH ROW EXECUTE FUNCTION audit();

BEGIN;
UPDATE account SET balance = 1000000 WHERE id = 1;
ROLLBACK;
SELECT * FROM account WHERE id = 1;
SELECT who, what FROM audit_log;


-- 3. Commands that don't run in a function
-- ========================================

-- VACUUM doesn't: this fails with 25001.
DO 'BEGIN VACUUM note; END';

-- Through pgmc it does.
CREATE FUNCTION tidy() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pgmc.autonomous('VACUUM (ANALYZE) note');
END
$$;
SELECT tidy();
SELECT reltuples FROM pg_class WHERE relname = 'note';

-- Where the command waits for everybody else's older snapshots, the caller must have none.
CALL pgmc.run('CREATE INDEX CONCURRENTLY note_body ON note (body)');
SELECT indisvalid FROM pg_index WHERE indexrelid = 'note_body'::regclass;


-- 4. Many sessions, one connection
-- ================================

-- (Waits for a condition. It commits, so that every look is a new one.)
CREATE PROCEDURE wait_until(condition text) LANGUAGE plpgsql AS $$
DECLARE
	fulfilled boolean;
	since timestamptz := clock_timestamp();
BEGIN
	LOOP
		EXECUTE 'SELECT ' || condition INTO fulfilled;
		EXIT WHEN fulfilled;
		IF clock_timestamp() > since + interval '30 s' THEN
			RAISE 'waited in vain until %', condition;
		END IF;
		COMMIT;
		PERFORM pg_sleep(0.01);
	END LOOP;
END
$$;

-- This session takes the hold, and four others line up for it, one after the other.
CREATE TABLE turn (number serial, who text);
SELECT pgmc.acquire();
\setenv PGDATABASE app
\setenv PGUSER ann
\setenv TURN 'BEGIN; SELECT pgmc.acquire_xact(); SELECT pgmc.execute($$INSERT INTO turn (who) VALUES ($1)$$, current_setting($$application_name$$)); SELECT pgmc.commit(); COMMIT'
\! PGAPPNAME=first psql -qX -o /dev/null -c "$TURN" &
CALL wait_until('waiters = 1 FROM pgmc.connections');
\! PGAPPNAME=second psql -qX -o /dev/null -c "$TURN" &
CALL wait_until('waiters = 2 FROM pgmc.connections');
\! PGAPPNAME=third psql -qX -o /dev/null -c "$TURN" &
CALL wait_until('waiters = 3 FROM pgmc.connections');
\! PGAPPNAME=fourth psql -qX -o /dev/null -c "$TURN" &
CALL wait_until('waiters = 4 FROM pgmc.connections');

\x on
SELECT * FROM pgmc.connections;
\x off
SELECT application_name, backend_type, state, wait_event FROM pg_stat_activity
	WHERE datname = 'app' OR backend_type LIKE 'pgmc%' ORDER BY backend_start;

-- One who doesn't want to wait need not.
\! psql -qX -c 'SELECT pgmc.try_acquire()'

-- One who doesn't want to wait for long is told who has it: this fails with 55P03.
\! psql -qX -v VERBOSITY=verbose -c "SELECT pgmc.acquire(timeout => '100 ms')"

-- It is handed over in the order of arrival.
SELECT pgmc.release();
CALL wait_until('count(*) = 4 FROM turn');
SELECT * FROM turn ORDER BY number;

-- Now eight sessions at once try to change an account, and give up, 25 times each.
CREATE PROCEDURE try_in_vain(account_id int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 25 LOOP
		UPDATE account SET balance = balance + i WHERE id = account_id;
		ROLLBACK;
	END LOOP;
END
$$;
TRUNCATE audit_log;
\! for n in 1 2 3 4 5 6 7 8; do PGAPPNAME=till-$n psql -qXc "CALL try_in_vain($n)" & done; wait

SELECT sum(balance) FROM account;
SELECT who, count(*) FROM audit_log GROUP BY who ORDER BY who;

-- And all of it went through one server process:
SELECT backend_type, application_name, count(*) FROM pg_stat_activity
	WHERE application_name LIKE 'pgmc%' OR backend_type LIKE 'pgmc%' GROUP BY 1, 2 ORDER BY 1;
SELECT state, backend_pid, holder_pid, waiters FROM pgmc.connections;


-- 5. When the other end dies
-- ==========================

-- An administrator ends the loopback's server process. That is noticed at once, and the next one
-- simply gets a new connection.
SELECT pg_terminate_backend(backend_pid) FROM pgmc.connections;
CALL wait_until('pgmc.is_closed()');
SELECT pgmc.autonomous('INSERT INTO note VALUES (4, $1)', 'as if nothing had happened');
SELECT * FROM note;

-- Nothing of it stands in the way of removing the database.
\c postgres pgmc_admin
DROP DATABASE app;
\echo The end.
