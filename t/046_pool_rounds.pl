# Thousands of rounds over a pool: no connection, file descriptor or byte of shared memory is leaked,
# however the rounds end. bench/pool has more rounds.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_server('rounds', conf => <<END);
dynamic_shared_memory_type = posix
log_statement = none
log_connections = off
log_disconnections = off
log_min_messages = fatal
END
my $admin = session($node);

$admin->value(<<END);
CREATE SERVER pool FOREIGN DATA WRAPPER pgmc OPTIONS (pool_size '4');
CREATE TABLE t (id int);
CREATE FUNCTION turn(how int) RETURNS void LANGUAGE plpgsql AS \$\$
BEGIN
	PERFORM pgmc.acquire('pool', '60 s');
	IF pgmc.transaction_status('pool') <> 'idle' THEN
		RAISE 'not idle' USING ERRCODE = 'XX001';
	END IF;
	PERFORM pgmc.execute('INSERT INTO t VALUES (\$1)', how);
	-- committed; released dirty; left to an error; lost
	IF how >= 4 THEN
		PERFORM pgmc.commit();
	ELSIF how = 2 THEN
		RAISE division_by_zero;
	ELSIF how = 1 THEN
		PERFORM pgmc.rollback(), pgmc.release(close => true);
		RETURN;
	END IF;
	PERFORM pgmc.release();
EXCEPTION WHEN active_sql_transaction OR division_by_zero THEN NULL;
END \$\$;
END
my $script = $node->basedir . '/turn.sql';
append_to_file($script, "\\set how random(1, 100)\nSELECT turn(:how);\n");

# Returns what pgbench says, errors included
sub rounds
{
	my ($n, @options) = @_;
	my ($out, $in) = ('', '');

	IPC::Run::run([ $node->installed_command('pgbench'), '-n', '-c', '16', '-j', '2', '-t', $n / 16, @options,
			'-f', $script, $node->connstr('postgres') ], '<', \$in, '>&', \$out);
	return $out;
}

sub look
{
	wait_for($admin, "SELECT count(*) = 0 FROM pgmc.connections WHERE state <> 'idle'", 'the end of what goes on');
	my $worker = worker_pid($admin);
	my $dynamic = 0;

	# one idle connection of each slot, however many of them were closed just now
	$_->value("SELECT pgmc.acquire('pool'), pgmc.execute('SELECT 1'), pgmc.commit()") for my @four = map { session($node) } 1 .. 4;
	my $backends = $admin->value("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgmc%'");
	$_->value('SELECT pgmc.release()') for @four;
	$_->quit for @four;
	for (grep { m{/dev/shm/PostgreSQL} } split /\n/, slurp_file("/proc/$worker/maps"))
	{
		/^([0-9a-f]+)-([0-9a-f]+)/ and $dynamic += hex($2) - hex($1);
	}
	my @descriptors = glob("/proc/$worker/fd/*");

	return {
		worker => $worker,
		backends => $backends,
		descriptors => scalar @descriptors,
		'bytes of dynamic shared memory' => $dynamic,
		'kB of the worker' => proc_kb($worker, 'status', 'RssAnon') };
}

like(rounds(320), qr{processed: 320/320}, 'a first few');
my $before = look();
my $all = rounds(4000);
like($all, qr{processed: 4000/4000}, 'four thousand rounds by sixteen sessions');
unlike($all, qr/ERROR|error/, 'without an error that is not meant') || diag($all);
like(rounds(320, '-C'), qr{processed: 320/320}, 'and by sessions that end after each');
my $after = look();

is($after->{worker}, $before->{worker}, 'the same worker');
is($after->{backends}, 4, 'four backends');
for my $what (grep { !/worker/ } sort keys %$before)
{
	is($after->{$what}, $before->{$what}, "$what: as many as before");
}
is_less_kb($after->{'kB of the worker'}, $before->{'kB of the worker'} + 1024, 'memory of the worker');
note("$_: $before->{$_} before, $after->{$_} after") for sort keys %$before;
is($admin->value('SELECT count(*) FROM t WHERE id < 4'), '0', 'nothing was committed that wasn\'t meant to');
cmp_ok($admin->value('SELECT count(*) FROM t'), '>', 4000, 'and all the rest was');
is_clean($admin, 'in the end');

done_testing();
