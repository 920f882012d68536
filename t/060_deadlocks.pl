# Deadlocks that the lock manager can't see: every kind is found, one wait of it raises, the youngest
# of pgmc's, and everybody else goes on. A wait that is none is left alone.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = start_server('deadlocks', conf => "deadlock_timeout = 50ms\n");
my $admin = session($node);
my @s = map { session($node) } 0 .. 4;

# Each session has a row of its own number to lock
$admin->value(<<END);
CREATE SERVER a FOREIGN DATA WRAPPER pgmc;
CREATE SERVER b FOREIGN DATA WRAPPER pgmc;
CREATE SERVER c FOREIGN DATA WRAPPER pgmc;
CREATE SERVER pool FOREIGN DATA WRAPPER pgmc OPTIONS (pool_size '2');
CREATE TABLE r (id int PRIMARY KEY, n int DEFAULT 0);
INSERT INTO r SELECT generate_series(0, 9);
CREATE TABLE t (id int);
END

# ---- words ----

sub update
{
	my ($id) = @_;

	return "UPDATE r SET n = n + 1 WHERE id = $id";
}

sub lock_row
{
	my ($n) = @_;

	$s[$n]->value('BEGIN; ' . update($n));
	return;
}

sub execute
{
	my ($server, $command) = @_;

	return "SELECT pgmc.execute_on('$server', \$c\$$command\$c\$)";
}

# Who runs something sleeps, and so has told since when: a wait has an age from its first sleep on
sub all_sleep
{
	my $pids = join ',', map { $_->{pid} } @s;

	return wait_for($admin, "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid IN ($pids)
		AND state = 'active' AND coalesce(wait_event_type, 'LWLock') = 'LWLock'", 'all sleep');
}

# Waits that the server knows of, a loopback's for instance
sub lock_waits
{
	my ($n) = @_;

	wait_for($admin, "SELECT count(*) = $n FROM pg_locks WHERE NOT granted",
		"$n waits for locks");
	return all_sleep();
}

# So many wait in the queue of this server
sub queued
{
	my ($server, $n) = @_;

	wait_for($admin,
		"SELECT coalesce(max(waiters), 0) = $n FROM pgmc.connections WHERE srvname = '$server'",
		"$n queued for $server");
	return all_sleep();
}

# How often somebody has found a deadlock of this kind (others may be told of it, by their loopback)
sub found
{
	my @reports =
	  slurp_file($node->logfile) =~ /DETAIL:  (Process \d+ waits for [^\n]*(?:\n\t[^\n]*)*)/g;

	return scalar grep { /^\tProcess \d+: /m && /on server|held by process/ } @reports;
}

my $found = 0;

sub is_found
{
	my ($name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(found(), ++$found, "$name: found once");
}

sub is_not_found
{
	my ($name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(found(), $found, "$name: nothing is found");
}

# Nobody is in anybody's way any more
sub comes_back
{
	my ($name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$_->run('ROLLBACK; SELECT pgmc.release_all()') for @s;
	$admin->value('DELETE FROM t');
	return is_clean($admin, $name);
}

# The commands that these sessions have been sent end: that of the victim by 40P01, the others in
# the order in which they are given, each of which goes on with what its script says then.
sub ends
{
	my ($name, $victim, @others) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is_state($s[$victim], undef, '40P01', "$name: session $victim is told");
	$s[$victim]->run('ROLLBACK');
	while (my ($n, $then) = splice @others, 0, 2)
	{
		$s[$n]->ok("$name: session $n goes on");
		$s[$n]->run($then);
	}
	is_found($name);
	return comes_back($name);
}

# ---- one session and its own loopback ----

for my $kind ('autonomous', 'execute')
{
	my %want = (
		'row lock' => [ update(0), update(0) ],
		'table lock' => [ 'LOCK TABLE r', 'SELECT count(*) FROM r' ],
		'advisory lock' => [ ('SELECT pg_advisory_xact_lock(7)') x 2 ],
		'reading of a table' => [ 'SELECT count(*) FROM r', 'DROP TABLE r' ],
		'unique key' => [ ('INSERT INTO r VALUES (77)') x 2 ]);

	for my $what (sort keys %want)
	{
		my ($mine, $its) = @{ $want{$what} };

		$s[0]->value('SELECT pgmc.acquire()') if $kind eq 'execute';
		$s[0]->value("BEGIN; $mine");
		$s[0]->send("SELECT pgmc.$kind(\$c\$$its\$c\$)");
		ends("$kind wants its caller's $what", 0);
	}
}

$s[0]->value('BEGIN; ' . update(0));
$s[0]->run('SELECT pgmc.autonomous($$' . update(0) . '$$)');
my ($pid, $loopback) = ($s[0]->{pid}, loopback_pid($admin));
like($s[0]->{err}, qr/^ERROR:  40P01: deadlock detected\n/, "the message is the server's");
like(
	$s[0]->{err},
	qr/^DETAIL:  Process $pid waits for its command on server "pgmc_loopback"; run by process $loopback\.\n/m,
	'the DETAIL names the caller, the server and the loopback backend');
like(
	$s[0]->{err},
	qr/^Process $loopback waits for ShareLock on transaction \d+; blocked by process $pid\.\n/m,
	'and the lock, its mode and who is in the way');
like($s[0]->{err}, qr/was not committed/, 'and that the command was not committed');
like($s[0]->{err}, qr/^HINT:  See server log for query details\./m, "the hint is the server's");
unlike($s[0]->{err}, qr/Process \d+: /, 'the statements are not for the client');
like(
	slurp_file($node->logfile),
	qr/\tProcess $pid: SELECT pgmc\.autonomous\([^\n]*\n(?:\t;\n)?\tProcess $loopback: UPDATE r /,
	'but in the log');
is_found('a report');
comes_back('a report');

# ---- caught, the hold goes on ----

$s[0]->value(<<END);
CREATE FUNCTION pg_temp.try() RETURNS text LANGUAGE plpgsql AS \$\$
BEGIN
	PERFORM pgmc.execute('INSERT INTO t VALUES (1)');
	PERFORM pgmc.execute('UPDATE r SET n = 1 WHERE id = 0');
	RETURN 'none';
EXCEPTION WHEN deadlock_detected THEN
	RETURN 'caught ' || SQLSTATE || ', ' || pgmc.transaction_status();
END \$\$;
SELECT pgmc.acquire();
END
lock_row(0);
is($s[0]->value('SELECT pg_temp.try()'), 'caught 40P01, inerror', 'a deadlock that is caught');
$s[0]->value("SELECT pgmc.rollback(), pgmc.execute('INSERT INTO t VALUES (2)'), pgmc.commit(); COMMIT");
is($s[0]->value('SELECT pgmc.execute($$' . update(0) . '$$), pgmc.transaction_status()'),
	'1|intrans', 'leaves the hold and its connection usable');
$s[0]->value('SELECT pgmc.commit(), pgmc.release()');
is($admin->value('SELECT string_agg(id::text, $$ $$) FROM t'),
	'2', 'and rolled back what was before it');
comes_back('a deadlock that is caught');

# ---- own snapshot ----

for my $command ('CREATE INDEX CONCURRENTLY ri ON r (n)', 'REINDEX TABLE CONCURRENTLY r')
{
	is_state($s[0], "SELECT pgmc.autonomous('$command')", '40P01', "autonomous $command");
	like($s[0]->{err}, qr/waits for ShareLock on virtual transaction/, 'waits for a snapshot');
	like($s[0]->{err}, qr/^HINT:  .*CALL pgmc\.run/m, 'the hint is at CALL pgmc.run');
	like($s[0]->{err}, qr/was not completed; what it had committed itself by then stays/,
		'and the DETAIL hides nothing');
	is( $admin->value(
			"SELECT count(*) FROM pg_index WHERE indrelid = 'r'::regclass AND NOT indisvalid"),
		'1', 'of the invalid index that stays');
	is_found($command);
	$admin->run(
		"DO \$\$ DECLARE i text; BEGIN FOR i IN SELECT indexrelid::regclass FROM pg_index
		WHERE indrelid = 'r'::regclass AND NOT indisvalid LOOP EXECUTE 'DROP INDEX ' || i; END LOOP; END \$\$"
	);
	is_state($s[0], "CALL pgmc.run('$command')", '', "CALL pgmc.run does it");
	is( $admin->value(
			"SELECT count(*) FROM pg_index WHERE indrelid = 'r'::regclass AND NOT indisvalid"),
		'0', 'well');
	$admin->run('DROP INDEX IF EXISTS ri');
	comes_back($command);
}

# ---- a safe snapshot ----

my $deferrable = "SELECT pgmc.acquire(),
	pgmc.execute('SET TRANSACTION ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE')";
$s[0]->value('BEGIN ISOLATION LEVEL SERIALIZABLE; ' . update(0));
$s[0]->value($deferrable);
$s[0]->send("SELECT pgmc.execute('SELECT count(*) FROM r')");
ends('a deferrable transaction waits for its caller', 0);

$s[1]->value('BEGIN ISOLATION LEVEL SERIALIZABLE; ' . update(1));
$s[0]->value($deferrable);
$s[0]->send("SELECT pgmc.execute('SELECT count(*) FROM r')");
wait_for($admin, "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SafeSnapshot'");
$admin->value('SELECT pg_sleep(0.3)');
ok(!$s[0]->done, 'a deferrable transaction waits for somebody else');
$s[1]->value('COMMIT');
$s[0]->ok('and goes on then');
is_not_found('a deferrable transaction');
comes_back('a deferrable transaction');

# ---- plain waits are left alone ----

lock_row(1);
$s[0]->send('SELECT pgmc.autonomous($$' . update(1) . '$$)');
lock_waits(1);
$s[2]->value("SELECT pgmc.acquire('b')");
$s[3]->send("SELECT pgmc.acquire('b')");
queued('b', 1);
$admin->value('SELECT pg_sleep(0.5)');
ok(!$s[0]->done && !$s[3]->done, 'plain waits of ten deadlock_timeouts');
$s[1]->value('COMMIT');
$s[2]->value('SELECT pgmc.release()');
$s[0]->ok('end: for a lock');
$s[3]->ok('for a turn');
is_not_found('plain waits');
comes_back('plain waits');

# ---- two sessions, two servers ----

for my $first (0, 1)
{
	my $second = 1 - $first;
	my @own = ('a', 'b');

	$s[$_]->value("SELECT pgmc.acquire('$own[$_]')") for 0, 1;
	$s[$first]->send("SELECT pgmc.acquire('$own[$second]')");
	queued($own[$second], 1);
	$s[$second]->send("SELECT pgmc.acquire('$own[$first]')");
	is_state($s[$second], undef, '40P01', 'two sessions and two servers: the second one is told');
	my ($me, $other) = ($s[$second]->{pid}, $s[$first]->{pid});
	like(
		$s[$second]->{err},
		qr/^DETAIL:  Process $me waits for server "$own[$first]"; held by process $other\.\nProcess $other waits for server "$own[$second]"; held by process $me\.\n/m,
		'with who waits for whom');
	$s[$first]->ok('the first one goes on');
	is($s[$first]->value('SELECT pgmc.release_all()'), '2', 'with both');
	is_found('two sessions and two servers');
	comes_back('two sessions and two servers');
}

# ---- a waiter's row lock, wanted by the holder's loopback ----

$s[0]->value("SELECT pgmc.acquire('a')");
lock_row(1);
$s[1]->send("SELECT pgmc.acquire('a')");
queued('a', 1);
$s[0]->send(execute('a', update(1)));
ends("the holder's loopback comes to a waiter's lock", 0, 1, 'ROLLBACK');

$s[0]->value("SELECT pgmc.acquire('a')");
lock_row(1);
$s[0]->send(execute('a', update(1)));
lock_waits(1);
$s[1]->send("SELECT pgmc.acquire('a')");
ends("one queues whose lock the holder's loopback wants",
	1, 0, 'SELECT pgmc.rollback(), pgmc.release()');

# ---- two loopbacks ----

$s[$_]->value("SELECT pgmc.acquire('" . ('a', 'b')[$_] . "')") for 0, 1;
lock_row($_) for 0, 1;
$s[0]->send(execute('a', update(1)));
lock_waits(1);
$s[1]->send(execute('b', update(0)));
ends("each one's loopback wants the other's lock", 1, 0, 'ROLLBACK');

$s[$_]->value("SELECT pgmc.acquire('" . ('a', 'b')[$_] . "')") for 0, 1;
$s[0]->value(execute('a', update(5)));
lock_row(1);
$s[0]->send(execute('a', update(1)));
lock_waits(1);
$s[1]->send(execute('b', update(5)));
ends("one's loopback wants a lock of the other's loopback", 1, 0, 'SELECT pgmc.rollback()');

# ---- sessions in between that wait for nothing of pgmc's ----

$s[0]->value('SELECT pgmc.acquire()');
lock_row($_) for 0, 2;
$s[2]->send(update(0));
lock_waits(1);
$s[0]->send(execute('pgmc_loopback', update(2)));
ends('a third session in between', 0, 2, 'ROLLBACK');

$s[0]->value("SELECT pgmc.acquire('a')");
lock_row($_) for 1 .. 3;
$s[2]->send(update(1));
lock_waits(1);
$s[3]->send(update(2));
lock_waits(2);
$s[1]->send("SELECT pgmc.acquire('a')");
queued('a', 1);
$s[0]->send(execute('a', update(3)));
is_state($s[0], undef, '40P01', 'two sessions in between and a queue: the youngest is told');
my $lines = () = $s[0]->{err} =~ /Process \d+ waits for/g;
is($lines, 5, 'five processes in the DETAIL');
for my $n (1, 2, 3)
{
	$s[$n]->ok("session $n goes on");
	$s[$n]->value('ROLLBACK');
}
is_found('two sessions in between and a queue');
comes_back('two sessions in between and a queue');

# ---- longer circles ----

my @ring = ('a', 'b', 'c');
for my $last (0 .. 2)
{
	$s[$_]->value("SELECT pgmc.acquire('$ring[$_]')") for 0 .. 2;
	for my $n (map { ($last + 1 + $_) % 3 } 0 .. 2)
	{
		my $next = $ring[ ($n + 1) % 3 ];

		$s[$n]->send("SELECT pgmc.acquire('$next')");
		queued($next, 1) if $n != $last;
	}

	# the one before the victim gets what it held, gives it back, and so on
	ends(
		'three sessions and three servers', $last,
		($last + 2) % 3, 'SELECT pgmc.release_all()',
		($last + 1) % 3, 'SELECT pgmc.release_all()');
}

# 0 waits for c of 2, whose loopback waits for a row of 1, who waits for a of 0
my $end = 'ROLLBACK; SELECT pgmc.release_all()';
for my $last (0 .. 2)
{
	my @wait = (
		[ "SELECT pgmc.acquire('c')", sub { queued('c', 1) } ],
		[ "SELECT pgmc.acquire('a')", sub { queued('a', 1) } ],
		[ execute('c', update(1)), sub { lock_waits(1) } ]);

	$s[0]->value("SELECT pgmc.acquire('a')");
	$s[2]->value("SELECT pgmc.acquire('c')");
	lock_row(1);
	for my $n (map { ($last + 1 + $_) % 3 } 0 .. 2)
	{
		$s[$n]->send($wait[$n]->[0]);
		$wait[$n]->[1]->() if $n != $last;
	}
	ends('queue, loopback and lock',
		$last, map { ($_, $end) } $last == 0 ? (1, 2) : $last == 1 ? (2, 0) : (0, 1));
}

# all at the same moment: still one only
my $rounds = 15;
my $victims = 0;
for (1 .. $rounds)
{
	$s[$_]->value("SELECT pgmc.acquire('$ring[$_]')") for 0 .. 2;
	$s[$_]->send("SELECT pgmc.acquire('$ring[($_ + 1) % 3]'); SELECT pgmc.release_all()") for 0 .. 2;
	for my $n (0 .. 2)
	{
		$s[$n]->result;
		my $state = sqlstate($s[$n]->{err});

		$victims++ if $state eq '40P01';
		diag($s[$n]->{err}) if $state !~ /^(40P01)?$/;
	}
}
is($victims, $rounds, "$rounds circles of three that close at once: one victim each");
$found += $rounds;
is_not_found('circles that close at once: nothing else');
comes_back('circles that close at once');

# ---- pools ----

# one of two holders does nothing: whoever waits may yet be served
$s[$_]->value("SELECT pgmc.acquire('pool')") for 0, 1;
lock_row(2);
$s[0]->send(execute('pool', update(2)));
lock_waits(1);
$s[2]->send("SELECT pgmc.acquire('pool')");
queued('pool', 1);
$admin->value('SELECT pg_sleep(0.5)');
ok(!$s[0]->done && !$s[2]->done, 'a pool with a holder who may give it back is no deadlock');
$s[1]->value('SELECT pgmc.release()');
$s[2]->ok('the waiter is served');
$s[2]->value("SELECT pgmc.execute('SELECT 1'), pgmc.commit(); COMMIT");
$s[0]->ok('and then the other');
is_not_found('a pool with a free holder');
comes_back('a pool with a free holder');

# all of them lead back, and the youngest wait is any of the three
for my $last (0 .. 2)
{
	my $locks = 0;

	$s[$_]->value("SELECT pgmc.acquire('pool')") for 0, 1;
	lock_row(2);
	for my $n (map { ($last + 1 + $_) % 3 } 0 .. 2)
	{
		$s[$n]->send($n < 2 ? execute('pool', update(2)) : "SELECT pgmc.acquire('pool')");
		next if $n == $last;
		$n == 2 ? queued('pool', 1) : lock_waits(++$locks);
	}
	ends("a pool all of whose holders wait for the waiter, the youngest being $last",
		$last, map { ($_, $end) } $last == 2 ? (0, 1) : (2, 1 - $last));
}

# each holder waits for another waiter
for my $last (0 .. 3)
{
	my ($locks, $waiters) = (0, 0);
	my $name = "a pool each of whose holders waits for another waiter, the youngest being $last";

	$s[$_]->value("SELECT pgmc.acquire('pool')") for 0, 1;
	lock_row($_) for 2, 3;
	for my $n (map { ($last + 1 + $_) % 4 } 0 .. 3)
	{
		$s[$n]->send($n < 2 ? execute('pool', update($n + 2)) : "SELECT pgmc.acquire('pool')");
		next if $n == $last;
		$n < 2 ? lock_waits(++$locks) : queued('pool', ++$waiters);
	}
	is_state($s[$last], undef, '40P01', "$name: it is told");
	$s[$last]->run('ROLLBACK');

	# the others are served one after the other, in whatever order
	my @left = grep { $_ != $last } 0 .. 3;
	while (@left)
	{
		my ($n) = grep { $s[$_]->done } @left or next;

		$s[$n]->ok("$name: session $n goes on");
		$s[$n]->run($end);
		@left = grep { $_ != $n } @left;
	}
	is_found($name);
	comes_back($name);
}

# one holder is in a deadlock of its own: that one is told, and not those who wait behind it
$s[$_]->value("SELECT pgmc.acquire('pool')") for 0, 1;
lock_row($_) for 0, 2;
$s[1]->send(execute('pool', update(2)));
lock_waits(1);
$s[0]->send(execute('pool', update(0)));
lock_waits(2);
$s[2]->send("SELECT pgmc.acquire('pool')");
is_state($s[0], undef, '40P01', 'a holder in a deadlock of its own is told');
$s[2]->ok('and makes room for who waits');
$s[2]->value($end);
$s[1]->ok('and all go on');
is_found('a holder in a deadlock of its own');
comes_back('a holder in a deadlock of its own');

# ---- loopbacks of loopbacks ----

lock_row(0);
$s[0]->send("SELECT pgmc.autonomous(\$c\$SELECT pgmc.autonomous_on('b', '" . update(0) . "')\$c\$)");
ends("a loopback of a loopback wants its caller's lock", 0);

$s[0]->value('SELECT pgmc.acquire()');
lock_row(0);
$s[1]->value("SELECT pgmc.acquire('b')");
$s[1]->send(execute('b', update(0)));
lock_waits(1);
$s[0]->send(execute('pgmc_loopback', "SELECT pgmc.acquire('b')"));
ends("a loopback queues for one that wants its caller's lock",
	0, 1, 'SELECT pgmc.rollback(), pgmc.release()');

# ---- statements whose parameters or rows are on their way ----

$s[0]->value('SELECT pgmc.acquire()');
lock_row(0);
$s[0]->send("SELECT * FROM pgmc.query('UPDATE r SET n = length(\$1) WHERE id = 0 RETURNING n',
	repeat('x', 5000000)) AS q(n int)");
ends('with a large parameter', 0);

$s[0]->value("SELECT pgmc.acquire()");
lock_row(0);
$s[0]->send("SELECT count(*) FROM pgmc.query('SELECT i, (SELECT n FROM r WHERE id = i / 100000 FOR SHARE)
	FROM generate_series(-300000, 100000) AS i') AS q(i int, n int)");
ends('after many rows', 0);

# ---- one that the lock manager sees itself ----

$s[$_]->value("SELECT pgmc.acquire('$ring[$_]')") for 0, 1;
$s[$_]->value(execute($ring[$_], update(6 + $_))) for 0, 1;
$s[0]->send(execute('a', update(7)));
lock_waits(1);
$s[1]->send(execute('b', update(6)));
$_->result for $s[0], $s[1];
my @states = sort map { sqlstate($_->{err}) } $s[0], $s[1];
is("@states", ' 40P01', 'a deadlock of two loopback backends has one victim');
is_not_found('a deadlock of two loopback backends');
comes_back('a deadlock of two loopback backends');

# ---- how long it takes ----

$s[0]->value("SET deadlock_timeout = '2s'; BEGIN; LOCK TABLE r");
my $start = time();
is_state($s[0], "SELECT pgmc.autonomous('SELECT count(*) FROM r')", '40P01', 'a deadlock with itself');
my $passed = time() - $start;
cmp_ok($passed, '>', 1.9, 'is not looked for before deadlock_timeout has passed');
cmp_ok($passed, '<', 4, 'and found before it has passed twice');
$s[0]->value('ROLLBACK; RESET deadlock_timeout');

unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');

done_testing();
