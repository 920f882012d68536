# The loopback backend is terminated or cancelled, in everything it may be doing.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_server('loopback');
my $admin = session($node);
my $holder = session($node);
my $next = session($node);

$admin->value(<<END);
CREATE TABLE t (id text);
CREATE TABLE slow (id text);
CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql
	AS \$\$ BEGIN PERFORM pg_sleep(600); RETURN NULL; END \$\$;
CREATE CONSTRAINT TRIGGER slow_commit AFTER INSERT ON slow
	DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hang();
END

my $sleeping = "EXISTS (SELECT FROM pg_stat_activity
	WHERE application_name LIKE 'pgmc%' AND state = 'active' AND wait_event = 'PgSleep')";

sub terminate
{
	return $admin->value('SELECT pg_terminate_backend(' . loopback_pid($admin) . ', 10000)');
}

sub cancel
{
	return $admin->value('SELECT pg_cancel_backend(' . loopback_pid($admin) . ')');
}

# ---- unheld ----

is_free($admin, 'to begin with');
my $pid = loopback_pid($admin);
cancel();
is_free($holder, 'cancel while nobody holds it');
is(loopback_pid($admin), $pid, 'the same connection');
terminate();
wait_for($admin, 'SELECT pgmc.is_closed()', 'noticed without a call that needs it');
ok(1, 'a terminated idle connection is noticed at once');
is($admin->value('SELECT count(*) FROM pgmc.connections'), '0', 'and gone');
is_free($holder, 'terminated while nobody held it');

# ---- held, doing nothing ----

for my $in_transaction (0, 1)
{
	my $name = 'terminated while held' . ($in_transaction ? ' in a transaction' : '');

	$holder->value('SELECT pgmc.acquire()');
	$holder->value("SELECT pgmc.execute('INSERT INTO t VALUES (''lost'')')") if $in_transaction;
	$next->send('SELECT pgmc.acquire()');
	is_waiting($admin, 1);
	terminate();
	wait_for($admin, "SELECT state = 'broken' FROM pgmc.connections", $name);
	is($admin->value('SELECT holder_pid, last_error FROM pgmc.connections'),
		"$holder->{pid}|terminating connection due to administrator command",
		"$name: the hold stays, broken");
	is_waiting($admin, 1);
	is_state($holder, "SELECT pgmc.execute('INSERT INTO t VALUES (''elsewhere'')')",
		'08006', "$name: the holder's next call") unless $in_transaction;
	if ($in_transaction)
	{
		# the error ended the hold; not so when it is caught
		is( $holder->run(
				"DO \$\$ BEGIN
				FOR i IN 1 .. 3 LOOP
					BEGIN
						PERFORM pgmc.execute('INSERT INTO t VALUES (''elsewhere'')');
						RAISE WARNING 'done';
					EXCEPTION WHEN connection_failure THEN NULL; END;
					BEGIN
						PERFORM pgmc.commit();
						RAISE WARNING 'committed';
					EXCEPTION WHEN connection_failure THEN NULL; END;
				END LOOP; END \$\$")
			  . $holder->{err}, '', "$name: 08006, again and again");
		is_waiting($admin, 1);
		$holder->run('SELECT pgmc.release()');
		is(sqlstate($holder->{err}), '', "$name: release ends the hold");
	}
	$next->ok("$name: the next gets it");
	is($next->value('SELECT pgmc.transaction_status()'), 'idle', "$name: idle");
	$next->value("SELECT pgmc.execute('SELECT 1'), pgmc.commit(), pgmc.release()");
	is_clean($admin, $name);
	is($admin->value('SELECT count(*) FROM t'), '0', "$name: nothing landed elsewhere");
	is_free($holder, $name);
}

# ---- running something ----

my %running = (
	executing => "SELECT pgmc.execute('SELECT pg_sleep(600)')",
	committing => "SELECT pgmc.execute('INSERT INTO slow VALUES (''lost'')'), pgmc.commit()",
	autonomous => "SELECT pgmc.autonomous('SELECT pg_sleep(600)')",
	streaming =>
	  "SELECT count(*) FROM pgmc.query('SELECT generate_series(1, 100000)
		UNION ALL SELECT 1 FROM pg_sleep(600)') AS g(i int)");

for my $what (sort keys %running)
{
	for my $how ('cancel', 'terminate')
	{
		my $name = "$how of the loopback $what";

		$holder->value('SELECT pgmc.acquire()') unless $what eq 'autonomous';
		$holder->send($running{$what});
		wait_for($admin, "SELECT $sleeping", $name);
		$next->send('SELECT pgmc.acquire()');
		is_waiting($admin, 1);
		$how eq 'cancel' ? cancel() : terminate();
		is_state($holder, undef, $how eq 'cancel' ? '57014' : '08006', "$name: the caller");
		like($holder->{err}, qr/terminating connection due to administrator command/,
			"$name: with the server's last words") if $how eq 'terminate';
		$next->ok("$name: the next gets it");
		is($next->value('SELECT pgmc.transaction_status()'), 'idle', "$name: idle");
		$next->value('SELECT pgmc.release()');
		is_free($holder, $name);
		is_clean($admin, $name);
	}
}
is($admin->value('SELECT count(*) FROM t, slow'), '0', 'nothing was committed');

# ---- many times, while sessions take turns ----

my $rounds = 40;
my @busy = map { session($node) } 1 .. 3;
my ($lost, $other) = (0, 0);
$admin->value('CREATE TABLE acknowledged (id bigserial, who int, n int, UNIQUE (who, n))');
for my $round (1 .. $rounds)
{
	# each writes its row in a transaction of the loopback, and says so where it is committed
	for my $who (0 .. $#busy)
	{
		$busy[$who]->send(
			"SELECT pgmc.acquire(timeout => '20 s');
			SELECT pgmc.execute('INSERT INTO acknowledged (who, n) VALUES (\$1, \$2)', $who, $round);
			SELECT pgmc.commit(); SELECT 'committed'; SELECT pgmc.release()");
	}
	$admin->run('SELECT pg_terminate_backend(pid) FROM pgmc.connections, pg_stat_activity
		WHERE pid = backend_pid');
	for my $who (0 .. $#busy)
	{
		$busy[$who]->result;

		# no hold after an error, so what follows fails with 55000
		my $state = sqlstate($busy[$who]->{err});
		my $there = $admin->value(
			"SELECT count(*) FROM acknowledged WHERE who = $who AND n = $round");

		if ($state eq '')
		{
			$lost++ unless $there;
		}
		elsif ($state eq '08006')
		{
			$other++, diag($busy[$who]->{err}) if $there && $busy[$who]->{err} !~ /WARNING/;
		}
		elsif ($state ne '08007')
		{
			$other++;
			diag("round $round, session $who: $busy[$who]->{err}");
		}
	}
}
is($lost, 0, "$rounds kills under load: no acknowledged commit is lost");
is($other, 0, 'and nobody is told anything but 08006 for what is not there');
is_free($_, 'afterwards') for @busy;
is_clean($admin, 'afterwards');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');

done_testing();
