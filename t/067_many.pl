# execute_many with so many parameter sets that they never are in one place at a time: memory,
# both directions full, and what may happen in the middle of it.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

# not a line of the log for each set
my $node = start_server('many', conf => "deadlock_timeout = 200\nlog_statement = none\n");
my $admin = session($node);
my $holder = session($node, options => '-c client_min_messages=error');
my $next = session($node);

$admin->value(<<END);
CREATE SERVER leased FOREIGN DATA WRAPPER pgmc OPTIONS (hold_timeout '1 s');
CREATE TABLE t (id int);
CREATE TABLE texts (id int, body text);
CREATE TABLE other (id int);
CREATE FUNCTION noisy(i int, size int) RETURNS int LANGUAGE plpgsql
	AS \$\$ BEGIN RAISE NOTICE '%', repeat('x', size); RETURN i; END \$\$;
CREATE FUNCTION noisy_once(i int) RETURNS int LANGUAGE plpgsql AS \$\$
BEGIN
	IF i = 5000 THEN
		PERFORM pg_advisory_xact_lock(1);
		RAISE NOTICE '%', repeat('x', 5000000);
	END IF;
	RETURN i;
END \$\$;
END
is_free($admin, 'to begin with');

sub in_t
{
	return $admin->value('SELECT count(*) FROM t');
}

# Sets that the loopback backend works on for so long that it takes minutes
my $slowly = "pgmc.execute_many('INSERT INTO t SELECT \$1 FROM pg_sleep(0.001)', array_agg(n)) FROM generate_series(1, 500000) AS n";

# It is in the middle of them
sub is_in_the_middle
{
	return wait_for($admin, "SELECT count(*) = 1 FROM pg_stat_activity
		WHERE application_name LIKE 'pgmc%' AND wait_event = 'PgSleep'");
}

# ---- a million sets ----

my $sets = 1_000_000;
my $worker = worker_pid($admin);
my $insert = "SELECT pgmc.acquire();
	SELECT pgmc.execute_many('INSERT INTO t VALUES (\$1)', array_agg(n)) FROM generate_series(1, %d) AS n;
	SELECT pgmc.commit(), pgmc.release()";
is($holder->value(sprintf $insert, 10_000), "\n10000\n|", 'ten thousand sets');
my $before = proc_kb($worker, 'status', 'VmHWM');
$holder->send(sprintf $insert, $sets);
for (1 .. 3000)
{
	last if $holder->done;		# where all is slow, it takes longer than others wait
	usleep(100_000);
}
$holder->ok('a million sets');
is($holder->{out}, "\n$sets\n|", 'and so many rows');
is_less_kb(proc_kb($worker, 'status', 'VmHWM') - $before, 4000, "don't grow the worker");
is( $admin->value('SELECT count(*), sum(id) FROM t'),
	(10_000 + $sets) . '|' . (10_000 * 10_001 / 2 + $sets * ($sets + 1) / 2),
	'all are there');
$admin->value('TRUNCATE t');
is_clean($admin, 'after a million sets');

# ---- both directions are full ----

is( $holder->value("SELECT pgmc.acquire();
		SELECT pgmc.execute_many('INSERT INTO texts VALUES (1, substr(\$1, 1, 10)) RETURNING repeat(body, 10000)',
			array_agg(repeat('x', 20000))) FROM generate_series(1, 1000) AS n;
		SELECT pgmc.rollback()"),
	"\n1000", 'large parameters, large rows that nobody wants');
is( $holder->value("SELECT pgmc.execute_many('SELECT noisy(length(\$1), 20000)',
			array_agg(repeat('x', 20000))) FROM generate_series(1, 1000) AS n;
		SELECT pgmc.rollback(), pgmc.release()"),
	"1000\n|", 'large parameters, large notices');
is_clean($admin, 'after both directions were full');

# ---- one huge value, and one behind an error ----

is( $holder->value("SELECT pgmc.acquire();
		SELECT pgmc.execute_many('INSERT INTO texts VALUES (\$1, \$2)', ARRAY[1, 2, 3], ARRAY['a', repeat('b', 20000000), 'c']);
		SELECT * FROM pgmc.query('SELECT string_agg(length(body)::text, '' '' ORDER BY id) FROM texts') AS q(n text);
		SELECT pgmc.rollback()"),
	"\n3\n1 20000000 1", 'a value of 20 MB');
is( $holder->value(<<END), "inerror\n\n1", 'one behind an error');
DO \$\$ BEGIN
	PERFORM pgmc.execute_many('SELECT 1 / length(\$1)', ARRAY['a', '', repeat('b', 20000000), 'c']);
EXCEPTION WHEN division_by_zero THEN
	NULL;
END \$\$;
SELECT pgmc.transaction_status();
SELECT pgmc.rollback();
SELECT pgmc.execute('SELECT 1');
END
$holder->value('SELECT pgmc.rollback(), pgmc.release()');
is_free($next, 'after huge values');
is(worker_pid($admin), $worker, 'it is the same worker');

# ---- cancelled ----

for my $autocommit ('false', 'true')
{
	my $how = $autocommit eq 'true' ? 'autocommit' : 'transaction';

	$holder->value("SELECT pgmc.acquire(), pgmc.set_autocommit($autocommit)");
	my $loopback = loopback_pid($admin);
	$holder->send("SELECT $slowly");
	is_in_the_middle();
	$admin->value("SELECT pg_cancel_backend($holder->{pid})");
	is_state($holder, undef, '57014', "$how: cancelled in the middle");
	is_free($next, "$how: after a cancel");
	is(loopback_pid($admin), $loopback, "$how: the connection is the same");
	is(in_t(), '0', "$how: nothing is left of it");

	# the hold is older than what is cancelled
	$holder->value("SELECT pgmc.acquire(), pgmc.set_autocommit($autocommit)");
	$holder->send(<<END);
DO \$\$ BEGIN
	PERFORM $slowly;
EXCEPTION WHEN query_canceled THEN
	NULL;
END \$\$;
SELECT pgmc.transaction_status();
SELECT pgmc.rollback();
SELECT pgmc.execute_many('INSERT INTO t VALUES (\$1)', ARRAY[1, 2]);
SELECT pgmc.rollback();
END
	is_in_the_middle();
	$admin->value("SELECT pg_cancel_backend($holder->{pid})");
	$holder->ok("$how: cancelled and caught");
	is( $holder->{out},
		$autocommit eq 'true' ? "idle\n\n2" : "inerror\n\n2",
		"$how: the hold goes on");
	is(in_t(), $autocommit eq 'true' ? '2' : '0', "$how: nothing is left of what was cancelled");
	$holder->value('SELECT pgmc.release()');
	$admin->value('TRUNCATE t');

	# while the loopback backend waits for more of them, so that no cancel can hit it: the holder
	# is kept from sending any by a client that doesn't read
	$holder->value("SELECT pgmc.acquire(), pgmc.set_autocommit($autocommit)");
	$holder->value('SET client_min_messages = notice');
	$admin->value('SELECT pg_advisory_lock(1)');
	$holder->send(<<END);
DO \$\$ BEGIN
	PERFORM pgmc.execute_many('INSERT INTO t SELECT noisy_once(\$1)', array_agg(n))
		FROM generate_series(1, 500000) AS n;
EXCEPTION WHEN query_canceled THEN
	NULL;
END \$\$;
SELECT pgmc.transaction_status();
END
	holds_up($admin);
	$holder->signal('STOP');
	$admin->value('SELECT pg_advisory_unlock(1)');
	wait_for($admin, "SELECT wait_event = 'ClientWrite' FROM pg_stat_activity WHERE pid = $holder->{pid}");
	wait_for($admin, "SELECT wait_event = 'ClientRead' FROM pg_stat_activity WHERE pid = $loopback");
	$admin->value("SELECT pg_cancel_backend($holder->{pid})");
	$holder->signal('CONT');
	$holder->result;
	is($holder->{out}, $autocommit eq 'true' ? 'idle' : 'inerror', "$how: cancelled between two sets");
	is(in_t(), '0', "$how: nothing is left of those before it");
	$holder->value('SET client_min_messages = error');
	$holder->value('SELECT pgmc.rollback(), pgmc.release()');
	is_clean($admin, "$how: after cancels");
}

# ---- the end of the loopback backend, the worker, the holder, the lease ----

for my $autocommit ('false', 'true')
{
	my $how = $autocommit eq 'true' ? 'autocommit' : 'transaction';

	$holder->value("SELECT pgmc.acquire(), pgmc.set_autocommit($autocommit)");
	$holder->send("SELECT $slowly");
	is_in_the_middle();
	$admin->value('SELECT pg_terminate_backend(' . loopback_pid($admin) . ')');
	is_state($holder, undef, '08006', "$how: the loopback backend is terminated");
	is_free($next, "$how: after the loopback backend was terminated");

	$holder->value("SELECT pgmc.acquire(), pgmc.set_autocommit($autocommit)");
	$holder->send(<<END);
DO \$\$ BEGIN
	PERFORM $slowly;
EXCEPTION WHEN connection_failure THEN
	PERFORM pgmc.execute_many('INSERT INTO t VALUES (\$1)', ARRAY[1]);
END \$\$;
END
	is_in_the_middle();
	$admin->value('SELECT pg_terminate_backend(' . loopback_pid($admin) . ')');
	is_state($holder, undef, '08006', "$how: and nothing reopens in the hold");
	is_free($next, "$how: after the loopback backend was terminated twice");

	$holder->value("SELECT pgmc.acquire(), pgmc.set_autocommit($autocommit)");
	$holder->send("SELECT $slowly");
	is_in_the_middle();
	$admin->value("SELECT pg_terminate_backend($worker)");
	is_state($holder, undef, '08006', "$how: the worker is terminated");
	wait_for($admin, "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $worker");
	is_free($next, "$how: after the worker was terminated");
	$worker = worker_pid($admin);

	my $victim = session($node);
	$victim->value("SELECT pgmc.acquire(), pgmc.set_autocommit($autocommit)");
	my $loopback = loopback_pid($admin);
	$victim->send("SELECT $slowly");
	is_in_the_middle();
	$next->send("SELECT pgmc.acquire('pgmc_loopback', '20 s'); SELECT pgmc.transaction_status()");
	is_waiting($admin, 1);
	$admin->value("SELECT pg_terminate_backend($victim->{pid})");
	$next->ok("$how: the holder is terminated");
	is($next->{out}, "\nidle", "$how: the next one gets an idle connection");
	is(loopback_pid($admin), $loopback, "$how: the same");
	$next->value('SELECT pgmc.release()');
	$victim->quit;

	$holder->value("SELECT pgmc.acquire('leased'), pgmc.set_autocommit($autocommit)");
	is_state($holder, "SELECT $slowly", '25P03', "$how: the lease ends");
	is(in_t(), '0', "$how: nothing is left of any of them");
	is_clean($admin, "$how: after all that");
	$admin->value('SELECT pgmc.close(), pgmc.close(\'leased\')');
}

# ---- a deadlock while there is more to send ----

$holder->value('SELECT pgmc.acquire()');
$holder->value('BEGIN; LOCK TABLE other');
is_state($holder, "SELECT pgmc.execute_many('INSERT INTO other VALUES (\$1)', array_agg(n)) FROM generate_series(1, 500000) AS n",
	'40P01', 'sets that wait for a lock of their sender');
$holder->value('ROLLBACK');
is_free($next, 'after a deadlock');

is_clean($admin, 'in the end');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');

done_testing();
