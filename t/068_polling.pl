# The worker polls instead of sleeping as long as there is work, and so does a session for the reply
# to its request: nothing that they aren't waiting for may get lost or be late by that, nobody who has
# stopped may keep the worker polling, and where it gains nothing both leave it alone.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

# also where there is one processor
my $node = start_server('polling', conf => "log_statement = none\npgmc.spin_time = 200\n");
my $admin = session($node);
my $holder = session($node);
my $busy = session($node);

$admin->value(<<END);
CREATE SERVER second FOREIGN DATA WRAPPER pgmc;
CREATE SERVER third FOREIGN DATA WRAPPER pgmc;
CREATE SERVER leased FOREIGN DATA WRAPPER pgmc OPTIONS (hold_timeout '1 s');
CREATE TABLE t (id int);
CREATE FUNCTION noisy() RETURNS int LANGUAGE plpgsql
	AS \$\$ BEGIN RAISE NOTICE 'hear me'; RETURN 1; END \$\$;
CREATE FUNCTION work(server name, until text) RETURNS bigint LANGUAGE plpgsql AS \$\$
DECLARE
	n bigint := 0;
	over boolean := false;
BEGIN
	PERFORM pgmc.acquire(server);
	WHILE NOT over LOOP
		PERFORM pgmc.execute_on(server, 'SELECT 1');
		n := n + 1;
		EXECUTE until INTO over;
	END LOOP;
	PERFORM pgmc.rollback(server), pgmc.release(server);
	RETURN n;
END \$\$;
END
is_free($admin, 'to begin with');
my $worker = worker_pid($admin);

# ---- notices ----

# They come before the end of the command, and by themselves
$holder->run(<<END);
DO \$\$
BEGIN
	PERFORM pgmc.acquire();
	FOR i IN 1 .. 1000 LOOP
		PERFORM pgmc.execute('SELECT noisy()');
		PERFORM pgmc.execute('SELECT noisy() FROM t RIGHT JOIN generate_series(1, 1) ON true');
	END LOOP;
	PERFORM pgmc.commit(), pgmc.release();
END \$\$;
END
is(() = $holder->{err} =~ /NOTICE:  00000: hear me/g, 2000, 'no notice gets lost');

# Nor does it have to wait for the end
$admin->value('SELECT pg_advisory_lock(1)');
$holder->send(<<END);
SELECT pgmc.acquire(), pgmc.execute('SELECT 1');
SELECT pgmc.execute('DO \$\$ BEGIN RAISE NOTICE ''early''; PERFORM pg_advisory_xact_lock(1); END \$\$');
SELECT pgmc.rollback(), pgmc.release();
END
my $heard = 0;
for (1 .. 1000)
{
	$holder->done;
	last if $heard = $holder->{stderr} =~ /early/;
	usleep(10_000);
}
ok($heard, 'a notice comes while its command goes on');
$admin->value('SELECT pg_advisory_unlock(1)');
$holder->result;

# ---- nobody who has stopped keeps it busy ----

sub uses_no_cpu
{
	my ($what) = @_;

	$admin->value('SELECT pg_sleep(0.2)');
	my @before = map { cpu_seconds($_) } $worker, $holder->{pid};
	$admin->value('SELECT pg_sleep(1)');
	my @after = map { cpu_seconds($_) } $worker, $holder->{pid};
	cmp_ok($after[0] - $before[0], '<=', 0.03, "the worker uses no CPU $what");
	cmp_ok($after[1] - $before[1], '<=', 0.03, '... nor does the session');
	return;
}

uses_no_cpu('with an idle connection');
$holder->value("SELECT pgmc.acquire(), pgmc.execute('SELECT 1')");
uses_no_cpu('for a hold that runs nothing');
$holder->send("SELECT pgmc.execute('SELECT pg_sleep(2)')");
uses_no_cpu('while it waits for a backend');
$holder->ok('which ends');

my $many = "SELECT pgmc.execute_many('INSERT INTO t VALUES (\$1)', array_agg(n)) FROM generate_series(1, 400000) AS n";
$holder->send($many);
wait_for($admin, "SELECT xact_status = 'active' FROM pgmc.connections WHERE holder_pid = $holder->{pid}");
stand_still($holder->{pid});
uses_no_cpu('for a holder that has stopped amid its parameter sets');
kill 'CONT', $holder->{pid};
$holder->ok('which goes on');
$holder->value('SELECT pgmc.rollback(), pgmc.release()');

# ---- what the worker isn't waiting for ----

$busy->value('SET statement_timeout = \'60 s\'');
$holder->value("SELECT pgmc.acquire('leased')");
$busy->send("SELECT work('second', \$\$SELECT NOT EXISTS (SELECT FROM pgmc.connections WHERE srvname = 'leased' AND state = 'held')\$\$)");
$busy->ok('a lease ends while another connection is busy');
cmp_ok($busy->{out}, '>', 10, 'so busy');
$holder->run("SELECT pgmc.release('leased')");

# an idle connection is ended
$holder->value("SELECT pgmc.acquire('third'); SELECT pgmc.release('third')");
my $third = $admin->value("SELECT backend_pid FROM pgmc.connections WHERE srvname = 'third'");
$busy->send("SELECT work('second', \$\$SELECT NOT EXISTS (SELECT FROM pgmc.connections WHERE srvname = 'third')\$\$)");
$admin->value("SELECT pg_terminate_backend($third)");
$busy->ok('the end of an idle connection is seen');

# two that are busy
$busy->send("SELECT work('second', \$\$SELECT clock_timestamp() > now() + interval '1 s'\$\$)");
$holder->send("SELECT work('third', \$\$SELECT clock_timestamp() > now() + interval '1 s'\$\$)");
$busy->ok('one of two busy connections');
my $one = $busy->{out};
$holder->ok('the other');
cmp_ok($one, '>', 10, 'has its share');
cmp_ok($holder->{out}, '>', 10, 'and so has the other');

# the others are closed, and then it ends itself
$busy->send("SELECT work('second', \$\$SELECT count(*) = 1 FROM pgmc.connections\$\$)");
$admin->value("SELECT pgmc.close('third'), pgmc.close('leased'), pgmc.close()");
$busy->ok('connections are closed meanwhile');
$busy->send("SELECT work('second', 'SELECT false')");
wait_for($admin, "SELECT count(*) = 1 FROM pgmc.connections WHERE state = 'held'");
$admin->value("SELECT pg_terminate_backend($worker, 10000)");
$busy->result;
like($busy->{err}, qr/ERROR:  0800[67]: /, 'the worker ends when it is told to');
is_free($admin, 'and another one starts');

# ---- what it is for, and where it is not worth it ----

# so long that a short call's reply is always here before the end of it
set_and_reload($node, 'pgmc.spin_time', 10000, $admin);

# How often a process has gone to sleep
sub sleeps
{
	my ($pid) = @_;

	return slurp_file("/proc/$pid/status") =~ /^voluntary_ctxt_switches:\s+(\d+)/m ? $1 : undef;
}

# so many calls, all of this kind; what they took of the session: times asleep, seconds of CPU
sub calls
{
	my ($n, $command) = @_;

	$holder->value("SELECT pgmc.acquire(), pgmc.execute('SELECT 1')");
	my $sleeps = sleeps($holder->{pid});
	my $cpu = cpu_seconds($holder->{pid});
	$holder->send("DO \$\$ BEGIN FOR i IN 1 .. $n LOOP PERFORM pgmc.execute('$command'); END LOOP; END \$\$");
	$holder->ok("$n times $command");
	$sleeps = sleeps($holder->{pid}) - $sleeps;
	$cpu = cpu_seconds($holder->{pid}) - $cpu;
	$holder->value('SELECT pgmc.rollback(), pgmc.release()');
	return ($sleeps, $cpu);
}

my ($polling) = calls(2000, 'SELECT 1');
cmp_ok((calls(200, 'SELECT pg_sleep(0.02)'))[1], '<', 1, 'it learns not to poll in longer ones');

# who polls can be cancelled, and sees that the connection is gone
my $loopback = loopback_pid($admin);
$holder->value("SET statement_timeout = '300 ms'");
$holder->run("SELECT work('pgmc_loopback', 'SELECT false')");
like($holder->{err}, qr/ERROR:  57014: /, 'a session that polls can be cancelled');
is_free($admin, 'afterwards');
is(loopback_pid($admin), $loopback, 'which costs no connection');
$holder->value('SET statement_timeout = 0');
$busy->send("SELECT work('pgmc_loopback', 'SELECT false')");
wait_for($admin, "SELECT count(*) = 1 FROM pgmc.connections WHERE holder_pid = $busy->{pid} AND backend_pid IS NOT NULL");
$admin->value("SELECT pg_terminate_backend(backend_pid, 10000) FROM pgmc.connections WHERE holder_pid = $busy->{pid}");
$busy->result;
like($busy->{err}, qr/ERROR:  08006: /, '... and sees that its connection is gone');

set_and_reload($node, 'pgmc.spin_time', 0, $admin);
my ($sleeping) = calls(2000, 'SELECT 1');
cmp_ok($polling, '<', $sleeping / 2, 'a session that polls sleeps in fewer calls');

$_->quit for $holder, $busy, $admin;
done_testing();
