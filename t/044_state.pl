# Session state on a connection that passes from one session to another, and pools of several.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_server('state', conf => "max_prepared_transactions = 0\n");
my $admin = session($node);
my @s = map { session($node) } 0 .. 2;

$admin->value(<<END);
CREATE ROLE somebody;
CREATE SERVER s FOREIGN DATA WRAPPER pgmc;
CREATE TABLE resets (at timestamptz DEFAULT clock_timestamp(), pid int DEFAULT pg_backend_pid());
END

# One's command in a hold of its own, committed
sub in_hold
{
	my ($session, $sql) = @_;

	return $session->value("SELECT pgmc.acquire('s', '20 s'); SELECT * FROM pgmc.query(\$q\$$sql\$q\$) AS t(x text); SELECT pgmc.commit(); SELECT pgmc.release()")
	  =~ s/^\n|\n+$//gr;
}

sub leave_in_hold
{
	my ($session, $sql) = @_;

	$session->value("SELECT pgmc.acquire('s', '20 s'); SELECT pgmc.execute(\$q\$$sql\$q\$); SELECT pgmc.commit(); SELECT pgmc.release()");
	return;
}

# the database's, whatever the locale of this machine made it
my $encoding = $admin->value('SHOW server_encoding');

# all kinds of state: how it is left, how it is seen, what is seen of it and where there is none
my %state = (
	SET => [ 'SET geqo_threshold = 19', 'SHOW geqo_threshold', '19', '12' ],
	'set_config' => [ "SELECT set_config('my.own', 'left', false)", "SELECT coalesce(current_setting('my.own', true), '')", 'left', '' ],
	'temporary table' => [ 'CREATE TEMP TABLE tt AS SELECT 1', "SELECT (to_regclass('tt') IS NOT NULL)::text", 'true', 'false' ],
	LISTEN => [ 'LISTEN something', 'SELECT count(*)::text FROM pg_listening_channels()', '1', '0' ],
	'advisory lock' => [ 'SELECT pg_advisory_lock(42)', "SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()", '1', '0' ],
	'prepared statement' => [ 'PREPARE p AS SELECT 1', 'SELECT count(*)::text FROM pg_prepared_statements WHERE name = \'p\'', '1', '0' ],
	'SET ROLE' => [ 'SET ROLE somebody', 'SELECT (current_user = session_user)::text', 'false', 'true' ],
	'SET SESSION AUTHORIZATION' => [ 'SET SESSION AUTHORIZATION somebody', 'SELECT current_setting(\'is_superuser\')', 'off', 'on' ],
	'cursor' => [ 'DECLARE c CURSOR WITH HOLD FOR SELECT 1', 'SELECT count(*)::text FROM pg_cursors WHERE name = \'c\'', '1', '0' ],
	'sequence value' => [ 'CREATE TEMP SEQUENCE ts; SELECT nextval(\'ts\')', 'SELECT (to_regclass(\'ts\') IS NOT NULL)::text', 'true', 'false' ],
	'client_encoding' => [ 'SET client_encoding = LATIN1', 'SHOW client_encoding', $encoding, $encoding ],
	'time zone' => [ "SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'German'", 'SELECT current_setting(\'TimeZone\') = \'Asia/Tokyo\' OR current_setting(\'DateStyle\') LIKE \'German%\'', 't', 'f' ]);

in_hold($s[0], 'SELECT 1');
my $pid = $admin->value("SELECT backend_pid FROM pgmc.connections WHERE srvname = 's'");
for my $what (sort keys %state)
{
	my ($leave, $look, $there, $none) = @{ $state{$what} };
	my ($left, $next) = @s[ 0, 1 ];

	leave_in_hold($left, $leave);
	is(in_hold($left, $look), $there, "$what: the same session finds it again");
	is(in_hold($left, $look), $there, "$what: and again");
	is(in_hold($next, $look), $none, "$what: another session doesn't");
	is(in_hold($left, $look), $none, "$what: nor does the first one, after it");

	# handed over to one who is queued
	leave_in_hold($left, $leave);
	$left->value("SELECT pgmc.acquire('s')");
	$next->send("SELECT pgmc.acquire('s', '20 s')");
	is_waiting($admin, 1);
	$left->value('SELECT pgmc.release()');
	$next->ok("$what: handed over");
	is($next->value("SELECT * FROM pgmc.query(\$q\$$look\$q\$) AS t(x text)"), $none, "$what: not to the next in the queue");
	$next->value('SELECT pgmc.commit(), pgmc.release()');

	# autonomous commands
	is($left->value("SELECT * FROM pgmc.autonomous_query_on('s', \$q\$$look\$q\$) AS t(x text)"), $none, "$what: not to an autonomous command");

	# by a session that ends
	my $ending = session($node);
	leave_in_hold($ending, $leave);
	$ending->quit;
	is(in_hold($left, $look), $none, "$what: not what an ended session has left");
}
is($admin->value("SELECT backend_pid FROM pgmc.connections WHERE srvname = 's'"), $pid, 'all that was one connection');

# a held one leaves nothing in others' way: an advisory lock, a temporary table of an ended session
my $ending = session($node);
leave_in_hold($ending, 'SELECT pg_advisory_lock(43); LISTEN x; CREATE TEMP TABLE tt AS SELECT 1');
is($admin->value('SELECT pg_try_advisory_lock(43)'), 'f', 'a lock is kept for the session that may come back');
$ending->quit;
wait_for($admin, 'SELECT pg_try_advisory_lock(43)', 'the early reset');
ok(1, 'it is reset ahead of time once its session has ended, without anybody who acquires');
$admin->value('SELECT pg_advisory_unlock(43)');
wait_for($admin, "SELECT state = 'idle' FROM pgmc.connections WHERE srvname = 's'", 'its end');
is($admin->value("SELECT count(*) FROM pg_class WHERE relname = 'tt'"), '0', '... so are its temporary tables');

# ---- what it costs ----

# a reset query that is counted: none for the same session, one for each change of hands
$admin->value("ALTER SERVER s OPTIONS (ADD reset_query 'INSERT INTO resets DEFAULT VALUES')");
in_hold($s[0], 'SELECT 1') for 1 .. 5;
is($admin->value('SELECT count(*) FROM resets'), '0', 'no reset for the same session');
in_hold($s[1], 'SELECT 1');
is($admin->value('SELECT count(*) FROM resets'), '1', 'one for another');
in_hold($s[1], 'SELECT 1') for 1 .. 3;
$s[1]->value("SELECT pgmc.autonomous_on('s', 'SELECT 1')");
is($admin->value('SELECT count(*) FROM resets'), '1', '... and no more, autonomous commands included');
$s[0]->value("SELECT pgmc.acquire('s'), pgmc.release()");
is($admin->value('SELECT count(*) FROM resets'), '1', 'none for one who only acquires and releases');
$ending = session($node);
in_hold($ending, 'SELECT 1');
is($admin->value('SELECT count(*) FROM resets'), '2', 'another one');
$ending->quit;
wait_for($admin, 'SELECT count(*) = 3 FROM resets', 'the early reset');
wait_for($admin, "SELECT state = 'idle' FROM pgmc.connections WHERE srvname = 's'", 'its end');
in_hold($s[0], 'SELECT 1');
is($admin->value('SELECT count(*) FROM resets'), '3', 'what was reset ahead of time is not reset again');

# ---- a failing one ----

# it fails when a marker is there
$admin->value('ALTER SERVER s OPTIONS (SET reset_query \'SELECT 1 / (to_regclass($$pg_temp.tt$$) IS NULL)::int; DISCARD PLANS\')');
$pid = in_hold($s[0], 'SELECT pg_backend_pid()::text');
leave_in_hold($s[0], 'CREATE TEMP TABLE tt AS SELECT 1');
$s[1]->value("SELECT pgmc.acquire('s')");
$s[1]->run("SELECT pgmc.execute('SELECT 1')");
is(sqlstate($s[1]->{err}), '22012', 'a failing reset_query is an error of the first command');
$s[1]->run("\\set SHOW_CONTEXT always\nSELECT pgmc.release_all()");
isnt(in_hold($s[2], 'SELECT pg_backend_pid()::text'), $pid, 'the connection is not passed on');
ok(wait_for($admin, "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid", 'its end'), '... but closed');

# caught: the hold is broken
leave_in_hold($s[2], 'CREATE TEMP TABLE tt AS SELECT 1');
is($s[1]->run("SELECT pgmc.acquire('s');
	DO \$\$ BEGIN PERFORM pgmc.execute('SELECT 1'); EXCEPTION WHEN division_by_zero THEN RAISE INFO '%', SQLERRM; END \$\$;
	SELECT state FROM pgmc.connections WHERE srvname = 's'")
	  . join('', $s[1]->{err} =~ /INFO: .*/g), "\nbrokenINFO:  00000: division by zero", 'caught: the hold stays, broken');
is_state($s[1], "SELECT pgmc.execute('SELECT 1')", '08006', '... and every call says so');
$s[1]->run('SELECT pgmc.release_all()');
# autonomous, and ahead of time
leave_in_hold($s[0], 'CREATE TEMP TABLE tt AS SELECT 1');
is_state($s[1], "SELECT pgmc.autonomous_on('s', 'SELECT 1')", '22012', 'autonomous: the same error');
is($s[1]->value("SELECT pgmc.autonomous_on('s', 'SELECT 1')"), '1', '... and the next one works');
$ending = session($node);
leave_in_hold($ending, 'CREATE TEMP TABLE tt AS SELECT 1');
$ending->quit;
wait_for($admin, "SELECT count(*) = 0 FROM pgmc.connections WHERE srvname = 's'", 'the end of the connection');
is(in_hold($s[1], 'SELECT 1'), '1', 'ahead of time: the connection is closed');

# without any, all is shared
$admin->value("ALTER SERVER s OPTIONS (SET reset_query '')");
leave_in_hold($s[0], 'CREATE TEMP TABLE tt AS SELECT 1');
is(in_hold($s[1], "SELECT (to_regclass('tt') IS NOT NULL)::text"), 'true', 'reset_query of nothing: state is shared');
# but never a transaction, nor holds of the loopback session itself
$s[0]->value("SELECT pgmc.acquire('s'), pgmc.execute('BEGIN; SET LOCAL geqo_threshold = 20')");
$s[0]->run('SELECT pgmc.release()');
is(in_hold($s[1], 'SHOW geqo_threshold'), '12', '... but no transaction');
$_->quit for @s;

# ---- a pool of four for sixteen ----

$admin->value("SELECT pgmc.close('s'); ALTER SERVER s OPTIONS (ADD pool_size '4', DROP reset_query, ADD idle_timeout '1s')");
my @crowd = map { session($node, name => "crowd$_") } 0 .. 15;
$_->value("SELECT pgmc.acquire('s')") for @crowd[ 0 .. 3 ];
for my $n (4 .. 15)
{
	$crowd[$n]->send("SELECT pgmc.acquire('s', '60 s')");
	is_waiting($admin, $n - 3);
}
my $backends = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgmc loopback'";
ok(wait_for($admin, "SELECT ($backends) = 4", 'four'), 'sixteen sessions have four backends');
is($admin->value("SELECT count(DISTINCT holder_pid) FROM pgmc.connections WHERE srvname = 's' AND state = 'held'"), '4', 'of different holders');
is_state($admin, "SELECT pgmc.acquire('s', '10 ms')", '55P03', 'one more times out');
like($admin->{err}, qr/this session is number 13 in the queue/, '... and is told its place');

# first come, first served, whichever connection is released
my @order = (2, 0, 3, 1);
my $first_come = 1;
for my $n (4 .. 15)
{
	my $releases = $n - 4 < 4 ? $order[ $n - 4 ] : $order[ $n % 4 ] + 4 * int($n / 4 - 1);

	$crowd[$releases]->value('SELECT pgmc.release()');
	$crowd[$n]->result;
	$first_come = 0 if $crowd[$n]->{err} ne '';
	my $holder = $admin->value("SELECT count(*) FROM pgmc.connections WHERE holder_pid = $crowd[$n]->{pid}");
	$first_come = 0 unless $holder == 1;
	$first_come = 0 unless $n == 15 || $admin->value("SELECT max(waiters) FROM pgmc.connections WHERE srvname = 's'") == 15 - $n;
}
ok($first_come, 'first come, first served');
is($admin->value($backends), '4', 'still four backends');
$_->run('SELECT pgmc.release_all()') for @crowd;
wait_for($admin, "SELECT count(*) = 0 FROM pgmc.connections WHERE srvname = 's'", 'idle_timeout');
ok(1, 'all are closed after idle_timeout');
ok(wait_for($admin, "SELECT ($backends) = 0", 'no backends'), 'and so are the backends');

# no connection is opened that isn't needed; the surplus goes, the one in use stays
in_hold($crowd[$_], 'SELECT 1') for 0 .. 15;
is($admin->value("SELECT count(*) FROM pgmc.connections WHERE srvname = 's'"), '1', 'sixteen sessions, one after the other: one connection');
$_->value("SELECT pgmc.acquire('s')") for @crowd[ 0 .. 3 ];
ok(wait_for($admin, "SELECT ($backends) = 4", 'four'), 'four at once: four');
$_->value('SELECT pgmc.release()') for @crowd[ 0 .. 2 ];
wait_for($admin, "SELECT count(*) = 1 FROM pgmc.connections WHERE srvname = 's'", 'the surplus');
is($admin->value("SELECT state, holder_application_name FROM pgmc.connections WHERE srvname = 's'"), 'held|crowd3', 'the surplus is closed, what is held is not');
$crowd[3]->value('SELECT pgmc.release()');

# a smaller pool takes effect at the next acquire
$admin->value("ALTER SERVER s OPTIONS (SET pool_size '2', SET idle_timeout '0')");
$_->value("SELECT pgmc.acquire('s')") for @crowd[ 0, 1 ];
is_state($crowd[2], "SELECT pgmc.acquire('s', '10 ms')", '55P03', 'a smaller pool');
$admin->value("ALTER SERVER s OPTIONS (SET pool_size '3')");
is($crowd[2]->value("SELECT pgmc.try_acquire('s')"), 't', 'a larger one');
$_->value('SELECT pgmc.release()') for @crowd[ 0 .. 2 ];
is_clean($admin, 'in the end');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');

done_testing();
