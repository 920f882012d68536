# stat_connections where it takes several sessions: waits, time-outs, deadlocks, revoked holds,
# losses; that it outlasts the worker however that ends; who waits, and what a waiter is told.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_server('stats', conf => "deadlock_timeout = 100ms\n");
my $admin = session($node);
my $holder = session($node, name => 'the holder');
my $waiter = session($node);
my $second = session($node);

$admin->value(<<END);
CREATE SERVER stats FOREIGN DATA WRAPPER pgmc;
CREATE SERVER lease FOREIGN DATA WRAPPER pgmc OPTIONS (hold_timeout '2s');
CREATE TABLE t (i int);
END

# The server's counters that are not 0 since the last call, as "name=n ..."
sub counts
{
	my ($server) = @_;
	my $row = $admin->value(<<END);
SELECT string_agg(key || '=' || value, ' ' ORDER BY key)
	FROM pgmc.stat_connections AS s, jsonb_each_text(to_jsonb(s)) AS e
	WHERE srvname = '$server' AND value <> '0' AND key NOT IN ('datname', 'srvname', 'usename', 'wait_time', 'hold_time', 'stats_reset')
END

	$admin->value("SELECT pgmc.stat_reset('$server')");
	return $row;
}

# ---- waiting ----

$holder->value("SELECT pgmc.acquire('stats')");
is(counts('stats'), 'acquires=1 opens=1', 'a hold that found nothing open');
$waiter->send("SELECT pgmc.acquire('stats'), pgmc.release('stats')");
is_waiting($admin, 1);
$second->send("SELECT pgmc.acquire('stats'), pgmc.release('stats')");
is_waiting($admin, 2);
is($admin->value("SELECT waiter_pids FROM pgmc.connections WHERE srvname = 'stats'"),
	"{$waiter->{pid},$second->{pid}}", 'connections shows who waits, in their order');
is($admin->value("SELECT waiters = cardinality(wait_starts) AND wait_starts[1] < wait_starts[2]
		AND wait_starts[1] > hold_start AND wait_starts[2] <= clock_timestamp()
	FROM pgmc.connections WHERE srvname = 'stats'"), 't', 'and since when');
is($admin->value("SELECT waits || ' ' || wait_time FROM pgmc.stat_connections WHERE srvname = 'stats'"),
	'2 0', 'a wait counts at its beginning, its time at its end');
$admin->value('SELECT pg_sleep(0.1)');
$holder->value("SELECT pgmc.release('stats')");
$waiter->ok('the first has had its turn');
$second->ok('and the second');
is($admin->value("SELECT wait_time >= 100 AND wait_time < 60000 AND hold_time >= 100 AND hold_time < 60000
	FROM pgmc.stat_connections WHERE srvname = 'stats'"), 't', 'the times of waiting and holding');
is(counts('stats'), 'acquires=2 waits=2', 'two that waited');

# ---- in vain ----

$holder->value("SELECT pgmc.acquire('stats')");
is_state($waiter, "SELECT pgmc.acquire('stats', '50 ms')", '55P03', 'a wait that ends by its time-out');
like($waiter->{err}, qr/DETAIL:  Process $holder->{pid} \(role "\w+", application "the holder"\) has held it for \d+\.\d+ s; this session is number 1 in the queue\./,
	'tells who has it');
is($waiter->value("SELECT pgmc.try_acquire('stats')"), 'f', 'one that does not wait');
$waiter->send("BEGIN; SET LOCAL statement_timeout = '50ms'; SELECT pgmc.acquire('stats')");
is_state($waiter, undef, '57014', 'one that is cancelled');
$waiter->value('ROLLBACK');
is(counts('stats'), 'acquires=1 timeouts=1 waits=2', 'are a time-out and two waits');

# ---- and what a waiter is told in time ----

$waiter->value("SET pgmc.log_waits = '50ms'");
$waiter->send("SELECT pgmc.acquire('stats', '500 ms')");
is_state($waiter, undef, '55P03', 'one that is told, and goes on waiting');
my @notices = $waiter->{err} =~ /^NOTICE:  00000: still waiting for server "stats"\nDETAIL:  Process $holder->{pid} \(role "\w+", application "the holder"\) has held it for \d+\.\d+ s; this session is number 1 in the queue\.$/mg;
is(scalar(@notices), 1, 'who has it, once');
like($waiter->{err}, qr/NOTICE.*ERROR/s, 'before its end');
$waiter->value('SET pgmc.log_waits = 0');
$waiter->send("SELECT pgmc.acquire('stats', '50 ms')");
$waiter->result;
like($waiter->{err}, qr/NOTICE:  00000: still waiting/, 'log_waits 0: at once');
$waiter->value('RESET pgmc.log_waits');
$waiter->send("SELECT pgmc.acquire('stats', '300 ms')");
$waiter->result;
unlike($waiter->{err}, qr/NOTICE/, 'by default never');
$holder->value("SELECT pgmc.release('stats')");
counts('stats');

# ---- opening takes too long ----

# the login has to wait for a lock on a catalog; that wait is for the opening, not for a turn
$admin->value("SELECT pgmc.close('stats')");
$second->value('BEGIN; LOCK TABLE pg_authid IN ACCESS EXCLUSIVE MODE');
$waiter->send("SELECT pgmc.acquire('stats', '200 ms')");
is_state($waiter, undef, '55P03', 'an opening that reaches the time-out');
$second->value('ROLLBACK');
is(counts('stats'), 'acquires=1 timeouts=1', 'is one as well');
is_clean($admin, 'the opening given up');

# ---- deadlocks ----

# a command that waits for the caller's own lock: found by the wait for the reply
$holder->value('BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE');
is_state($holder, "SELECT pgmc.autonomous_on('stats', 'SELECT * FROM t')", '40P01', 'a deadlock with oneself');
$holder->value('ROLLBACK');
is(counts('stats'), 'acquires=1 commands=1 deadlocks=1 opens=1', 'counts where it was found');

# and one of two holds: found by a wait in the queue
$admin->value('CREATE SERVER other FOREIGN DATA WRAPPER pgmc');
$holder->value("SELECT pgmc.acquire('stats')");
$waiter->value("SELECT pgmc.acquire('other')");
counts('stats');
$holder->send("SELECT pgmc.acquire('other')");
is_waiting($admin, 1);
is_state($waiter, "SELECT pgmc.acquire('stats')", '40P01', 'a deadlock of two holds');
is(counts('stats'), 'deadlocks=1 waits=1', 'counts where its victim waited');
$holder->ok('the other goes on');
$holder->value("SELECT pgmc.release_all()");
unlike(counts('other'), qr/deadlocks/, 'and nowhere else');
is_clean($admin, 'the deadlocks');

# ---- revoked ----

counts('stats');
$holder->value("SELECT pgmc.acquire('lease'), pgmc.execute('INSERT INTO t VALUES (1)')");
wait_for($admin, "SELECT count(*) = 0 FROM pgmc.connections WHERE holder_pid = $holder->{pid}");
is_state($holder, "SELECT pgmc.commit()", '25P03', 'a hold is revoked');
$holder->run("SELECT pgmc.release_all()");
is(counts('lease'), 'acquires=1 commands=1 forced_rollbacks=1 opens=1 revoked_holds=1 rows=1',
	'with the transaction in it');
is_clean($admin, 'the revoked hold');

# ---- a session that ends ----

for my $what ('', "SELECT pgmc.execute('INSERT INTO t VALUES (1)')", "SELECT pgmc.execute('SELECT pg_sleep(600)')")
{
	my $dying = session($node);

	$dying->value("SELECT pgmc.acquire('stats')");
	if ($what =~ /sleep/)
	{
		$dying->send($what);
		holds_up($admin);
	}
	elsif ($what)
	{
		$dying->value($what);
	}
	$admin->value("SELECT pg_terminate_backend($dying->{pid}, 60000)");
	$dying->quit;
	is_clean($admin, "a session that ends: $what");
	my $counts = counts('stats');
	$counts =~ s/ opens=\d| rows=\d//g;
	is($counts, $what ? 'acquires=1 commands=1 forced_rollbacks=1' : 'acquires=1',
		"a session that ends: $what: is counted");
}

# a command that is a transaction of its own leaves nothing to roll back
my $dying = session($node);
$dying->send("SELECT pgmc.autonomous_on('stats', 'SELECT pg_sleep(600)')");
holds_up($admin);
$admin->value("SELECT pg_terminate_backend($dying->{pid}, 60000)");
$dying->quit;
is_clean($admin, 'a session that ends in autonomous');
is(counts('stats'), 'acquires=1 commands=1', 'a session that ends in autonomous: is counted');

# ---- connections that are lost ----

$admin->value(
	"SELECT pg_terminate_backend(backend_pid, 60000) FROM pgmc.connections WHERE srvname = 'stats'");
wait_for($admin, "SELECT count(*) = 0 FROM pgmc.connections WHERE srvname = 'stats'");
is(counts('stats'), 'failures=1', 'an idle connection is lost');
is_state($holder, "SELECT pgmc.autonomous_on('stats', 'SELECT pg_terminate_backend(pg_backend_pid(), 1000)')",
	'08006', 'a connection is lost while it is in use');
is(counts('stats'), 'acquires=1 commands=1 failures=1 opens=1', 'is counted');

# ---- they outlast the worker ----

my $total = "SELECT sum(acquires) || ' ' || sum(opens) || ' ' || sum(commands) FROM pgmc.stat_connections WHERE srvname = 'stats'";
$holder->value("SELECT pgmc.autonomous_on('stats', 'SELECT 1')");
is($admin->value($total), '1 1 1', 'before');
$admin->value('SELECT pgmc.stop_worker()');
is($admin->value($total), '1 1 1', 'the worker is stopped');
$holder->value("SELECT pgmc.autonomous_on('stats', 'SELECT 1')");
is($admin->value($total), '2 2 2', 'and started again');
$admin->value("SELECT pg_terminate_backend(" . worker_pid($admin) . ", 60000)");
is($admin->value($total), '2 2 2', 'it is terminated');
$holder->value("SELECT pgmc.autonomous_on('stats', 'SELECT 1')");
is($admin->value($total), '3 3 3', 'and started again');
is($admin->value("SELECT pgmc.close('stats')"), 't', 'the connection is closed');
is($admin->value($total), '3 3 3', 'that changes nothing');
my $new = session($node);
is($new->value($total), '3 3 3', 'nor does another session see anything else');
$new->quit;

# ---- more servers than there is room for ----

# 1024 keys; the least recently used ones that have no connection make room
$admin->value(<<END);
SELECT pgmc.stop_worker();
CREATE PROCEDURE many(n int) LANGUAGE plpgsql AS \$\$
BEGIN
	FOR i IN 1 .. n LOOP
		EXECUTE format('CREATE SERVER many_%s FOREIGN DATA WRAPPER pgmc OPTIONS (host ''/nowhere'')', i);
		COMMIT;
		BEGIN
			PERFORM pgmc.acquire(format('many_%s', i)::name);
		EXCEPTION WHEN OTHERS THEN
			NULL;
		END;
		COMMIT;
	END LOOP;
END \$\$;
END
$holder->value("SELECT pgmc.acquire('stats')");
$admin->value('CALL many(1030)');
is($admin->value('SELECT count(*) FROM pgmc.stat_connections'), '1024', 'there are at most 1024 rows');
is($admin->value($total), '4 4 3', 'one with a connection stays');
is($admin->value("SELECT count(*) FROM pgmc.stat_connections WHERE srvname IN ('lease', 'other')"), '0',
	'those that were not used for the longest time go');
is($admin->value("SELECT count(*) FROM pgmc.stat_connections WHERE srvname = 'many_1030' AND failures = 1"),
	'1', 'the newest is there');
$holder->value("SELECT pgmc.release('stats')");

# what was dropped goes first
$admin->value('DROP SERVER many_1030; DROP SERVER many_500; CREATE SERVER many_500 FOREIGN DATA WRAPPER pgmc');
is($admin->value('SELECT count(*) FROM pgmc.stat_connections'), '1022', 'what is dropped is not shown');
$holder->value("SELECT pgmc.autonomous_on('many_500', 'SELECT 1')");
is($admin->value('SELECT count(*) FROM pgmc.stat_connections'), '1023', 'and taken first where there is no room');

# ---- other databases ----

$node->safe_psql('postgres', 'CREATE DATABASE elsewhere');
$node->safe_psql('elsewhere', 'CREATE EXTENSION pgmc');
my $elsewhere = session($node, db => 'elsewhere');
my $seen = "SELECT count(*) FROM pgmc.stat_connections WHERE datname = 'elsewhere'";
$elsewhere->value("SELECT pgmc.autonomous('SELECT 1')");
$elsewhere->value('CREATE SERVER another FOREIGN DATA WRAPPER pgmc');
$elsewhere->value("SELECT pgmc.autonomous_on('another', 'SELECT 1')");
is($admin->value($seen), '2', 'the view shows all databases');
$admin->value('SELECT pgmc.stat_reset()');
is($admin->value("SELECT sum(acquires) FROM pgmc.stat_connections WHERE datname = 'elsewhere'"), '2',
	'and a reset is for one');
$elsewhere->value('BEGIN; DROP SERVER another; ROLLBACK');
is($elsewhere->value($seen), '2', 'a DROP that is rolled back takes nothing');
$elsewhere->value("SELECT pgmc.close('another')");
$elsewhere->value("SELECT pgmc.autonomous_on('another', 'SELECT 1')");
is($admin->value("SELECT acquires FROM pgmc.stat_connections WHERE srvname = 'another'"), '2', 'not even elsewhere');
$elsewhere->value('DROP SERVER another');
wait_for($admin, "SELECT ($seen) = 1");
pass('one that is carried out does');
$elsewhere->quit;
$node->safe_psql('postgres', 'DROP DATABASE elsewhere');
is($admin->value($seen), '0', 'and a database that is dropped takes all');

# ---- wait events ----

SKIP:
{
	skip 'wait events have names since PostgreSQL 17', 4
	  if $admin->value("SELECT current_setting('server_version_num')::int < 170000") eq 't';
	my $event = "SELECT wait_event_type || ' ' || wait_event FROM pg_stat_activity WHERE ";

	$holder->value("SELECT pgmc.acquire('stats')");
	$waiter->send("SELECT pgmc.acquire('stats')");
	is_waiting($admin, 1);
	ok(wait_for($admin, "SELECT (${event}pid = $waiter->{pid}) = 'Extension PgmcAcquire'"), 'a waiter');
	$holder->send("SELECT pgmc.execute('SELECT pg_sleep(600)')");
	holds_up($admin);
	ok(wait_for($admin, "SELECT (${event}pid = $holder->{pid}) = 'Extension PgmcReply'"), 'a holder');
	ok(wait_for($admin, "SELECT (${event}backend_type = 'pgmc worker') = 'Extension PgmcWorkerMain'"), 'the worker');
	is($admin->value("SELECT count(*) FROM pg_wait_events WHERE type = 'Extension' AND name IN ('PgmcAcquire', 'PgmcReply', 'PgmcWorkerMain', 'PgmcWorkerStart', 'PgmcRecovery')") >= 4,
		1, 'the server lists them');
	$admin->value("SELECT pg_cancel_backend($holder->{pid})");
	$holder->result;
	$waiter->ok('the waiter gets its turn');
	$waiter->value("SELECT pgmc.release_all()");
}
is_clean($admin, 'in the end');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');

done_testing();
