# Cancels that come at any moment: none hits the next holder's statement, no hold is lost, and
# what was committed is not reported as cancelled without saying so.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = start_server('cancel', init => [ allows_streaming => 1 ]);
my $admin = session($node);

$admin->value(<<END);
CREATE TABLE t (id text);
CREATE FUNCTION check_hold(rounds int) RETURNS text LANGUAGE plpgsql AS \$\$
DECLARE
	got int;
BEGIN
	FOR i IN 1 .. rounds LOOP
		PERFORM pgmc.acquire(timeout => '20 s');
		IF pgmc.transaction_status() <> 'idle' THEN
			RAISE 'not idle';
		END IF;
		FOR j IN 1 .. 5 LOOP
			SELECT n INTO got FROM pgmc.query('SELECT \$1 + \$2', i, j) AS q(n int);
			IF got <> i + j THEN
				RAISE 'got %', got;
			END IF;
		END LOOP;
		PERFORM pgmc.commit();
		PERFORM pgmc.release();
	END LOOP;
	RETURN 'well';
END \$\$;
END

# ---- the loopback statement stops, too, and soon ----

my $caller = session($node);

sub stops
{
	return wait_for($admin, "SELECT count(*) = 0 FROM pg_stat_activity
		WHERE application_name LIKE 'pgmc%' AND state = 'active'");
}

# Eleven times of how long something takes, in their order. Where the machine has stood still so often that
# the middle one isn't short, they are taken anew.
my $rounds = 0;

sub take_times
{
	my ($one) = @_;
	my @times;

	for (1 .. 5)
	{
		@times = sort { $a <=> $b } map { $rounds++; $one->() } 1 .. 11;
		last if $times[5] < 0.1;
	}
	return @times;
}

# The middle one of these times is short
sub is_soon
{
	my ($name, @times) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	note("$name: stopped within @times[0, $#times / 2, -1] s (least, median, most)");
	return cmp_ok($times[ $#times / 2 ], '<', 0.1, "$name: within 100 ms, most of the time");
}

my $sleeps = "count(*) = 1 FROM pg_stat_activity WHERE application_name LIKE 'pgmc%' AND wait_event = 'PgSleep'";
my $streams = "count(*) = 1 FROM pg_stat_activity WHERE application_name LIKE 'pgmc%' AND state = 'active'
	AND query LIKE '%generate_series%'";

for my $case (
	[ $sleeps, "SELECT pgmc.acquire(), pgmc.execute('SELECT pg_sleep(600)')" ],
	[ $sleeps, "SELECT pgmc.autonomous('SELECT pg_sleep(600)')" ],
	[ $sleeps, "SELECT count(*) FROM pgmc.autonomous_query('SELECT 1 FROM pg_sleep(600)') AS q(i int)" ],

	# rows are read, or skipped
	[ $streams, "SELECT pgmc.acquire(); SELECT count(*) FROM pgmc.query('SELECT generate_series(1, 2000000000)') AS q(i int)" ],
	[ $streams, "SELECT count(*) FROM pgmc.autonomous_query('SELECT generate_series(1, 2000000000)') AS q(i int)" ],
	[ $streams, "SELECT pgmc.acquire(), pgmc.execute('SELECT generate_series(1, 2000000000)')" ])
{
	my ($seen, $sql) = @$case;
	my @times = take_times(
		sub {
			$caller->send($sql);
			wait_for($admin, "SELECT $seen", $sql);
			my $start = time();
			$admin->value("SELECT pg_cancel_backend($caller->{pid})");
			$caller->result;
			stops();
			return time() - $start;
		});
	is(sqlstate($caller->{err}), '57014', "cancelled: $sql");
	is_soon($sql, @times);
}

# ... after a statement_timeout, too. That each had begun is told by the sequence.
my $timeout = 0.5;
$caller->value("SET statement_timeout = '${timeout}s'");
for my $sql ("SELECT pgmc.acquire(); SELECT pgmc.execute('SELECT nextval(''begun''), pg_sleep(600)')",
	"SELECT pgmc.autonomous('SELECT nextval(''begun''), pg_sleep(600)')",
	"SELECT pgmc.acquire(); SELECT count(*) FROM pgmc.query('SELECT nextval(''begun'') FROM generate_series(1, 1) UNION ALL SELECT generate_series(1, 2000000000)') AS q(i bigint)")
{
	$admin->value('DROP SEQUENCE IF EXISTS begun; CREATE SEQUENCE begun');
	$rounds = 0;
	my @times = take_times(
		sub {
			my $start = time();
			$caller->send($sql);
			$caller->result;
			stops();
			return time() - $start - $timeout;
		});
	is(sqlstate($caller->{err}), '57014', "timed out: $sql");
	is($admin->value("SELECT last_value FROM begun"), $rounds, '... and each time the statement ran');
	cmp_ok($times[0], '>', 0, '... until then');
	is_soon($sql, @times);
}
$caller->value('RESET statement_timeout');

# The cancel comes to the worker together with the request
is_free($caller, 'before a cancel that comes at once');
my $worker = worker_pid($admin);
stand_still($worker);
$caller->send("SELECT pgmc.autonomous('SELECT pg_sleep(600)')");
wait_for($admin, "SELECT count(*) = 1 FROM pg_stat_activity
	WHERE pid = $caller->{pid} AND state = 'active' AND wait_event_type = 'Extension'");
$admin->value("SELECT pg_cancel_backend($caller->{pid})");
wait_for($admin, 'SELECT pg_sleep(0.05) IS NOT NULL');
kill 'CONT', $worker;
is_state($caller, undef, '57014', 'a cancel that comes together with its request');
stops();

# ... or to the loopback backend before it has read the statement, where it is lost
for my $how ('execute', 'autonomous')
{
	$caller->value("SELECT pgmc.acquire(), pgmc.set_autocommit(true), pgmc.execute('SELECT 1')")
	  if $how eq 'execute';
	my $loopback = loopback_pid($admin);
	my $took;

	# (again where the machine has stood still)
	for (1 .. 5)
	{
		stand_still($loopback);
		$caller->send("SELECT pgmc.$how('SELECT pg_sleep(600)')");
		wait_for($admin, "SELECT count(*) = 1 FROM pgmc.connections WHERE xact_status = 'active'");
		$admin->value("SELECT pg_cancel_backend($caller->{pid})");
		wait_for($admin, 'SELECT pg_sleep(0.05) IS NOT NULL');
		my $start = time();
		kill 'CONT', $loopback;
		$caller->result;
		stops();
		$took = time() - $start;
		last if $took < 0.6;
		$caller->run("SELECT pgmc.acquire(), pgmc.set_autocommit(true), pgmc.execute('SELECT 1')") if $how eq 'execute';
	}
	is(sqlstate($caller->{err}), '57014', "a cancel that comes to $how too early");
	cmp_ok($took, '<', 0.6, 'is sent again, soon');
	$caller->run('SELECT pgmc.release_all()');
}
is_clean($admin, 'after early cancels');
$caller->quit;

# ---- a late cancel never hits the next holder's statement ----

# Statements end about when their timeout strikes, be the machine fast or slow, so that many a
# cancel comes late.
my @victim = map { session($node) } 1 .. 2;
my @checker = map { session($node) } 1 .. 2;
my $rounds = 600;
my $script = '';
for my $round (1 .. $rounds)
{
	my $ms = 1 + $round % 5 / 2;

	$script .= sprintf("SET statement_timeout = '%dms';\n", (3, 5, 8, 13, 25, 50)[ ($round - 1) / 100 ])
	  if $round % 100 == 1;

	$script .= $round % 3
	  ? "SELECT pgmc.acquire(), pgmc.execute('SELECT pg_sleep(0.00$ms)'), pgmc.rollback(), pgmc.release();\n"
	  : "SELECT pgmc.autonomous('SELECT pg_sleep(0.00$ms)');\n";
}
$script =~ s/0\.00(\d)\.5/0.00${1}5/g;
$_->send($script) for @victim;
$_->send('SELECT check_hold(400)') for @checker;
for my $session (@checker)
{
	$session->ok('cancels of others do no harm');
	is($session->{out}, 'well', 'and all statements are answered');
}
my $cancelled = 0;
for my $session (@victim)
{
	$session->result;
	$cancelled += () = $session->{err} =~ /^ERROR:  57014/mg;
	my @others = grep { !/57014/ } $session->{err} =~ /^ERROR:  .*/mg;
	is("@others", '', 'the others were told nothing else');
}
cmp_ok($cancelled, '>', 0, 'some were cancelled indeed');
note("$cancelled of " . 2 * $rounds);    # how many depends on the machine
is_free($admin, 'after late cancels');
is_clean($admin, 'after late cancels');

# ---- granted while cancelled: the hold is never lost ----

$rounds = 1500;
$script = "SET statement_timeout = '1ms';\n";
$script .= "SELECT pgmc.acquire(), pgmc.release();\n" x $rounds;
$_->send($script) for @victim, $checker[0];
$checker[1]->send("DO \$\$ BEGIN FOR i IN 1 .. 1500 LOOP
	PERFORM pgmc.acquire(timeout => '20 s'); PERFORM pg_sleep(0.0005); PERFORM pgmc.release();
	END LOOP; END \$\$");
$checker[1]->ok('one who is not cancelled gets its turns');
$cancelled = 0;
for my $session (@victim, $checker[0])
{
	$session->result;
	$cancelled += () = $session->{err} =~ /^ERROR:  57014/mg;
	my @others = grep { !/57014/ } $session->{err} =~ /^ERROR:  .*/mg;
	is("@others", '', 'the others were told nothing else');

	# (which may be hit by it as well)
	do { $session->run('RESET statement_timeout') } while $session->{err};
}
cmp_ok($cancelled, '>', 300, 'many were cancelled indeed');
is($admin->value('SELECT pgmc.try_acquire(); SELECT pgmc.release()'), 't', 'no hold is lost');
is_free($_, 'after cancelled waits') for @victim, @checker;
is_clean($admin, 'after cancelled waits');

# ---- the same with time-outs of acquire itself ----

$script = "SELECT pgmc.acquire(timeout => '1 ms'); SELECT pgmc.release_all();\n" x 500;
$_->send($script) for @victim;
$checker[1]->send("DO \$\$ BEGIN FOR i IN 1 .. 500 LOOP
	PERFORM pgmc.acquire(timeout => '20 s'); PERFORM pg_sleep(0.001); PERFORM pgmc.release();
	END LOOP; END \$\$");
$checker[1]->ok('while others time out');
for my $session (@victim)
{
	$session->result;
	my @others = grep { !/55P03/ } $session->{err} =~ /^ERROR:  .*/mg;
	is("@others", '', 'time-outs are 55P03');
}
is($admin->value('SELECT pgmc.try_acquire(); SELECT pgmc.release()'), 't', 'no hold is lost');

# ---- interrupted while the commit waits for a synchronous standby ----

$_->value('SET synchronous_commit = local') for $admin, @victim, @checker;
$admin->value("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
$admin->value('SELECT pg_reload_conf()');
await_standby($node, $admin);
my $waits = "SELECT count(*) = 1 FROM pg_stat_activity
	WHERE application_name LIKE 'pgmc%' AND wait_event = 'SyncRep'";

# The setting arrives at idle backends when they run something next
my %commit = (
	autonomous => sub { "SELECT pgmc.autonomous('INSERT INTO t VALUES (''$_[0]'')')" },
	commit => sub { "SELECT pgmc.acquire(), pgmc.execute('INSERT INTO t VALUES (''$_[0]'')'), pgmc.commit()" },
	'COMMIT by execute' => sub { "SELECT pgmc.acquire(), pgmc.execute('INSERT INTO t VALUES (''$_[0]'')'), pgmc.execute('COMMIT')" });
my %interrupt = (
	cancel => sub { $admin->value("SELECT pg_cancel_backend($_[0]->{pid})") },
	statement_timeout => sub { },
	terminate => sub { $admin->value("SELECT pg_terminate_backend($_[0]->{pid})") });

for my $how (sort keys %commit)
{
	for my $what (sort keys %interrupt)
	{
		my $name = "$what in a synchronous $how";
		$caller = session($node, options => '-c synchronous_commit=local');

		$admin->value('SELECT pgmc.close()');
		# (which must leave time to come to the commit)
		$caller->value("SET statement_timeout = '2s'") if $what eq 'statement_timeout';
		$caller->send($commit{$how}->($name));
		wait_for($admin, $waits, $name);
		$interrupt{$what}->($caller);
		is_state($caller, undef, $what eq 'terminate' ? '57P01' : '57014', $name);
		like($caller->{err}, qr/DETAIL:  .* was committed/, "$name: the DETAIL says that it is committed");
		is($admin->value("SELECT count(*) FROM t WHERE id = '$name'"), '1', "$name: and it is");
		is_free($victim[0], $name);
		is_clean($admin, $name);
		$caller->quit;
	}
}

$admin->value('ALTER SYSTEM RESET synchronous_standby_names');
$admin->value('SELECT pg_reload_conf()');
is_free($_, 'no standby is waited for') for $admin, @victim;

# ---- what has committed something before it is cancelled ----

$admin->value('TRUNCATE t');
$admin->value(<<END);
CREATE PROCEDURE part() LANGUAGE plpgsql
	AS \$\$ BEGIN INSERT INTO t VALUES ('part'); COMMIT; INSERT INTO t VALUES ('rest'); PERFORM pg_sleep(600); END \$\$;
END
my $ended = qr/DETAIL:  .* was not completed; what it had committed itself by then stays committed/;
my $nothing = qr/DETAIL:  .* was not committed/;
my @parts = (
	[ $ended, 'part', "SELECT pgmc.autonomous('BEGIN; INSERT INTO t VALUES (''part''); COMMIT; SELECT pg_sleep(600)')" ],
	[ $ended, 'part', "SELECT pgmc.autonomous('CALL part()')" ],
	[ $ended, 'part', "SELECT pgmc.acquire(), pgmc.set_autocommit(true), pgmc.execute('CALL part()')" ],
	[ $ended, 'part', "SELECT pgmc.acquire(), pgmc.execute('INSERT INTO t VALUES (''part''); COMMIT; SELECT pg_sleep(600)')" ],
	[ $nothing, '', "SELECT pgmc.acquire(), pgmc.execute('INSERT INTO t VALUES (''rest''); SELECT pg_sleep(600); COMMIT')" ],
	[ $nothing, '', "SELECT pgmc.autonomous('INSERT INTO t VALUES (''rest''); SELECT pg_sleep(600)')" ]);
$caller = session($node);
for my $part (@parts)
{
	my ($detail, $there, $sql) = @$part;

	$caller->send($sql);
	holds_up($admin);
	$admin->value("SELECT pg_cancel_backend($caller->{pid})");
	is_state($caller, undef, '57014', "cancelled: $sql");
	like($caller->{err}, $detail, 'the DETAIL tells what stays');
	stops();
	is($admin->value("SELECT coalesce(string_agg(id, ' '), '') FROM t"), $there, 'and that is what stays');
	$admin->value('TRUNCATE t');
}
is_free($admin, 'after parts');
is_clean($admin, 'after parts');

unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');

done_testing();
