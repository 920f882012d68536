# pgmc.max_connections; options that change in the middle of a hold; cancels that come late.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $node = start_server('limits', conf => "pgmc.max_connections = 3\n");
my $admin = session($node);
my @s = map { session($node) } 0 .. 3;

$admin->value("CREATE SERVER $_ FOREIGN DATA WRAPPER pgmc") for 'a' .. 'd';
$admin->value(<<END);
CREATE SERVER pool FOREIGN DATA WRAPPER pgmc OPTIONS (pool_size '2');
CREATE TABLE t (id int);
END

sub open_servers
{
	return $admin->value(
		"SELECT string_agg(srvname, ' ' ORDER BY srvname) FROM pgmc.connections WHERE NOT pgmc.is_closed(srvname)");
}

# ---- max_connections ----

my @name = ('a' .. 'd');
$s[$_]->value("SELECT pgmc.acquire('$name[$_]')") for 0 .. 2;
for my $call ("SELECT pgmc.acquire('d')", "SELECT pgmc.try_acquire('d')", "SELECT pgmc.autonomous_on('d', 'SELECT 1')")
{
	is_state($s[3], $call, '53300', "all are held: $call");
	like($s[3]->{err}, qr/HINT: .*pgmc\.max_connections/, 'the hint names the setting');
}
$s[3]->send("SELECT pgmc.acquire('a'), 'turn'; SELECT pgmc.release()");
is_waiting($admin, 1);
$s[0]->value('SELECT pgmc.release()');
$s[3]->ok('but one may queue for what is there');

# the longest idle one makes room
$s[0]->value("SELECT pgmc.acquire('a')");
$s[2]->value('SELECT pgmc.release()');
$s[1]->value('SELECT pgmc.release()');
is(open_servers(), 'a b c', 'three are open');
$s[3]->value("SELECT pgmc.acquire('d'), pgmc.execute('SELECT 1'), pgmc.commit()");
is(open_servers(), 'a b d', 'the longest idle one makes room, not a held one');
is($s[3]->value("SELECT pgmc.autonomous_on('c', 'SELECT 1')"), '1', 'and the next one');
is(open_servers(), 'a c d', 'at any time');
is($s[0]->value("SELECT pgmc.execute('SELECT 1'), pgmc.transaction_status()"), '1|intrans', 'holds are not touched');
$s[0]->value('SELECT pgmc.rollback(), pgmc.release()');
$s[3]->value('SELECT pgmc.release()');

# many keys, few connections
$admin->value(<<END);
CREATE FUNCTION take_turns(rounds int) RETURNS void LANGUAGE plpgsql AS \$\$
DECLARE
	server name;
BEGIN
	FOR i IN 1 .. rounds LOOP
		server := chr(97 + (random() * 3)::int);
		BEGIN
			PERFORM pgmc.acquire(server, '20 s');
			PERFORM pgmc.execute('INSERT INTO t VALUES (1)'), pgmc.commit(), pgmc.release();
		EXCEPTION WHEN too_many_connections THEN
			NULL;
		END;
	END LOOP;
END \$\$;
END
$_->send('SELECT take_turns(40)') for @s;
my $most = 0;
until (!grep { !$_->done } @s)
{
	my $n = $admin->value("SELECT count(*) FROM pgmc.connections");

	$most = $n if $n > $most;
}
$_->ok('taking turns on four servers by three connections') for @s;
cmp_ok($most, '<=', 3, 'never more than three');
$admin->value('DELETE FROM t');
is_clean($admin, 'max_connections');

# ---- ALTER SERVER in the middle of a hold ----

sub backend
{
	return $_[0]->value("SELECT * FROM pgmc.query('SELECT pg_backend_pid(), current_setting(''application_name'')') AS q(pid int, name text)");
}

$s[0]->value("SELECT pgmc.acquire('a'), pgmc.execute('INSERT INTO t VALUES (1)')");
my $before = backend($s[0]);
$s[1]->send("SELECT pgmc.acquire('a'), 'turn'");
is_waiting($admin, 1);
$admin->value("ALTER SERVER a OPTIONS (ADD application_name 'pgmc other')");
is(backend($s[0]), $before, 'ALTER SERVER: the hold goes on as it was');
$s[0]->value('SELECT pgmc.commit()');
is(backend($s[0]), $before, 'also in its next transaction');
$s[0]->value('SELECT pgmc.commit(), pgmc.release()');
$s[1]->ok('the one who queued before gets it');
like(backend($s[1]), qr/pgmc/, 'and it works');
$s[1]->value('SELECT pgmc.rollback(), pgmc.release()');
$s[0]->value("SELECT pgmc.acquire('a')");
like(backend($s[0]), qr/\|pgmc other$/, 'the next acquire has the new options');
isnt(backend($s[0]), $before, 'by another backend');

# to a place where nothing is
$admin->value("ALTER SERVER a OPTIONS (ADD dbname 'nowhere')");
$s[0]->value("SELECT pgmc.execute('INSERT INTO t VALUES (2)'), pgmc.commit(), pgmc.release()");
$s[0]->run("SELECT pgmc.acquire('a')");
like(sqlstate($s[0]->{err}), qr/^(08001|3D000)$/, 'a database that is not there: the next acquire fails');
like($s[0]->{err}, qr/database "nowhere" does not exist/, 'and tells why');
$admin->value('ALTER SERVER a OPTIONS (DROP dbname)');
$s[0]->value("SELECT pgmc.acquire('a'), pgmc.execute('INSERT INTO t VALUES (3)'), pgmc.commit(), pgmc.release()");
is($admin->value('SELECT count(*) FROM t'), '3', 'nothing is lost by it');

# a pool that becomes smaller, with more holders than it then has
$s[$_]->value("SELECT pgmc.acquire('pool')") for 0, 1;
$admin->value("ALTER SERVER pool OPTIONS (SET pool_size '1')");
$s[2]->send("SELECT pgmc.acquire('pool'), 'turn'");
is_waiting($admin, 1);
$s[0]->value('SELECT pgmc.release()');
wait_for($admin, "SELECT count(*) = 1 FROM pgmc.connections WHERE srvname = 'pool'", 'one is closed');
ok(!$s[2]->done, 'a pool made smaller: the first that comes back is too much');
$s[1]->value('SELECT pgmc.release()');
$s[2]->ok('the second is for the waiter');
$s[2]->value('SELECT pgmc.release()');
is_clean($admin, 'options that change');

# ---- a cancelled command's cancel doesn't hit the next one of the same session ----

$admin->value(<<END);
CREATE FUNCTION hold_on(rounds int) RETURNS text LANGUAGE plpgsql AS \$\$
DECLARE
	cancelled int := 0;
	strays int := 0;
	got int;
	place text;
BEGIN
	PERFORM pgmc.acquire('b');
	FOR i IN 1 .. rounds LOOP
		BEGIN
			PERFORM pgmc.execute('SELECT pg_sleep(0.002)');
		EXCEPTION WHEN query_canceled THEN
			cancelled := cancelled + 1;
		END;
		BEGIN
			PERFORM pgmc.rollback();
			SELECT n INTO got FROM pgmc.query('SELECT \$1 + 1', i) AS q(n int);
			IF got <> i + 1 THEN
				RAISE 'got %', got;
			END IF;
			PERFORM pgmc.rollback();
		EXCEPTION WHEN query_canceled THEN
			-- one for this session is its own; one that the loopback reports is a stray
			GET STACKED DIAGNOSTICS place = PG_EXCEPTION_CONTEXT;
			IF place LIKE '%server "b"%' THEN
				strays := strays + 1;
			END IF;
			PERFORM pgmc.rollback();
		END;
	END LOOP;
	PERFORM pgmc.release();
	RETURN concat_ws(' ', strays, cancelled > rounds / 20);
EXCEPTION WHEN query_canceled THEN
	RETURN 'outside';
END \$\$;
END
my $outcome = 'outside';
for (1 .. 20)
{
	$s[0]->send('SELECT hold_on(400)');
	until ($s[0]->done)
	{
		$admin->value("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid = $s[0]->{pid} AND state = 'active'
			AND EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND application_name LIKE 'pgmc%')");
		usleep(3_000);
	}
	$s[0]->result;
	$outcome = $s[0]->{out};
	last if $outcome ne 'outside' && $s[0]->{err} eq '';
}
is($outcome, '0 t', 'cancelled commands of a session: the next one is not hit');
is_free($_, 'after cancels') for @s;
is_clean($admin, 'after cancels');

unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');

done_testing();
