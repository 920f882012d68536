# Secrets stay where they were put, in the user mapping: they are in no line of the server's log, no
# view, no error, no process title, no shared memory.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IO::Socket::INET;
use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $secret = "Gehe1mn1s$$";
my $node = start_server('secrets', conf => <<END);
listen_addresses = '127.0.0.1'
dynamic_shared_memory_type = posix
log_min_messages = debug5
log_min_error_statement = debug5
log_error_verbosity = verbose
log_statement = all
log_connections = on
log_disconnections = on
log_replication_commands = on
log_duration = on
debug_print_parse = on
debug_print_plan = on
END
unlink($node->data_dir . '/pg_hba.conf');
$node->append_conf('pg_hba.conf', "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n");
$node->reload;

my $admin = session($node);
$admin->value(<<END);
CREATE ROLE usage LOGIN;
CREATE SERVER s FOREIGN DATA WRAPPER pgmc OPTIONS (pool_size '2');
CREATE SERVER refused FOREIGN DATA WRAPPER pgmc OPTIONS (host '127.0.0.1');
GRANT USAGE ON FOREIGN SERVER s, refused TO usage;
END
# what users write themselves is in the log and in pg_stat_activity, of course; so it's a session of its own
my $mapper = session($node);
$mapper->value(<<END);
CREATE ROLE log LOGIN PASSWORD '$secret';
CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS ("user" 'log', password '$secret', sslpassword '$secret');
CREATE USER MAPPING FOR PUBLIC SERVER refused OPTIONS ("user" 'log', password 'x$secret');
END
$mapper->value('SELECT 1');
$mapper->quit;

# ---- a view of all places ----

# Files of dynamic shared memory with the secret (or something else) in them
sub in_dynamic_memory
{
	my ($what) = (@_, $secret);

	return grep { my $bytes = eval { slurp_file($_) }; defined $bytes && index($bytes, $what) >= 0 }
	  glob('/dev/shm/PostgreSQL.*');
}

# How often the secret is in the main shared memory, through any process's mapping of it. The pages of
# pg_user_mapping and of its WAL are there.
sub in_main_memory
{
	my ($pid) = @_;
	my $count = 0;

	open(my $memory, '<:raw', "/proc/$pid/mem") or return;
	for (grep { m{ rw-s .*(/dev/zero|/SYSV|anon_hugepage)} } split /\n/, slurp_file("/proc/$pid/maps"))
	{
		my ($from, $to) = map { hex } /^([0-9a-f]+)-([0-9a-f]+)/;
		my $rest = '';

		sysseek($memory, $from, 0);
		while ($from < $to)
		{
			my $n = sysread($memory, my $bytes, $to - $from < 1 << 20 ? $to - $from : 1 << 20);

			last unless $n;
			$from += $n;
			$bytes = $rest . $bytes;
			$count++ while $bytes =~ /$secret/g;
			$rest = substr($bytes, -(length($secret) - 1));
		}
	}
	return $count;
}

# the search itself works
ok(index($admin->value('SELECT umoptions FROM pg_user_mappings WHERE srvname = \'s\''), $secret) >= 0,
	'a superuser reads it where it is kept');
my $before = in_main_memory($admin->{pid});
cmp_ok($before, '>', 0, 'the search of shared memory finds the pages of the catalog');

# ---- everything that pgmc does with it ----

my $log_from = -s $node->logfile;
my $usage = session($node, user => 'usage');
my $seen = '';

sub look
{
	my ($session, $sql) = @_;

	$session->run($sql);
	$seen .= "$session->{out}\n$session->{err}\n";
	return $session->{out};
}

$usage->value("SET client_min_messages = debug5; SET debug_print_parse = off; SET debug_print_plan = off");
look($usage, "SELECT pgmc.acquire('s')");
$usage->value("SELECT pgmc.execute('SELECT ''Auff1ndbar$$''')");
my @found = in_dynamic_memory("Auff1ndbar$$");
cmp_ok(scalar(@found), '>', 0, 'the search of dynamic shared memory finds a command');
is(look($usage, "SELECT * FROM pgmc.query('SELECT current_user') AS t(u name)") =~ /^log$/m, 1, 'logged in with it');
is_deeply([ in_dynamic_memory() ], [], 'no file of dynamic shared memory has it once the connection is open');
look($usage, "SELECT pgmc.describe('s'), pgmc.commit()");
look($usage, "SELECT pgmc.autonomous_on('s', 'SELECT 1')");
look($usage, "SELECT pgmc.acquire('refused')");
like($usage->{err}, qr/password authentication failed/, 'a failing login');
is_deeply([ in_dynamic_memory() ], [], '... leaves nothing there either');
look($usage, "SELECT pgmc.execute('SELECT 1/0')");
look($usage, "SELECT pgmc.describe('refused')");
look($usage, "SELECT pgmc.acquire('s')");

# an opening that is given up: while the worker waits, and before that
$admin->value("CREATE SERVER silent FOREIGN DATA WRAPPER pgmc OPTIONS (host '127.0.0.1'); GRANT USAGE ON FOREIGN SERVER silent TO usage");
my $silent = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1') or die "no socket: $!";
my $silent_port = $silent->sockport;
$admin->value("ALTER SERVER silent OPTIONS (ADD port '$silent_port')");
$mapper = session($node);
$mapper->value('SET debug_print_parse = off; SET debug_print_plan = off');
$mapper->value("CREATE USER MAPPING FOR PUBLIC SERVER silent OPTIONS (password '$secret')");
$mapper->value('SELECT 1');
$mapper->quit;
$before = in_main_memory($admin->{pid});
my $given_up = session($node, user => 'usage');
$given_up->send("SELECT pgmc.acquire('silent')");
wait_for($admin, "SELECT count(*) > 0 FROM pgmc.connections WHERE srvname = 'silent' AND state = 'opening'", 'an opening');
is_deeply([ in_dynamic_memory() ], [], 'none while it is opening');
$admin->value("SELECT pg_cancel_backend($given_up->{pid})");
is_state($given_up, undef, '57014', 'an opening that is cancelled');
$given_up->send("SELECT pgmc.acquire('silent')");
wait_for($admin, "SELECT count(*) > 0 FROM pgmc.connections WHERE srvname = 'silent' AND state = 'opening'", 'an opening');
$admin->value("SELECT pg_terminate_backend($given_up->{pid}, 10000)");
wait_for($admin, "SELECT count(*) = 0 FROM pgmc.connections WHERE srvname = 'silent'", 'the end of it');
is_deeply([ in_dynamic_memory() ], [], 'none after openings that were given up');

# a stopped worker has read nothing yet: what was sent is there until it does away with it
my $worker = worker_pid($admin);
kill 'STOP', $worker;
$given_up = session($node, user => 'usage');
$given_up->send("SELECT pgmc.acquire('silent')");
wait_for($admin, "SELECT count(*) > 0 FROM pgmc.connections WHERE srvname = 'silent'", 'a request');
wait_for($admin, "SELECT wait_event IS NOT NULL AND wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = $given_up->{pid}", 'its wait');
$admin->value("SELECT pg_terminate_backend($given_up->{pid}, 10000)");
kill 'CONT', $worker;
wait_for($admin, "SELECT count(*) = 0 FROM pgmc.connections WHERE srvname = 'silent'", 'the end of it');
is_deeply([ in_dynamic_memory() ], [], 'none after a request that nobody wanted any more');

# ---- where it would be seen ----

# (not in our own query, which is in pg_stat_activity and its shared memory)
my $pattern = "'%' || 'Gehe1mn1s' || '$$' || '%'";
for my $view ('pgmc.connections', 'pg_stat_activity', 'pg_settings', 'pg_foreign_server', 'pg_foreign_data_wrapper', 'pg_prepared_statements', 'pg_cursors')
{
	look($admin, "SELECT v::text FROM $view AS v WHERE v::text LIKE $pattern");
	is($admin->{out}, '', "not in $view");
}
look($usage, "SELECT * FROM pg_user_mappings");
look($usage, 'SELECT * FROM pgmc.connections');
look($usage, "SELECT * FROM pgmc.query('SELECT a::text FROM pg_stat_activity AS a') AS t(x text)");
look($usage, "SELECT pgmc.release_all()");
unlike($seen, qr/$secret/, 'no answer, notice or error has it, at debug5');

my @titles = map { my $t = eval { slurp_file($_) }; defined $t ? $t : () } glob('/proc/[0-9]*/cmdline');
cmp_ok(scalar(grep { /pgmc worker/ } @titles), '>', 0, 'process titles: the worker\'s is among them');
is(scalar(grep { /$secret/ } @titles), 0, 'no process title has it');

cmp_ok(in_main_memory($admin->{pid}), '<=', $before, 'no more of it in the main shared memory than before');

$admin->value('SELECT pgmc.stop_worker()');
is_deeply([ in_dynamic_memory() ], [], 'none after the worker\'s end');

$node->stop;
my $log = slurp_file($node->logfile, $log_from);
# the statement of the user who made a mapping meanwhile, which the server logs in many ways
my @lines = grep { /$secret/ } split /\n/, $log;
cmp_ok(scalar(@lines), '>', 0, 'the log has what users wrote themselves');
@lines = grep { !/CREATE USER MAPPING FOR PUBLIC SERVER silent/ } @lines;
is_deeply(\@lines, [], 'and no other line with it');
cmp_ok(length($log), '>', 100_000, 'though it is a long log');

done_testing();
