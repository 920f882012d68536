# The worker is terminated a thousand times while sessions acquire, run, stream and commit, and
# waiters are cancelled ten thousand times: everybody is told the truth, no hold is lost.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

# a thousand strikes in one call take longer than a minute where the machine is slow
BEGIN { $ENV{PG_TEST_TIMEOUT_DEFAULT} = 300; }

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_server('kills', conf => "log_statement = none\n");
my $admin = session($node);
my $striker = session($node);
my @s = map { session($node) } 0 .. 2;

$admin->value(<<END);
CREATE TABLE work (who int, n int);
CREATE TABLE told (who int, n int, what text);
CREATE TABLE stop (now bool);
CREATE SEQUENCE commits;
CREATE PROCEDURE work(me int) LANGUAGE plpgsql AS \$\$
DECLARE
	what text;
	n int := 0;
BEGIN
	WHILE NOT EXISTS (SELECT FROM stop) LOOP
		n := n + 1;
		BEGIN
			IF me = 0 THEN
				PERFORM pgmc.autonomous('INSERT INTO work VALUES (\$1, \$2)', me, n);
			ELSE
				PERFORM pgmc.acquire(timeout => '20 s');
				PERFORM pgmc.execute('INSERT INTO work VALUES (\$1, \$2)', me, n);
				PERFORM count(*) FROM pgmc.query('SELECT i, repeat(''x'', 100) FROM generate_series(1, 300) AS i') AS q(i int, x text);
				PERFORM pgmc.commit();
			END IF;
			what := 'committed';
			PERFORM nextval('commits');
			PERFORM pgmc.release_all();
		EXCEPTION WHEN OTHERS THEN
			what := SQLSTATE;
		END;
		INSERT INTO told VALUES (me, n, what);
		COMMIT;
	END LOOP;
END \$\$;
-- each worker in turn; not before it is there, and every third not before something was committed
CREATE PROCEDURE strike(times int) LANGUAGE plpgsql AS \$\$
DECLARE
	last int := 0;
	worker int;
	before bigint;
BEGIN
	WHILE times > 0 LOOP
		PERFORM pg_stat_clear_snapshot();
		SELECT pid INTO worker FROM pg_stat_activity WHERE backend_type = 'pgmc worker' AND pid <> last;
		IF worker IS NULL THEN
			PERFORM pg_sleep(0.0005);
			CONTINUE;
		END IF;
		before := (SELECT last_value FROM commits);
		PERFORM pg_sleep(random() * 0.012);
		FOR i IN 1 .. 400 LOOP
			EXIT WHEN times % 3 <> 0 OR before <> (SELECT last_value FROM commits);
			PERFORM pg_sleep(0.005);
		END LOOP;
		-- (one that finds another there leaves by itself)
		IF pg_terminate_backend(worker) THEN
			times := times - 1;
		END IF;
		last := worker;
	END LOOP;
END \$\$;
END

# ---- the worker ----

my $times = 1000;
$s[$_]->send("SET client_min_messages = error; CALL work($_)") for 0 .. $#s;
$striker->send("SET client_min_messages = error; CALL strike($times)");
$striker->ok("the worker is terminated $times times");
$admin->value('INSERT INTO stop VALUES (true)');
$_->ok('in spite of it all go on') for @s;
note($admin->value("SELECT string_agg(concat_ws(' ', what, c), ', ') FROM
	(SELECT what, count(*) AS c FROM told GROUP BY what) AS x"));
cmp_ok($admin->value("SELECT count(*) FROM told WHERE what = 'committed'"), '>', 200, 'much is committed');
cmp_ok($admin->value("SELECT count(*) FROM told WHERE what <> 'committed'"), '>', 200, 'much is lost');
is( $admin->value(
		"SELECT count(*) FROM told WHERE what = 'committed'
			AND NOT EXISTS (SELECT FROM work w WHERE w.who = told.who AND w.n = told.n)"),
	'0', 'what is reported as committed is there');
is( $admin->value(
		"SELECT count(*) FROM told WHERE what = '08006'
			AND EXISTS (SELECT FROM work w WHERE w.who = told.who AND w.n = told.n)"),
	'0', 'what is reported as lost is not');
is( $admin->value(
		"SELECT coalesce(string_agg(DISTINCT what, ' '), '') FROM told
			WHERE what NOT IN ('committed', '08006', '08007')"),
	'', 'and nobody is told anything else');
is_free($_, 'after many workers') for @s;
is_clean($admin, 'after many workers');

# ---- waiters ----

# they are cancelled at the moment when they would be given it
my $cancels = 10_000;
$admin->value(<<END);
TRUNCATE stop;
CREATE SEQUENCE cancelled;
CREATE SEQUENCE served;
CREATE FUNCTION wait_often() RETURNS void LANGUAGE plpgsql AS \$\$
BEGIN
	WHILE NOT EXISTS (SELECT FROM stop) LOOP
		BEGIN
			PERFORM pgmc.acquire(timeout => '20 s');
			PERFORM pgmc.release(), nextval('served');
		EXCEPTION WHEN query_canceled THEN
			PERFORM nextval('cancelled');
		END;
	END LOOP;
END \$\$;
CREATE PROCEDURE cancel_waiters(pids int[]) LANGUAGE plpgsql AS \$\$
DECLARE
	cancels bigint := 0;
BEGIN
	WHILE cancels < $cancels LOOP
		PERFORM pgmc.acquire(timeout => '20 s');
		PERFORM pg_sleep(random() * 0.0005);
		PERFORM pg_cancel_backend(pid) FROM unnest(pids) AS pid;
		PERFORM pgmc.release();
		SELECT last_value INTO cancels FROM cancelled;
	END LOOP;
END \$\$;
END
# (a cancel that strikes in between ends the call: then the next one goes on)
$_->send("SELECT wait_often();\n" x 5000) for @s;
my $pids = join ',', map { $_->{pid} } @s;
$striker->send("CALL cancel_waiters(ARRAY[$pids])");
$striker->ok("$cancels cancelled waits");
$admin->value('INSERT INTO stop VALUES (true)');
for my $session (@s)
{
	$session->result;
	my @others = grep { !/57014/ } $session->{err} =~ /^ERROR:  .*/mg;
	is("@others", '', 'nobody is told anything else');
}
cmp_ok($admin->value('SELECT last_value FROM served'), '>', 500, 'and others were served');
is($admin->value('SELECT pgmc.try_acquire(); SELECT pgmc.release()'), 't', 'no hold is lost');
is_free($_, 'after cancelled waits') for @s;
is_clean($admin, 'after cancelled waits');

unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');

done_testing();
