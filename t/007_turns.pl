# 50 sessions take turns on one connection: one loopback backend, never two holders, first come
# first served.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $node = start_server('turns', conf => "max_connections = 120\n");
my $admin = session($node);

$admin->value(<<END);
CREATE TABLE guard (holder int);
INSERT INTO guard VALUES (NULL);
CREATE TABLE turns (id bigserial, who int, pid int, seen bigint, ahead int[]);
CREATE TABLE failures (who int, what text);
CREATE FUNCTION take_turn(who int) RETURNS void LANGUAGE plpgsql AS \$\$
DECLARE
	-- in this order: who is queued then has its row after that
	seen bigint := (SELECT last_value FROM turns_id_seq);
	ahead int[] := (SELECT waiter_pids FROM pgmc.connections);
BEGIN
	PERFORM pgmc.acquire(timeout => '60 s');
	IF pgmc.transaction_status() <> 'idle' THEN
		RAISE 'not idle';
	END IF;
	-- a second holder would find it taken
	IF pgmc.execute('UPDATE guard SET holder = \$1 WHERE holder IS NULL', who) <> 1 THEN
		RAISE 'somebody else holds it';
	END IF;
	PERFORM pgmc.execute('INSERT INTO turns (who, pid, seen, ahead) VALUES (\$1, \$2, \$3, \$4)',
		who, pg_backend_pid(), seen, ahead);
	PERFORM pgmc.commit();
	IF pgmc.execute('UPDATE guard SET holder = NULL WHERE holder = \$1', who) <> 1 THEN
		RAISE 'somebody else held it';
	END IF;
	PERFORM pgmc.commit();
	PERFORM pgmc.release();
END \$\$;
END

# ---- a crowd ----

my $turns = 20;
my $script = $node->basedir . '/turn.sql';
append_to_file($script, "SELECT take_turn(:client_id);\n");
my ($in, $out) = ('', '');
my $bench = IPC::Run::start(
	[
		$node->installed_command('pgbench'), '-n', '-c', '50', '-j', '2', '-t', $turns,
		'-f', $script, $node->connstr('postgres')
	], '<', \$in, '>&', \$out);
my ($most, $queue, $samples) = (0, 0, 0);
while ($bench->pumpable)
{
	my ($loopbacks, $waiters) = split /\|/,
	  $admin->value("SELECT count(*) FILTER (WHERE application_name LIKE 'pgmc%'
			AND backend_type = 'client backend'),
		(SELECT coalesce(max(waiters), 0) FROM pgmc.connections) FROM pg_stat_activity");

	$most = $loopbacks if $loopbacks > $most;
	$queue = $waiters if $waiters > $queue;
	$samples++;
	$bench->pump_nb;
	usleep(5_000);
}
$bench->finish;
is($bench->full_result(0), 0, '50 sessions take turns') || diag($out);
is($most, 1, "one loopback backend in $samples looks");
cmp_ok($queue, '>=', 40, 'nearly all wait at a time');
is($admin->value('SELECT count(*) FROM turns'), 50 * $turns, 'every turn has its row');
is($admin->value('SELECT count(*) FROM (SELECT who FROM turns GROUP BY who HAVING count(*) <> '
		. "$turns) AS x"), '0', 'and everybody all turns');

# who was queued before one came has had its turn before
is($admin->value('SELECT count(*) FROM turns AS mine, unnest(ahead) AS other
		WHERE NOT EXISTS (SELECT FROM turns AS its WHERE pid = other AND its.id > mine.seen AND its.id < mine.id)'),
	'0', 'nobody overtakes');
cmp_ok($admin->value('SELECT sum(cardinality(ahead)) FROM turns'), '>', 50 * $turns, 'many have had somebody ahead of them');
is_free($admin, 'afterwards');

# ---- in the order of their coming ----

my $holder = session($node);
my @s = map { session($node) } 1 .. 30;
$holder->value('SELECT pgmc.acquire()');
for my $n (0 .. $#s)
{
	$s[$n]->send("SELECT take_turn(1000 + $n)");
	is_waiting($admin, $n + 1);
}
$holder->value('SELECT pgmc.release()');
$_->result for @s;
is( $admin->value("SELECT string_agg(who::text, ' ' ORDER BY id) FROM turns WHERE who >= 1000"),
	join(' ', map { 1000 + $_ } 0 .. $#s), 'first come, first served');

# the error of one that gives up tells its place
$holder->value('SELECT pgmc.acquire()');
$s[0]->send('SELECT pgmc.acquire()');
is_waiting($admin, 1);
is_state($s[1], "SELECT pgmc.acquire(timeout => '50 ms')", '55P03', 'time-out of the second in the queue');
like($s[1]->{err}, qr/DETAIL:  Process $holder->{pid} .* this session is number 2 in the queue/,
	'and its place');
$holder->value('SELECT pgmc.release()');
$s[0]->ok('the first gets it');

# ---- as many waiters as the server has room for ----

$_->quit for @s;
$holder->value('SELECT pgmc.acquire()');
wait_for($admin, "SELECT count(*) = 3 FROM pg_stat_activity WHERE backend_type = 'client backend'",
	'nobody but the holder, the loopback backend and this');
@s = ();
my $room = $admin->value('SHOW max_connections') - 3;
for my $n (1 .. $room)
{
	my $session = session($node, nowait => 1);

	$session->send("SELECT pgmc.acquire(), 'turn'; SELECT pgmc.release()");
	push @s, $session;
}
is_waiting($admin, $room);
my (undef, $refusal) = attempt($node, 'SELECT 1');
like($refusal, qr/too many clients/, "$room sessions wait, and there is no room for one more");
$holder->value('SELECT pgmc.release()');
my $served = 0;
for my $session (@s)
{
	$session->result;
	$served++ if $session->{out} =~ /turn/;
}
is($served, $room, "$room waiters at once are all served");
is_clean($admin, 'in the end');

done_testing();
