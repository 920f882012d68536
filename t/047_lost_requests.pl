# The connection ends while the holder is in the middle of sending a request: what is left of it on
# its way must not be taken for requests, whatever it looks like.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $node = start_server('requests', conf => "log_connections = on\n");
my $admin = session($node);
my $super = $admin->value('SELECT current_user');

$admin->value(<<END);
CREATE ROLE ann LOGIN;
GRANT USAGE ON FOREIGN SERVER pgmc_loopback TO ann;
CREATE TABLE secret (id text);
CREATE TABLE payload (phase int, bytes bytea);
ALTER TABLE payload ALTER bytes SET STORAGE EXTERNAL;
GRANT SELECT ON payload TO ann;
END

# ---- frames of wire.h, as a parameter may contain them ----

sub frame
{
	my ($type, $payload) = @_;

	return pack('L a C S', length $payload, $type, 0, 0) . $payload;
}

# Open a connection as somebody else, and use it
my @pairs = (
	host => $node->host,
	port => $node->port,
	dbname => 'postgres',
	user => $super,
	application_name => 'intruder');
my $intrusion =
  frame('O', pack('Q Q l l l l Z*', 1, 1, 10_000, 0, 0, @pairs / 2, '') . join('', map { "$_\0" } @pairs))
  . frame('E', pack('Q l', 1, 0) . "INSERT INTO secret VALUES ('intruder')\0");

# before it what makes no sense but does no harm, so that it is found from anywhere
my $piece = "\0" x 8192 . $intrusion;
$piece .= "\0" x (-length($piece) % 8);
for my $phase (0 .. 7)
{
	my $hex = unpack('H*', "\0" x $phase) . "'||repeat('" . unpack('H*', $piece) . "', 1000)||'";

	$admin->value("INSERT INTO payload VALUES ($phase, decode('$hex', 'hex'))");
}

# ---- the connection ends while the worker is stopped in the middle ----

# A process that stands still where it has no lock of the server, or one that has gone
sub gone
{
	my ($pid) = @_;

	for (1 .. 5000)
	{
		return 1 unless kill 0, $pid;
		usleep(1000);
	}
	return 0;
}

my ($struck, $rounds) = (0, 24);
for my $round (1 .. $rounds)
{
	my $phase = $round % 8;
	my $holder = session($node, user => 'ann');

	$holder->value("SELECT pgmc.acquire('pgmc_loopback', '20 s'), pgmc.execute('SELECT 1')");
	my $worker = worker_pid($admin);
	my $loopback = loopback_pid($admin);
	$holder->send("DO \$\$
		BEGIN
			PERFORM pgmc.execute('SELECT length(\$1)', bytes) FROM payload WHERE phase = $phase;
		EXCEPTION WHEN connection_failure THEN
			PERFORM pg_sleep(0.1);
			RAISE NOTICE 'lost';
		END \$\$");
	wait_for($admin, "SELECT state = 'active' FROM pg_stat_activity WHERE pid = $holder->{pid}");
	usleep(1000 * ($round % 20));
	kill 'STOP', $worker;
	kill 'TERM', $loopback;
	gone($loopback);
	kill 'CONT', $worker;
	$holder->result;
	$struck++ if $holder->{err} =~ /NOTICE: .*lost/;
	$holder->quit;
}
cmp_ok($struck, '>', $rounds / 10, "requests are cut off in the middle");
note("$struck of $rounds");
is($admin->value('SELECT count(*) FROM secret'), '0', 'what is left of them is not run');
unlike(slurp_file($node->logfile), qr/connection authorized: user=\Q$super\E .*application_name=intruder/,
	'nor does it open a connection');
is_free($admin, 'in the end');
is_clean($admin, 'in the end');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');

done_testing();
