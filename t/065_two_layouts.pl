# The library is replaced under live sessions by one whose shared memory looks different: new
# sessions use the new one, old ones are told to reconnect, and the old worker goes.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# ---- two builds ----

my $libdir = `pg_config --pkglibdir`;
chomp $libdir;
my %library = (old => "$libdir/pgmc.so", new => build_library(flags => '-DPGMC_LAYOUT=1000'));

# ---- a server whose library can be replaced ----

my $lib = PostgreSQL::Test::Utils::tempdir();

sub install
{
	return replace_library($library{ $_[0] }, $lib);
}

install('old');
my $node = start_server('layouts', conf => "dynamic_library_path = '$lib:\$libdir'\n");
$node->safe_psql('postgres', "UPDATE pg_proc SET probin = 'pgmc' WHERE probin = '\$libdir/pgmc'");
my $admin = session($node);
my ($holder, $waiter, $idle, $broken) = map { session($node, name => 'old') } 1 .. 4;
$admin->value('CREATE TABLE t (id text); CREATE SERVER b FOREIGN DATA WRAPPER pgmc');

sub workers
{
	return $admin->value(
		"SELECT coalesce(string_agg(pid::text, ' '), '') FROM pg_stat_activity WHERE backend_type = 'pgmc worker'");
}

is_free($idle, 'the old library');
$holder->value("SELECT pgmc.acquire(), pgmc.execute('INSERT INTO t VALUES (''lost'')')");
$broken->value("SELECT pgmc.acquire('b'), pgmc.execute('INSERT INTO t VALUES (''lost'')')");
$waiter->send('SELECT pgmc.acquire()');
wait_for($idle, "SELECT max(waiters) = 1 FROM pgmc.connections", 'a waiter');
my $old_worker = workers();
my $old_loopback = $idle->value("SELECT string_agg(backend_pid::text, ',') FROM pgmc.connections");

# ---- the new one ----

install('new');
is($idle->value('SELECT count(*) FROM pgmc.connections'), '2', 'old sessions go on until the new library is used');
my $new = session($node);
my $next = session($node);
$new->send('SELECT pgmc.acquire(), pgmc.transaction_status()');
$new->ok('a session with the new library acquires');
is($new->{out}, '|idle', 'an idle connection');
is($new->value("SELECT pgmc.execute('INSERT INTO t VALUES (''new'')'), pgmc.commit(), pgmc.release()"),
	'1||', 'and works');
wait_for($admin, "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid IN ($old_worker, $old_loopback)",
	'the old worker and its connections go');
isnt(workers(), $old_worker, 'the old worker has gone');
like(workers(), qr/^\d+$/, 'and there is one new one');

# ---- the old sessions ----

$waiter->result;
like(sqlstate($waiter->{err}), qr/^(08006|55000)$/, 'who waited is told') || diag($waiter->{err});
is_state($holder, "SELECT pgmc.execute('INSERT INTO t VALUES (''elsewhere'')')", '08006', 'who held is told');
is( $broken->run(
		"DO \$\$ BEGIN PERFORM pgmc.execute('INSERT INTO t VALUES (''elsewhere'')');
			EXCEPTION WHEN connection_failure THEN NULL; END \$\$") . $broken->{err},
	'', 'also where that is caught');
$broken->run("SELECT pgmc.release('b')");
is(sqlstate($broken->{err}), '', 'what is broken can be released');
for my $old ($holder, $waiter, $idle, $broken)
{
	for my $call ('SELECT pgmc.acquire()', 'SELECT pgmc.try_acquire()', "SELECT pgmc.autonomous('SELECT 1')")
	{
		is_state($old, $call, '55000', "an old session: $call");
		like($old->{err}, qr/library of pgmc was replaced.*HINT:  Reconnect/s, 'is told to reconnect');
	}
	is($old->value('SELECT pgmc.release_all()'), '0', 'it holds nothing');
}
is($admin->value('SELECT string_agg(id, $$ $$) FROM t'), 'new', 'nothing of theirs was committed');
$_->quit for $holder, $waiter, $idle, $broken;
is_free($next, 'old sessions have ended');

# ---- the worker of the new one comes and goes ----

is($next->value('SELECT pgmc.stop_worker()'), 't', 'the new worker ends');
is_free($_, 'and is started again') for $new, $next;

# ---- and back ----

$new->value('SELECT pgmc.acquire()');
install('old');
my $late = session($node);
is_state($late, 'SELECT pgmc.acquire()', '55000', 'the old library again');
like($late->{err}, qr/newer library of pgmc is in use.*HINT:  Reconnect/s, 'says so');
is_state($late, 'SELECT 1', '', 'its session works');
$new->value("SELECT pgmc.execute('SELECT 1'), pgmc.commit(), pgmc.release()");
ok(1, 'and does no harm to others');
install('new');
$late->quit;
is_free($next, 'in the end');
$admin->quit;
$admin = session($node);
is_clean($admin, 'in the end');

$_->quit for $admin, $new, $next;

# ---- an old session that needs a worker ----

install('old');
$node->restart;
my $late_starter = session($node);
is_free($late_starter, 'the old library once more');
$late_starter->value('SELECT pgmc.stop_worker()');
install('new');
my $since = time;
is_state($late_starter, 'SELECT pgmc.acquire()', '55000', 'the worker that an old session starts has the new library');
like($late_starter->{err}, qr/library of pgmc was replaced.*HINT:  Reconnect/s, 'the session is told to reconnect');
cmp_ok(time - $since, '<', 15, 'at once');
$late_starter->quit;
$new = session($node);
is_free($new, 'a new session');
$new->quit;
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');

done_testing();
