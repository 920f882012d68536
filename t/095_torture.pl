# bench/torture for ten seconds: sessions that do everything at random, while somebody kills all
# that they depend on. The program proves from the tables that nothing is lost.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $program = "$PostgreSQL::Test::Utils::tmp_check/torture";

sub config
{
	my ($what) = @_;
	my ($out, $err) = run_command([ 'pg_config', "--$what" ]);

	return $out;
}

my @compile = (
	'cc', '-O2', '-I' . config('includedir'), '-o', $program, "$FindBin::RealBin/../bench/torture.c",
	'-L' . config('libdir'), '-Wl,-rpath,' . config('libdir'), '-lpq');

system_or_bail(@compile);

my $node = start_server('torture', conf => "max_connections = 150\ndeadlock_timeout = 200ms\n");
my $pg_ctl = $node->installed_command('pg_ctl');

local %ENV = $node->_get_env();
local $ENV{PGDATABASE} = 'postgres';
my ($out, $err) = run_command(
	[
		$program, '--seed', '1', '--seconds', '10', '--sessions', '16',
		'--kill-ms', '100', '--crash-s', '2', '--data', $node->data_dir,
		'--pg-ctl', $pg_ctl, '--log', $node->logfile
	]);

note($out);
like($out, qr/^violations +0$/m, 'no loss, no double hold, nothing left behind') || diag("$out\n$err");
like($out, qr/^holds and autonomous commands +[1-9]\d/m, 'and some work was done');

# A run without them would prove nothing. (It goes on until there was one of each.)
for my $fault ('worker terminated', 'loopback terminated', 'loopback cancelled', 'session terminated',
	'session cancelled', 'client killed', 'backend SIGKILLed', 'fast restart', 'immediate restart')
{
	like($out, qr/^$fault +[1-9]/m, "faults of each kind: $fault");
}
unlike(slurp_file($node->logfile), qr/PANIC:|TRAP:|terminated by signal (?!9\b)/,
	'nothing has crashed but what was killed');

# the program has restarted the server, so what the node knows of it is no longer true
system($pg_ctl, 'stop', '-D', $node->data_dir, '-m', 'fast', '-w', '-s');
$node->_update_pid(0);
done_testing();
