# Who always takes things in the same order is in no deadlock, however often they are looked for and
# however fast everything changes meanwhile: nobody is told of one.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_server('order', conf => "deadlock_timeout = 1ms\n");
my $admin = session($node);
my @session = map { session($node) } 1 .. 8;
my $rounds = 150;

# A round takes what it takes in one order: the connection of a, row 1, that of b, rows 2 and 3; the
# rows in the session itself or in a loopback, so that long chains of both wait for each other.
$admin->value(<<END);
CREATE SERVER a FOREIGN DATA WRAPPER pgmc;
CREATE SERVER b FOREIGN DATA WRAPPER pgmc;
CREATE SERVER pool FOREIGN DATA WRAPPER pgmc OPTIONS (pool_size '3');
CREATE TABLE t (id int PRIMARY KEY, n int);
INSERT INTO t SELECT i, 0 FROM generate_series(1, 3) AS i;
CREATE FUNCTION add(i int) RETURNS void LANGUAGE sql AS 'UPDATE t SET n = n + 1 WHERE id = i';
CREATE PROCEDURE in_loopbacks() LANGUAGE plpgsql AS \$\$
BEGIN
	PERFORM pgmc.acquire('a'), pgmc.execute_on('a', 'SELECT add(1)');
	PERFORM pgmc.acquire('b'), pgmc.execute_on('b', 'SELECT add(2)');
	PERFORM add(3);
	PERFORM pgmc.commit('b'), pgmc.release('b'), pgmc.commit('a'), pgmc.release('a');
	COMMIT;
END \$\$;
CREATE PROCEDURE in_both() LANGUAGE plpgsql AS \$\$
BEGIN
	PERFORM pgmc.acquire('a'), add(1);
	PERFORM pgmc.acquire('b'), pgmc.execute_on('b', 'SELECT add(2)'), pgmc.execute_on('a', 'SELECT add(3)');
	PERFORM pgmc.commit('a'), pgmc.commit('b'), pgmc.release_all();
	COMMIT;
END \$\$;
CREATE PROCEDURE without_a() LANGUAGE plpgsql AS \$\$
BEGIN
	PERFORM add(1);
	PERFORM pgmc.acquire('b'), pgmc.execute_on('b', 'SELECT add(2), add(3)');
	PERFORM pgmc.commit('b'), pgmc.release('b');
	COMMIT;
END \$\$;
CREATE PROCEDURE row_first() LANGUAGE plpgsql AS \$\$
BEGIN
	PERFORM add(1);
	PERFORM pgmc.acquire('pool'), pgmc.release('pool'), add(2), add(3);
	COMMIT;
END \$\$;
CREATE PROCEDURE row_inside() LANGUAGE plpgsql AS \$\$
BEGIN
	PERFORM pgmc.acquire('pool'), add(1), pgmc.release('pool'), add(2), add(3);
	COMMIT;
END \$\$;
CREATE PROCEDURE row_afterwards() LANGUAGE plpgsql AS \$\$
BEGIN
	PERFORM pgmc.acquire('pool'), pg_sleep(0.002), pgmc.release('pool'), add(1), add(2), add(3);
	COMMIT;
END \$\$;
CREATE PROCEDURE in_pool() LANGUAGE plpgsql AS \$\$
BEGIN
	PERFORM pgmc.acquire('pool'), pgmc.execute_on('pool', 'SELECT add(1), add(2)');
	PERFORM add(3);
	PERFORM pgmc.commit('pool'), pgmc.release('pool');
	COMMIT;
END \$\$;
END

# All sessions at once, each with one of these, again and again
sub churn
{
	my ($name, @procedures) = @_;

	$admin->value('UPDATE t SET n = 0');
	for my $i (0 .. $#session)
	{
		my $procedure = $procedures[ $i % @procedures ];

		$session[$i]->send("DO \$\$ BEGIN FOR i IN 1 .. $rounds LOOP CALL $procedure(); END LOOP; END \$\$");
	}
	$_->ok("$name: nobody is a victim") for @session;
	is($admin->value("SELECT string_agg(n::text, ' ' ORDER BY id) FROM t"),
		join(' ', ($rounds * @session) x 3), "$name: and all rounds succeed");
	is_clean($admin, $name);
	return;
}

churn('rows in loopbacks', 'in_loopbacks');
churn('rows in sessions and loopbacks', 'in_both');
churn('some without the first connection', 'in_loopbacks', 'without_a', 'in_both', 'without_a');
churn('a pool', 'in_pool');
churn('all of them', 'in_loopbacks', 'in_pool', 'in_both', 'without_a');

# Two may keep their connections of the pool and wait for the row of one who is queued for it, but a
# third holder never does: it is always free to go, and only then wants that row. Who looks at both
# at different times sees a circle.
churn('somebody is always free to go', 'row_inside', ('row_first', 'row_afterwards') x 3, 'row_inside');

is($admin->value('SELECT coalesce(sum(deadlocks), 0) FROM pgmc.stat_connections'), '0', 'none was counted');
unlike(slurp_file($node->logfile), qr/40P01|deadlock detected/, 'nor did the server see one');
$node->stop('fast');
done_testing();
