# The worker is terminated, cancelled, stopped, and what a crash of the server leaves.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_server('worker');
my $admin = session($node);
my $holder = session($node);
my @waiter = map { session($node) } 1 .. 3;

$admin->value(<<END);
CREATE TABLE t (id text);
CREATE TABLE slow (id text);
CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql
	AS \$\$ BEGIN PERFORM pg_sleep(600); RETURN NULL; END \$\$;
CREATE CONSTRAINT TRIGGER slow_commit AFTER INSERT ON slow
	DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hang();
END

my %kill = (
	terminate => sub { $admin->value('SELECT pg_terminate_backend(' . worker_pid($admin) . ', 10000)') },
	stop => sub { $admin->value('SELECT pgmc.stop_worker()') });

# No loopback backend outlives the worker
sub all_gone
{
	my ($name) = @_;

	return wait_for($admin,
		"SELECT count(*) = 0 FROM pg_stat_activity
			WHERE application_name LIKE 'pgmc%' AND backend_type = 'client backend'",
		"$name: no loopback backend");
}

for my $how (sort keys %kill)
{
	# ---- idle ----

	is_free($admin, "before $how");
	is($kill{$how}->(), 't', "$how of the idle worker");
	all_gone("$how of the idle worker");
	is($admin->value('SELECT pgmc.is_closed(), count(*) FROM pgmc.connections'),
		't|0', 'all is closed');
	is_free($holder, "after $how of the idle worker");

	# ---- held, with waiters ----

	my %doing = (
		idle => undef,
		executing => "SELECT pgmc.execute('SELECT pg_sleep(600)')",
		committing =>
		  "SELECT pgmc.execute('INSERT INTO slow VALUES (''lost'')'), pgmc.commit()",
		streaming => "SELECT count(*) FROM pgmc.query('SELECT generate_series(1, 100000)
			UNION ALL SELECT 1 FROM pg_sleep(600)') AS g(i int)");

	for my $what (sort keys %doing)
	{
		my $name = "$how while held, $what";

		$holder->value("SELECT pgmc.acquire(), pgmc.execute('INSERT INTO t VALUES (''lost'')')");
		if ($doing{$what})
		{
			$holder->send($doing{$what});
			wait_for($admin, "SELECT count(*) = 1 FROM pg_stat_activity
				WHERE application_name LIKE 'pgmc%' AND wait_event = 'PgSleep'", $name);
		}
		for my $n (0 .. 2)
		{
			$waiter[$n]->send('SELECT pgmc.acquire(), pgmc.transaction_status(); SELECT pgmc.release()');
			is_waiting($admin, $n + 1);
		}
		$kill{$how}->();
		if ($doing{$what})
		{
			$holder->result;
			like(sqlstate($holder->{err}), qr/^08006$|^08007$/, "$name: the holder is told");
		}
		else
		{
			is( $holder->run(
					"DO \$\$ BEGIN
					FOR i IN 1 .. 3 LOOP
						BEGIN
							PERFORM pgmc.execute('INSERT INTO t VALUES (''elsewhere'')');
							RAISE WARNING 'done';
						EXCEPTION WHEN connection_failure THEN NULL; END;
					END LOOP; END \$\$")
				  . $holder->{err}, '', "$name: the holder is told, again and again");
			is_state($holder, 'SELECT pgmc.commit()', '08006', "$name: also at commit");
		}
		for my $session (@waiter)
		{
			$session->result;
			like(sqlstate($session->{err}), qr/^(08006)?$/, "$name: the waiters are told or served");
			$session->run('SELECT pgmc.release_all()');
		}
		$holder->run('SELECT pgmc.release_all()');
		is_free($_, $name) for $holder, @waiter;
		is_clean($admin, $name);
	}
}
all_gone('') if $kill{stop}->();
is($admin->value('SELECT pgmc.stop_worker()'), 'f', 'no worker to stop');
is($admin->value('SELECT count(*) FROM t, slow'), '0', 'nothing was committed');

# ---- it doesn't mind a cancel ----

is_free($admin, 'worker started');
$holder->value("SELECT pgmc.acquire(), pgmc.execute('INSERT INTO t VALUES (''kept'')')");
my $worker = worker_pid($admin);
$admin->value("SELECT pg_cancel_backend($worker)") for 1 .. 5;
$holder->value('SELECT pgmc.commit(), pgmc.release()');
is(worker_pid($admin), $worker, 'the worker ignores a cancel');
is($admin->value('SELECT string_agg(id, $$ $$) FROM t'), 'kept', 'and so does its work');

# ---- under load, many times ----

my $rounds = 60;
my %states;
my $wrong = 0;
$admin->value('CREATE TABLE acknowledged (who int, n int)');
for my $round (1 .. $rounds)
{
	my @busy = ($holder, @waiter);

	for my $who (0 .. $#busy)
	{
		$busy[$who]->send(
			$who % 2
			? "SELECT pgmc.autonomous('INSERT INTO acknowledged VALUES (\$1, \$2)', $who, $round); SELECT 'committed'"
			: "SELECT pgmc.acquire(timeout => '20 s');
				SELECT pgmc.execute('INSERT INTO acknowledged SELECT \$1, \$2 FROM generate_series(1, 100)', $who, $round);
				SELECT pgmc.commit(); SELECT 'committed'; SELECT pgmc.release()");
	}
	$kill{terminate}->() if worker_pid($admin) ne '';
	for my $who (0 .. $#busy)
	{
		$busy[$who]->result;
		my $state = sqlstate($busy[$who]->{err});
		my $there = $admin->value(
			"SELECT count(*) FROM acknowledged WHERE who = $who AND n = $round");

		$states{$state}++;
		$wrong++, diag("round $round: $busy[$who]->{err}")
		  if $state eq '' && $there != ($who % 2 ? 1 : 100) || $state !~ /^(0800[67])?$/;
		$busy[$who]->run('SELECT pgmc.release_all()') if $state;
	}
}
is($wrong, 0, "$rounds kills under load: nothing acknowledged is lost, all others are told");
note(join ', ', map { "$_: $states{$_}" } sort keys %states);
is_free($_, 'afterwards') for $holder, @waiter;
is_clean($admin, 'afterwards');

# ---- a crash ----

for my $victim ('loopback', 'worker')
{
	$holder->value("SELECT pgmc.acquire(), pgmc.execute('INSERT INTO t VALUES (''lost'')')");
	$waiter[0]->send('SELECT pgmc.acquire()');
	is_waiting($admin, 1);
	my $pid = $victim eq 'worker' ? worker_pid($admin) : loopback_pid($admin);
	kill 'KILL', $pid;
	$waiter[0]->result;
	ok($waiter[0]->{err} ne '', "SIGKILL of the $victim: sessions end");
	$_->quit for $admin, $holder, @waiter;
	await_up($node);
	$admin = session($node);
	$holder = session($node);
	@waiter = map { session($node) } 1 .. 3;
	is($admin->value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pgmc worker'
			OR application_name LIKE 'pgmc%'"), '0', 'nothing of pgmc runs after the restart');
	$_->send("SELECT pgmc.acquire(timeout => '20 s'), pgmc.execute('SELECT 1'), pgmc.commit();
		SELECT pgmc.release()") for $holder, @waiter;
	$_->ok('all at once acquire as if nothing had been') for $holder, @waiter;
	is_clean($admin, "after SIGKILL of the $victim");
	is($admin->value("SELECT count(*) FROM t WHERE id = 'lost'"), '0', 'and nothing was committed');
}

$_->quit for $admin, $holder, @waiter;
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|signal (?!9)\d+/, 'nothing else crashed');

done_testing();
