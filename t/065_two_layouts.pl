# The library is replaced under live sessions by one whose shared memory looks different: new
# sessions use the new one, old ones are told to reconnect, and the old worker goes.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use File::Copy;
use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# ---- two builds ----

my $top = "$FindBin::RealBin/..";
my $build = PostgreSQL::Test::Utils::tempdir();
my $libdir = `pg_config --pkglibdir`;
chomp $libdir;
plan skip_all => 'needs make and the sources'
  if !-e "$top/src/worker.c" || system_log('make', '--version') != 0;

mkdir "$build/src";
copy($_, "$build/src") for glob("$top/src/*");
copy("$top/$_", $build) for 'Makefile', 'pgmc.control';
{
	# this make is none of the one that runs us
	delete local @ENV{qw(MAKEFLAGS MAKELEVEL MFLAGS)};
	is(system_log('make', '-s', '-j2', '-C', $build, 'PG_CONFIG=pg_config', 'with_llvm=no',
			'COPT=-O0 -DPGMC_LAYOUT=1000', 'pgmc.so'),
		0, 'a build with another layout') || BAIL_OUT('no second build');
}

# ---- a server whose library can be replaced ----

my $lib = PostgreSQL::Test::Utils::tempdir();
my %library = (old => "$libdir/pgmc.so", new => "$build/pgmc.so");

# As a package manager does it: those who have the old file go on with it
sub install
{
	my ($which) = @_;

	copy($library{$which}, "$lib/pgmc.so.new") || die "no $which library: $!";
	chmod 0755, "$lib/pgmc.so.new";
	rename("$lib/pgmc.so.new", "$lib/pgmc.so") || die $!;
	return;
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
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');

done_testing();
