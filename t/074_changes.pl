# What changes while connections are open, held or queued for: a lower limit, another name, a server
# that is dropped; a cancel that strikes while the connection is reset; another role in a hold.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_server('changes');
my $admin = session($node);
my ($a, $b, $c) = map { session($node) } 1 .. 3;

$admin->value("CREATE SERVER $_ FOREIGN DATA WRAPPER pgmc") for 'p', 'q', 'r', 's', 't';
$admin->value('CREATE TABLE log (line text)');

sub connections
{
	return $admin->value(
		"SELECT coalesce(string_agg(concat_ws(' ', srvname, state), ', ' ORDER BY srvname), '') FROM pgmc.connections");
}

# ---- pgmc.max_connections is lowered ----

$a->value("SELECT pgmc.autonomous_on('$_', 'SELECT 1')") for 'p', 'q', 'r';
$b->value("SELECT pgmc.acquire('s')");
is(connections(), 'p idle, q idle, r idle, s held', 'four connections');
set_and_reload($node, 'pgmc.max_connections', 2, $admin, $a, $b, $c);
wait_for($admin, 'SELECT count(*) = 2 FROM pgmc.connections', 'two of them');
is(connections(), 'r idle, s held', 'at reload, the longest idle ones are closed');
$a->value("SELECT pgmc.acquire('r')");
is_state($c, "SELECT pgmc.acquire('t')", '53300', 'and the limit holds');
$a->value("SELECT pgmc.release('r')");
set_and_reload($node, 'pgmc.max_connections', 3, $admin, $a, $b, $c);
$a->value("SELECT pgmc.acquire('p'), pgmc.acquire('q')");
is(connections(), 'p held, q held, s held', 'three are held');
set_and_reload($node, 'pgmc.max_connections', 1, $admin, $a, $b, $c);
is_state($c, "SELECT pgmc.acquire('t')", '53300', 'more are held than a lower limit allows: no new one');
$a->value("SELECT pgmc.release('p')");
wait_for($admin, "SELECT count(*) = 2 FROM pgmc.connections", 'one less');
is(connections(), 'q held, s held', 'one that is released is closed then');
is_state($c, "SELECT pgmc.acquire('t')", '53300', 'there is still no room');
$a->value("SELECT pgmc.release('q')");
wait_for($admin, "SELECT count(*) = 1 FROM pgmc.connections", 'one less');
$b->value("SELECT pgmc.release('s')");
is(connections(), 's idle', 'what the limit allows stays');
$c->value("SELECT pgmc.acquire('t'), pgmc.release('t')");
is(connections(), 't idle', '... and makes room again');
set_and_reload($node, 'pgmc.max_connections', 32, $admin, $a, $b, $c);

# ---- another name ----

$a->value("SELECT pgmc.acquire('p')");
$admin->value('ALTER SERVER p RENAME TO p_renamed');
$a->value("SELECT pgmc.release(), pgmc.acquire('p_renamed')");
is($admin->value("SELECT srvname FROM pgmc.connections WHERE state = 'held'"), 'p_renamed',
	'a renamed server has its new name');
$a->value("SELECT pgmc.release()");

# ---- dropped, while somebody is queued ----

$a->value("SELECT pgmc.acquire('q')");
$b->send("SELECT pgmc.autonomous_on('q', 'INSERT INTO log VALUES (''b'')')");
is_waiting($admin, 1);
$c->send("SELECT pgmc.acquire('q')");
is_waiting($admin, 2);
$admin->value('DROP SERVER q');
$a->value('SELECT pgmc.release_all()');
is_state($b, undef, '42704', 'a call that was queued for a server that is dropped');
is_state($c, undef, '42704', 'an acquire that was');
is($admin->value("SELECT count(*) FROM pgmc.connections WHERE srvname = 'q'"), '0', 'nothing is opened to it');
is($admin->value('SELECT count(*) FROM log'), '0', 'and nothing is done there');

# ---- a cancel strikes while the connection is reset ----

$admin->value("CREATE SERVER slow FOREIGN DATA WRAPPER pgmc OPTIONS (reset_query
	'SELECT pg_advisory_xact_lock(7)')");
my $pid = $a->value("SELECT pid FROM pgmc.autonomous_query_on('slow', 'SELECT pg_backend_pid()') AS q(pid int)");
$admin->value('SELECT pg_advisory_lock(7)');
for my $how ("SELECT pgmc.autonomous_on('slow', 'INSERT INTO log VALUES (''cancelled'')')",
	"SELECT pgmc.acquire('slow'), pgmc.execute('INSERT INTO log VALUES (''cancelled'')')")
{
	$b->send($how);
	holds_up($admin);
	$admin->value("SELECT pg_cancel_backend($b->{pid})");
	is_state($b, undef, '57014', "cancelled in the reset: $how");
	wait_for($admin, "SELECT count(*) = 1 FROM pgmc.connections WHERE srvname = 'slow' AND state = 'idle'");
}
$a->send("SELECT pid FROM pgmc.autonomous_query_on('slow', 'SELECT pg_backend_pid()') AS q(pid int)");
holds_up($admin);
pass('the reset is still due, to whoever held it before');
$admin->value('SELECT pg_advisory_unlock(7)');
$a->result;
is("$a->{out}$a->{err}", $pid, 'on the same connection');
is($admin->value("SELECT opens, failures FROM pgmc.stat_connections WHERE srvname = 'slow'"), '1|0',
	'which was never lost');
is($admin->value('SELECT count(*) FROM log'), '0', 'nothing of what was cancelled is there');

# ---- the role in a hold ----

$admin->value("CREATE ROLE $_ LOGIN") for 'ann', 'plain';
$admin->value('GRANT USAGE ON FOREIGN SERVER r, s TO ann');
$admin->value("CREATE USER MAPPING FOR PUBLIC SERVER r OPTIONS (\"user\" 'plain')");
$admin->value("CREATE FUNCTION take() RETURNS void LANGUAGE sql SECURITY DEFINER AS 'SELECT pgmc.acquire(''r'')'");
my $ann = session($node, user => 'ann');
is_state($ann, "SELECT pgmc.acquire('r')", '2F003', 'a role without a password');
$ann->value('SELECT take()');
is_state($ann, "SELECT * FROM pgmc.query('SELECT current_user') AS q(a text)", '2F003',
	'... nor may it use what a function of somebody else has acquired');
is_state($ann, "SELECT pgmc.execute_on('r', 'SELECT 1')", '55000', 'that error has ended the hold');
is($ann->value("SELECT take(); SELECT pgmc.transaction_status(); SELECT pgmc.release(); SELECT pgmc.release_all()"),
	"\nidle\n\n0", '... but it may look at it, and end it');

$admin->value("SET ROLE ann");
$admin->value("SELECT pgmc.acquire('s')");
$admin->value('RESET ROLE');
$admin->value("SELECT pgmc.autonomous_on('t', 'SELECT 1')");
is($admin->value("SELECT usename, holder_usename FROM pgmc.connections WHERE srvname = 's'"), 'ann|ann',
	'the view tells the role that acquired, whoever makes other calls');
$admin->value('SELECT pgmc.release_all()');

# ---- names of objects, from another database ----

$admin->value('CREATE DATABASE other');
$node->safe_psql('other', 'CREATE TABLE only_there (a int)');
$admin->value("CREATE SERVER other FOREIGN DATA WRAPPER pgmc OPTIONS (dbname 'other')");
is($admin->value("SELECT * FROM pgmc.autonomous_query_on('other',
	'SELECT ''only_there''::regclass, ARRAY[''only_there''::regclass]') AS q(a text, b text)"),
	'only_there|{only_there}', 'names come as names');
is($admin->value("SELECT * FROM pgmc.autonomous_query_on('other', 'SELECT ''pg_class''::regclass') AS q(a regclass)"),
	'pg_class', '... also for a column of such a type');

is_clean($admin, 'in the end');
done_testing();
