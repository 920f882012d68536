-- Transactions: they begin by themselves, end by commit or rollback, and never outlive the hold.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgmc;
RESET client_min_messages;

CREATE TABLE transactions_t (a int);
\set ON_ERROR_ROLLBACK on

-- ---- a transaction begins with the first command ----

SELECT pgmc.acquire();
SELECT pgmc.transaction_status();
SELECT pgmc.execute('INSERT INTO transactions_t VALUES (1)');
SELECT pgmc.transaction_status();
SELECT count(*) FROM transactions_t;
SELECT pgmc.commit();
SELECT pgmc.transaction_status();
SELECT count(*) FROM transactions_t;

-- one transaction for several commands, those in one string and queries included
SELECT pgmc.execute('INSERT INTO transactions_t VALUES (2)'),
	pgmc.execute('INSERT INTO transactions_t VALUES (3); INSERT INTO transactions_t VALUES (4)');
SELECT count(DISTINCT x) FROM (SELECT * FROM pgmc.query('SELECT pg_current_xact_id()::text') AS t(x text)
	UNION ALL SELECT * FROM pgmc.query('SELECT 1; SELECT xmin::text FROM transactions_t WHERE a > 1') AS t(x text)) AS q;
SELECT pgmc.rollback();
SELECT pgmc.transaction_status();
SELECT count(*) FROM transactions_t;

-- ending what has not begun is harmless
SELECT pgmc.commit(), pgmc.rollback(), pgmc.commit();

-- it is another transaction than the session's own
BEGIN;
INSERT INTO transactions_t VALUES (5);
SELECT * FROM pgmc.query('SELECT count(*) FROM transactions_t') AS t(n int);
SELECT pgmc.execute('INSERT INTO transactions_t VALUES (6)');
SELECT pgmc.commit();
SELECT a FROM transactions_t ORDER BY a;
SELECT pgmc.release();
ROLLBACK;
SELECT a FROM transactions_t ORDER BY a;
TRUNCATE transactions_t;

-- ---- the holder's own BEGIN and COMMIT, savepoints ----

SELECT pgmc.acquire();
SELECT pgmc.execute('BEGIN ISOLATION LEVEL SERIALIZABLE');
SELECT * FROM pgmc.query('SHOW transaction_isolation') AS t(level text);
SELECT pgmc.execute('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ');
SELECT pgmc.execute('INSERT INTO transactions_t VALUES (1)');
SELECT pgmc.execute('SAVEPOINT a');
SELECT pgmc.execute('INSERT INTO transactions_t VALUES (2)');
SELECT pgmc.execute('ROLLBACK TO a');
SELECT pgmc.execute('COMMIT');
SELECT pgmc.transaction_status();
SELECT a FROM transactions_t;

-- a failed statement leaves the transaction failed, but for what a savepoint saves
BEGIN;
SELECT pgmc.execute('SAVEPOINT b');
SELECT pgmc.execute('SELECT 1/0');
SELECT pgmc.transaction_status();
SELECT pgmc.execute('SELECT 1');
\echo :SQLSTATE
SELECT pgmc.execute('ROLLBACK TO b');
SELECT pgmc.transaction_status();
SELECT pgmc.execute('INSERT INTO transactions_t VALUES (3)');
SELECT pgmc.commit();
COMMIT;
SELECT a FROM transactions_t ORDER BY a;

-- ---- a failed transaction can't be committed in silence ----

BEGIN;
SELECT pgmc.execute('INSERT INTO transactions_t VALUES (4)');
SELECT pgmc.execute('SELECT 1/0');
SELECT pgmc.transaction_status();
SELECT pgmc.commit();
\echo :SQLSTATE
SELECT pgmc.transaction_status();
SELECT pgmc.commit();

-- rolled back, it is as good as new
SELECT pgmc.execute('SELECT 1/0');
SELECT pgmc.rollback();
SELECT pgmc.execute('INSERT INTO transactions_t VALUES (5)');
SELECT pgmc.commit();

-- nor one that fails at the commit itself
SELECT pgmc.execute('CREATE TEMP TABLE transactions_deferred (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)');
SELECT pgmc.execute('INSERT INTO transactions_deferred VALUES (1), (1)');
SELECT pgmc.execute('INSERT INTO transactions_t VALUES (6)');
SELECT pgmc.commit();
\echo :SQLSTATE
SELECT pgmc.transaction_status();
COMMIT;
SELECT a FROM transactions_t ORDER BY a;

-- the holder's own COMMIT of a failed transaction is the server's business: it says ROLLBACK
BEGIN;
SELECT pgmc.execute('SELECT 1/0');
SELECT pgmc.execute('COMMIT');
SELECT pgmc.transaction_status();
COMMIT;
SELECT pgmc.release();
TRUNCATE transactions_t;

-- ---- released with a transaction open ----

-- that is an error, after rollback and release; the connection stays open and idle
SELECT pgmc.acquire();
SELECT * FROM pgmc.query('SELECT pg_backend_pid()') AS t(pid int) \gset before_
SELECT pgmc.release();
\echo :SQLSTATE
SELECT pgmc.transaction_status(), pgmc.is_closed();
SELECT state, xact_status, backend_pid = :before_pid AS same, holder_pid FROM pgmc.connections WHERE datname = current_database();

SELECT pgmc.acquire();
SELECT pgmc.execute('INSERT INTO transactions_t VALUES (1)');
SELECT pgmc.release();
SELECT pgmc.acquire();
SELECT * FROM pgmc.query('SELECT a FROM transactions_t') AS t(a int);
SELECT pgmc.rollback();
SELECT pgmc.release();
SELECT pgmc.release();
\echo :SQLSTATE

-- a failed transaction is an open one, too
BEGIN;
SELECT pgmc.acquire();
SELECT pgmc.execute('SELECT 1/0');
SELECT pgmc.release();
\echo :SQLSTATE
SELECT pgmc.transaction_status();
COMMIT;

-- with close => true the connection is closed besides
SELECT pgmc.acquire();
SELECT pgmc.execute('INSERT INTO transactions_t VALUES (1)');
SELECT pgmc.release(close => true);
\echo :SQLSTATE
SELECT pgmc.is_closed(), pgmc.transaction_status();
SELECT pgmc.acquire();
SELECT pgmc.execute('SELECT 1');
SELECT pgmc.commit();
SELECT pgmc.release(close => true);
SELECT pgmc.is_closed(), pgmc.transaction_status();
SELECT count(*) FROM transactions_t;

-- nothing was begun: nothing to complain of
SELECT pgmc.acquire();
SELECT pgmc.release();

-- ---- autocommit ----

SELECT pgmc.acquire();
SELECT pgmc.set_autocommit(true);
SELECT pgmc.execute('INSERT INTO transactions_t VALUES (1)');
SELECT pgmc.transaction_status();
SELECT count(*) FROM transactions_t;
SELECT pgmc.rollback();
SELECT count(*) FROM transactions_t;

-- a failed command leaves nothing behind, and nothing to roll back
BEGIN;
SELECT pgmc.execute('SELECT 1/0');
SELECT pgmc.transaction_status();
SELECT pgmc.execute('INSERT INTO transactions_t VALUES (2); SELECT 1/0');
COMMIT;
SELECT count(*) FROM transactions_t;

-- commands that can't be in a transaction work
SELECT pgmc.execute('VACUUM transactions_t');

-- one's own transactions all the same; while one is open, the mode can't be changed
SELECT pgmc.execute('BEGIN');
SELECT pgmc.execute('INSERT INTO transactions_t VALUES (3)');
BEGIN;
SELECT pgmc.set_autocommit(false);
\echo :SQLSTATE
COMMIT;
SELECT pgmc.transaction_status();
SELECT pgmc.rollback();
SELECT pgmc.set_autocommit(false);
SELECT pgmc.execute('INSERT INTO transactions_t VALUES (4)');
SELECT pgmc.transaction_status();
BEGIN;
SELECT pgmc.execute('VACUUM transactions_t');
\echo :SQLSTATE
SELECT pgmc.rollback();

-- it is for this hold only
SELECT pgmc.set_autocommit(true, 'pgmc_loopback');
COMMIT;
SELECT pgmc.release();
SELECT pgmc.acquire();
SELECT pgmc.execute('SELECT 1');
SELECT pgmc.transaction_status();
SELECT pgmc.rollback();
SELECT pgmc.release();
SELECT a FROM transactions_t ORDER BY a;

-- ---- an error of the session ends its hold ----

\unset ON_ERROR_ROLLBACK
-- (The WARNING comes after the ERROR, but psql may see both at once and show it first. See below.)
SET client_min_messages = error;
BEGIN;
SELECT pgmc.acquire();
SELECT pgmc.execute('INSERT INTO transactions_t VALUES (10)');
SELECT pgmc.transaction_status();
SELECT 1/0;
ROLLBACK;
SELECT pgmc.transaction_status();
SELECT state, backend_pid IS NOT NULL AS open, holder_pid FROM pgmc.connections WHERE datname = current_database();
SELECT a FROM transactions_t ORDER BY a;

RESET client_min_messages;

-- So does a rollback that the session asked for. There is a WARNING only where something was open.
BEGIN;
SELECT pgmc.acquire();
SELECT pgmc.execute('INSERT INTO transactions_t VALUES (11)');
ROLLBACK;
SELECT a FROM transactions_t ORDER BY a;
BEGIN;
SELECT pgmc.acquire();
ROLLBACK;
SELECT regexp_replace(pgmc.describe(), 'host=.* \(', '(');

SELECT pgmc.release_all(), pgmc.close();
DROP TABLE transactions_t;
