# Deadlocks again: when they are found, also where deadlock_timeout is not the same for all, and by
# which waits; and the two circles that aren't seen, each of which a time limit ends.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = start_server('waits', conf => "deadlock_timeout = 50ms\nlog_lock_waits = on\n");
my $admin = session($node);
my @s = map { session($node) } 0 .. 2;

# Each session has a row of its own number to lock, and a server
my @server = ('a', 'b', 'c');
$admin->value("CREATE SERVER $_ FOREIGN DATA WRAPPER pgmc") for @server;
$admin->value(<<END);
CREATE SERVER late FOREIGN DATA WRAPPER pgmc OPTIONS (connect_timeout '2');
CREATE TABLE r (id int PRIMARY KEY, n int DEFAULT 0);
INSERT INTO r SELECT generate_series(0, 2);
CREATE TABLE v AS SELECT 1 AS id;
CREATE TABLE big AS SELECT generate_series(1, 10000) AS i;
ANALYZE big;
CREATE FUNCTION peek(int) RETURNS int LANGUAGE plpgsql PARALLEL SAFE
	AS 'BEGIN RETURN (SELECT count(*) FROM r); END';
END

sub update
{
	my ($id) = @_;

	return "UPDATE r SET n = n + 1 WHERE id = $id";
}

sub execute
{
	my ($server, $command) = @_;

	return "SELECT pgmc.execute_on('$server', \$c\$$command\$c\$)";
}

sub lock_waits
{
	my ($n) = @_;

	return wait_for($admin, "SELECT count(*) = $n FROM pg_locks WHERE NOT granted");
}

sub queued
{
	my ($server) = @_;

	return wait_for($admin,
		"SELECT coalesce(max(waiters), 0) = 1 FROM pgmc.connections WHERE srvname = '$server'");
}

sub comes_back
{
	my ($name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$_->run('ROLLBACK; SELECT pgmc.release_all(); RESET ALL') for @s;
	return is_clean($admin, $name);
}

# ---- some look seldom ----

# The youngest raises, whoever it is that finds the deadlock
for my $case ([ '10min', '50ms', 'the older one' ], [ '50ms', '10min', 'the youngest' ])
{
	my ($older, $younger, $who) = @$case;

	$s[0]->value("SET deadlock_timeout = '$older'");
	$s[1]->value("SET deadlock_timeout = '$younger'");
	$s[$_]->value("SELECT pgmc.acquire('$server[$_]')") for 0, 1;
	$s[0]->send("SELECT pgmc.acquire('b')");
	queued('b');
	$s[1]->send("SELECT pgmc.acquire('a')");
	is_state($s[1], undef, '40P01', "two in queues, of which $who looks seldom: the youngest is told");
	$s[0]->ok('the other goes on');
	comes_back("two in queues, of which $who looks seldom");

	$s[0]->value("SET deadlock_timeout = '$older'");
	$s[1]->value("SET deadlock_timeout = '$younger'");
	$s[$_]->value("SELECT pgmc.acquire('$server[$_]')") for 0, 1;
	$s[$_]->value('BEGIN; ' . update($_)) for 0, 1;
	$s[0]->send(execute('a', update(1)));
	lock_waits(1);
	$s[1]->send(execute('b', update(0)));
	is_state($s[1], undef, '40P01', "two commands, of which $who looks seldom: the youngest is told");
	$s[1]->run('ROLLBACK');
	$s[0]->ok('the other goes on');
	comes_back("two commands, of which $who looks seldom");
}

# ---- how long it takes ----

# Of a ring of three, in queues, and of one by way of locks
for my $kind ('queues', 'commands')
{
	$_->value("SET deadlock_timeout = '2 s'") for @s;
	$s[$_]->value("SELECT pgmc.acquire('$server[$_]')") for 0 .. 2;
	$s[$_]->value('BEGIN; ' . update($_)) for 0 .. 2;
	my $first = time();
	my $last;
	for my $n (0 .. 2)
	{
		my $next = ($n + 1) % 3;

		$last = time();
		$s[$n]->send($kind eq 'queues' ? "SELECT pgmc.acquire('$server[$next]')" :
			  execute($server[$n], update($next)));
		next if $n == 2;
		$kind eq 'queues' ? queued($server[$next]) : lock_waits($n + 1);
	}
	is_state($s[2], undef, '40P01', "a ring of three $kind: the youngest is told");
	my $passed = time() - $last;
	cmp_ok(time() - $first, '>', 1.9, 'not before deadlock_timeout has passed for any of them');
	cmp_ok($passed, '<', 4, 'and before it has passed twice');
	$s[2]->run('ROLLBACK; SELECT pgmc.release_all()');
	$s[1]->ok('the second goes on');
	$s[1]->run('ROLLBACK; SELECT pgmc.release_all()');
	$s[0]->ok('and the first');
	comes_back("a ring of three $kind");
}

# ---- parallel workers of the loopback backend ----

# They wait, which the log says long before the caller looks, and it waits for them
$s[0]->value(<<END);
SELECT pgmc.acquire(), pgmc.execute('SET parallel_leader_participation = off'),
	pgmc.execute('SET parallel_setup_cost = 0'), pgmc.execute('SET parallel_tuple_cost = 0'),
	pgmc.execute('SET min_parallel_table_scan_size = 0');
END
my $loopback = $admin->value(
	"SELECT backend_pid FROM pgmc.connections WHERE holder_pid = $s[0]->{pid}");
$s[0]->value("SET deadlock_timeout = '2 s'; BEGIN; LOCK TABLE r");
my $before = -s $node->logfile;
is_state($s[0], "SELECT pgmc.execute('SELECT sum(peek(i)) FROM big')",
	'40P01', 'a parallel worker wants a lock of the caller');
like(
	$s[0]->{err},
	qr/^Process $loopback waits for AccessShareLock on relation \d+ of database \d+; blocked by process $s[0]->{pid}\.$/m,
	'the DETAIL has its lock');
my %waiting = map { $_ => 1 }
  slurp_file($node->logfile, $before) =~ /process (\d+) still waiting for AccessShareLock/g;
ok(%waiting && !$waiting{$loopback}, 'and it was no other process that waited');
comes_back('a parallel worker');

# ---- what isn't seen ----

$s[0]->value("SET statement_timeout = '1 s'");
is_state($s[0], "SELECT pgmc.autonomous('VACUUM (FREEZE) v') FROM v",
	'57014', "a vacuum that wants a page which its caller's scan has pinned, until statement_timeout");
comes_back('such a vacuum');
$s[0]->value("SELECT pgmc.autonomous('VACUUM (FREEZE) v')");

$s[0]->value('BEGIN; LOCK TABLE pg_catalog.pg_db_role_setting IN ACCESS EXCLUSIVE MODE');
is_state($s[0], "SELECT pgmc.autonomous_on('late', 'SELECT 1')",
	'08001', 'a login that wants a catalog which its caller has locked, until connect_timeout');
comes_back('such a login');
is($s[0]->value("SELECT pgmc.autonomous_on('late', 'SELECT 1')"), '1', 'which works without the lock');

unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');

done_testing();
