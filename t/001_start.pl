# How the worker comes up and goes, with and without preloading.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $node = start_server('start', plain => 1, conf => "pgmc.worker_linger = 0\n");
my $admin = session($node);
my @s = map { session($node) } 1 .. 4;

sub no_worker
{
	return wait_for($admin,
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'pgmc worker'
			OR application_name LIKE 'pgmc%'");
}

# ---- created on a running server ----

$admin->value('CREATE EXTENSION pgmc');
is($admin->value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pgmc worker'"),
	0, 'no worker before the first acquire');

# ---- the first acquire of all is in a transaction that aborts ----

$s[0]->run(
	"BEGIN; SELECT pgmc.acquire(); SELECT pgmc.execute('SELECT 1'); SELECT 1/0; ROLLBACK");
is(sqlstate($s[0]->{err}), '22012', 'first transaction aborts');
like($s[0]->{err}, qr/WARNING:  25001: /, 'with a warning for what was rolled back');
is_free($s[0], 'after the first transaction aborted');
is_free($s[1], 'in another session');
is_clean($admin, 'after an aborted first transaction');
is($admin->value(
		"SELECT count(*) FILTER (WHERE backend_type = 'pgmc worker'),
			count(*) FILTER (WHERE application_name LIKE 'pgmc%' AND backend_type = 'client backend')
			FROM pg_stat_activity"),
	'1|1', 'one worker and one loopback backend');

# ---- several sessions start the worker at once ----

my $bad = 0;
my $rounds = 30;
for my $round (1 .. $rounds)
{
	$admin->value('SELECT pgmc.stop_worker()');
	no_worker();
	$_->send("SELECT pgmc.acquire(timeout => '20 s'); SELECT pgmc.execute('SELECT 1');
		SELECT pgmc.commit(); SELECT pgmc.release()")
	  for @s;
	for my $session (@s)
	{
		$session->result;
		next if $session->{out} eq "\n1\n\n" || "$session->{err}" eq '';
		$bad++;
		diag("round $round: $session->{out} $session->{err}");
	}
	$bad++
	  if $admin->value(
		"SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pgmc worker'") ne '1';
}
is($bad, 0, "four sessions start one worker, $rounds times");

# ---- the starter dies ----

$bad = 0;
for my $round (1 .. 15)
{
	my $starter = session($node);

	$admin->value('SELECT pgmc.stop_worker()');
	no_worker();
	$starter->send('SELECT pgmc.acquire()');
	$admin->run("SELECT pg_terminate_backend($starter->{pid})");
	$s[0]->send("SELECT pgmc.acquire(timeout => '20 s'); SELECT pgmc.release()");
	$s[0]->result;
	$bad++, diag($s[0]->{err}) if $s[0]->{err} ne '';
	$starter->quit;
}
is($bad, 0, 'a starter that dies is no obstacle');

# ---- the starter ends for sure before the worker is up ----

# A postmaster that stands still starts nothing, and lets nobody in
my ($postmaster) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;

sub hold_postmaster
{
	$admin->value('SELECT pgmc.stop_worker()');
	no_worker();
	kill 'STOP', $postmaster;
	usleep(1_000) until slurp_file("/proc/$postmaster/stat") =~ /^\d+ \(.*\) T/s;
	return;
}

END
{
	local $?;
	kill 'CONT', $postmaster if $postmaster;
}

# This session has found no worker, and waits for the one that it or another session has registered;
# or it is queued behind one that does.
sub awaits_worker
{
	my ($session) = @_;

	return wait_for($admin, "SELECT count(*) = 1 FROM pg_stat_activity WHERE pid = $session->{pid}
		AND state = 'active' AND wait_event IN ('Extension', 'PgmcWorkerStart', 'PgmcAcquire')", 'a wait for the worker');
}

my $serve = "SELECT pgmc.acquire(timeout => '20 s'); SELECT pgmc.execute('SELECT 1');
	SELECT pgmc.commit(); SELECT pgmc.release()";

for my $when ('before', 'while')
{
	my $starter = session($node);
	my $name = "terminated $when another session waits";

	hold_postmaster();
	$starter->send('SELECT pgmc.acquire()');
	awaits_worker($starter);
	$s[0]->send($serve), awaits_worker($s[0]) if $when eq 'while';

	# (not with a time to wait: who isn't buried by the postmaster seems to live)
	$admin->value("SELECT pg_terminate_backend($starter->{pid})");
	is_state($starter, undef, '57P01', "starter $name");
	wait_for($admin, "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $starter->{pid}");
	$s[0]->send($serve), awaits_worker($s[0]) if $when eq 'before';
	is($admin->value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pgmc worker'"),
		'0', "$name: no worker is up yet");
	kill 'CONT', $postmaster;
	$s[0]->ok("$name: that one is served");
	is($s[0]->{out}, "\n1", "$name: by a worker that works");
	wait_for($admin, "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'pgmc worker'",
		'the worker of the one that was terminated leaves, or stays alone');
	is_free($s[1], "starter $name");
	is_clean($admin, "starter $name");
	$starter->quit;
}

for my $who ('starter', 'one who has come later', 'starter, with nobody else there yet,')
{
	my ($cancelled, $other) = $who =~ /starter/ ? @s[ 0, 1 ] : @s[ 1, 0 ];
	my $alone = $who =~ /nobody/;

	hold_postmaster();
	for my $session ($alone ? $cancelled : @s[ 0, 1 ])
	{
		$session->send($session == $cancelled ? 'SELECT pgmc.acquire()' : $serve);
		awaits_worker($session);
	}
	$admin->value("SELECT pg_cancel_backend($cancelled->{pid})");
	is_state($cancelled, undef, '57014', "$who is cancelled while the worker starts");
	$other->send($serve), awaits_worker($other) if $alone;
	kill 'CONT', $postmaster;
	$other->ok("$who is cancelled: another session is served");
	is($other->{out}, "\n1", "$who is cancelled: by a worker that works");
	is_free($cancelled, "$who was cancelled");
	is_clean($admin, "$who was cancelled");
}

# The worker that it has registered doesn't come up either: the mark that it leaves is taken over at once
my $starter = session($node);
hold_postmaster();
$starter->send('SELECT pgmc.acquire()');
awaits_worker($starter);
$admin->value("ALTER SYSTEM SET dynamic_library_path = '/nowhere'");
$admin->value('SELECT pg_reload_conf()');
$admin->value("SELECT pg_terminate_backend($starter->{pid})");
is_state($starter, undef, '57P01', 'starter of a worker that never comes is terminated');
wait_for($admin, "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $starter->{pid}");
kill 'CONT', $postmaster;
ok($node->wait_for_log(qr/could not access file "pgmc"/), 'the worker has no library');
$admin->value('ALTER SYSTEM RESET dynamic_library_path');
$admin->value('SELECT pg_reload_conf()');
wait_for($_, "SELECT current_setting('dynamic_library_path') <> '/nowhere'") for $admin, $s[0];
is_free($s[0], 'starter and worker that have failed');
is_clean($admin, 'starter and worker that have failed');
$starter->quit;

# ---- the worker leaves while requests come ----

is($admin->value('SHOW pgmc.worker_linger'), '0', 'the worker leaves at once');
$s[0]->run(
	"DO \$\$ BEGIN FOR i IN 1 .. 40 LOOP
		PERFORM pgmc.acquire(timeout => '20 s'); PERFORM pgmc.release(close => true);
	END LOOP; END \$\$");
is($s[0]->{err}, '', 'acquire and release(close) in a loop, one session');
$_->send(
	"DO \$\$ BEGIN FOR i IN 1 .. 40 LOOP
		PERFORM pgmc.acquire(timeout => '20 s'); PERFORM pgmc.execute('SELECT 1');
		PERFORM pgmc.commit(); PERFORM pgmc.release(close => true);
	END LOOP; END \$\$")
  for @s;
$_->ok('and several, with the worker leaving in between') for @s;
no_worker();
ok(1, 'it has left');
$_->quit for @s, $admin;
$node->stop;

# ---- preloaded ----

$node->append_conf('postgresql.conf', "shared_preload_libraries = 'pgmc'\n");
$node->start;
$admin = session($node);
is_free($admin, 'preloaded');
is_clean($admin, 'preloaded');
$admin->quit;
$node->stop('fast');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');

done_testing();
