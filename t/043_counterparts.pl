# What pgmc may have to do with: pgbouncer behind it and in front of its callers, hosts that refuse,
# never answer or drop the connection, and servers that are not what they seem.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IO::Select;
use IO::Socket::INET;
use IPC::Run;
use PgmcTest;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = start_server('counterparts', conf => "listen_addresses = '127.0.0.1'\n");
my $port = $node->port;
my $dir = PostgreSQL::Test::Utils::tempdir;
my @children;

END
{
	local $?;
	kill 'TERM', @children if @children;
}

# ---- a TCP proxy ----

# Pass everything on between two sockets. Options: pid => what the server shall seem to be; drop =>
# bytes from the server after which it closes both; drop_at => text of the client before which it does,
# after => 1: after it
sub relay
{
	my ($client, $server, %opt) = @_;
	my $select = IO::Select->new($client, $server);
	my $bytes = 0;

	while (1)
	{
		for my $from ($select->can_read)
		{
			my $to = $from == $client ? $server : $client;

			return unless sysread($from, my $data, 8192);
			if ($from == $server)
			{
				$data =~ s/(K\0\0\0\x0c)..../$1 . pack('N', $opt{pid})/es if $opt{pid};
				$bytes += length $data;
				return if $opt{drop} && $bytes > $opt{drop};
			}
			my $drop = $from == $client && $opt{drop_at} && $data =~ /$opt{drop_at}/;

			return if $drop && !$opt{after};
			syswrite($to, $data);
			if ($drop)
			{
				sysread($server, $data, 8192);
				return;
			}
		}
	}
}

# A process of its own that listens on the port that it returns
sub proxy
{
	my (%opt) = @_;
	my $listener = IO::Socket::INET->new(Listen => 10, LocalAddr => '127.0.0.1') or die "no socket: $!";
	my $child = fork();

	if ($child == 0)
	{
		@SIG{'CHLD', 'TERM', 'INT'} = ('IGNORE', 'DEFAULT', 'DEFAULT');
		while (my $client = $listener->accept)
		{
			next if fork();
			my $server = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port);
			relay($client, $server, %opt) if $server;
			POSIX::_exit(0);
		}
		POSIX::_exit(0);
	}
	push @children, $child;
	return $listener->sockport;
}

# ---- pgbouncer ----

my $bouncer_missing = system('pgbouncer --version >/dev/null 2>&1') != 0;

# Starts one in this mode; returns its port
sub bouncer
{
	my ($mode) = @_;
	my $its_port = PostgreSQL::Test::Cluster::get_free_port();
	my $name = "$dir/bouncer_$mode";

	append_to_file("$name.users", join('', map { "\"$_\" \"\"\n" } 'log', $ENV{USER} || getpwuid($<), scalar getpwuid($<)));
	append_to_file("$name.ini", <<END);
[databases]
* = host=127.0.0.1 port=$port
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $its_port
unix_socket_dir =
auth_type = trust
auth_file = $name.users
pool_mode = $mode
default_pool_size = 3
max_client_conn = 100
logfile = $name.log
END
	my $child = fork();
	if ($child == 0)
	{
		open(STDOUT, '>', "$name.out");
		open(STDERR, '>&', \*STDOUT);
		exec('pgbouncer', '-q', "$name.ini") or POSIX::_exit(1);
	}
	push @children, $child;
	for (1 .. 1000)
	{
		return $its_port if IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $its_port);
		usleep(10_000);
	}
	die 'pgbouncer did not start: ' . slurp_file("$name.out");
}

# all processes that aren't sessions, before there are any
my $plain_port = proxy();
my $dropping_port = proxy(drop => 300_000);
my $commit_lost_port = proxy(drop_at => 'COMMIT', after => 1);
my ($session_bouncer, $transaction_bouncer) = $bouncer_missing ? () : (bouncer('session'), bouncer('transaction'));

# the process that a server claims to be: a session of the same cluster that runs something
my $victim = session($node);
my $lying_port = proxy(pid => $victim->{pid});

my $admin = session($node);
my $other = session($node);
$admin->value(<<END);
CREATE ROLE log LOGIN SUPERUSER;
CREATE TABLE t (id int);
CREATE SERVER s FOREIGN DATA WRAPPER pgmc OPTIONS (host '127.0.0.1', sslmode 'disable', port '1');
CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS ("user" 'log');
END

sub lead_to
{
	my ($where, $timeout) = @_;

	$admin->value("ALTER SERVER s OPTIONS (SET port '$where')");
	$admin->run("ALTER SERVER s OPTIONS (DROP connect_timeout)");
	$admin->value("ALTER SERVER s OPTIONS (ADD connect_timeout '$timeout')") if $timeout;
	return;
}

sub is_refused
{
	my ($session, $sql, $state, $reason, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is_state($session, $sql, $state, "$name: $state");
	like($session->{err}, $reason, "$name: the reason");
	return;
}

# What works everywhere
sub works
{
	my ($name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$admin->value('TRUNCATE t');
	$admin->value("SELECT pgmc.acquire('s')");
	is($admin->value("SELECT pgmc.transaction_status(), pgmc.execute('INSERT INTO t SELECT generate_series(1, 10)'), pgmc.transaction_status()"),
		'idle|10|intrans', "$name: a hold");
	is($admin->value('SELECT count(*), sum(i) FROM pgmc.query($$SELECT id FROM t WHERE id > $1$$, 5) AS t(i int)'), '5|40', "$name: rows, parameters");
	is($other->value('SELECT count(*) FROM t'), '0', "$name: not committed yet");
	$admin->value('SELECT pgmc.commit(), pgmc.release()');
	is($other->value('SELECT count(*) FROM t'), '10', "$name: committed");
	$admin->value("SELECT pgmc.acquire('s'), pgmc.execute('DELETE FROM t')");
	is_state($admin, 'SELECT pgmc.release()', '25001', "$name: a dirty release");
	is($admin->value("SELECT pgmc.autonomous_on('s', 'INSERT INTO t VALUES (11)')"), '1', "$name: autonomous");
	$admin->value("CALL pgmc.run('VACUUM t', 's')");
	is($other->value('SELECT count(*) FROM t'), '11', "$name: the rest");
	return;
}

my $settled = "SELECT count(*) = 0 FROM pgmc.connections WHERE srvname = 's' AND state <> 'idle'";

# Wait until the worker has cancelled: by closing the connection, or where libpq can do it without
# blocking, by asking the server, which refuses what is asked in the name of the victim.
sub await_cancel
{
	my ($log_from) = @_;

	for (1 .. 100 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return if $admin->value($settled) eq 't'
		  || slurp_file($node->logfile, $log_from) =~ /wrong key in cancel request for process $victim->{pid}/;
		usleep(10_000);
	}
	die 'gave up waiting for a cancel';
}

# Run something there and stop it in this way; nobody else is signalled
sub stops
{
	my ($how, $state, $name) = @_;
	my $session = session($node);
	my $log_from = -s $node->logfile;

	local $Test::Builder::Level = $Test::Builder::Level + 2;
	$session->send("SELECT pgmc.acquire('s'), pgmc.execute('SELECT ''far'', pg_sleep(600)')");
	wait_for($admin, "SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'SELECT ''far''%' AND wait_event = 'PgSleep'", 'the statement');
	is($admin->value("SELECT xact_status FROM pgmc.connections WHERE srvname = 's'"), 'active', "$name: it is active");
	$admin->value("SELECT $how($session->{pid})");
	is_state($session, undef, $state, "$name: the call ends");
	await_cancel($log_from);
	is($admin->value("SELECT wait_event FROM pg_stat_activity WHERE pid = $victim->{pid}"), 'PgSleep', "$name: nobody else is signalled");

	# one that was left running
	$admin->value("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE query LIKE 'SELECT ''far''%' AND pid <> pg_backend_pid() AND state = 'active'");
	wait_for($admin, $settled, $name);
	$session->quit;
	is($admin->value("SELECT pgmc.autonomous_on('s', 'SELECT 1')"), '1', "$name: the next one");
	return;
}

sub cancels
{
	my ($name) = @_;

	$victim->send("SELECT 'victim', pg_sleep(600)");
	wait_for($admin, "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = $victim->{pid}", 'the victim');
	stops('pg_cancel_backend', '57014', "$name, cancel");
	stops('pg_terminate_backend', '57P01', "$name, terminate");
	$admin->value("SELECT pg_cancel_backend($victim->{pid})");
	is_state($victim, undef, '57014', "$name: the victim could have been");
	return;
}

# A cancel that comes over the network may come late, when the statement has just ended: the next
# holder's isn't meant. The time-out strikes somewhere around the end of each.
sub cancels_late
{
	my ($name) = @_;
	my ($hasty, $next) = map { session($node) } 1 .. 2;
	my %ends;
	my $harmed = 0;

	$hasty->value("SET statement_timeout = '20 ms'");
	for my $round (1 .. 60)
	{
		$hasty->send(sprintf("SELECT pgmc.autonomous_on('s', 'SELECT pg_sleep(%.4f)')", 0.012 + $round % 10 / 1000));
		$next->send("SELECT pgmc.autonomous_on('s', 'SELECT pg_sleep(0.02)')");
		$hasty->result;
		$ends{ sqlstate($hasty->{err}) }++;
		$next->result;
		$harmed++ if $next->{err} ne '';
	}
	is($harmed, 0, "$name: a late cancel strikes nobody else") || diag($next->{err});
	is(join(' ', grep { $_ !~ /^(|57014)$/ } sort keys %ends), '', '... nor is anything else told');
	cmp_ok($ends{'57014'}, '>', 0, '... of those that were cancelled');
	wait_for($admin, $settled, $name);
	$_->quit for $hasty, $next;
	return;
}

# ---- servers behind proxies ----

lead_to($plain_port);
works('a proxy');
cancels('a proxy');
cancels_late('a proxy');
lead_to($lying_port);
works('a server that claims to be another process');
cancels('a server that claims to be another process');

SKIP:
{
	skip('pgbouncer is not installed', 1) if $bouncer_missing;
	lead_to($session_bouncer);
	works('pgbouncer');
	cancels('pgbouncer');
	my $pid = $admin->value("SELECT backend_pid FROM pgmc.connections WHERE srvname = 's'");
	isnt($admin->value("SELECT p FROM pgmc.autonomous_query_on('s', 'SELECT pg_backend_pid()') AS t(p int)"), $pid,
		'pgbouncer: its pid is an invented one');
	$admin->value("SELECT pgmc.acquire('s'), pgmc.execute('CREATE TEMP TABLE state_t AS SELECT 1'), pgmc.commit(), pgmc.release()");
	is($other->value("SELECT c FROM pgmc.autonomous_query_on('s', 'SELECT to_regclass(''state_t'') IS NULL') AS t(c bool)"), 't',
		'pgbouncer: no session state is passed on');
}

# ---- refusals ----

my $dead = PostgreSQL::Test::Cluster::get_free_port();
lead_to($dead);
is_refused($admin, "SELECT pgmc.acquire('s')", '08001', qr/Connection refused/, 'nobody listens');
is_refused($admin, "SELECT pgmc.autonomous_on('s', 'SELECT 1')", '08001', qr/Connection refused/, 'nobody listens, autonomous');
lead_to($port);
$admin->value('ALTER ROLE log NOSUPERUSER CONNECTION LIMIT 0');
is_refused($admin, "SELECT pgmc.acquire('s')", '53300', qr/too many connections for role "log"/, 'a full server');
$admin->value('ALTER ROLE log SUPERUSER CONNECTION LIMIT -1');
$admin->value("ALTER SERVER s OPTIONS (ADD dbname 'nowhere')");
is_refused($admin, "SELECT pgmc.acquire('s')", '3D000', qr/database "nowhere" does not exist/, 'no such database');
$admin->value("ALTER SERVER s OPTIONS (DROP dbname)");
is($admin->value("SELECT pgmc.autonomous_on('s', 'SELECT 1')"), '1', 'afterwards it works');

# ---- a host that never answers ----

my $silent = IO::Socket::INET->new(Listen => 20, LocalAddr => '127.0.0.1') or die "no socket: $!";
# and one whose backlog is full, so that not even the connection comes about
my $deaf = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or die "no socket: $!";
my @fill = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $deaf->sockport, Blocking => 0) } 1 .. 4;

for my $host ([ 'silent', $silent->sockport ], [ 'deaf', $deaf->sockport ])
{
	my ($name, $its_port) = @$host;
	my $start = time();

	lead_to($its_port, 1);
	is_refused($admin, "SELECT pgmc.acquire('s')", '08001', qr/timeout expired/, "$name host");
	cmp_ok(time() - $start, '<', 1 + $PostgreSQL::Test::Utils::timeout_default / 2, "$name host: connect_timeout");

	# everybody who is queued for it fails at once, not one after the other
	my @queue = map { session($node) } 1 .. 4;
	$start = time();
	lead_to($its_port, 5);
	$_->send("SELECT pgmc.acquire('s')") for @queue;
	is_waiting($admin, 3);

	# meanwhile others don't notice
	is($other->value("DO \$\$ BEGIN FOR i IN 1 .. 50 LOOP
		PERFORM pgmc.acquire(), pgmc.execute('SELECT 1'), pgmc.commit(), pgmc.release(); END LOOP; END \$\$;
		SELECT pgmc.autonomous('SELECT 1')"), '1', "$name host: meanwhile others work");
	is($admin->value("SELECT state, waiters FROM pgmc.connections WHERE srvname = 's'"), 'opening|3', "$name host: it is still opening");
	is_state($_, undef, '08001', "$name host: who was queued fails, too") for @queue;
	cmp_ok(time() - $start, '<', 15, "$name host: ... all of them at once");
	ok(wait_for($admin, "SELECT count(*) = 0 FROM pgmc.connections WHERE srvname = 's'"), "$name host: nothing is left");

	# one who doesn't want to wait
	lead_to($its_port);
	$queue[0]->send("SELECT pgmc.acquire('s')");
	wait_for($admin, "SELECT count(*) > 0 FROM pgmc.connections WHERE srvname = 's' AND state = 'opening'", 'an opening');
	is_state($queue[1], "SELECT pgmc.acquire('s', '100 ms')", '55P03', "$name host: a waiter's time-out");
	is($queue[1]->value("SELECT pgmc.try_acquire('s')"), 'f', "$name host: try_acquire doesn't wait");
	$admin->value("SELECT pg_cancel_backend($queue[0]->{pid})");
	is_state($queue[0], undef, '57014', "$name host: a cancel");
	is_state($queue[0], "SELECT pgmc.acquire('s', '100 ms')", '55P03', "$name host: a time-out of the opening");
	wait_for($admin, "SELECT count(*) = 0 FROM pgmc.connections WHERE srvname = 's'", 'the end of the opening');
	$_->quit for @queue;
}

# ---- a connection that is dropped ----

lead_to($dropping_port);
my $large = "SELECT count(*) FROM pgmc.query('SELECT repeat(''x'', 1000) FROM generate_series(1, 10000)') AS t(x text)";
$admin->value("SELECT pgmc.acquire('s')");
is_state($admin, $large, '08006', 'dropped in mid-result');
is($admin->value("SELECT count(*) FROM pgmc.connections WHERE srvname = 's' AND state = 'held'"), '0', '... the error ends the hold');
is($admin->run("SELECT pgmc.acquire('s');
	DO \$\$ BEGIN
		FOR i IN 1 .. 3 LOOP
			BEGIN
				PERFORM x FROM pgmc.query('SELECT repeat(''x'', 1000) FROM generate_series(1, 10000)') AS t(x text);
				RAISE WARNING 'no error';
			EXCEPTION WHEN connection_failure THEN RAISE INFO 'lost'; END;
		END LOOP; END \$\$;
	SELECT state FROM pgmc.connections WHERE srvname = 's'; SELECT pgmc.release()") . join('', $admin->{err} =~ /INFO: .*/g),
	"\nbroken" . 'INFO:  00000: lost' x 3, '... caught: the hold is broken, nothing is sent elsewhere');
is_state($admin, "SELECT count(*) FROM pgmc.autonomous_query_on('s', 'SELECT repeat(''x'', 1000) FROM generate_series(1, 10000)') AS t(x text)",
	'08007', 'dropped in an autonomous command: nobody knows whether it was committed');
is($admin->value("SELECT pgmc.autonomous_on('s', 'SELECT 1')"), '1', 'the next one gets a new connection');
lead_to($commit_lost_port);
$admin->value("TRUNCATE t; SELECT pgmc.acquire('s'); SELECT pgmc.execute('INSERT INTO t VALUES (12)')");
is_state($admin, 'SELECT pgmc.commit()', '08007', 'dropped after COMMIT was sent: in doubt');
is($other->value('SELECT id FROM t'), '12', '... and rightly so');

# ---- pgbouncer in transaction mode in front of the callers ----

SKIP:
{
	skip('pgbouncer is not installed', 1) if $bouncer_missing;
	my $through = "host=127.0.0.1 port=$transaction_bouncer";
	my $user = getpwuid($<);

	$admin->value('ALTER DATABASE postgres SET pgmc.session_holds = off');
	$admin->value('CREATE TABLE work (who int, n int, UNIQUE (who, n))');
	my $caller = session($node, user => "$user $through");
	is_refused($caller, 'SELECT pgmc.acquire()', '55000', qr/HINT:  Use pgmc\.acquire_xact/, 'pooled: acquire');
	is_state($caller, 'SELECT pgmc.try_acquire()', '55000', 'pooled: try_acquire');
	is($caller->value("BEGIN; SELECT pgmc.acquire_xact(); SELECT pgmc.execute('SELECT 1'); SELECT pgmc.commit(); COMMIT"),
		"\n1", 'pooled: acquire_xact');
	is($caller->value("BEGIN; SELECT pgmc.autonomous('SELECT 1'); ROLLBACK"), '1', 'pooled: autonomous');

	# many clients, few sessions; every transaction looks whether somebody left a hold in its session
	append_to_file("$dir/pooled.sql", <<'END');
\set what random(1, 4)
BEGIN;
SELECT 1 / (count(*) = 0)::int FROM pgmc.connections WHERE holder_pid = pg_backend_pid();
SELECT pgmc.acquire_xact();
SELECT 1 / (pgmc.transaction_status() = 'idle')::int;
SELECT pgmc.execute('INSERT INTO work SELECT $1, coalesce(max(n), 0) + 1 FROM work WHERE who = $1', :client_id);
\if :what = 1
SELECT pgmc.rollback();
\else
SELECT pgmc.commit();
\endif
\if :what = 2
ROLLBACK;
\else
COMMIT;
\endif
END
	my ($out, $err) = ('', '');
	my $ok = IPC::Run::run([ $node->installed_command('pgbench'), '-n', '-c', '12', '-j', '2', '-t', '40', '-f', "$dir/pooled.sql",
			'-h', '127.0.0.1', '-p', $transaction_bouncer, '-U', $user, 'postgres' ], '>', \$out, '2>', \$err);
	ok($ok && $err !~ /error|ERROR/, 'pooled: no client sees the hold of another') || diag("$out$err");
	like($out, qr{processed: 480/480}, 'pooled: all transactions');
	cmp_ok($admin->value("SELECT count(DISTINCT who) FROM work"), '==', 12, 'pooled: of all clients');
	my $sessions = $admin->value("SELECT count(*) FROM pg_stat_activity WHERE client_port IS NOT NULL AND client_addr = '127.0.0.1'
		AND usename <> 'log'");
	cmp_ok($sessions, '<=', 3, 'pooled: through few sessions');
	is($admin->value("SELECT count(*) FROM pgmc.connections WHERE holder_pid IS NOT NULL"), '0', 'pooled: no hold is left');
	$caller->quit;
}

unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');

done_testing();
