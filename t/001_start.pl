# How the worker comes up and goes, with and without preloading.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

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
