# The server's log has a line, with the reason, for everything that the worker does by itself; at
# the level that pgmc.log_level says.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = start_server('log', conf => "log_line_prefix = '%b: '\n");
my $admin = session($node);
my $holder = session($node);
my $other = session($node);
my $mark = 0;

$admin->value(<<END);
CREATE SERVER log FOREIGN DATA WRAPPER pgmc;
CREATE SERVER lease FOREIGN DATA WRAPPER pgmc OPTIONS (hold_timeout '2s');
CREATE SERVER idle_lease FOREIGN DATA WRAPPER pgmc OPTIONS (idle_hold_timeout '2s');
CREATE SERVER bad_reset FOREIGN DATA WRAPPER pgmc OPTIONS (reset_query 'SELECT 1/0');
CREATE SERVER closing FOREIGN DATA WRAPPER pgmc OPTIONS (on_error 'close');
CREATE TABLE t (i int);
END

# What the worker has logged since the last call, once there is this many lines
sub logged
{
	my ($n) = @_;
	my $limit = time() + $PostgreSQL::Test::Utils::timeout_default;
	my @lines;

	do
	{
		usleep(5_000);
		my $log = slurp_file($node->logfile, $mark);
		@lines = $log =~ /^pgmc worker: (?!DEBUG)(.*)\n/mg;
	} until (@lines >= $n || time() > $limit);
	$mark = -s $node->logfile;
	return join("\n", @lines);
}

# The act's lines, in their order and none else
sub is_logged
{
	my ($name, @expected) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(logged(scalar @expected), join("\n", map { "LOG:  $_" } @expected), $name);
}

# Nothing was logged until the worker has surely done what there was to do
sub is_silent
{
	my ($name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is_clean($admin, $name);
	return is(logged(0), '', "$name: not in the log");
}

# ---- what is no act of its own ----

$holder->value("SELECT pgmc.acquire('log'), pgmc.execute('INSERT INTO t VALUES (1)'), pgmc.commit(), pgmc.release()");
$holder->value("SELECT pgmc.autonomous_on('log', 'INSERT INTO t VALUES (1)')");
$other->value("SELECT pgmc.autonomous_on('log', 'INSERT INTO t VALUES (1)')");
is_silent('work');
$holder->run("SELECT pgmc.autonomous_on('log', 'SELECT 1/0')");
$holder->value("SELECT pgmc.acquire('log'), pgmc.execute('SELECT 1'), pgmc.rollback()");
$holder->run('SELECT 1/0');
is_silent('errors in a hold that is clean');
$holder->value("SELECT pgmc.acquire('log'), pgmc.release(close => true)");
$holder->value("SELECT pgmc.autonomous_on('log', 'SELECT 1')");
$admin->value("SELECT pgmc.close('log')");
is_silent('what a session has asked for');

# ---- rollbacks ----

my $insert = "SELECT pgmc.acquire('log'), pgmc.execute('INSERT INTO t VALUES (1)')";

$holder->value($insert);
$holder->run('SELECT 1/0');
is_logged('an error', "transaction of process $holder->{pid} on server \"log\" is rolled back: the hold was ended by an error");
$holder->value($insert);
$holder->run('SELECT pgmc.release()');
is_logged('a dirty release', "transaction of process $holder->{pid} on server \"log\" is rolled back: the hold was released");
$holder->value("SELECT pgmc.acquire('closing'), pgmc.execute('INSERT INTO t VALUES (1)')");
$holder->run('SELECT 1/0');
is_logged('an error that closes the connection',
	"transaction of process $holder->{pid} on server \"closing\" is rolled back: the hold was ended by an error");
for my $command ($insert, "SELECT pgmc.acquire('log'), pgmc.execute('SELECT pg_sleep(600)')")
{
	my $dying = session($node);

	$dying->send($command);
	$command =~ /sleep/ ? holds_up($admin) : $dying->result;
	$admin->value("SELECT pg_terminate_backend($dying->{pid}, 60000)");
	$dying->quit;
	is_logged("the end of a session: $command",
		"transaction of process $dying->{pid} on server \"log\" is rolled back: the session has ended");
}
$holder->send("BEGIN; SET LOCAL statement_timeout = '100ms'; SELECT pgmc.acquire('log'), pgmc.execute('SELECT pg_sleep(600)')");
$holder->result;
$holder->value('ROLLBACK');
is_logged('a cancel', "transaction of process $holder->{pid} on server \"log\" is rolled back: the hold was ended by an error");
is_clean($admin, 'rollbacks');

# ---- revoked holds ----

for my $server ('lease', 'idle_lease')
{
	my $limit = $server eq 'lease' ? 'hold_timeout' : 'idle_hold_timeout';

	$holder->value("SELECT pgmc.acquire('$server')");
	is_logged("$limit, clean",
		"hold of server \"$server\" by process $holder->{pid} was revoked: it has reached $limit");
	$holder->run('SELECT pgmc.release_all()');
	$holder->value("SELECT pgmc.acquire('$server'), pgmc.execute('INSERT INTO t VALUES (1)')");
	is_logged("$limit, with a transaction",
		"hold of server \"$server\" by process $holder->{pid} was revoked: it has reached $limit",
		"transaction of process $holder->{pid} on server \"$server\" is rolled back: the hold was revoked");
	$holder->run('SELECT pgmc.release_all()');
}
$holder->run("SELECT pgmc.autonomous_on('lease', 'SELECT pg_sleep(600)')");
is_logged('hold_timeout, in a command that is a transaction of its own',
	"hold of server \"lease\" by process $holder->{pid} was revoked: it has reached hold_timeout",
	"command of process $holder->{pid} on server \"lease\" is cancelled: the hold was revoked");
is_clean($admin, 'revoked holds');

# ---- losses, and openings after them ----

my $terminate = "SELECT pg_terminate_backend(backend_pid, 60000) FROM pgmc.connections WHERE srvname = 'log'";
my $why = 'terminating connection due to administrator command';

$admin->value($terminate);
is_logged('an idle connection is lost', "connection of server \"log\" was lost while no process held it: $why");
$holder->value("SELECT pgmc.acquire('log')");
is_logged('the next one opens it', "connection of server \"log\" was opened again for process $holder->{pid}: the last one was lost");
$holder->value("SELECT pgmc.execute('INSERT INTO t VALUES (1)')");
$admin->value($terminate);
is_logged('a connection is lost that is held', "connection of server \"log\" was lost while process $holder->{pid} held it: $why");
$other->send("SELECT pgmc.acquire('log')");
is_waiting($admin, 1);
$holder->run('SELECT pgmc.release()');
$other->ok('the next one in the queue gets it');
is_logged('and opens it', "connection of server \"log\" was opened again for process $other->{pid}: the last one was lost");
$other->value("SELECT pgmc.release(close => true)");
$holder->value("SELECT pgmc.autonomous_on('log', 'SELECT 1')");
is_silent('an opening after a closing');

# ---- a reset that fails ----

my $failed = 'reset_query failed: division by zero';

$holder->value("SELECT pgmc.autonomous_on('bad_reset', 'SELECT 1')");
is_state($other, "SELECT pgmc.autonomous_on('bad_reset', 'SELECT 1')", '22012', 'the next session is told');
is_logged('a reset for the next session', "connection of server \"bad_reset\" was lost while process $other->{pid} held it: $failed");
my $leaving = session($node);
$leaving->value("SELECT pgmc.autonomous_on('bad_reset', 'SELECT 1')");
is_logged('the next one opens it', "connection of server \"bad_reset\" was opened again for process $leaving->{pid}: the last one was lost");
$leaving->quit;
is_logged('a reset ahead of time', "connection of server \"bad_reset\" was lost while no process held it: $failed");

# ---- what is open when the worker is ended ----

my %open = (
	"transaction of process $holder->{pid} on server \"log\" is rolled back" => $insert,
	"command of process $holder->{pid} on server \"log\" is given up" =>
	  "SELECT pgmc.acquire('log'), pgmc.execute('SELECT pg_sleep(600)')",
	"command of process $holder->{pid} on server \"closing\" is given up" =>
	  "SELECT pgmc.autonomous_on('closing', 'SELECT pg_sleep(600)')");

for my $what (sort keys %open)
{
	my $running = $what =~ /^command/;

	$holder->send($open{$what});
	$running ? holds_up($admin) : $holder->result;
	$admin->value('SELECT pgmc.acquire()');
	$admin->value('SELECT pgmc.stop_worker()');
	$holder->result if $running;
	$holder->run('SELECT pgmc.release_all()');
	$admin->run('SELECT pgmc.release_all()');
	is_logged("stop_worker, with an idle hold: $what", 'pgmc worker is shutting down',
		"$what: the pgmc worker is shutting down");
}

# ---- connections that are closed ----

sub is_closing
{
	my ($name, $server, $reason) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is_logged($name, "connection of server \"$server\" is closed: $reason");
}

$admin->value("CREATE SERVER short FOREIGN DATA WRAPPER pgmc OPTIONS (idle_timeout '10ms')");
$holder->value("SELECT pgmc.autonomous_on('short', 'SELECT 1')");
is_closing('idle_timeout', 'short', 'it has reached idle_timeout');
$admin->value("ALTER SERVER short OPTIONS (SET idle_timeout '1h', max_lifetime '10ms')");
$holder->value("SELECT pgmc.acquire('short'), pg_sleep(0.05), pgmc.release()");
is_closing('max_lifetime', 'short', 'it has reached max_lifetime');
$holder->value("SELECT pgmc.autonomous_on('log', 'SELECT \$1', repeat('x', 5000000))");
is_closing('a large message', 'log', 'its memory has grown by a large message');
$holder->value("SELECT pgmc.autonomous_on('log', 'SELECT 1')");
$admin->value("ALTER SERVER log OPTIONS (ADD application_name 'pgmc log')");
$holder->value("SELECT pgmc.autonomous_on('log', 'SELECT 1')");
is_closing('other options', 'log', 'options of its server or user mapping have changed');

$admin->value("ALTER SERVER log OPTIONS (ADD pool_size '2')");
$holder->value("SELECT pgmc.acquire('log')");
$other->value("SELECT pgmc.acquire('log')");
$admin->value("ALTER SERVER log OPTIONS (SET pool_size '1')");
is($admin->value("SELECT pgmc.try_acquire('log')"), 'f', 'somebody takes notice of a smaller pool_size');
$holder->value('SELECT pgmc.release()');
is_closing('a smaller pool', 'log', 'pool_size was made smaller');
$other->value('SELECT pgmc.release()');

$node->append_conf('postgresql.conf', "pgmc.max_connections = 1\npgmc.worker_linger = 100ms\n");
$node->reload;
wait_for($_, "SELECT current_setting('pgmc.max_connections') = '1'") for ($admin, $holder, $other);
$admin->value('SELECT pgmc.stop_worker()');
is_logged('stop_worker', 'pgmc worker is shutting down');
$holder->value("SELECT pgmc.autonomous_on('log', 'SELECT 1')");
$holder->value("SELECT pgmc.autonomous_on('closing', 'SELECT 1')");
is_closing('room for another server', 'log', 'pgmc.max_connections was reached and another server needed one');

$admin->value('DROP SERVER closing');
is_logged('a server is dropped, and the worker not needed any more',
	'connection of server "closing" is closed: its server, user mapping or role was dropped',
	'pgmc worker ends: no connection was open for 100 ms');

$admin->value('CREATE DATABASE doomed');
$node->safe_psql('doomed', 'CREATE EXTENSION pgmc');
my $doomed = session($node, db => 'doomed');
$doomed->value("SELECT pgmc.autonomous('SELECT 1')");
$admin->send('DROP DATABASE doomed');
$doomed->quit;
$admin->ok('a database is dropped');
is_logged('DROP DATABASE',
	'connection of server "pgmc_loopback" is closed: its database is about to be dropped or copied',
	'pgmc worker ends: no connection was open for 100 ms');

# ---- the level ----

$node->append_conf('postgresql.conf', "pgmc.log_level = warning\nlog_min_messages = warning\n");
$node->reload;
wait_for($holder, "SELECT current_setting('pgmc.log_level') = 'warning'");
$holder->value($insert);
$holder->run('SELECT 1/0');
is(logged(1), "WARNING:  transaction of process $holder->{pid} on server \"log\" is rolled back: the hold was ended by an error",
	'as a warning');
$node->append_conf('postgresql.conf', "pgmc.log_level = debug1\n");
$node->reload;
wait_for($holder, "SELECT current_setting('pgmc.log_level') = 'debug1'");

# the worker reads the file before it sees what comes after it: it is a new one
$admin->value('SELECT pgmc.stop_worker()');
logged(0);
$holder->value($insert);
$holder->run('SELECT 1/0');
is_silent('at a level that the server does not log');
for my $bad ('error', 'fatal', 'panic', 'off')
{
	is_state($admin, "ALTER SYSTEM SET pgmc.log_level = $bad", '22023', "no level: $bad");
}

# ---- a smart shutdown ----

$node->append_conf('postgresql.conf', "pgmc.log_level = log\npgmc.worker_linger = 60s\n");
$node->reload;
$admin->value('SELECT pgmc.stop_worker()');
logged(0);
$holder->value("SELECT pgmc.autonomous_on('log', 'SELECT 1')");
$_->quit for ($holder, $other, $admin);
$node->stop('smart');
like(slurp_file($node->logfile, $mark),
	qr/^pgmc worker: LOG:  connection of server "log" is closed: the database system is shutting down$/m,
	'a smart shutdown');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');

done_testing();
