# try_acquire doesn't wait for somebody else, and doesn't say false where it need not: a connection that is
# merely being brought to idle is nobody's. Which of the two it is, is one decision: thousands of rounds
# where the recovery ends just then.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_server('try', conf => <<END);
log_statement = none
log_min_messages = fatal
END
my $admin = session($node);
$admin->value("CREATE SERVER $_ FOREIGN DATA WRAPPER pgmc") for 'one', 'pool';
my ($a, $b, $c) = map { session($node) } 1 .. 3;

# One that takes a second may be as good as somebody's: no less, and no more
my $try = "SELECT pgmc.try_acquire('one') OR clock_timestamp() - statement_timestamp() >= '1 s'";

sub queued
{
	return $admin->value("SELECT waits FROM pgmc.stat_connections WHERE srvname = '$_[0]'");
}

# how a hold ends => what is sent to end it
my %ends = (
	'an abort' => 'ROLLBACK',
	'the abort of a subtransaction' => 'ROLLBACK TO a',
	'a release with a transaction open' => "SELECT pgmc.release('one')",
	'a release that closes' => "SELECT pgmc.release('one', close => true)");

for my $end (sort keys %ends)
{
	$a->value('BEGIN') if $ends{$end} =~ /ROLLBACK/;
	$a->value('SAVEPOINT a') if $ends{$end} =~ /TO/;
	$a->value("SELECT pgmc.acquire('one'), pgmc.execute('SELECT 1')");
	my $worker = worker_pid($admin);
	is($b->value("SELECT pgmc.try_acquire('one')"), 'f', "$end: before it, the connection is somebody's");
	stand_still($worker);
	$a->send($ends{$end});
	wait_for($admin, "SELECT count(*) = 1 FROM pgmc.connections WHERE srvname = 'one' AND holder_pid IS NULL", 'the end of the hold');
	$b->send($try);
	is_waiting($admin, 1);
	kill 'CONT', $worker;
	is($b->result, 't', "$end: try_acquire waits for the recovery and has the connection then");
	$a->result;
	$a->run('ROLLBACK');
	$b->value('SELECT pgmc.release_all()');
}

# of a pool that has become smaller, what comes back isn't for one more
$admin->value("ALTER SERVER pool OPTIONS (ADD pool_size '2')");
$_->value("SELECT pgmc.acquire('pool'), pgmc.execute('SELECT 1'), pgmc.commit()") for $a, $b;
$admin->value("ALTER SERVER pool OPTIONS (SET pool_size '1')");
my $worker = worker_pid($admin);
my $before = queued('pool');
stand_still($worker);
$a->value("SELECT pgmc.release('pool', close => true)");
is($c->value("SELECT pgmc.try_acquire('pool')"), 'f', 'a connection too many that is being closed is nobody\'s turn');
is(queued('pool'), $before, 'for that, try_acquire doesn\'t queue');
kill 'CONT', $worker;
wait_for($admin, "SELECT count(*) = 1 FROM pgmc.connections WHERE srvname = 'pool'", 'the end of the closing');
$b->value("SELECT pgmc.release('pool')");
is($c->value("SELECT pgmc.try_acquire('pool')"), 't', 'the one that is left is');
$c->value("SELECT pgmc.release('pool')");

# in one session with nobody else there, it never fails, whenever the recovery ends
my $script = $node->basedir . '/try.sql';
append_to_file($script, <<END);
BEGIN;
SELECT pgmc.acquire('one');
SELECT pgmc.execute('SELECT 1');
ROLLBACK;
SELECT 1 / ($try)::int;
SELECT pgmc.release_all();
END
my ($out, $in) = ('', '');
IPC::Run::run([ $node->installed_command('pgbench'), '-n', '-t', '5000', '-f', $script, $node->connstr('postgres') ],
	'<', \$in, '>&', \$out);
like($out, qr{processed: 5000/5000}, 'five thousand rounds') || diag($out =~ s/^.*WARNING.*\n//mgr);
unlike($out, qr/division by zero/, 'in each the connection was there to have');

# with others, it is false, at once, or true; it is never two at a time
$admin->value('CREATE TABLE turns (pid int); INSERT INTO turns VALUES (0)');
my $turn = $node->basedir . '/turn.sql';
append_to_file($turn, <<END);
\\set how random(1, 3)
SELECT pgmc.try_acquire('one') AS got \\gset
\\if :got
SELECT 1 / free FROM pgmc.query('SELECT count(*) FROM turns WHERE pid = 0') AS (free bigint);
SELECT pgmc.execute('UPDATE turns SET pid = 1'), pgmc.commit();
SELECT pgmc.execute('UPDATE turns SET pid = 0'), pgmc.commit();
\\if :how = 1
BEGIN;
SELECT pgmc.execute('SELECT 1');
ROLLBACK;
SELECT pgmc.release_all();
\\elif :how = 2
SELECT pgmc.release('one', close => true);
\\else
SELECT pgmc.release('one');
\\endif
\\endif
END
$before = queued('one');
$out = '';
IPC::Run::run([ $node->installed_command('pgbench'), '-n', '-c', '8', '-j', '2', '-t', '250', '-f', $turn, $node->connstr('postgres') ],
	'<', \$in, '>&', \$out);
like($out, qr{processed: 2000/2000}, 'two thousand rounds of eight sessions') || diag($out);
unlike($out, qr/ERROR|error/, 'never two at a time');
is_clean($admin, 'in the end');

done_testing();
