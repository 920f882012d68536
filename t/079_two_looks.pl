# What a call says or does is decided by one look at what is shared, or a second one that notices what has
# changed since the first. Each of these had two that didn't fit together.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IO::Socket::INET;
use IPC::Run;
use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $node = start_server('looks', conf => "log_min_messages = fatal\n");
my $admin = session($node);
my ($a, $b, $c) = map { session($node) } 1 .. 3;

sub churn
{
	my ($script, $clients, $rounds) = @_;
	my ($out, $in) = ('', '');
	my $file = $node->basedir . "/churn.$clients.sql";

	open(my $f, '>', $file) || die $!;
	print $f $script;
	close($f);
	return IPC::Run::start([ $node->installed_command('pgbench'), '-n', '-c', $clients, '-t', $rounds, '-f', $file,
			$node->connstr('postgres') ], '<', '/dev/null', '>&', \$out);
}

# ---- close() ----

$a->value("BEGIN; SELECT pgmc.acquire(), pgmc.execute('SELECT 1')");
my $worker = worker_pid($admin);
stand_still($worker);
$a->value('ROLLBACK');
$b->send('SELECT pgmc.acquire()');
is_waiting($admin, 1);
$c->send('SELECT pgmc.close()');
wait_for($admin, "SELECT query LIKE '%close%' AND (state = 'idle' OR wait_event_type = 'Extension') FROM pg_stat_activity WHERE pid = $c->{pid}",
	'its look');
kill 'CONT', $worker;
$b->ok('who is queued gets what comes back');
is_state($c, undef, '55006', 'close: so it is in use');
$b->value('SELECT pgmc.release()');

# the same backend before and after a close that says it has closed it, or that none was open
$admin->value('CREATE TABLE closings (wrong boolean)');
$admin->value(<<END);
CREATE FUNCTION close_it() RETURNS void LANGUAGE plpgsql AS \$\$
DECLARE
	before int := (SELECT backend_pid FROM pgmc.connections WHERE srvname = 'pgmc_loopback');
BEGIN
	PERFORM pgmc.close();
	INSERT INTO closings SELECT before = (SELECT backend_pid FROM pgmc.connections WHERE srvname = 'pgmc_loopback');
EXCEPTION WHEN object_in_use THEN INSERT INTO closings VALUES (false);
END \$\$;
END
for my $end ('ROLLBACK', 'SELECT pgmc.commit(), pgmc.release(); COMMIT')
{
	my $bench = churn("BEGIN;\nSELECT pgmc.acquire();\nSELECT pgmc.execute('SELECT 1');\n$end;\n", 3, 1500);
	my $closings = 0;

	$admin->value('TRUNCATE closings');
	while ($bench->pumpable && $closings < 2000)
	{
		$admin->value('SELECT close_it()');
		$closings++;
	}
	$bench->finish;
	cmp_ok($closings, '>', 50, "close in the midst of others, $end: $closings");
	is($admin->value('SELECT count(*) FROM closings WHERE wrong'), '0', 'what is open after it was in use');
}

# ---- what a session leaves that ends while its connection is being recovered ----

my $left = 0;
for my $n (1 .. 60)
{
	attempt($node, "BEGIN; SELECT pgmc.acquire(); SELECT pgmc.execute('SELECT pg_advisory_lock($n)'); SELECT 1 / 0");
	wait_for($admin, "SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory'", "the end of lock $n");
}
ok(1, 'nothing is left of sessions that end right after an error');

# ---- a hold that is revoked while what was dropped in it is being ended ----

$admin->value("CREATE SERVER lease FOREIGN DATA WRAPPER pgmc OPTIONS (hold_timeout '2 s')");
$admin->value(<<END);
CREATE FUNCTION stubborn() RETURNS void LANGUAGE plpgsql AS \$\$
BEGIN
	WHILE NOT pg_try_advisory_xact_lock(7) LOOP
		BEGIN
			PERFORM pg_sleep(0.05);
		EXCEPTION WHEN query_canceled THEN NULL;
		END;
	END LOOP;
END \$\$;
END
my %says = (
	"pgmc.release('lease')" => '',
	"pgmc.is_closed('lease')" => 'true',
	"pgmc.transaction_status('lease')" => 'closed',
	"pgmc.describe('lease') LIKE '%(closed)%'" => 'true');
for my $call (sort keys %says)
{
	$admin->value('SELECT pg_advisory_lock(7)');
	$a->value("SELECT pgmc.acquire('lease')");
	$a->value("SET statement_timeout = '500 ms'");
	$a->value("DO \$\$ BEGIN PERFORM pgmc.execute('SELECT stubborn()'); EXCEPTION WHEN query_canceled THEN NULL; END \$\$");
	$a->value('SET statement_timeout = 0');
	is($a->value("SELECT coalesce(($call)::text, 'closed')"), $says{$call}, "$call on a hold that is revoked meanwhile");
	is($a->value('SELECT pgmc.release_all()'), $call =~ /release/ ? '0' : '1', 'and it can be released');
	$admin->value('SELECT pg_advisory_unlock(7)');
	wait_for($admin, "SELECT count(*) = 0 FROM pgmc.connections WHERE state = 'recovering'", 'the end of the recovery');
}

# ---- the password rule and a connection that is lost as soon as it is open ----

$admin->value('CREATE ROLE app LOGIN; GRANT USAGE ON FOREIGN SERVER pgmc_loopback TO app; CREATE TABLE refused (state text)');
$admin->value('GRANT ALL ON refused TO app');
my $app = session($node, user => 'app');
$app->send(<<END);
DO \$\$
BEGIN
	FOR i IN 1 .. 500 LOOP
		BEGIN
			PERFORM pgmc.acquire(), pgmc.release(close => true);
		EXCEPTION WHEN OTHERS THEN
			INSERT INTO refused VALUES (SQLSTATE);
			PERFORM pgmc.release_all();
		END;
	END LOOP;
END \$\$;
END
my $kills = 0;
until ($app->done)
{
	$kills += $admin->value("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'pgmc%'");
}
$app->ok("openings, and $kills ends of their backends");
is($admin->value("SELECT coalesce(string_agg(DISTINCT state, ' '), '') FROM refused WHERE state !~ '^(08|57P)'"),
	'', 'whose loss is no lack of a password');
$app->quit;

# ---- release() with a transaction open, and somebody queued ----

$admin->value('CREATE TABLE held ()');
my $held = <<END;
DO \$\$
DECLARE
	detail text;
BEGIN
	BEGIN
		PERFORM pgmc.release();
	EXCEPTION WHEN active_sql_transaction THEN
		GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	END;
	IF detail LIKE '%has been rolled back%' THEN
		LOCK TABLE held NOWAIT;
	ELSIF detail IS NULL OR detail NOT LIKE '%is being rolled back%' THEN
		RAISE 'not released: %', detail;
	END IF;
END \$\$;
END
for my $round (1 .. 15)
{
	$a->value("SELECT pgmc.acquire(), pgmc.execute('LOCK TABLE held')");
	$b->send('SELECT pgmc.acquire(); SELECT pgmc.release()');
	is_waiting($admin, 1);
	$a->send($held);
	$a->ok('what is said to be rolled back is');
	$b->ok('and the next one has it');
}
$a->value("SELECT pgmc.acquire(), pgmc.execute('LOCK TABLE held')");
$worker = worker_pid($admin);
stand_still($worker);
$a->run('SELECT pgmc.release()');
like($a->{err}, qr/25001: .*is being rolled back/s, 'what takes longer is said to be under way');
kill 'CONT', $worker;
wait_for($admin, "SELECT count(*) = 0 FROM pgmc.connections WHERE state <> 'idle'", 'the end of the recovery');

# ---- a time limit for idling, and a command that lies there ----

$admin->value("CREATE SERVER idle FOREIGN DATA WRAPPER pgmc OPTIONS (idle_hold_timeout '3 s')");
$worker = worker_pid($admin);
$a->value("SELECT pgmc.acquire('idle'), pgmc.execute('SELECT 1'), pgmc.commit()");
stand_still($worker);
$a->send("SELECT pgmc.execute('SELECT 2')");
usleep(3_200_000);
kill 'CONT', $worker;
$a->ok('a command that waits for the worker isn\'t idling');
$a->value('SELECT pgmc.rollback(), pgmc.release()');

# ---- an error in the queue, when the command has gone out meanwhile ----

# A client that stops reading just so that the next message to it blocks: as much as goes into the socket
# is sent before, in pieces of the server's buffer. Errors look for interrupts when they are sent.
sub stop_reading
{
	my ($session, $pieces, $command) = @_;

	$admin->value('SELECT pg_advisory_lock(9)');
	$session->send("SELECT pg_advisory_lock_shared(9)\\; SELECT repeat('x', $pieces * 8192)\\; $command");
	wait_for($admin, "SELECT wait_event = 'advisory' FROM pg_stat_activity WHERE pid = $session->{pid}", 'its lock');
	kill 'STOP', $session->psql_pid;
	usleep(100) until slurp_file('/proc/' . $session->psql_pid . '/stat') =~ /^\d+ \(.*\) T/s;
	$admin->value('SELECT pg_advisory_unlock(9)');
	return;
}

sub read_on
{
	my ($session) = @_;

	kill 'CONT', $session->psql_pid;
	$session->result;
	$session->value('SELECT pg_advisory_unlock_all()');
	return;
}

my $waits_for = "SELECT wait_event FROM pg_stat_activity WHERE pid = $b->{pid}";
my $pieces = 0;
my $blocked = 0;
$admin->value('SELECT pg_advisory_lock(10)');
until ($blocked)
{
	stop_reading($b, ++$pieces, 'SELECT pg_advisory_lock(10)');
	wait_for($admin, "SELECT ($waits_for) IN ('advisory', 'ClientWrite') AND NOT EXISTS
		(SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 9 AND NOT granted)", 'the end of its writing');
	$blocked = $admin->value($waits_for) eq 'ClientWrite';
	$b->signal('CONT') if $blocked;
	wait_for($admin, "SELECT ($waits_for) = 'advisory'", 'the second lock') if $blocked;
	$admin->value('SELECT pg_advisory_unlock(10)');
	read_on($b);
	$admin->value('SELECT pg_advisory_lock(10)');
}
$admin->value('SELECT pg_advisory_unlock_all(); CREATE TABLE sent (a int)');
$a->value('SELECT pgmc.acquire()');
$b->value("SET pgmc.log_waits = '50 ms'");
stop_reading($b, $pieces - 1, "SELECT pgmc.autonomous('INSERT INTO sent VALUES (1)')");
is_waiting($admin, 1);
wait_for($admin, "SELECT ($waits_for) = 'ClientWrite'", 'the NOTICE that it still waits');
$a->value('SELECT pgmc.release()');
wait_for($admin, 'SELECT count(*) = 1 FROM sent', 'its command, which goes out when its turn has come');
$admin->value("SELECT pg_cancel_backend($b->{pid})");
kill 'CONT', $b->psql_pid;
is_state($b, undef, '57014', 'cancelled while it tells that it waits');
like($b->{err}, qr/DETAIL:  The command on the managed connection was committed/, 'and what became of its command');
$b->value('RESET pgmc.log_waits; SELECT pg_advisory_unlock_all()');

# ---- a time limit that is reached in the look for a deadlock before the sleep ----

$a->value('SELECT pgmc.acquire()');
$b->send(<<END);
SET deadlock_timeout = '1 ms';
SET statement_timeout = '20 s';
DO \$\$
BEGIN
	FOR i IN 1 .. 1000 LOOP
		BEGIN
			PERFORM pgmc.acquire(timeout => '8 ms');
		EXCEPTION WHEN lock_not_available THEN NULL;
		END;
	END LOOP;
END \$\$;
RESET ALL;
END
$b->ok('each of a thousand waits ends by its time limit');
$a->value('SELECT pgmc.release()');

# ---- a deadlock, and what its command has come to ----

$admin->value("SELECT pgmc.stat_reset()");
$a->value("SET deadlock_timeout = '100 ms'; BEGIN; LOCK TABLE held");
$a->send("SELECT pgmc.autonomous('SELECT FROM held')");
$worker = worker_pid($admin);
wait_for($admin, "SELECT count(*) = 1 FROM pg_locks WHERE relation = 'held'::regclass AND NOT granted", 'the deadlock');
stand_still($worker);
wait_for($admin, "SELECT sum(deadlocks) = 1 FROM pgmc.stat_connections", 'its discovery');
usleep(500_000);
kill 'CONT', $worker;
is_state($a, undef, '40P01', 'the outcome is awaited, however long the worker takes to cancel it');
like($a->{err}, qr/DETAIL:.*The command on the managed connection was not committed/s, 'and told');
is($admin->value("SELECT sum(deadlocks) FROM pgmc.stat_connections"), '1', 'and that is one deadlock');
$a->value('ROLLBACK; RESET deadlock_timeout');

# ---- an opening that fails, and those who would open with other options ----

my $mute = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1') || die $!;
my ($host, $port) = ($node->host, $node->port);
$admin->value("CREATE SERVER moved FOREIGN DATA WRAPPER pgmc OPTIONS (host '127.0.0.1', port '@{[ $mute->sockport ]}')");
$a->send("SELECT pgmc.acquire('moved')");
my $client = $mute->accept;
$b->send("SELECT pgmc.acquire('moved')");
is_waiting($admin, 1);
$admin->value("ALTER SERVER moved OPTIONS (SET host '$host', SET port '$port')");
$c->send("SELECT pgmc.acquire('moved'); SELECT pgmc.execute_on('moved', 'SELECT 1'), pgmc.rollback(), pgmc.release()");
is_waiting($admin, 2);
$mute->close;
$client->close;
is_state($a, undef, '08001', 'who would open with the old ones fails');
is_state($b, undef, '08001', 'and who is queued with the same');
$c->ok('not who is queued with the new ones');

# ---- a connection that was lost in the hold before ----

$admin->value('CREATE SERVER lost FOREIGN DATA WRAPPER pgmc');
$a->value("SELECT pgmc.acquire('lost'), pgmc.execute('SELECT 1'), pgmc.commit()");
$admin->value("SELECT pg_terminate_backend(backend_pid) FROM pgmc.connections WHERE srvname = 'lost'");
wait_for($admin, "SELECT state = 'broken' FROM pgmc.connections WHERE srvname = 'lost'", 'the loss');
$b->send("SELECT pgmc.acquire('lost')");
is_waiting($admin, 1);
$a->value("SELECT pgmc.release('lost')");
$b->ok('the next one has it opened again');
is($admin->value("SELECT state FROM pgmc.connections WHERE srvname = 'lost'"), 'held', 'and it isn\'t broken any more');
$b->value("SELECT pgmc.release('lost')");

# ---- a server that is dropped before its connection is open ----

$admin->value('CREATE SERVER doomed FOREIGN DATA WRAPPER pgmc');
$worker = worker_pid($admin);
stand_still($worker);
$a->send("SELECT pgmc.acquire('doomed')");
wait_for($admin, "SELECT count(*) = 1 FROM pgmc.connections WHERE srvname = 'doomed'", 'the hold');
$admin->value('DROP SERVER doomed');
kill 'CONT', $worker;
$a->result;
$a->run('SELECT pgmc.release_all()');
wait_for($admin, "SELECT count(*) = 0 FROM pgmc.connections WHERE srvname = 'doomed'", 'its end');
ok(1, 'a connection to a server that was dropped while it was opened isn\'t kept');
is_clean($admin, 'in the end');
$_->quit for $a, $b, $c, $admin;
$node->stop;

# ---- the worker slot of one that has just ended ----

my $narrow = start_server('narrow', conf => "max_worker_processes = 2\n");
$a = session($narrow);
for my $round (1 .. 25)
{
	is($a->value("SELECT pgmc.autonomous('SELECT 1')"), '1', 'the only worker slot is free again') || last;
	$a->value('SELECT pgmc.stop_worker()');
}
$a->value("SET pgmc.acquire_timeout = '20 s'");
$a->quit;
$narrow->append_conf('postgresql.conf', "pgmc.worker_linger = 0\n");
$narrow->restart;
$a = session($narrow);
$a->send("SELECT pgmc.acquire(); SELECT pgmc.release(close => true);\n" x 25);
$a->ok('also after a worker that ends by itself');

done_testing();
