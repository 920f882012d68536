# A holder that is cancelled, terminated, timed out or whose client vanishes, in everything it
# may be doing: the next in the queue gets an idle connection, and nothing is left.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_server('holder');
my $admin = session($node);

$admin->value(<<END);
CREATE TABLE t (id text);
CREATE TABLE slow (id text);
CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql
	AS \$\$ BEGIN PERFORM pg_sleep(600); RETURN NULL; END \$\$;
CREATE CONSTRAINT TRIGGER slow_commit AFTER INSERT ON slow
	DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hang();
END

# What the holder is doing: what it has run, what it is running then, where that can be seen. "still":
# the worker is stopped meanwhile, so that the holder doesn't get any further.
my $sleeping = "EXISTS (SELECT FROM pg_stat_activity
	WHERE application_name LIKE 'pgmc%' AND state = 'active' AND wait_event = 'PgSleep')";
my %doing = (
	idle => { run => 'SELECT pgmc.acquire()' },
	idle_in_transaction => {
		run => "SELECT pgmc.acquire(); SELECT pgmc.execute('INSERT INTO t VALUES (''lost'')')"
	},
	failed_transaction => {
		run => "SELECT pgmc.acquire(); DO \$\$ BEGIN PERFORM pgmc.execute('SELECT 1/0');
			EXCEPTION WHEN division_by_zero THEN NULL; END \$\$"
	},
	executing => {
		run => "SELECT pgmc.acquire(); SELECT pgmc.execute('INSERT INTO t VALUES (''lost'')')",
		send => "SELECT pgmc.execute('SELECT pg_sleep(600)')",
		seen => $sleeping
	},
	executing_several => {
		run => "SELECT pgmc.acquire()",
		send => "SELECT pgmc.execute('INSERT INTO t VALUES (''lost''); SELECT pg_sleep(600); SELECT 1')",
		seen => $sleeping
	},
	executing_in_autocommit => {
		run => 'SELECT pgmc.acquire(), pgmc.set_autocommit(true)',
		send => "SELECT pgmc.execute('INSERT INTO t SELECT ''lost'' FROM pg_sleep(600)')",
		seen => $sleeping
	},
	streaming => {
		run => 'SELECT pgmc.acquire()',
		send => "SELECT count(*) FROM pgmc.query('SELECT generate_series(1, 2000000000)') AS g(i int)",
		seen => "EXISTS (SELECT FROM pg_stat_activity WHERE application_name LIKE 'pgmc%'
			AND state = 'active' AND query LIKE '%generate_series%')"
	},
	skipping_rows => {
		run => 'SELECT pgmc.acquire()',
		send => "SELECT pgmc.execute('SELECT generate_series(1, 2000000000)')",
		seen => "EXISTS (SELECT FROM pg_stat_activity WHERE application_name LIKE 'pgmc%'
			AND state = 'active' AND query LIKE '%generate_series%')"
	},
	committing => {
		run => "SELECT pgmc.acquire(); SELECT pgmc.execute('INSERT INTO slow VALUES (''lost'')')",
		send => 'SELECT pgmc.commit()',
		seen => $sleeping,
		told => 1
	},
	autonomous => {
		run => 'SELECT 1',
		send => "SELECT pgmc.autonomous('INSERT INTO t SELECT ''lost'' FROM pg_sleep(600)')",
		seen => $sleeping,
		told => 1
	},
	autonomous_commit => {
		run => 'SELECT 1',
		send => "SELECT pgmc.autonomous('INSERT INTO slow VALUES (''lost'')')",
		seen => $sleeping,
		told => 1
	},
	executing_with_much_sent => {
		run => 'SELECT pgmc.acquire()',
		send => "SELECT pgmc.execute('INSERT INTO t SELECT ''lost'' FROM pg_sleep(600) WHERE \$1 IS NOT NULL', repeat(repeat('x', 1000), 5000))",
		seen => $sleeping
	},

	# there's room for 64 kB, so it can wait for nothing but more of it
	sending => {
		run => "SELECT pgmc.acquire(); SELECT pgmc.execute('INSERT INTO t VALUES (''lost'')')",
		send => "SELECT pgmc.execute('INSERT INTO t SELECT ''lost'' WHERE \$1 IS NOT NULL', repeat(repeat('x', 1000), 50000))",
		seen => "EXISTS (SELECT FROM pg_stat_activity WHERE pid = %d AND state = 'active'
			AND wait_event IN ('PgmcReply', 'Extension'))",
		still => 1
	});

# Have the holder do what it shall be struck in; the worker, if it was stopped for that
sub begin
{
	my ($holder, $case, $name) = @_;
	my $stopped;

	stand_still($stopped = worker_pid($admin)) if $case->{still};
	$holder->send($case->{send});
	wait_for($admin, 'SELECT ' . $case->{seen} =~ s/%d/$holder->{pid}/r, $name);
	return $stopped;
}

my %action = (
	cancel => sub { $admin->value("SELECT pg_cancel_backend($_[0]->{pid})") },
	terminate => sub { $admin->value("SELECT pg_terminate_backend($_[0]->{pid})") },
	kill_client => sub { $_[0]->signal('KILL') });

sub has_ended
{
	my ($session) = @_;

	return wait_for($admin, "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $session->{pid}",
		'the end of a session');
}

for my $what (sort keys %doing)
{
	my $case = $doing{$what};

	for my $how (sort keys %action)
	{
		my $holder = session($node,
			options => $how eq 'kill_client' ? '-c client_connection_check_interval=20' : '');
		my @next = map { session($node) } 1 .. 2;
		my $name = "$how of a holder $what";
		my $stopped;

		$holder->value($case->{run});
		$stopped = begin($holder, $case, $name) if $case->{send};
		for my $n (0, 1)
		{
			$next[$n]->send('SELECT pgmc.acquire()');
			is_waiting($admin, $n + 1);
		}
		$action{$how}->($holder);

		if ($how eq 'cancel' && $case->{send})
		{
			is_state($holder, undef, '57014', "$name: the holder is told");
			like($holder->{err}, qr/DETAIL:  .* was not committed/, "$name: and its fate")
			  if $case->{told};
		}
		elsif ($how eq 'cancel')
		{
			# nothing to cancel: it still holds it
			is($holder->run('SELECT pgmc.transaction_status()'),
				{ idle => 'idle', idle_in_transaction => 'intrans',
					failed_transaction => 'inerror' }->{$what}, "$name: no effect");
			is_waiting($admin, 2);
			$holder->run('ROLLBACK; BEGIN; SELECT 1/0; ROLLBACK');
		}
		if ($stopped)
		{
			has_ended($holder) if $how ne 'cancel';
			ok(!$next[0]->done, "$name: nobody gets it before it is cleared");
			kill 'CONT', $stopped;
		}
		for my $session (@next)
		{
			$session->ok("$name: the next gets it");
			is($session->value('SELECT pgmc.transaction_status()'), 'idle', "$name: idle");
			is( $session->value(
					"SELECT pgmc.execute('SELECT 1'), * FROM pgmc.query('SELECT count(*) FROM t UNION SELECT count(*) FROM slow') AS q(n bigint);
					SELECT pgmc.rollback(); SELECT pgmc.release()"),
				'1|0', "$name: and working");
		}
		is_clean($admin, $name);
		$_->quit for $holder, @next;
	}
}

# ---- statement_timeout ----

for my $what (grep { $doing{$_}->{send} } sort keys %doing)
{
	my $case = $doing{$what};
	my $holder = session($node);
	my $stopped;

	# time enough for a busy machine to come that far
	$holder->value("LOAD 'pgmc'; $case->{run}; SET statement_timeout = '2s'");
	$stopped = begin($holder, $case, $what);
	is_state($holder, undef, '57014', "statement_timeout of a holder $what");
	like($holder->{err}, qr/DETAIL:  .* was not committed/, '... with its fate') if $case->{told};
	kill 'CONT', $stopped if $stopped;
	is_free($admin, "statement_timeout of a holder $what");
	is_clean($admin, "statement_timeout of a holder $what");
	$holder->quit;
}

# ---- Ctrl-C in psql ----

# (which ends a psql that reads a script)
for my $what ('waiting', 'executing', 'streaming')
{
	my $case = $doing{$what};
	my $psql = session($node);
	my $name = "Ctrl-C while $what";

	if ($case)
	{
		$psql->value($case->{run});
		begin($psql, $case, $name);
	}
	else
	{
		$admin->value('SELECT pgmc.acquire()');
		$psql->send('SELECT pgmc.acquire()');
		is_waiting($admin, 1);
	}
	$psql->signal('INT');
	is_state($psql, undef, '57014', $name);
	like($psql->{err}, qr/^Cancel request sent$/m, "$name: it was psql's own request");
	is_waiting($admin, 0);
	$admin->value('SELECT pgmc.release()') unless $case;
	has_ended($psql);
	is_free($admin, $name);
	is_clean($admin, $name);
	$psql->quit;
}

# ---- the holder ends in the ordinary way ----

for my $end ('\q', 'SELECT pg_terminate_backend(pg_backend_pid())')
{
	my $holder = session($node);

	$holder->value($doing{idle_in_transaction}->{run});
	$admin->send("SELECT pgmc.acquire(timeout => '20 s')");
	$holder->send($end);
	$admin->ok("the next gets it after $end");
	$admin->value('SELECT pgmc.release()');
	is_clean($admin, "after $end");
	$holder->quit;
}

# ---- waiters ----

for my $how (sort keys %action)
{
	my $holder = session($node);
	my @waiter = map {
		session($node,
			options => $how eq 'kill_client' ? '-c client_connection_check_interval=20' : '')
	} 1 .. 3;

	$holder->value('SELECT pgmc.acquire()');
	for my $n (0 .. 2)
	{
		$waiter[$n]->send('SELECT pgmc.acquire()');
		is_waiting($admin, $n + 1);
	}
	$action{$how}->($waiter[1]);
	is_waiting($admin, 2);
	is_state($waiter[1], undef, $how eq 'cancel' ? '57014' : '57P01', "$how of a waiter")
	  unless $how eq 'kill_client';
	$holder->value('SELECT pgmc.release()');
	$waiter[0]->ok('the one before it has it');
	$action{$how}->($waiter[0]);
	$waiter[0]->run('SELECT pgmc.release()') if $how eq 'cancel';
	$waiter[2]->ok('the one behind it gets it then');
	$waiter[2]->value('SELECT pgmc.release()');
	is_clean($admin, "$how of waiters");
	$_->quit for $holder, @waiter;
}

unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');

done_testing();
