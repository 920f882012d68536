# The server is stopped in every way, databases and servers are dropped: a connection is never in
# the way.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = start_server('shutdown');
my ($admin, $holder, $waiter);

sub connect_all
{
	$_ && $_->quit for $admin, $holder, $waiter;
	($admin, $holder, $waiter) = map { session($node) } 1 .. 3;
	return;
}

connect_all();
$admin->value('CREATE TABLE t (id int)');

# The server stops: the session is told so (57P01), and nothing else but, where the connection or the worker happens to
# end before the session does, 08006, with a warning of what that rolls back. (psql tells warnings as they come, errors
# later.)
sub is_told
{
	my ($session, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$session->result;
	my $told = $session->{err};
	is($session->run('SELECT 1'), '', "$name: its connection ends");
	$told .= "\n$session->{err}";
	my %states = map { $_ => 1 } $told =~ /^(?:WARNING|ERROR|FATAL):  ([0-9A-Z]{5}): /mg;
	delete $states{'25001'} if delete $states{'08006'};
	return is(join(' ', sort keys %states), '57P01', "$name: and it is told why") || diag($told);
}

# ---- the server stops while a connection is held, waited for, and runs something ----

for my $how ('fast', 'immediate')
{
	$holder->value("SELECT pgmc.acquire(), pgmc.execute('INSERT INTO t VALUES (1)')");
	$holder->send("SELECT pgmc.execute('SELECT pg_sleep(600)')");
	holds_up($admin);
	$waiter->send('SELECT pgmc.acquire()');
	is_waiting($admin, 1);
	my $start = time();
	$node->stop($how);
	cmp_ok(time() - $start, '<', 10, "$how shutdown");
	is_told($holder, "$how shutdown: the holder");
	is_told($waiter, "$how shutdown: the waiter");
	$node->start;
	connect_all();
	is($admin->value('SELECT count(*) FROM t'), '0', "nothing is committed by it");
	is_free($admin, "after $how shutdown");
}

# ---- a smart shutdown waits for clients, but not for an idle connection ----

is_free($admin, 'before a smart shutdown');
$_->quit for $admin, $holder, $waiter;
my $start = time();
$node->stop('smart');
cmp_ok(time() - $start, '<', 10, 'smart shutdown with an idle connection');
$node->start;
connect_all();
is_free($admin, 'after a smart shutdown');

# ... and lets a holder finish, and those who are queued behind it
$admin->value('CREATE SERVER second FOREIGN DATA WRAPPER pgmc');
$holder->value("SELECT pgmc.acquire('second')");
$holder->value("SELECT pgmc.acquire(), pgmc.execute('INSERT INTO t VALUES (3)')");
$admin->quit;
my $late = session($node);
$waiter->send("SELECT pgmc.acquire(), pgmc.execute('INSERT INTO t VALUES (3)'), pgmc.commit()");
is_waiting($holder, 1);
$late->send("SELECT pgmc.acquire('second')");
is_waiting($holder, 2);
system_or_bail('pg_ctl', '-D', $node->data_dir, '-m', 'smart', '-W', '-s', 'stop');
my $stopping = '';
for (1 .. 1000)
{
	(undef, $stopping) = attempt($node, 'SELECT 1');
	last if $stopping =~ /shutting down/;
}
like($stopping, qr/shutting down/, 'smart shutdown with a holder');
is_state($holder, "SELECT pgmc.execute('INSERT INTO t VALUES (3)'), pgmc.commit(), pgmc.release()", '', 'who goes on');
$waiter->ok('and a waiter gets the connection that is there');
$waiter->value('SELECT pgmc.release()');
$holder->value("SELECT pgmc.release('second', close => true)");
is_state($late, undef, '57P03', 'one who would need a new one is refused');
$_->quit for $waiter, $late;
wait_for($holder, 'SELECT pgmc.is_closed()', 'the connection is closed then');
is_state($holder, 'SELECT pgmc.acquire()', '57P03', 'but gets no new connection');
$holder->quit;
$start = time();
while (-e $node->data_dir . '/postmaster.pid' && time() - $start < 60)
{
	usleep(20_000);
}
cmp_ok(time() - $start, '<', 10, 'and it stops when he has left');
$node->_update_pid(0);
$node->start;
connect_all();
is($admin->value('SELECT count(*) FROM t WHERE id = 3'), '3', 'what was committed is there');
$admin->value('TRUNCATE t');
is_free($admin, 'after it');

# ---- the postmaster dies ----

$holder->value('SELECT pgmc.acquire()');
$holder->send("SELECT pgmc.execute('SELECT pg_sleep(600)')");
holds_up($admin);
my @pids = (worker_pid($admin), loopback_pid($admin), $holder->{pid});
my @others = split /\n/, $admin->value('SELECT pid FROM pg_stat_activity');
$node->kill9;
my $alive = @pids;
for (1 .. 1000)
{
	$alive = grep { kill 0, $_ } @pids;
	last if $alive == 0;
	usleep(20_000);
}
is($alive, 0, 'worker, loopback backend and holder follow the postmaster');

# (nor is the server's memory free before all the others have gone)
for (1 .. 50 * $PostgreSQL::Test::Utils::timeout_default)
{
	last if !grep { kill 0, $_ } @others;
	usleep(20_000);
}
$node->start;
connect_all();
is_free($admin, 'after the death of the postmaster');

# ---- databases with an idle connection ----

my %command = (
	'DROP DATABASE' => 'DROP DATABASE d',
	'DROP DATABASE FORCE' => 'DROP DATABASE d WITH (FORCE)',
	'ALTER DATABASE RENAME' => 'ALTER DATABASE d RENAME TO e',
	'CREATE DATABASE TEMPLATE' => 'CREATE DATABASE f TEMPLATE d',
	'ALTER DATABASE SET TABLESPACE' => 'ALTER DATABASE d SET TABLESPACE other');

$admin->value('SET allow_in_place_tablespaces = true');
$admin->value("CREATE TABLESPACE other LOCATION ''");
for my $what (sort keys %command)
{
	$admin->run("DROP DATABASE IF EXISTS $_") for 'd', 'e', 'f';
	$admin->value('CREATE DATABASE d');
	my $there = session($node, db => 'd');
	$there->value('CREATE EXTENSION pgmc');
	is_free($there, "before $what");
	$there->quit;
	wait_for($admin, "SELECT count(*) = 1 AND bool_and(application_name LIKE 'pgmc%')
		FROM pg_stat_activity WHERE datname = 'd'", 'only the loopback is there');
	$admin->run($command{$what});
	is($admin->{err}, '', "$what succeeds");
}

# one that is held is not in nobody's use
$admin->run("DROP DATABASE IF EXISTS $_") for 'd', 'e', 'f';
$admin->value('CREATE DATABASE d');
my $there = session($node, db => 'd');
$there->value("CREATE EXTENSION pgmc; CREATE SERVER there FOREIGN DATA WRAPPER pgmc OPTIONS (dbname 'd')");
$there->quit;
$admin->value("CREATE SERVER there FOREIGN DATA WRAPPER pgmc OPTIONS (dbname 'd')");
$holder->value("SELECT pgmc.acquire('there'), pgmc.execute('CREATE TABLE x ()')");
is_state($admin, 'DROP DATABASE d', '55006', 'DROP DATABASE while a connection to it is held');
is($holder->value('SELECT pgmc.transaction_status()'), 'intrans', 'does the holder no harm');
is_state($admin, 'DROP DATABASE d WITH (FORCE)', '', 'DROP DATABASE FORCE');
is_state($holder, 'SELECT pgmc.commit()', '08006', 'ends its connection, and it is told');
$holder->run('SELECT pgmc.release_all()');
is_state($holder, "SELECT pgmc.acquire('there')", '3D000', 'there is no other');
$admin->value('DROP SERVER there');

# and one of another database stays, meanwhile in use
is_free($holder, 'another database');

# ---- servers and the extension ----

$admin->value('CREATE SERVER audit FOREIGN DATA WRAPPER pgmc');
$admin->value("SELECT pgmc.acquire('audit'), pgmc.release()");
is($admin->value("SELECT count(*) FROM pgmc.connections WHERE srvname = 'audit'"),
	'1', 'a connection of another server');
$admin->value('DROP SERVER audit');
wait_for($admin, "SELECT count(*) = 0 FROM pgmc.connections WHERE srvname = 'audit'");
ok(1, 'is closed when the server is dropped');

# the server is dropped in the middle of a hold
$admin->value('CREATE SERVER audit FOREIGN DATA WRAPPER pgmc');
$holder->value("SELECT pgmc.acquire('audit'), pgmc.execute('INSERT INTO t VALUES (2)')");
$admin->send('DROP SERVER audit');
$admin->ok('DROP SERVER while it is held');
$holder->run('SELECT pgmc.release_all()');
$holder->run('SELECT pgmc.release_all()');
is($holder->{out}, '0', 'and it can be released');
is($admin->value('SELECT count(*) FROM t'), '0', 'rolled back');
wait_for($admin, "SELECT count(*) = 0 FROM pgmc.connections WHERE srvname = 'audit'");
ok(1, 'its connection is closed then');
is_free($holder, 'after that');

$waiter->value("SELECT pgmc.acquire(), pgmc.execute('INSERT INTO t VALUES (4)')");
$admin->value('DROP EXTENSION pgmc CASCADE');
is_state($waiter, 'SELECT pgmc.commit()', '42883', 'DROP EXTENSION in the middle of a hold: there is no such function');
is($admin->value('SELECT count(*) FROM t WHERE id = 4'), '0', 'and the transaction is rolled back');
wait_for($admin,
	"SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name LIKE 'pgmc%'
		AND backend_type = 'client backend' AND datname = 'postgres'");
ok(1, 'DROP EXTENSION closes its connections');
$admin->value('CREATE EXTENSION pgmc');
is_free($holder, 'created again');
is_free($admin, 'created again');

$_->quit for $admin, $holder;
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');

done_testing();
