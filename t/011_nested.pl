# Holds of the loopback session itself end with the outer hold.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_server('nested');
my $admin = session($node);
my $holder = session($node);
my $other = session($node);

$admin->value(<<END);
CREATE SERVER audit FOREIGN DATA WRAPPER pgmc;
CREATE SERVER shared FOREIGN DATA WRAPPER pgmc OPTIONS (reset_query '');
CREATE TABLE t (id int);
CREATE TABLE deep (id int);
CREATE FUNCTION take() RETURNS trigger LANGUAGE plpgsql AS \$\$
BEGIN
	PERFORM pgmc.acquire('audit');
	PERFORM pgmc.execute_on('audit', 'INSERT INTO deep VALUES (\$1)', NEW.id);
	IF NEW.id % 2 = 0 THEN
		PERFORM pgmc.commit('audit');
	END IF;
	RETURN NEW;
END \$\$;
CREATE TRIGGER take BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION take();
END

sub audit_is
{
	my ($what) = @_;

	return wait_for($admin, "SELECT $what FROM pgmc.connections WHERE srvname = 'audit'");
}

my %end = (
	release => sub { $holder->value('SELECT pgmc.commit(), pgmc.release()') },
	'release, dirty' => sub { $holder->run('SELECT pgmc.release()') },
	close => sub { $holder->value('SELECT pgmc.commit(), pgmc.release(close => true)') },
	abort => sub { $holder->run('BEGIN; SELECT 1/0; ROLLBACK') },
	rollback => sub { $holder->value('SELECT pgmc.rollback(), pgmc.release()') },
	terminate => sub {
		$admin->value("SELECT pg_terminate_backend($holder->{pid})");
		$holder->quit;
		$holder = session($node);
	},
	'release_all' => sub { $holder->value('SELECT pgmc.commit(); SELECT pgmc.release_all()') });

for my $server ('pgmc_loopback', 'shared')
{
	for my $how (sort keys %end)
	{
		for my $id (1, 2)
		{
			my $name = "$how of $server with a nested hold"
			  . ($id == 1 ? ' and its transaction' : '');

			$holder->value("SELECT pgmc.acquire('$server'), pgmc.execute('INSERT INTO t VALUES ($id)')");
			is( $admin->value(
					"SELECT c.state FROM pgmc.connections c JOIN pgmc.connections o
						ON c.holder_pid = o.backend_pid WHERE c.srvname = 'audit' AND o.srvname = '$server'"),
				'held', "$name: the loopback session holds another");
			$other->send("SELECT pgmc.acquire('audit', '20 s'); SELECT pgmc.transaction_status('audit');
				SELECT pgmc.release()");
			audit_is('waiters = 1');
			$end{$how}->();
			$other->ok("$name: gone after it");
			is($other->{out}, "\nidle", "$name: and idle");
			is_clean($admin, $name);
		}
	}
}
is($admin->value('SELECT count(*) FROM deep WHERE id = 1'), '0', 'nothing of theirs was committed');
is($admin->value('SELECT count(*) > 5 FROM deep WHERE id = 2'), 't', 'but what they committed');

# ---- nobody waits for oneself ----

$admin->value(<<END);
CREATE FUNCTION again(server name) RETURNS void LANGUAGE plpgsql
	AS \$\$ BEGIN PERFORM pgmc.acquire(server); END \$\$;
END
$holder->value('SELECT pgmc.acquire()');
is_state($holder, "SELECT pgmc.acquire()", '55006', 'acquired twice');
$holder->value('SELECT pgmc.acquire()');
is_state($holder, "SELECT pgmc.execute('SELECT again(''pgmc_loopback'')')",
	'55006', 'acquired again by the loopback session');
$holder->value("SELECT pgmc.acquire(), pgmc.acquire('audit')");
is_state($holder, "SELECT pgmc.execute_on('pgmc_loopback', 'SELECT again(''audit'')')",
	'55006', 'another hold of the ancestor');
is_free($other, 'afterwards');
is_clean($admin, 'afterwards');

done_testing();
