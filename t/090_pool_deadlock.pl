# Two pools, the holders of each waiting for the other: nobody is in a circle that a single wait
# makes, and yet nobody can go on.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_server('pools', conf => "deadlock_timeout = 100ms\n");
my $admin = session($node);
my @session = map { session($node, name => "session$_") } 0 .. 3;

$admin->value("CREATE SERVER $_ FOREIGN DATA WRAPPER pgmc OPTIONS (pool_size '2')") for qw(a b);

for my $i (0 .. 3)
{
	$session[$i]->value("SELECT pgmc.acquire('" . ($i < 2 ? 'a' : 'b') . "')");
}

# a pool with a holder who is free to go is no deadlock
$session[0]->send("SELECT pgmc.acquire('b')");
$session[2]->send("SELECT pgmc.acquire('a')");
$session[3]->send("SELECT pgmc.acquire('a')");
is_waiting($admin, 3);
$admin->value('SELECT pg_sleep(0.5)');
ok(!$session[0]->done && !$session[2]->done && !$session[3]->done,
	'three wait, one runs: nobody is a victim');

# The victim's holds come back, so one goes on; it gives back what it has, and so on.
$session[1]->send("SELECT pgmc.acquire('b')");
my ($victims, $winners) = (0, 0);
my %left = map { $_ => 1 } 0 .. 3;

while (%left)
{
	for my $i (sort keys %left)
	{
		next unless $session[$i]->done;
		delete $left{$i};
		$session[$i]->result;
		if ($session[$i]{err} eq '')
		{
			$winners++;
			$session[$i]->value('SELECT pgmc.release_all()');
		}
		else
		{
			$victims++;
			is(sqlstate($session[$i]{err}), '40P01', 'deadlock detected');
			like($session[$i]{err}, qr/waits for server "[ab]"; held by process \d+/, 'with who waits');
		}
	}
	select(undef, undef, undef, 0.01);
}
is("$victims, $winners", '1, 3', 'one victim, the others go on');
is_clean($admin, 'in the end');

$_->quit for @session, $admin;
$node->stop('fast');
done_testing();
