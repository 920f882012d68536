# Clients that stop reading, results and parameters of any size: nobody else is held up, the
# worker idles and stays small.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = start_server('flow');
my $admin = session($node);
my $other = session($node);

$admin->value(<<END);
CREATE SERVER audit FOREIGN DATA WRAPPER pgmc;
CREATE TABLE t (id int);
CREATE FUNCTION noisy(i int) RETURNS int LANGUAGE plpgsql
	AS \$\$ BEGIN RAISE NOTICE '% %', i, repeat('x', 200); RETURN i; END \$\$;
END
is_free($admin, 'to begin with');
my $worker = worker_pid($admin);

# Stop the client of a session that is running something
sub stop_reading
{
	my ($session) = @_;

	wait_for($admin,
		"SELECT state = 'active' FROM pg_stat_activity WHERE pid = $session->{pid}");
	$session->signal('STOP');
	return;
}

# The client of this process no longer reads, so that it waits to send
sub is_stuck
{
	my ($pid) = @_;

	return wait_for($admin,
		"SELECT wait_event = 'ClientWrite' FROM pg_stat_activity WHERE pid = $pid",
		'a client that has stopped reading');
}

# ---- a client stops reading while its session's holds are aborted with warnings ----

my $slow = session($node);
$slow->send(<<END);
DO \$\$ BEGIN
	FOR i IN 1 .. 1000000 LOOP
		BEGIN
			PERFORM pgmc.acquire(timeout => '20 s');
			PERFORM pgmc.execute('INSERT INTO t VALUES (1)');
			RAISE division_by_zero;
		EXCEPTION WHEN division_by_zero THEN
			NULL;
		END;
	END LOOP;
END \$\$
END
stop_reading($slow);
is_stuck($slow->{pid});
is($admin->value("SELECT count(*) FROM pgmc.connections WHERE holder_pid = $slow->{pid}"),
	'0', 'the hold ends before the warning is sent');
is_free($other, 'an aborted holder whose client has stopped reading');
is($admin->value('SELECT count(*) FROM t'), '0', 'and all is rolled back');
$slow->signal('KILL');
$slow->quit;
is_clean($admin, 'after its client was killed');

# ---- a reader stops in a million rows ----

$slow = session($node);
$slow->value('SELECT pgmc.acquire()');
my $small = proc_kb($worker, 'smaps_rollup', 'Pss');
$slow->send("SELECT count(*) FROM pgmc.query('SELECT noisy(generate_series(1, 1000000))') AS q(i int)");
stop_reading($slow);
is_stuck($slow->{pid});
is_stuck(loopback_pid($admin));
my $cpu = cpu_seconds($worker);
my $loopback = loopback_pid($admin);
$admin->value('SELECT pg_sleep(1)');
$cpu = cpu_seconds($worker) - $cpu;
cmp_ok($cpu, '<=', 0.03, 'the worker uses no CPU for a reader that has stopped');
is_less_kb(proc_kb($worker, 'smaps_rollup', 'Pss') - $small, 2000, 'and no memory');

is( $other->value(
		"SELECT pgmc.acquire('audit'), pgmc.execute('INSERT INTO t VALUES (2)'), pgmc.commit();
		SELECT pgmc.release()"), '|1|', 'another connection works meanwhile');
$other->send("SELECT pgmc.acquire(timeout => '20 s'), pgmc.transaction_status(); SELECT pgmc.release()");
is_waiting($admin, 1);
$admin->value("SELECT pg_terminate_backend($slow->{pid}, 10000)");
$slow->signal('KILL');
$slow->quit;
$other->ok('the next one gets it when the reader is terminated');
is($other->{out}, '|idle', 'idle');
is(loopback_pid($admin), $loopback, 'the same connection');
is_clean($admin, 'after a reader that had stopped');

# ---- a million rows ----

my $rows = 1_000_000;
my $before = proc_kb($worker, 'status', 'VmHWM');
is( $other->value(
		"SET work_mem = '1MB'; SELECT pgmc.acquire(); SELECT count(*), sum(i), min(length(x)) FROM
			pgmc.query('SELECT generate_series(1, $rows), repeat(''x'', 60)') AS q(i bigint, x text);
		SELECT pgmc.commit(), pgmc.release()"),
	"\n$rows|" . $rows * ($rows + 1) / 2 . "|60\n|", 'a million rows');
is_less_kb(proc_kb($worker, 'status', 'VmHWM') - $before, 4000, "don't grow the worker");

# ---- a huge value each way ----

$small = proc_kb($worker, 'smaps_rollup', 'Pss');
is( $other->value(
		"SELECT pgmc.acquire(); SELECT length(x), md5(x) = md5(repeat('xy', 50000000)) FROM
			pgmc.query('SELECT repeat(''xy'', 50000000)') AS q(x text);
		SELECT * FROM pgmc.query('SELECT length(\$1), md5(\$1) = md5(repeat(''xy'', 10000000))',
			repeat('xy', 10000000)) AS q(n int, same bool);
		SELECT pgmc.commit(), pgmc.release()"),
	"\n100000000|t\n20000000|t\n|", 'values of 100 MB');
is_free($admin, 'after huge values');
my $rest;
for (1 .. 300)
{
	$rest = proc_kb($worker, 'smaps_rollup', 'Pss') - $small;
	last if $rest < 8000;
	$admin->value('SELECT pg_sleep(0.01)');
}
is_less_kb($rest, 8000, 'the worker shrinks after them');
$admin->value('SELECT pgmc.close()');
is_free($admin, 'after huge values and a new connection');
is_less_kb(proc_kb($worker, 'smaps_rollup', 'Pss') - $small, 8000, 'a new connection is a small one');

# ---- one of 900 MB doesn't end anybody else's hold ----

SKIP:
{
	my ($available) = slurp_file('/proc/meminfo') =~ /^MemAvailable:\s+(\d+)/m;

	skip 'needs 8 GB of memory', 5 if $available < 8_000_000;
	$slow = session($node);
	$slow->value('SELECT pgmc.acquire()');
	$other->value("SELECT pgmc.acquire('audit')");
	$slow->send("SELECT * FROM pgmc.query('SELECT length(\$1)', repeat('x', 900000000)) AS q(n int)");

	# until libpq has it as well
	my ($turns, $worst) = (0, 0);
	until ($slow->done || proc_kb($worker, 'status', 'VmRSS') > 1_500_000)
	{
		my $start = time();
		$other->value("SELECT pgmc.execute('SELECT 1')");
		$worst = time() - $start if time() - $start > $worst;
		$turns++;
	}
	note("$turns statements meanwhile, the slowest took $worst s");
	cmp_ok($turns, '>=', 3, 'a parameter of 900 MB on its way, while another session works');
	$admin->value("SELECT pg_cancel_backend($slow->{pid})");
	is_state($slow, undef, '57014', 'and it can be cancelled');
	is($other->value("SELECT pgmc.execute('SELECT 1')"), '1', 'the other still works');
	$other->value('SELECT pgmc.rollback(), pgmc.release()');
	is_free($slow, 'after a cancelled huge parameter');
	is(worker_pid($admin), $worker, 'the worker is still there');
	$slow->quit;
}
is_clean($admin, 'in the end');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');

done_testing();
