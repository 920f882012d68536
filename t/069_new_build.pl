# The library is replaced under live sessions by one whose shared memory looks the same. The worker
# goes on with the old one until nobody holds anything; then it ends, and the next one has the new
# library. Nobody notices.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $libdir = `pg_config --pkglibdir`;
chomp $libdir;
my %library = (old => "$libdir/pgmc.so", new => build_library(changed => 1));
my $lib = PostgreSQL::Test::Utils::tempdir();

sub install
{
	return replace_library($library{ $_[0] }, $lib);
}

install('old');
my $node = start_server('builds', conf => "dynamic_library_path = '$lib:\$libdir'\nlog_min_messages = log\n");
$node->safe_psql('postgres', "UPDATE pg_proc SET probin = 'pgmc' WHERE probin = '\$libdir/pgmc'");
my $admin = session($node);
$admin->value('CREATE TABLE t (id text); CREATE SERVER b FOREIGN DATA WRAPPER pgmc');
my ($holder, $waiter, $old) = map { session($node) } 1 .. 3;

sub replaced
{
	my @found = slurp_file($node->logfile) =~ /LOG: .* library of pgmc was replaced/g;

	return scalar @found;
}

sub is_gone
{
	my ($pid, $name) = @_;

	wait_for($admin, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $pid)", $name);
	return pass($name);
}

# ---- while a connection is held ----

is_free($old, 'the old library');
$holder->value("SELECT pgmc.acquire(), pgmc.execute('INSERT INTO t VALUES (''held'')')");
$waiter->send('SELECT pgmc.acquire()');
is_waiting($admin, 1);
my $first = worker_pid($admin);
install('new');
$old->value("SELECT pgmc.autonomous_on('b', 'INSERT INTO t VALUES (''old'')')");
is(replaced(), 0, 'nothing happens before somebody has the new library');

my $new = session($node);
is($new->value("SELECT pgmc.autonomous_on('b', 'INSERT INTO t VALUES (''new'')')"), '1', 'a session that has it');
ok($node->wait_for_log(qr/library of pgmc was replaced/), 'the worker has noticed');
is(worker_pid($admin), $first, 'it goes on while a connection is held');
$new->send('SELECT pgmc.acquire()');
is_waiting($admin, 2);
$holder->value("SELECT pgmc.execute('INSERT INTO t VALUES (''held'')'), pgmc.commit(), pgmc.release()");
$waiter->ok('who waited gets it');
is(worker_pid($admin), $first, 'and the worker goes on');
$waiter->value('SELECT pgmc.release()');
$new->ok('the next one, too');
$new->value("SELECT pgmc.execute('INSERT INTO t VALUES (''new'')'), pgmc.commit()");
is(worker_pid($admin), $first, 'and the worker goes on');
is($new->value('SELECT pgmc.release()'), '', 'the last hold ends');
is_gone($first, 'then the old worker goes');
my $log = slurp_file($node->logfile);
like($log, qr/LOG:  connection of server "$_" is closed: the library of the pgmc worker was replaced/, "closes the connection of $_")
  for 'b', 'pgmc_loopback';
like($log, qr/LOG:  pgmc worker ends: its library was replaced/, 'and says that it ends');
is($admin->value("SELECT string_agg(id, ' ' ORDER BY id) FROM t"), 'held held new new old', 'nothing was lost');
is($admin->value('SELECT count(*) FROM pgmc.connections'), '0', 'its connections are closed');
wait_for($admin, "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name LIKE 'pgmc%' AND backend_type = 'client backend'",
	'no loopback backend');

# ---- the new worker ----

for my $session ($holder, $new, $old, $waiter)
{
	is_free($session, 'whoever comes');
}
my $second = worker_pid($admin);
isnt($second, $first, 'another worker');
my $newest = session($node);
is_free($_, 'old and new sessions together') for $old, $newest, $holder, $new;
is(worker_pid($admin), $second, 'have the same worker');
is(replaced(), 1, 'which nobody thinks is an old one');

# ---- while none is held ----

install('old');
my $back = session($node);
is_free($back, 'another library again, be it an older one');
is_gone($second, 'the worker goes at once');
is(replaced(), 2, 'and says why');
is_free($_, 'all together') for $back, $old, $new, $newest;
my $third = worker_pid($admin);
is_free($_, 'all together') for $new, $back;
is(worker_pid($admin), $third, 'with one worker');

# ---- a forgotten transaction on the way ----

install('new');
my $forgetful = session($node);
$forgetful->value("SELECT pgmc.acquire(), pgmc.execute('INSERT INTO t VALUES (''forgotten'')')");
is_state($forgetful, 'SELECT pgmc.release()', '25001', 'a dirty release');
is_gone($third, 'the worker rolls back, and goes');
is($admin->value("SELECT count(*) FROM t WHERE id = 'forgotten'"), '0', 'it was rolled back');
is_free($forgetful, 'in the end');
is_clean($admin, 'in the end');

$_->quit for $admin, $holder, $waiter, $old, $new, $newest, $back, $forgetful;
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');

done_testing();
