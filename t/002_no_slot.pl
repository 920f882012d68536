# No worker slot, no connection slot, a server that refuses the login: clear errors, and all is
# well as soon as the reason is gone.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_server('slots', conf => "max_worker_processes = 0\n");
my $admin = session($node);
my $s;

# ---- no worker slot ----

is_state($admin, 'SELECT pgmc.acquire()', '53300', 'no worker slot at all');
like($admin->{err}, qr/HINT: .*max_worker_processes/, 'the hint names the setting');
is_state($admin, 'SELECT pgmc.acquire()', '53300', 'and once more');
is_state($admin, 'SELECT pgmc.try_acquire()', '53300', 'also try_acquire');
is_state($admin, "SELECT pgmc.autonomous('SELECT 1')", '53300', 'also autonomous');
is($admin->value('SELECT count(*) FROM pgmc.connections'), '0', 'no connection is left');
$admin->quit;

# ---- worker slots taken by others, and given back ----

$node->append_conf('postgresql.conf', <<END);
max_worker_processes = 2
max_parallel_workers = 2
max_parallel_workers_per_gather = 2
parallel_setup_cost = 0
parallel_tuple_cost = 0
min_parallel_table_scan_size = 0
max_connections = 12
superuser_reserved_connections = 3
END
$node->restart;
$node->safe_psql('postgres', <<END);
CREATE FUNCTION hang(i int) RETURNS int LANGUAGE plpgsql PARALLEL SAFE COST 100000
	AS \$\$ BEGIN PERFORM pg_sleep(600); RETURN i; END \$\$;
CREATE TABLE big AS SELECT i FROM generate_series(1, 20000) AS i;
ANALYZE big;
END
$admin = session($node);
$s = session($node);
$s->send('SELECT count(hang(i)) FROM big');
my $taken = wait_for($admin,
	"SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'parallel worker'");
is_state($admin, 'SELECT pgmc.acquire()', '53300', 'the last worker slot is taken');
$admin->value("SELECT pg_cancel_backend($s->{pid})");
$s->result;
wait_for($admin,
	"SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'parallel worker'");
is_free($admin, 'a worker slot is free again');
$admin->value('SELECT pgmc.close()');
$s->quit;

# ---- no connection slot ----

$node->safe_psql('postgres',
	'CREATE ROLE ann LOGIN; GRANT USAGE ON FOREIGN SERVER pgmc_loopback TO ann');
my $ann = session($node, user => 'ann');
my @others;
push @others, session($node, user => 'ann')
  while @others < $node->safe_psql('postgres',
	"SELECT setting::int - 3 FROM pg_settings WHERE name = 'max_connections'") - 3;
while (1)
{
	my $another = session($node, user => 'ann', nowait => 1);

	push @others, $another;
	$another->run('SELECT 1');
	last if sqlstate($another->{err}) ne '' || $another->{err} =~ /slots are reserved|too many/;
}
is_state($ann, 'SELECT pgmc.acquire()', '53300', 'no connection slot');
is_state($ann, 'SELECT pgmc.acquire()', '53300', 'and once more');
is_state($ann, "SELECT pgmc.autonomous('SELECT 1')", '53300', 'also autonomous');
is($admin->value("SELECT count(*) FROM pgmc.connections WHERE state <> 'free'"),
	'0', 'no connection is left');
$_->quit for @others;
wait_for($admin, "SELECT count(*) < 5 FROM pg_stat_activity WHERE backend_type = 'client backend'");
is_free($ann, 'connection slots are free again');

# ---- everyone queued for an opening that fails is told at once ----

my $hba = slurp_file($node->data_dir . '/pg_hba.conf');
my @queue = map { session($node, user => 'ann') } 1 .. 3;
$admin->value('SELECT pgmc.close()');

# a login waits for this lock
my $locker = session($node);
$locker->value('BEGIN; LOCK TABLE pg_catalog.pg_db_role_setting IN ACCESS EXCLUSIVE MODE');
$ann->send('SELECT pgmc.acquire()');
wait_for($admin,
	"SELECT count(*) = 1 FROM pgmc.connections WHERE state = 'opening'");
$_->send('SELECT pgmc.acquire()') for @queue;
is_waiting($admin, 3);
my $login = wait_for($admin, "SELECT count(*) = 1 FROM pg_locks WHERE NOT granted");
$admin->value('SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted');
for my $session ($ann, @queue)
{
	$session->result;
	like(sqlstate($session->{err}), qr/^(08001|57P01)$/, 'an opening is killed: all are told')
	  || diag($session->{err});
}
$locker->value('COMMIT');
is_free($_, 'after a killed opening') for $ann, @queue;
$_->quit for @queue;

# ---- an opening that its caller gives up ----

my %told = (
	cancel => '57014',
	terminate => '57P01',
	'time-out' => '55P03',
	statement_timeout => '57014',
	kill_client => '');
for my $how (sort keys %told)
{
	my $victim = session($node, user => 'ann',
		options => $how eq 'kill_client' ? '-c client_connection_check_interval=20' : '');
	my $timeout = $how eq 'time-out' ? "timeout => '200 ms'" : '';

	wait_for($admin, "SELECT pgmc.close() OR count(*) = 0 FROM pgmc.connections");
	$locker->value('BEGIN; LOCK TABLE pg_catalog.pg_db_role_setting IN ACCESS EXCLUSIVE MODE');

	# (which must leave time to come to the login)
	$victim->value("SET statement_timeout = '2s'") if $how eq 'statement_timeout';
	$victim->send("SELECT pgmc.acquire($timeout)");
	wait_for($admin, 'SELECT count(*) = 1 FROM pg_locks WHERE NOT granted')
	  unless $timeout;
	$ann->send('SELECT pgmc.acquire()');
	is_waiting($admin, 1) unless $how =~ /time/;
	$admin->value("SELECT pg_${how}_backend($victim->{pid})") if $how =~ /^(cancel|terminate)$/;
	if ($how eq 'kill_client')
	{
		$victim->signal('KILL');
		wait_for($admin, "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $victim->{pid}",
			"opening: $how: the end of its session");
		ok(!$ann->done, "opening: $how: it ends while the login waits");
	}
	else
	{
		is_state($victim, undef, $told{$how}, "opening: $how");
	}
	$locker->value('COMMIT');
	$ann->ok("$how: the next one in the queue has it opened");
	is($ann->value('SELECT pgmc.transaction_status(); SELECT pgmc.release()'),
		'idle', "$how: and idle");
	$victim->quit;
}
is_clean($admin, 'openings given up');

# ---- a login that is refused ----

sub set_hba
{
	my ($text) = @_;

	$node->safe_psql('postgres', "SELECT 1");    # the server's up
	append_to_file($node->data_dir . '/pg_hba.new', $text);
	rename $node->data_dir . '/pg_hba.new', $node->data_dir . '/pg_hba.conf';
	$node->reload;
}

$admin->value('SELECT pgmc.close()');
set_hba("local all ann reject\n$hba");
my $refused = 0;
for (1 .. 500)
{
	$ann->run('SELECT pgmc.acquire(); SELECT pgmc.release(close => true)');
	last if $refused = sqlstate($ann->{err});
}
like($refused, qr/^(08001|28000)$/, 'login refused') || diag($ann->{err});
like($ann->{err}, qr/pg_hba.conf rejects connection/, "with the server's reason");
unlike($ann->{err}, qr/LOCATION:.*auth\.c/, "but not the place in its source");
is_state($ann, "SELECT pgmc.autonomous('SELECT 1')", $refused, 'also autonomous');
is_free($admin, 'another role may');
set_hba($hba);
for (1 .. 500)
{
	$ann->run('SELECT pgmc.acquire(); SELECT pgmc.release()');
	last if $ann->{err} eq '';
}
is_free($ann, 'login allowed again');
is_clean($admin, 'in the end');

done_testing();
