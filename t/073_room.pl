# Who gets a connection where room is short, or comes: one that is on its way out is waited for, not
# taken for one in use; and where a pool may grow, its queue has what there is, before any newcomer.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = start_server('room', conf => "pgmc.max_connections = 1\n");
my $admin = session($node);
my ($a, $b, $c, $d) = map { session($node) } 1 .. 4;

$admin->value("CREATE SERVER $_ FOREIGN DATA WRAPPER pgmc") for 'p', 'q';
$admin->value(<<END);
CREATE TABLE t (id int);
CREATE FUNCTION fail_holding() RETURNS void LANGUAGE plpgsql AS \$\$
BEGIN
	PERFORM pgmc.acquire('p'), pgmc.execute('INSERT INTO t VALUES (1)');
	RAISE division_by_zero;
EXCEPTION WHEN division_by_zero THEN NULL;
END \$\$;
CREATE FUNCTION fail_and_go_on(rounds int) RETURNS text LANGUAGE plpgsql AS \$\$
DECLARE
	refused int := 0;
BEGIN
	FOR i IN 1 .. rounds LOOP
		PERFORM fail_holding();
		BEGIN
			PERFORM pgmc.acquire('q');
			PERFORM pgmc.release();
		EXCEPTION WHEN too_many_connections THEN
			refused := refused + 1;
		END;
	END LOOP;
	RETURN refused;
END \$\$;
SET client_min_messages = error;
END
$_->value('SET client_min_messages = error') for $a, $b, $c, $d;

# The session waits for room (up to PostgreSQL 16 all these waits have one name)
sub waits_for_room
{
	my ($session) = @_;

	return wait_for($admin, "SELECT wait_event IN ('PgmcRecovery', 'Extension') FROM pg_stat_activity WHERE pid = $session->{pid}",
		'one that waits for room');
}

# The only connection is p's, and being recovered by a worker that stands still; returns that
sub recovering
{
	$a->value("SELECT pgmc.acquire('p'), pgmc.execute('INSERT INTO t VALUES (1)'), pgmc.commit(), pgmc.release()");
	my $worker = worker_pid($admin);

	$a->value("SELECT pgmc.acquire('p'), pgmc.execute('INSERT INTO t VALUES (1)')");
	stand_still($worker);
	$a->run('SELECT 1 / 0');
	is($admin->value('SELECT string_agg(state, \' \') FROM pgmc.connections'), 'recovering',
		'the only connection is being recovered');
	return $worker;
}

# ---- a connection on its way out ----

is($a->value('SELECT fail_and_go_on(50)'), '0', 'a hold that an error has ended is in nobody\'s way');

for my $call ("SELECT pgmc.acquire('q'), true", "SELECT pgmc.try_acquire('q')", "SELECT pgmc.acquire_xact('q', '20 s'), true",
	"SELECT pgmc.autonomous_on('q', 'SELECT 1') = 1")
{
	my $worker = recovering();

	$b->send($call);
	waits_for_room($b);
	kill 'CONT', $worker;
	$b->ok("is waited for: $call");
	like($b->{out}, qr/t$/, 'and makes room');
	$b->value('SELECT pgmc.release_all()');
	is_clean($admin, $call);
}

# nobody's, as its session has ended, and being reset; it is the own key's then that goes on
{
	my $e = session($node);

	$e->value("SELECT pgmc.acquire('p'), pgmc.release()");
	my $worker = worker_pid($admin);

	stand_still($worker);
	$e->quit;
	wait_for($admin, "SELECT count(*) = 1 FROM pgmc.connections WHERE state = 'recovering'");
	$b->send("SELECT pgmc.acquire('q')");
	waits_for_room($b);
	kill 'CONT', $worker;
	$b->ok('one that is being reset is waited for');
	$b->value('SELECT pgmc.release()');
}

# for a while
{
	my $worker = recovering();
	my $began = time();

	is_state($b, "SELECT pgmc.acquire('q')", '53300', 'but not for ever');
	cmp_ok(time() - $began, '>', 4.5, 'for five seconds');
	like($b->{err}, qr/HINT: .*pgmc\.max_connections/, 'then the limit is reached');
	is_state($b, "SELECT pgmc.acquire('q', '50 ms')", '55P03', 'for no longer than the caller\'s time-out');
	like($b->{err}, qr/DETAIL:  All 1 managed connections/, 'which tells why');
	$b->send("SELECT pgmc.acquire('q')");
	waits_for_room($b);
	$admin->value("SELECT pg_cancel_backend($b->{pid})");
	is_state($b, undef, '57014', 'one that waits can be cancelled');
	kill 'CONT', $worker;
	is_clean($admin, 'a worker that stood still');
	$b->value("SELECT pgmc.acquire('q'), pgmc.release()");
}

# the worker ends meanwhile
{
	my $worker = recovering();

	$b->send("SELECT pgmc.acquire('q')");
	waits_for_room($b);
	kill 'TERM', $worker;
	kill 'CONT', $worker;
	$b->ok('with the worker its connections end, and there is room');
	isnt(worker_pid($admin), $worker, 'by another worker');
	$b->value("SELECT pgmc.execute('SELECT 1'), pgmc.rollback()");

	# nothing is on its way
	is_state($c, "SELECT pgmc.$_('p')", '53300', "$_: what is held is in use") for 'acquire', 'try_acquire';
	$b->value('SELECT pgmc.release()');
}
is_clean($admin, 'connections on their way out');

# ---- a pool that grows ----

# For each session: has it what it asked for?
sub served
{
	return join ' ', map { $_->done ? 1 : 0 } @_;
}

sub waits
{
	my ($session, $n) = @_;

	$session->send("SELECT pgmc.acquire('pool')");
	return is_waiting($admin, $n);
}

sub end_holds
{
	my ($name, @sessions) = @_;

	# (those that still wait come last)
	$_->value("SELECT pgmc.execute('SELECT 1'), pgmc.rollback(), pgmc.release()") for @sessions;
	$admin->value("SELECT pgmc.close('pool')");
	$admin->value("ALTER SERVER pool OPTIONS (SET pool_size '1')");
	is_clean($admin, $name);
	return;
}

set_and_reload($node, 'pgmc.max_connections', 10, $admin, $a, $b, $c, $d);
$_->value("SET deadlock_timeout = '10min'") for $a, $b, $c, $d;
$admin->value("CREATE SERVER pool FOREIGN DATA WRAPPER pgmc OPTIONS (pool_size '1')");

# (the waiters stand still, lest they look by themselves)
$a->value("SELECT pgmc.acquire('pool')");
waits($b, 1);
waits($c, 2);
stand_still($_->{pid}) for $b, $c;
$admin->value("ALTER SERVER pool OPTIONS (SET pool_size '2')");
$d->send("SELECT pgmc.acquire('pool')");
wait_for($admin, "SELECT count(*) = 2 FROM pgmc.connections WHERE srvname = 'pool'");
is($admin->value("SELECT string_agg(holder_pid::text, ' ' ORDER BY hold_start) FROM pgmc.connections WHERE srvname = 'pool'"),
	"$a->{pid} $b->{pid}", 'a larger pool: the first in the queue has the new connection, not the newcomer');
kill 'CONT', $_->{pid} for $b, $c;
$b->ok('and opens it');
is_waiting($admin, 2);
is(served($c, $d), '0 0', 'the others wait');
$a->value('SELECT pgmc.release()');
$c->ok('the next one is the next');
is($admin->value('SELECT max(waiters) FROM pgmc.connections'), '1', 'before the newcomer');
end_holds('a larger pool', $b, $c, $d);

# one that won't wait doesn't overtake, either
$a->value("SELECT pgmc.acquire('pool')");
waits($b, 1);
stand_still($b->{pid});
$admin->value("ALTER SERVER pool OPTIONS (SET pool_size '2')");
is($c->value("SELECT pgmc.try_acquire('pool')"), 'f', 'try_acquire: the new connection is not for it');
kill 'CONT', $b->{pid};
$b->ok('but for the one who waits');
$a->value('SELECT pgmc.release()');
end_holds('try_acquire', $b);

# for both
$a->value("SELECT pgmc.acquire('pool')");
waits($b, 1);
stand_still($b->{pid});
$admin->value("ALTER SERVER pool OPTIONS (SET pool_size '3')");
is($c->value("SELECT pgmc.try_acquire('pool')"), 't', 'where there is enough for both, both have one');
kill 'CONT', $b->{pid};
$a->value('SELECT pgmc.release()');
end_holds('enough for both', $b, $c);

# without a newcomer
$a->value("SELECT pgmc.acquire('pool')");
waits($b, 1);
waits($c, 2);
$admin->value("ALTER SERVER pool OPTIONS (SET pool_size '2')");
$b->ok('those who wait notice it by themselves');
is(served($c), '0', 'who is too much waits on');
$admin->value('DROP SERVER q CASCADE; CREATE SERVER q FOREIGN DATA WRAPPER pgmc');
$a->value('SELECT pgmc.release()');
end_holds('noticed', $b, $c);

# ---- room for a pool ----

# (two may be there, one of them is q's)
set_and_reload($node, 'pgmc.max_connections', 2, $admin, $a, $b, $c, $d);
$admin->value("SELECT pgmc.close('$_')") for 'p', 'q', 'pool';
$admin->value("ALTER SERVER pool OPTIONS (SET pool_size '2')");
for my $how ('release()', 'release(close => true)')
{
	$a->value("SELECT pgmc.acquire('pool')");
	$d->value("SELECT pgmc.acquire('q')");
	waits($b, 1);
	stand_still($b->{pid});
	$d->value("SELECT pgmc.$how");
	wait_for($admin, "SELECT count(*) = 1 FROM pgmc.connections WHERE holder_pid = $b->{pid}",
		"$how: another server's connection makes room for who waits");
	kill 'CONT', $b->{pid};
	$b->ok("$how: another server's connection makes room for who waits");
	$a->value('SELECT pgmc.release()');
	$b->value('SELECT pgmc.release()');
	$admin->value("SELECT pgmc.close('pool'), pgmc.close('q')");
	is_clean($admin, $how);
}

# a larger limit: the worker or the next acquire tells
$a->value("SELECT pgmc.acquire('pool')");
$d->value("SELECT pgmc.acquire('q')");
waits($b, 1);
set_and_reload($node, 'pgmc.max_connections', 4, $c);
$c->value("SELECT pgmc.acquire('p')");
$b->ok('a larger limit makes room for who waits');
$_->value('SELECT pgmc.release()') for $a, $b, $c, $d;
is_clean($admin, 'room for a pool');

# ---- the other end's limits ----

$admin->value(<<END);
CREATE ROLE limited LOGIN CONNECTION LIMIT 0;
CREATE SERVER limited FOREIGN DATA WRAPPER pgmc;
CREATE USER MAPPING FOR CURRENT_USER SERVER limited OPTIONS ("user" 'limited', password_required 'false');
END
is_state($a, "SELECT pgmc.acquire('limited')", '53300', 'a limit of the role');
like($a->{err}, qr/DETAIL: .*too many connections for role/, 'is told');
like($a->{err}, qr/HINT: .*CONNECTION LIMIT of the role/, 'and the hint is for that, too');

unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');

done_testing();
