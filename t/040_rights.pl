# Who may use which connection: every role there is, with every way of authentication. The matrix is
# that of the manual's chapter on rights.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_server('rights', conf => "listen_addresses = '127.0.0.1'\n");
my $admin = session($node);
my $super = $admin->value('SELECT current_user');

# The database that a server leads to decides how the server asks; our own sessions are trusted.
$admin->value("CREATE DATABASE $_") for 'trusted', 'peered', 'scrammed';
$admin->value(<<END);
CREATE ROLE owner LOGIN;
CREATE ROLE usage LOGIN;
CREATE ROLE usage2 LOGIN;
CREATE ROLE stranger LOGIN;
CREATE ROLE definer LOGIN;
CREATE ROLE grp LOGIN;
CREATE ROLE member LOGIN NOINHERIT IN ROLE grp;
CREATE ROLE log LOGIN PASSWORD 'right';
GRANT USAGE ON FOREIGN DATA WRAPPER pgmc TO owner;
SET ROLE owner;
CREATE SERVER to_trusted FOREIGN DATA WRAPPER pgmc OPTIONS (dbname 'trusted');
CREATE SERVER to_peered FOREIGN DATA WRAPPER pgmc OPTIONS (dbname 'peered');
CREATE SERVER to_scrammed FOREIGN DATA WRAPPER pgmc OPTIONS (dbname 'scrammed');
GRANT USAGE ON FOREIGN SERVER to_trusted, to_peered, to_scrammed TO usage, usage2, definer, grp;
RESET ROLE;

-- the login role that one gets, or the SQLSTATE
CREATE FUNCTION login(server name) RETURNS text LANGUAGE plpgsql AS \$\$
DECLARE
	who text;
BEGIN
	PERFORM pgmc.acquire(server, '20 s');
	SELECT u INTO who FROM pgmc.query_on(server, 'SELECT current_user') AS t(u name);
	PERFORM pgmc.commit(server);
	PERFORM pgmc.release(server);
	RETURN who;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END \$\$;
GRANT CREATE ON SCHEMA public TO definer;
SET ROLE definer;
CREATE FUNCTION login_by_definer(server name) RETURNS text LANGUAGE sql SECURITY DEFINER
	AS \$\$ SELECT login(server) \$\$;
CREATE FUNCTION acquire_by_definer(server name) RETURNS void LANGUAGE sql SECURITY DEFINER
	AS \$\$ SELECT pgmc.acquire(server, '20 s') \$\$;
RESET ROLE;
-- what the caller of such a function can do with the hold that it leaves
CREATE FUNCTION login_after_definer(server name) RETURNS text LANGUAGE plpgsql AS \$\$
BEGIN
	PERFORM acquire_by_definer(server);
	RETURN (SELECT u FROM pgmc.query_on(server, 'SELECT current_user') AS t(u name));
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END \$\$;
END
unlink($node->data_dir . '/pg_hba.conf');
$node->append_conf('pg_hba.conf', <<END);
local trusted all trust
host trusted all 127.0.0.1/32 trust
local peered all peer
local scrammed all scram-sha-256
host scrammed all 127.0.0.1/32 scram-sha-256
local postgres all trust
END
$admin->value('SELECT pg_reload_conf()');
$admin->quit;
$admin = session($node);

my %session = map { $_ => session($node, user => $_) } qw(owner usage usage2 stranger member);
$session{$super} = $admin;
$session{member}->value('SET ROLE grp');

# ---- the matrix ----

# how the server that a mapping leads to asks, and what the PUBLIC mapping says
my @columns = (
	[ 'trust, no mapping', 'to_trusted', undef ],
	[ 'trust, a mapping without password', 'to_trusted', "\"user\" 'log'" ],
	[ 'trust, a mapping with password', 'to_trusted', "\"user\" 'log', password 'right'" ],
	[ 'peer, no mapping', 'to_peered', undef ],
	[ 'peer, a mapping to the superuser', 'to_peered', "\"user\" '$super'" ],
	[ 'SCRAM, a mapping with password', 'to_scrammed', "\"user\" 'log', password 'right'" ],
	[ 'SCRAM, a wrong password', 'to_scrammed', "\"user\" 'log', password 'wrong'" ],
	[ 'SCRAM, no password', 'to_scrammed', undef ]);

# session, what it calls, and what comes of it in each column
my @rows = (
	[ 'superuser', $super, 'login', $super, 'log', 'log', $super, $super, 'log', '28P01', '08001' ],
	[ 'server owner', 'owner', 'login', 'owner', '2F003', '2F003', '28000', '2F003', 'log', '28P01', '08001' ],
	[ 'role with USAGE', 'usage', 'login', 'usage', '2F003', '2F003', '28000', '2F003', 'log', '28P01', '08001' ],
	[ 'role without USAGE', 'stranger', 'login', ('42501') x 8 ],
	[ 'in a SECURITY DEFINER function', 'stranger', 'login_by_definer',
		'definer', '2F003', '2F003', '28000', '2F003', 'log', '28P01', '08001' ],
	[ 'the caller of a SECURITY DEFINER function, after it', 'stranger', 'login_after_definer',
		'42501', '2F003', '2F003', '28000', '2F003', '42501', '28P01', '08001' ],
	[ 'member of a role with USAGE, after SET ROLE', 'member', 'login',
		'grp', '2F003', '2F003', '28000', '2F003', 'log', '28P01', '08001' ],
	[ 'role with USAGE, a superuser has opened it', 'usage', 'login',
		'usage', '2F003', '2F003', '28000', '2F003', 'log', '28P01', '08001' ]);

for my $i (0 .. $#columns)
{
	my ($how, $server, $mapping) = @{ $columns[$i] };

	$admin->value("CREATE USER MAPPING FOR PUBLIC SERVER $server OPTIONS ($mapping)") if $mapping;
	for my $row (@rows)
	{
		my ($who, $session, $function, @expected) = @$row;

		$admin->value("SELECT pgmc.close('$server')");
		if ($who =~ /superuser has opened/)
		{
			is($admin->value("SELECT login('$server')"), $rows[0][ 3 + $i ], "$how: opened by a superuser");
			my $opened = $rows[0][ 3 + $i ] =~ /^[02]/ ? 0 : 1;

			# (what couldn't be opened is being cleared away)
			ok(wait_for($admin, "SELECT count(*) = $opened FROM pgmc.connections
					WHERE srvname = '$server' AND state IN ('idle', 'recovering')"), "$how: it is there");
		}
		is($session{$session}->value("SELECT $function('$server')"), $expected[$i], "$how: $who");
		is($admin->value("SELECT count(*) FROM pgmc.connections WHERE srvname = '$server' AND state NOT IN ('idle', 'recovering', 'closing')"),
			'0', "$how: $who: nothing is left held");
	}
	$admin->value("DROP USER MAPPING FOR PUBLIC SERVER $server") if $mapping;
}

# ---- what else the rule says ----

my ($usage, $owner) = ($session{usage}, $session{owner});

like($usage->run("SELECT pgmc.acquire('to_peered')") . $usage->{err},
	qr/could not connect.*\n.*Peer authentication failed for user "usage"/,
	'peer: the reason is the server\'s own');
$usage->run("SELECT pgmc.acquire('to_scrammed')");
like($usage->{err}, qr/no password supplied/, 'SCRAM without password: the reason is libpq\'s own');

# a superuser may say that a mapping needs none
$admin->value("CREATE USER MAPPING FOR usage SERVER to_trusted OPTIONS (\"user\" 'log', password_required 'false')");
is($usage->value("SELECT login('to_trusted')"), 'log', 'password_required false: a role with USAGE');
is($session{usage2}->value("SELECT login('to_trusted')"), 'usage2', '... nobody else');
is($owner->value("SELECT login('to_trusted')"), 'owner', '... not the owner either');
is($usage->value("SELECT login('to_peered')"), '28000', '... and for this server only');

# one's own mapping goes before PUBLIC's
$admin->value("CREATE USER MAPPING FOR PUBLIC SERVER to_trusted OPTIONS (\"user\" 'definer', password_required 'false')");
is($usage->value("SELECT login('to_trusted')"), 'log', 'own mapping');
is($session{usage2}->value("SELECT login('to_trusted')"), 'definer', 'else PUBLIC\'s');
$admin->value("DROP USER MAPPING FOR usage SERVER to_trusted");
is($usage->value("SELECT login('to_trusted')"), 'definer', 'PUBLIC\'s, once one\'s own is dropped');
$admin->value("DROP USER MAPPING FOR PUBLIC SERVER to_trusted");

# an empty password is none, and without a user it is for oneself; another host is never oneself
$admin->value("CREATE USER MAPPING FOR usage SERVER to_trusted OPTIONS (\"user\" 'log', password '')");
is($usage->value("SELECT login('to_trusted')"), '2F003', 'an empty password is none');
like($usage->run("SELECT pgmc.acquire('to_trusted')") . $usage->{err}, qr/HINT:  Set option password in the user mapping/, '... with a hint');
$admin->value('DROP USER MAPPING FOR usage SERVER to_trusted');
$admin->value("CREATE SERVER by_tcp FOREIGN DATA WRAPPER pgmc OPTIONS (host '127.0.0.1', dbname 'trusted');
	GRANT USAGE ON FOREIGN SERVER by_tcp TO usage");
is($admin->value("SELECT login('by_tcp')"), $super, 'a host that is given: superuser');
is($usage->value("SELECT login('by_tcp')"), '2F003', 'a host that is given, though it is this one: no password, no connection');

# ---- the same hold, another role ----

$admin->value("CREATE USER MAPPING FOR PUBLIC SERVER to_scrammed OPTIONS (\"user\" 'log', password 'right')");
is($usage->value("SELECT login_after_definer('to_scrammed')"), 'log', 'a caller with USAGE and the same mapping has the same key');
$usage->value('SELECT pgmc.release_all()');
is($usage->value("SELECT login_after_definer('to_trusted')"), '42501', 'a caller with USAGE and another key');
$admin->value("DROP USER MAPPING FOR PUBLIC SERVER to_scrammed");

$admin->value("SELECT pgmc.acquire('to_trusted')");
is($admin->value("SET ROLE usage; SELECT login('to_trusted'); RESET ROLE"), 'usage', 'SET ROLE in a hold: a connection of one\'s own');
for my $call ("execute('SELECT 1')", "execute_on('to_trusted', 'SELECT 1')", 'commit()', 'rollback()', 'release()', 'transaction_status()')
{
	is_state($admin, "SET ROLE usage; DO \$\$ BEGIN PERFORM pgmc.$call; END \$\$; RESET ROLE", '42501', "SET ROLE in a hold: $call");
	$admin->value("RESET ROLE; SELECT pgmc.release_all(); SELECT pgmc.acquire('to_trusted')");
}
$admin->value('SELECT pgmc.release_all()');

# USAGE taken away in a hold: there is no next call
$usage->value("SELECT pgmc.acquire('to_trusted')");
$owner->value('REVOKE USAGE ON FOREIGN SERVER to_trusted FROM usage');
is_state($usage, "SELECT pgmc.execute('SELECT 1')", '42501', 'USAGE is revoked in a hold');
is($usage->value("SELECT login('to_trusted')"), '42501', '... and later');
is($usage->value("SELECT pgmc.release_all()"), '0', '... the error has ended the hold');
$owner->value('GRANT USAGE ON FOREIGN SERVER to_trusted TO usage');

# ---- looking and closing ----

$admin->value("SELECT pgmc.close('to_trusted')");
$usage->value("SELECT pgmc.acquire('to_trusted')");
my $columns = 'srvname, usename, state, holder_usename, holder_pid IS NOT NULL, last_error';
is($usage->value("SELECT $columns FROM pgmc.connections WHERE srvname = 'to_trusted'"),
	'to_trusted|usage|held|usage|t|', 'the view: one\'s own connection');
is($admin->value("SELECT $columns FROM pgmc.connections WHERE srvname = 'to_trusted'"),
	'to_trusted|usage|held|usage|t|', 'the view: a superuser');
for my $who ('usage2', 'stranger', 'owner')
{
	is($session{$who}->value("SELECT $columns FROM pgmc.connections WHERE srvname = 'to_trusted'"),
		'to_trusted|usage|||f|', "the view: $who sees that it is there");
}
is($session{usage2}->value("SELECT pgmc.is_closed('to_trusted'), pgmc.transaction_status('to_trusted') IS NULL"),
	't|t', 'is_closed and transaction_status are about one\'s own key');
is_state($session{stranger}, "SELECT pgmc.$_('to_trusted')", '42501', "$_ without USAGE")
  for 'is_closed', 'transaction_status', 'describe', 'try_acquire', 'acquire_xact';
is_state($session{stranger}, "SELECT pgmc.autonomous_on('to_trusted', 'SELECT 1')", '42501', 'autonomous_on without USAGE');
is_state($session{stranger}, "CALL pgmc.run('SELECT 1', 'to_trusted')", '42501', 'run without USAGE');
is_state($session{usage2}, "SELECT pgmc.close('to_trusted')", '42501', 'close is the owner\'s');
is_state($owner, "SELECT pgmc.close('to_trusted')", '55006', 'the owner: held');
$usage->value('SELECT pgmc.release()');
is($owner->value("SELECT pgmc.close('to_trusted')"), 't', 'the owner closes an idle one');
is_state($owner, 'SELECT pgmc.stop_worker()', '42501', 'stop_worker is a superuser\'s');
is_state($usage, 'SET pgmc.session_holds = off', '42501', 'session_holds is a superuser\'s to set');
is_state($usage, 'SELECT pgmc.acquire()', '42501', 'nobody was granted pgmc_loopback');

# the worker is not somebody's way to the operating-system user
$admin->value("SET ROLE usage; SELECT login('to_trusted'); RESET ROLE");
is($admin->value("SELECT count(*) FROM pgmc.connections WHERE usename = '$super'"), '1', 'only the superuser\'s own is a superuser\'s')
  || diag($admin->value('SELECT * FROM pgmc.connections'));

# ---- Debian's pg_hba.conf: the short safe path ----

unlink($node->data_dir . '/pg_hba.conf');
$node->append_conf('pg_hba.conf', <<END);
local all $super peer
local all all peer
host all all 127.0.0.1/32 scram-sha-256
host all all ::1/128 scram-sha-256
END
$admin->value("SELECT pg_reload_conf()");
$admin->value("CREATE ROLE app LOGIN PASSWORD 'apps'; CREATE TABLE protocol (what text, who name DEFAULT current_user, host inet DEFAULT inet_client_addr())");
my $app = session($node, user => 'app host=127.0.0.1 password=apps');
# before the recipe: peer is asked for on the socket, and the server process is not app
$admin->value('GRANT USAGE ON FOREIGN SERVER pgmc_loopback TO app');
is_state($app, "SELECT pgmc.autonomous('SELECT 1')", '28000', 'Debian: without a mapping it is peer, which fails');
$admin->value('REVOKE USAGE ON FOREIGN SERVER pgmc_loopback FROM app');
# the recipe of the manual
$admin->value(<<END);
CREATE ROLE app_log LOGIN PASSWORD 'logs';
GRANT INSERT ON protocol TO app_log;
CREATE SERVER app_log FOREIGN DATA WRAPPER pgmc;
GRANT USAGE ON FOREIGN SERVER app_log TO app;
CREATE USER MAPPING FOR app SERVER app_log OPTIONS ("user" 'app_log', password 'logs');
END
$app->value("BEGIN; SELECT pgmc.autonomous_on('app_log', 'INSERT INTO protocol VALUES (\$1)', 'it happened'); ROLLBACK");
is($admin->value('SELECT what, who, host FROM protocol'), 'it happened|app_log|127.0.0.1', 'Debian: the recipe, over loopback TCP');
is_state($app, "INSERT INTO protocol VALUES ('by hand')", '42501', 'Debian: app itself can\'t write there');
is_state($app, "SELECT pgmc.autonomous_on('app_log', 'DELETE FROM protocol')", '42501', 'Debian: nor do more than app_log may');
like($app->value("SELECT pgmc.describe('app_log')"), qr/^<pgmc app_log: host=127\.0\.0\.1 port=\d+ dbname=postgres user=app_log \(open, idle\)>$/,
	'Debian: describe');

# without TCP a mapping with a password goes over the socket
$node->append_conf('postgresql.conf', "listen_addresses = ''");
unlink($node->data_dir . '/pg_hba.conf');
$node->append_conf('pg_hba.conf', "local all $super peer\nlocal all all scram-sha-256\n");
$node->restart;
$admin = session($node);
$app = session($node, user => 'app password=apps');
is($app->value("SELECT pgmc.autonomous_on('app_log', 'INSERT INTO protocol VALUES (\$1)', 'by socket')"), '1', 'no TCP: over the socket');
is($admin->value("SELECT who, host FROM protocol WHERE what = 'by socket'"), 'app_log|', 'no TCP: with the password');

done_testing();
