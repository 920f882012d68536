# The loopback backend, or the worker, is terminated around COMMIT, in every moment: what is reported
# as committed is there, what is reported as lost (08006) is not, and 08007 is for what nobody can know.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# commit_delay (which needs fsync) makes room for a signal between the commit and its report
my $node = start_server('doubt', init => [ allows_streaming => 1 ],
	conf => "fsync = on\ncommit_delay = 1000\ncommit_siblings = 0\nmax_prepared_transactions = 2\n");
my $admin = session($node, options => '-c synchronous_commit=local');
my $holder = session($node, options => '-c synchronous_commit=local');
my $next = session($node, options => '-c synchronous_commit=local');

$admin->value(<<END);
CREATE SERVER a FOREIGN DATA WRAPPER pgmc;
CREATE SERVER b FOREIGN DATA WRAPPER pgmc;
CREATE TABLE t (id text);
CREATE TABLE slow (id text);
CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql
	AS \$\$ BEGIN PERFORM pg_sleep(600); RETURN NULL; END \$\$;
CREATE CONSTRAINT TRIGGER slow_commit AFTER INSERT ON slow
	DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hang();
END

sub terminate
{
	return $admin->value("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
		WHERE application_name LIKE 'pgmc%' AND backend_type = 'client backend'");
}

# ---- before the commit ----

my %before = (
	commit => "SELECT pgmc.acquire(), pgmc.execute('INSERT INTO slow VALUES (''lost'')'), pgmc.commit()",
	autonomous => "SELECT pgmc.autonomous('INSERT INTO slow VALUES (''lost'')')",
	autocommit => "SELECT pgmc.acquire(), pgmc.set_autocommit(true), pgmc.execute('INSERT INTO slow VALUES (''lost'')')",
	'own COMMIT' => "SELECT pgmc.acquire(), pgmc.execute('INSERT INTO slow VALUES (''lost'')'), pgmc.execute('COMMIT')");
for my $how (sort keys %before)
{
	$holder->send($before{$how});
	wait_for($admin, "SELECT count(*) = 1 FROM pg_stat_activity
		WHERE application_name LIKE 'pgmc%' AND wait_event = 'PgSleep'");
	terminate();
	is_state($holder, undef, '08006', "$how: terminated before the commit");
	is($admin->value('SELECT count(*) FROM slow'), '0', "$how: nothing is there");
	is_free($next, $how);
	is_clean($admin, $how);
}

$holder->send("SELECT pgmc.acquire(), pgmc.execute('INSERT INTO t VALUES (''own''); COMMIT; SELECT pg_sleep(600)')");
wait_for($admin, "SELECT count(*) = 1 FROM pg_stat_activity
	WHERE application_name LIKE 'pgmc%' AND wait_event = 'PgSleep'");
terminate();
is_state($holder, undef, '08007', 'terminated after a COMMIT in a string');
is($admin->value("SELECT count(*) FROM t WHERE id = 'own'"), '1', 'which was done');
is_clean($admin, 'terminated after a COMMIT in a string');

# what keeps the rows of a cursor in its commit has no number, but the server tells that it was not done
$holder->send("SELECT pgmc.acquire(), pgmc.execute('DECLARE c CURSOR WITH HOLD FOR SELECT pg_sleep(600)'), pgmc.commit()");
wait_for($admin, "SELECT count(*) = 1 FROM pg_stat_activity
	WHERE application_name LIKE 'pgmc%' AND wait_event = 'PgSleep' AND query = 'COMMIT'");
terminate();
is_state($holder, undef, '08006', 'terminated before the commit of what has only read');
is_free($next, 'terminated before the commit of what has only read');
is_clean($admin, 'terminated before the commit of what has only read');

# ---- before it, but the server has no way to say so: its words don't fit into the socket ----

$admin->value(<<END);
CREATE FUNCTION roar() RETURNS int LANGUAGE plpgsql AS \$\$
BEGIN
	PERFORM pg_advisory_xact_lock(8);
	FOR i IN 1 .. 10000 LOOP
		RAISE NOTICE '%', repeat('x', 10000);
	END LOOP;
	RETURN 1;
END \$\$;
CREATE TABLE loud (id text);
CREATE FUNCTION roar_at_commit() RETURNS trigger LANGUAGE plpgsql
	AS \$\$ BEGIN PERFORM roar(); RETURN NULL; END \$\$;
CREATE CONSTRAINT TRIGGER loud_commit AFTER INSERT ON loud
	DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION roar_at_commit();
END
my %silent = (
	'commit' => [ '08006', "SELECT pgmc.acquire(), pgmc.execute('INSERT INTO loud VALUES (''lost'')'), pgmc.commit()" ],
	'own COMMIT' =>
	  [ '08006', "SELECT pgmc.acquire(), pgmc.execute('INSERT INTO loud VALUES (''lost'')'), pgmc.execute('COMMIT')" ],
	'commit of a savepoint' => [
		'08006', "SELECT pgmc.acquire(), pgmc.execute('SAVEPOINT s; INSERT INTO loud VALUES (''lost''); RELEASE s'), pgmc.commit()"
	],

	# nobody can know
	'commit of what has only read' => [
		'08007', "SELECT pgmc.acquire(), pgmc.execute('DECLARE c CURSOR WITH HOLD FOR SELECT roar()'), pgmc.commit()"
	],
	autonomous => [ '08007', "SELECT pgmc.autonomous('INSERT INTO loud VALUES (''lost'')')" ],
	autocommit =>
	  [ '08007', "SELECT pgmc.acquire(), pgmc.set_autocommit(true), pgmc.execute('INSERT INTO loud VALUES (''lost'')')" ]);
for my $how (sort keys %silent)
{
	my ($state, $sql) = @{ $silent{$how} };
	my $name = "$how, ended without a word";
	my $worker = worker_pid($admin);

	$admin->value('SELECT pgmc.close(), pg_advisory_lock(8)');
	$holder->send($sql);
	wait_for($admin, "SELECT count(*) = 1 FROM pg_stat_activity
		WHERE application_name LIKE 'pgmc%' AND wait_event = 'advisory'", $how);
	stand_still($worker);
	$admin->value('SELECT pg_advisory_unlock(8)');
	wait_for($admin, "SELECT count(*) = 1 FROM pg_stat_activity
		WHERE application_name LIKE 'pgmc%' AND wait_event = 'ClientWrite'", $how);
	terminate();
	kill 'CONT', $worker;
	is_state($holder, undef, $state, $name) || diag(substr($holder->{err}, -1000));
	unlike($holder->{err}, qr/administrator command/, "$name, indeed");
	like($holder->{err}, qr/not known whether/, "$name: in doubt") if $state eq '08007';
	is($admin->value('SELECT count(*) FROM loud'), '0', "$name: nothing is there");
	is($holder->value('SELECT pgmc.release_all()'), '0', "$name: the error has ended the hold");
	is_free($next, $name);
	is_clean($admin, $name);
}

# ---- after it, and all that there is to tell comes at once: the reply, last words, and the end ----

# as much as libpq reads in one go, together with what is behind it
$admin->value(<<END);
CREATE FUNCTION shout() RETURNS int LANGUAGE plpgsql AS \$\$
BEGIN
	PERFORM pg_advisory_xact_lock(8);
	RAISE NOTICE '%', repeat('x', 50000);
	RETURN 1;
END \$\$;
END
my %together = (
	'autonomous call' => "SELECT pgmc.autonomous('INSERT INTO t SELECT ''%s'' FROM shout()'), 'went on'",
	'rows of autonomous_query' => "SELECT pgmc.acquire('a'), length(x), 'went on' FROM pgmc.autonomous_query(
		'INSERT INTO t SELECT ''%s'' FROM pg_advisory_xact_lock(8) RETURNING repeat(''x'', 50000)') AS t(x text)",
	'call under autocommit' => "SELECT pgmc.acquire(), pgmc.set_autocommit(true),
		pgmc.execute('INSERT INTO t SELECT ''%s'' FROM shout()'), 'went on'",
	'several commands' => "SELECT pgmc.autonomous('INSERT INTO t VALUES (''%s''); SELECT shout()'), 'went on'",
	'call of commit' => "SELECT pgmc.acquire(),
		pgmc.execute('INSERT INTO t VALUES (''%s''); DECLARE c CURSOR WITH HOLD FOR SELECT shout()'), pgmc.commit(), 'went on'",
	'COMMIT by execute' => "SELECT pgmc.acquire(),
		pgmc.execute('INSERT INTO t VALUES (''%s''); DECLARE c CURSOR WITH HOLD FOR SELECT shout()'),
		pgmc.execute('COMMIT'), 'went on'",
	'commit of what has only read' => "SELECT pgmc.acquire(),
		pgmc.execute('DECLARE c CURSOR WITH HOLD FOR SELECT shout()'), pgmc.commit(), 'went on' -- %s");
for my $how (sort keys %together)
{
	my $worker = worker_pid($admin);

	$admin->value('SELECT pgmc.close(), pg_advisory_lock(8)');
	$holder->send(sprintf $together{$how}, $how);
	wait_for($admin, "SELECT count(*) = 1 FROM pg_stat_activity
		WHERE application_name LIKE 'pgmc%' AND wait_event = 'advisory'", $how);
	stand_still($worker);
	$admin->value('SELECT pg_advisory_unlock(8)');
	wait_for($admin, "SELECT count(*) = 1 FROM t WHERE id = '$how'") unless $how =~ /only read/;
	wait_for($admin, "SELECT count(*) = 0 FROM pg_stat_activity
		WHERE application_name LIKE 'pgmc%' AND state <> 'idle'");
	terminate();
	kill 'CONT', $worker;
	$holder->result;
	is(sqlstate($holder->{err}), '', "$how, read together with the end")
	  || diag(substr($holder->{err}, -1000));
	like($holder->{out}, qr/went on/, "$how: the caller goes on");
	$holder->run('SELECT pgmc.release_all()');
	is_free($next, "$how, read together with the end");
	is_clean($admin, "$how, read together with the end");
}

# ---- after it, before it is told: in the wait for a synchronous standby ----

$admin->value("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
$admin->value('SELECT pg_reload_conf()');
wait_for($admin, "SELECT setting = 'nobody' FROM pg_settings WHERE name = 'synchronous_standby_names'");
await_standby($node, $admin);

my %after = (
	commit => [ '', "SELECT pgmc.acquire(), pgmc.execute('INSERT INTO t VALUES (''%s'')'), pgmc.commit(), 'went on'" ],
	'commit of a savepoint' => [
		'', "SELECT pgmc.acquire(), pgmc.execute('SAVEPOINT s; INSERT INTO t VALUES (''%s''); RELEASE s'), pgmc.commit(), 'went on'"
	],
	'commit with a notification' => [
		'', "SELECT pgmc.acquire(), pgmc.execute('INSERT INTO t VALUES (''%s''); NOTIFY x'), pgmc.commit(), 'went on'"
	],
	autonomous => [ '08007', "SELECT pgmc.autonomous('INSERT INTO t VALUES (''%s'')')" ],
	'autonomous with parameters' => [ '08007', "SELECT pgmc.autonomous('INSERT INTO t VALUES (\$1)', '%s')" ],
	'autonomous of several commands' => [ '08007', "SELECT pgmc.autonomous('SELECT 1; INSERT INTO t VALUES (''%s'')')" ],
	autocommit => [
		'08007', "SELECT pgmc.acquire(), pgmc.set_autocommit(true), pgmc.execute('INSERT INTO t VALUES (''%s'')')"
	],
	'own COMMIT' => [
		'', "SELECT pgmc.acquire(), pgmc.execute('INSERT INTO t VALUES (''%s'')'), pgmc.execute('COMMIT'), 'went on'"
	],
	'own COMMIT in a string' => [
		'08007', "SELECT pgmc.acquire(), pgmc.execute('INSERT INTO t VALUES (''%s''); COMMIT')"
	]);
for my $how (sort keys %after)
{
	my ($state, $sql) = @{ $after{$how} };

	$admin->value('SELECT pgmc.close()');
	$holder->send(sprintf $sql, $how);
	wait_for($admin, "SELECT count(*) = 1 FROM pg_stat_activity
		WHERE application_name LIKE 'pgmc%' AND wait_event = 'SyncRep'", $how);
	$next->send("SELECT pgmc.acquire('pgmc_loopback', '20 s'); SELECT pgmc.transaction_status()");
	is_waiting($admin, 1);
	terminate();
	$holder->result;
	like(sqlstate($holder->{err}), qr/^(?:$state)$/, "$how: terminated after the commit") || diag($holder->{err});
	is($admin->value("SELECT count(*) FROM t WHERE id = '$how'"), '1', "$how: it is there");
	isnt(sqlstate($holder->{err}), '08006', "$how: so it is not reported as lost");
	if ($state eq '')
	{
		like($holder->{out}, qr/went on/, "$how: the caller goes on");
		like($holder->{err}, qr/^WARNING:  08006: .*was lost right after the transaction was committed/m,
			"$how: with a warning");
		is_state($holder, "SELECT pgmc.execute('SELECT 1')", '08006', "$how: the hold is broken");
	}
	elsif (sqlstate($holder->{err}) eq '08007')
	{
		like($holder->{err}, qr/not known whether/, "$how: in doubt");
	}
	$holder->run('SELECT pgmc.release_all()');
	$next->ok("$how: the next one gets it");
	is($next->{out}, "\nidle", "$how: idle");
	$next->value('SELECT pgmc.release()');
	is_clean($admin, $how);
}

# A transaction that is prepared stays in progress, but nobody waits for it
$admin->value('SELECT pgmc.close()');
$holder->send("SELECT pgmc.acquire(), pgmc.execute('INSERT INTO t VALUES (''prepared'')'), pgmc.execute('PREPARE TRANSACTION ''p''')");
wait_for($admin, "SELECT count(*) = 1 FROM pg_stat_activity
	WHERE application_name LIKE 'pgmc%' AND wait_event = 'SyncRep'");
terminate();
is_state($holder, undef, '08007', 'terminated after PREPARE TRANSACTION');
is($admin->value('SELECT gid FROM pg_prepared_xacts'), 'p', 'which was done');
$admin->value("ROLLBACK PREPARED 'p'");
is_free($next, 'terminated after PREPARE TRANSACTION');
is_clean($admin, 'terminated after PREPARE TRANSACTION');

# A notification has no number before its commit, nor has a message that isn't part of the transaction (but which
# makes it wait for the standby): nobody can know
my $message = "SELECT pg_logical_emit_message(false, 'x', 'x')";
my $listener = session($node, options => '-c synchronous_commit=local');
$listener->value('LISTEN x');
for my $whom ('loopback', 'worker')
{
	my $name = "commit of nothing but a notification, $whom";

	$admin->value('SELECT pgmc.close()');
	$holder->send("SELECT pgmc.acquire(), pgmc.execute(\$c\$$message; NOTIFY x, 'from $whom'\$c\$), pgmc.commit()");
	wait_for($admin, "SELECT count(*) = 1 FROM pg_stat_activity
		WHERE application_name LIKE 'pgmc%' AND wait_event = 'SyncRep'", $name);
	$whom eq 'worker' ? $admin->value('SELECT pg_terminate_backend(' . worker_pid($admin) . ', 10000)') : terminate();
	is_state($holder, undef, '08007', "$name: terminated after the commit");
	like($holder->{err}, qr/not known whether/, "$name: in doubt");
	wait_for($admin, "SELECT count(*) = 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
	like($listener->run('SELECT 1'), qr/notification "x" with payload "from $whom"/, "$name: it was done");
	is_free($next, $name);
	is_clean($admin, $name);
}

# ... or one that waits for its turn to be written, in the commit, behind another's
my $notifier = session($node);
$notifier->send("BEGIN; $message; NOTIFY y; COMMIT");
wait_for($admin, "SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = $notifier->{pid}");
$holder->send("SELECT pgmc.acquire(), pgmc.execute('NOTIFY x, ''lost'''), pgmc.commit()");
wait_for($admin, "SELECT count(*) = 1 FROM pg_stat_activity
	WHERE application_name LIKE 'pgmc%' AND wait_event = 'object' AND query = 'COMMIT'");
terminate();
is_state($holder, undef, '08006', 'terminated before the commit of a notification');
$admin->value("SELECT pg_cancel_backend($notifier->{pid})");
$notifier->result;
unlike($listener->run('SELECT 1'), qr/lost/, 'which was not done');
is_free($next, 'terminated before the commit of a notification');
is_clean($admin, 'terminated before the commit of a notification');
$_->quit for $notifier, $listener;

# The worker that would tell is terminated then: the number of the transaction outlives it
for my $how ('commit', 'commit of a savepoint', 'own COMMIT', 'autonomous')
{
	my ($state, $sql) = @{ $after{$how} };
	my $id = "$how, worker";

	$admin->value('SELECT pgmc.close()');
	$holder->send(sprintf $sql, $id);
	wait_for($admin, "SELECT count(*) = 1 FROM pg_stat_activity
		WHERE application_name LIKE 'pgmc%' AND wait_event = 'SyncRep'", $id);
	$admin->value('SELECT pg_terminate_backend(' . worker_pid($admin) . ', 10000)');
	$holder->result;
	is(sqlstate($holder->{err}), $state, "$id: terminated after the commit") || diag($holder->{err});
	is($admin->value("SELECT count(*) FROM t WHERE id = '$id'"), '1', "$id: it is there");
	if ($state eq '')
	{
		like($holder->{out}, qr/went on/, "$id: the caller goes on");
		like($holder->{err}, qr/^WARNING:  08006: .*was lost right after the transaction was committed/m,
			"$id: with a warning");
		is_state($holder, "SELECT pgmc.execute('SELECT 1')", '08006', "$id: the hold is broken");
	}
	$holder->run('SELECT pgmc.release_all()');
	is_free($next, $id);
	is_clean($admin, $id);
}

# ... while somebody cancels the caller, who waits for the outcome
$holder->send("SELECT pgmc.acquire(), pgmc.execute('INSERT INTO t VALUES (''both'')'), pgmc.commit(), 'went on'");
wait_for($admin, "SELECT count(*) = 1 FROM pg_stat_activity
	WHERE application_name LIKE 'pgmc%' AND wait_event = 'SyncRep'");
my $loopback = loopback_pid($admin);
kill 'STOP', $loopback;    # so that the cancel comes before the outcome
$admin->value('SELECT pg_terminate_backend(' . worker_pid($admin) . ', 10000)');
$admin->value("SELECT pg_cancel_backend($holder->{pid})");
kill 'CONT', $loopback;
is_state($holder, undef, '57014', 'worker terminated and caller cancelled');
like($holder->{err}, qr/DETAIL:  .* was committed/, 'the DETAIL says that it is committed');
is($admin->value("SELECT count(*) FROM t WHERE id = 'both'"), '1', 'and it is');
is_free($next, 'worker terminated and caller cancelled');

$admin->value('ALTER SYSTEM RESET synchronous_standby_names');
$admin->value('SELECT pg_reload_conf()');
is_free($next, 'after doubts');
is_clean($admin, 'after doubts');

# ---- in any moment ----

$admin->value(<<END);
CREATE TABLE work (who int, n int);
CREATE TABLE told (who int, n int, what text, why text);

-- what is told so far, for those who can't see the rows yet
CREATE SEQUENCE commits MINVALUE 0;
CREATE SEQUENCE losses MINVALUE 0;
CREATE FUNCTION note(what text) RETURNS void LANGUAGE sql AS \$\$
	SELECT nextval(CASE what WHEN 'committed' THEN 'commits' ELSE 'losses' END::regclass);
\$\$;

-- as long as it takes for enough to happen on a slow machine, but no longer than a command may
CREATE FUNCTION is_enough() RETURNS boolean LANGUAGE sql AS \$\$
	SELECT clock_timestamp() > now() + interval '20 s' AND c.last_value > 40 AND l.last_value > 40
		OR clock_timestamp() > now() + interval '120 s' FROM commits AS c, losses AS l;
\$\$;
CREATE FUNCTION work(me int, server name, rounds int) RETURNS void LANGUAGE plpgsql AS \$\$
DECLARE
	what text;
	why text;
BEGIN
	FOR n IN 1 .. rounds LOOP
		EXIT WHEN is_enough();
		BEGIN
			PERFORM pgmc.acquire(server, '20 s');
			PERFORM pgmc.execute('INSERT INTO work VALUES (\$1, \$2)', me, n);
			IF n % 2 = 0 THEN
				PERFORM pgmc.execute('SAVEPOINT s');
				PERFORM pgmc.execute('UPDATE work SET n = n WHERE who = \$1 AND n = \$2', me, n);
			END IF;
			PERFORM pgmc.commit();
			what := 'committed';
			PERFORM pgmc.release();
		EXCEPTION WHEN OTHERS THEN
			GET STACKED DIAGNOSTICS why = PG_EXCEPTION_DETAIL;
			what := CASE WHEN what = 'committed' THEN what ELSE SQLSTATE END;
		END;
		INSERT INTO told VALUES (me, n, what, why);
		PERFORM note(what);
		what := NULL;
	END LOOP;
END \$\$;
CREATE FUNCTION work_alone(me int, rounds int) RETURNS void LANGUAGE plpgsql AS \$\$
DECLARE
	what text;
BEGIN
	FOR n IN 1 .. rounds LOOP
		EXIT WHEN is_enough();
		BEGIN
			PERFORM pgmc.autonomous('INSERT INTO work VALUES (\$1, \$2)', me, n);
			what := 'committed';
		EXCEPTION WHEN OTHERS THEN
			what := SQLSTATE;
		END;
		INSERT INTO told VALUES (me, n, what);
		PERFORM note(what);
	END LOOP;
END \$\$;
-- Terminate those that are about to commit, or whatever they do. Every other time somebody has come
-- through before: a busy machine may need longer to start what is terminated than it lives.
CREATE FUNCTION strike(whom text) RETURNS int LANGUAGE plpgsql AS \$\$
DECLARE
	strikes int := 0;
	before bigint := 0;
BEGIN
	WHILE (SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT work%' AND state = 'active') > 0 LOOP
		PERFORM pg_sleep(random() * 0.006);
		IF strikes % 2 = 0 THEN
			FOR i IN 1 .. 500 LOOP
				EXIT WHEN (SELECT last_value FROM commits) > before;
				PERFORM pg_sleep(0.01);
			END LOOP;
			before := (SELECT last_value FROM commits);
		END IF;
		IF strikes % 3 = 0 THEN
			FOR i IN 1 .. 200 LOOP
				PERFORM pg_stat_clear_snapshot();
				EXIT WHEN EXISTS (SELECT FROM pg_stat_activity
					WHERE application_name LIKE 'pgmc%' AND state = 'active' AND query LIKE 'COMMIT%');
			END LOOP;
		END IF;
		PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE CASE whom WHEN 'worker' THEN backend_type = 'pgmc worker'
				ELSE application_name LIKE 'pgmc%' AND backend_type = 'client backend' END;
		PERFORM pg_stat_clear_snapshot();
		strikes := strikes + 1;
	END LOOP;
	RETURN strikes;
END \$\$;
END
my $rounds = 400;
for my $whom ('loopback', 'worker')
{
	$admin->value('TRUNCATE work, told; ALTER SEQUENCE commits RESTART; ALTER SEQUENCE losses RESTART');
	my $alone = session($node);
	$holder->send("SELECT work(1, 'a', $rounds)");
	$next->send("SELECT work(2, 'b', $rounds)");
	$alone->send("SELECT work_alone(3, $rounds)");
	wait_for($admin, "SELECT count(*) = 3 FROM pg_stat_activity WHERE query LIKE 'SELECT work%' AND state = 'active'
		AND pid <> pg_backend_pid()");
	my $strikes = $admin->value("SELECT strike('$whom')");
	$_->result for $holder, $next, $alone;
	is(sqlstate($_->{err}), '', "$whom: works in spite of all") for $holder, $next, $alone;
	note($admin->value("SELECT string_agg(concat_ws(' ', kind, what, c), ', ' ORDER BY kind, what) FROM
		(SELECT who = 3 AS kind, what, count(*) AS c FROM told GROUP BY 1, 2) AS x") . "; $strikes strikes");
	cmp_ok($strikes, '>', 20, "$whom: many strikes");
	cmp_ok($admin->value("SELECT count(*) FROM told WHERE what = '08006'"), '>', 10, "$whom: which lost many");
	cmp_ok($admin->value("SELECT count(*) FROM told WHERE what = 'committed'"), '>', 20, "$whom: but not all");
	is( $admin->value(
			"SELECT count(*) FROM told WHERE what = 'committed'
				AND NOT EXISTS (SELECT FROM work w WHERE w.who = told.who AND w.n = told.n)"),
		'0', "$whom: whatever is reported as committed is there");

	# (one that is struck as it logs in tells why, in the server's words)
	is( $admin->value(
			"SELECT count(*) FROM told WHERE what IN ('08006', '08001', '57P01')
				AND EXISTS (SELECT FROM work w WHERE w.who = told.who AND w.n = told.n)"),
		'0', "$whom: whatever is reported as lost is not");
	is($admin->value("SELECT string_agg(DISTINCT why, '; ') FROM told WHERE what = '08007' AND who < 3"),
		'', "$whom: nothing is in doubt where the transaction has a number");
	is($admin->value("SELECT coalesce(string_agg(DISTINCT what, ' '), '') FROM told
			WHERE what NOT IN ('committed', '08006', '08007', '08001', '57P01')"), '', "$whom: and nobody is told anything else");
	is_free($_, "after strikes at the $whom") for $holder, $next;
	is_clean($admin, "after strikes at the $whom");
	$alone->quit;
}
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');

done_testing();
