# The worker runs out of memory: that is the trouble of the hold it happens in. Its holder is told,
# everybody else's hold and transaction go on, and so does the worker.
#
# Each command is tried with a little more memory for the worker each time, so that one allocation
# after the other is the one that fails: the worker's own for the request, libpq's, those for the
# reply. Where exactly it fails depends on what the C library has kept of earlier ones.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'an address sanitizer takes terabytes of address space'
  if $ENV{PGMC_SANITIZE};
plan skip_all => 'needs prlimit' if system_log('prlimit', '--version') != 0;

my $node = start_server('errors');
my $admin = session($node);
my $caller = session($node);
my $other = session($node);
my $worker;

$admin->value(<<END);
CREATE SERVER audit FOREIGN DATA WRAPPER pgmc;
CREATE TABLE t (id int);
CREATE FUNCTION tell(level text) RETURNS void LANGUAGE plpgsql AS \$\$
DECLARE
	x text = repeat('x', 1000000);
BEGIN
	IF level = 'error' THEN
		RAISE division_by_zero USING MESSAGE = 'large', SCHEMA = x, TABLE = x, COLUMN = x, DATATYPE = x, CONSTRAINT = x;
	END IF;
	RAISE NOTICE USING MESSAGE = 'large', SCHEMA = x, TABLE = x, COLUMN = x, DATATYPE = x, CONSTRAINT = x;
END \$\$;
END
$caller->value('SET client_min_messages = error');

# The worker's address space may grow by that much, kB; undef: by anything
sub limit_worker
{
	my ($room) = @_;
	my $limit = defined $room ? (proc_kb($worker, 'status', 'VmSize') + $room) * 1024 : 'unlimited';

	return system_log('prlimit', '--pid', $worker, "--as=$limit:") == 0 || BAIL_OUT('no limit');
}

# How often has the worker caught an error that would have ended it?
sub caught
{
	my @lines = slurp_file($node->logfile) =~ /\[$worker\] .*ERROR:  out of memory/g;

	return scalar @lines;
}

# A new worker, which has freed nothing large yet that could be used again, and a hold with a
# transaction of somebody else
sub begin_anew
{
	$admin->value('SELECT pgmc.stop_worker(); TRUNCATE t');
	wait_for($admin, "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'pgmc worker'");
	$other->value("SELECT pgmc.acquire('audit'), pgmc.execute('INSERT INTO t VALUES (0)')");
	is_free($caller, 'to begin with');
	$worker = worker_pid($admin);
	return;
}

# The other one's hold works, be there any memory or not.
sub other_goes_on
{
	$other->run("SELECT pgmc.execute('INSERT INTO t VALUES (1)'), pgmc.transaction_status()");
	return "$other->{out}$other->{err}" eq '1|intrans';
}

# How a command ends with so much memory: the SQLSTATE, '' if well, or what is wrong about it
sub state_with
{
	my ($room, $sql) = @_;

	$caller->value("SELECT pgmc.acquire(timeout => '20 s'), pgmc.execute('INSERT INTO t VALUES (-1)')");
	limit_worker($room);
	$caller->run($sql);
	my $others = other_goes_on();
	limit_worker(undef);

	my ($err, $state) = ($caller->{err}, sqlstate($caller->{err}));
	$caller->value('SELECT pgmc.release_all()');
	note("$room kB: $state " . join(' ', $err =~ /^(?:ERROR|DETAIL):  (.{0,100})/mg));
	return "the other: $other->{out}$other->{err}" unless $others;
	return $err if $state =~ /^(?:53200|08006)$/ && $err !~ /memory/;
	return $state;
}

# All that a command does with more and more memory: the states that may come, in the order in which
# they do, and never again an earlier one than the first or after the last
sub try_all
{
	my ($name, $sql, $rooms, $first, $last, @between) = @_;
	my @states;

	begin_anew();
	for (my $room = $rooms->[0]; $room <= $rooms->[1]; $room += $rooms->[2])
	{
		push @states, state_with($room, $sql);
	}
	is($states[0], $first, "$name: without memory");
	is($states[-1], $last, "$name: with enough of it");
	my @others = grep { my $state = $_; !grep { $state eq $_ } $first, $last, @between } @states;
	is("@others", '', "$name: and nothing else comes in between");
	is(worker_pid($admin), $worker, "$name: the worker lives");

	is($other->value('SELECT pgmc.commit(), pgmc.release()'), '|', "$name: the other one's transaction is whole");
	is( $admin->value("SELECT string_agg(concat(id, ':', n), ' ' ORDER BY id) FROM (SELECT id, count(*) AS n FROM t GROUP BY id) AS s"),
		'0:1 1:' . @states, "$name: and nothing else is there");
	is_free($caller, $name);
	is_clean($admin, $name);
	return;
}

try_all('a large parameter',
	"SELECT * FROM pgmc.query('SELECT length(\$1)', repeat('x', 10000000)) AS q(n int)",
	[ 1000, 28_000, 1500 ], '53200', '', '08006');
like(slurp_file($node->logfile), qr/ERROR:  request is too large for the memory of the pgmc worker/,
	'the holder is told what is too large');

# (what was a lost connection to its holder stays one, and nothing goes elsewhere)
try_all('many parameters', <<END, [ 250, 5000, 250 ], '53200', '', '08006');
DO \$\$ BEGIN
	PERFORM pgmc.execute('SELECT 1', VARIADIC array_fill(1, ARRAY[65535]));
EXCEPTION WHEN connection_failure THEN
	PERFORM pgmc.execute('INSERT INTO t VALUES (-1)');
	RAISE 'the connection came back';
END \$\$
END
cmp_ok(caught(), '>', 0, 'errors of the worker while it takes a request');

try_all('a large row',
	"SELECT length(x) FROM pgmc.query('SELECT repeat(''x'', 10000000)') AS q(x text)",
	[ 1000, 40_000, 1500 ], '08006', '', '53200');

try_all('a large error', <<END, [ 1000, 31_000, 1000 ], '08006', '22012');
DO \$\$ BEGIN
	PERFORM pgmc.execute('SELECT tell(''error'')');
EXCEPTION WHEN division_by_zero THEN
	RAISE division_by_zero;	-- without all that, which psql would be slow to take
END \$\$
END
cmp_ok(caught(), '>', 0, 'errors of the worker while it replies');

try_all('a large notice', "SELECT pgmc.execute('SELECT tell(''notice'')')", [ 1000, 31_000, 1500 ], '08006', '');

# ---- a request that was refused has done nothing to its hold ----

begin_anew();
$caller->value("SELECT pgmc.acquire()");
limit_worker(1000);
$caller->send(<<END);
DO \$\$ BEGIN
	PERFORM pgmc.execute('INSERT INTO t VALUES (2)');
	BEGIN
		PERFORM pgmc.execute('SELECT \$1', repeat('x', 10000000));
		RAISE 'it had the memory';
	EXCEPTION WHEN out_of_memory THEN NULL;
	END;
	PERFORM pgmc.execute('INSERT INTO t VALUES (2)');
	PERFORM pgmc.commit(), pgmc.release();
END \$\$
END
$caller->ok('one who catches that goes on');
is($admin->value('SELECT count(*) FROM t WHERE id = 2'), '2', 'in the same transaction');
limit_worker(undef);
$other->value('SELECT pgmc.rollback(), pgmc.release()');

# ---- many new connections at once, with room for none ----

my @newcomer = map { session($node) } 1 .. 20;
$admin->value("CREATE SERVER s$_ FOREIGN DATA WRAPPER pgmc") for 1 .. @newcomer;
begin_anew();
limit_worker(0);
stand_still($worker);
$newcomer[ $_ - 1 ]->send("SELECT pgmc.acquire('s$_'); SELECT pgmc.release_all()") for 1 .. @newcomer;
wait_for($admin, 'SELECT count(*) = ' . @newcomer . " FROM pg_stat_activity
	WHERE query LIKE 'SELECT pgmc.acquire(''s%' AND state = 'active' AND wait_event_type = 'Extension'");
kill 'CONT', $worker;
$_->result for @newcomer;
my @states = map { sqlstate($_->{err}) } @newcomer;
is(scalar(grep { /^(?:08006|53200)$/ } @states), scalar @newcomer, 'new connections fail, each by itself');
note("@states; " . join(' ', map { $_->{err} =~ /^DETAIL:  (.{0,60})/mg } @newcomer));
ok(other_goes_on(), 'the other one goes on');
is(worker_pid($admin), $worker, 'so does the worker');
limit_worker(undef);
for my $i (1 .. @newcomer)
{
	$newcomer[ $i - 1 ]->send("SELECT pgmc.acquire('s$i'), pgmc.execute_on('s$i', 'SELECT 1'); SELECT pgmc.rollback(), pgmc.release()");
}
$_->result for @newcomer;
is(join('', map { $_->{err} } @newcomer), '', 'with memory again they succeed');
is($other->value('SELECT pgmc.commit(), pgmc.release()'), '|', 'and the other one can commit');
is_clean($admin, 'in the end');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');

done_testing();
