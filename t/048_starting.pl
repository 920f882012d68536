# While a server is starting up: those who connect to it as soon as it lets them, and those who
# want a connection to it from elsewhere.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_server('starting', init => [ allows_streaming => 1 ]);
my $elsewhere = start_server('elsewhere');
my $dir = PostgreSQL::Test::Utils::tempdir;
my $host = $node->host;
my $port = $node->port;
my $login = $node->safe_psql('postgres', 'SELECT current_user');
my $admin = session($node);
my $remote = session($elsewhere);
my @s = map { session($elsewhere) } 1 .. 3;

$admin->value('CREATE TABLE t (who int)');
$remote->value("CREATE SERVER there FOREIGN DATA WRAPPER pgmc
	OPTIONS (host '$host', port '$port', dbname 'postgres')");
is($remote->value("SELECT pgmc.autonomous_on('there', 'INSERT INTO t VALUES (0)')"), '1', 'a connection from elsewhere');

# ---- it goes, in the middle of what both do ----

is_free($admin, 'before');
$admin->value("SELECT pgmc.acquire(), pgmc.execute('INSERT INTO t VALUES (-1)')");
$s[0]->value("SELECT pgmc.acquire('there'), pgmc.execute('INSERT INTO t VALUES (-2)')");
$s[1]->send("SELECT pgmc.acquire('there'), 'turn'");
is_waiting($remote, 1);
$node->stop('immediate');
$admin->quit;
is_state($s[0], "SELECT pgmc.execute('SELECT 1')", '08006', 'a hold of a server that went: lost');

# ---- it starts, and stops on its way: whoever wants it is told so ----

# it asks for its log from an archive, which doesn't answer before there is a file "go"
$node->append_conf('postgresql.conf',
	"restore_command = 'while ! test -e $dir/go; do sleep 0.05; done; false'\n");
append_to_file($node->data_dir . '/recovery.signal', '');
system_or_bail('pg_ctl', '-D', $node->data_dir, '-l', $node->logfile, '-W', '-s', 'start');
$s[1]->result;
like(sqlstate($s[1]->{err}), qr/^(?:08001|57P03)$/, 'who was queued is told that it cannot be reached');
my $starting = '';
for (1 .. 1000)
{
	$remote->run("SELECT pgmc.acquire('there')");
	$starting = sqlstate($remote->{err});
	last if $starting ne '08001';    # nobody listens yet
}
is($starting, '57P03', 'acquire of a server that is starting up');
like($remote->{err}, qr/the database system is (?:starting up|not yet accepting connections)/, 'with its words');
is_state($remote, "SELECT pgmc.autonomous_on('there', 'SELECT 1')", '57P03', 'also autonomous');
$_->send("SELECT pgmc.acquire('there', '20 s')") for @s;
is_state($_, undef, '57P03', 'and all who come at once') for @s;
is($remote->value('SELECT count(*) FROM pgmc.connections'), '0', 'no connection is left');

# ---- the first who are let in, and not only to read, acquire at once ----

my @client;
my ($in, $out) = ('', '');
for my $who (1 .. 6)
{
	my $sql = "SELECT pgmc.acquire(timeout => '20 s'), pgmc.execute('INSERT INTO t VALUES ($who)'), pgmc.commit(), pgmc.release()";

	push @client, IPC::Run::start(
		[
			'sh', '-c', "i=0; until psql -XAtq -v VERBOSITY=verbose -d '" . $node->connstr('postgres')
			  . " target_session_attrs=read-write' -c \"$sql\" >/dev/null 2>>$dir/err$who || test \$i = 1000; do sleep 0.01; i=\$((i + 1)); done"
		], '<', \$in, '>&', \$out);
}
PostgreSQL::Test::Utils::append_to_file("$dir/go", '');
$_->finish for @client;
my %told;
for my $who (1 .. 6)
{
	for my $line (split /\n/, slurp_file("$dir/err$who"))
	{
		$told{$line}++
		  if $line =~ /ERROR|FATAL|PANIC/
		  && $line !~ /the database system is (?:starting up|not yet accepting connections)|server on socket/;
	}
}
is(join("\n", sort keys %told), '', 'who is let in gets it');
$node->_update_pid(1);
await_up($node);
$admin = session($node);
is($admin->value("SELECT string_agg(who::text, ' ' ORDER BY who) FROM t"), '0 1 2 3 4 5 6',
	'what they did is there, and nothing of before');
is($admin->value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pgmc worker'"), '1', 'one worker');
is($remote->value("SELECT pgmc.autonomous_on('there', 'INSERT INTO t VALUES (7)')"), '1', 'from elsewhere, too');
is_free($admin, 'in the end');
is_clean($admin, 'in the end');
is_clean($remote, 'elsewhere');

$_->quit for $admin, $remote, @s;
$node->stop;
unlike(slurp_file($_->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed') for $node, $elsewhere;

done_testing();
