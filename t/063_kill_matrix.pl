# Whoever is cancelled, terminated or killed, whatever the holder is doing: what each of them is
# told is in the table; afterwards the next one works and nothing is left, or committed.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_server('matrix');
my $admin = session($node);
my ($holder, $waiter, $other);

$admin->value(<<END);
CREATE SERVER b FOREIGN DATA WRAPPER pgmc;
CREATE TABLE t (id text);
CREATE TABLE slow (id text);
CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql
	AS \$\$ BEGIN PERFORM pg_sleep(600); RETURN NULL; END \$\$;
CREATE CONSTRAINT TRIGGER slow_commit AFTER INSERT ON slow
	DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hang();
CREATE FUNCTION noisy(i int) RETURNS int LANGUAGE plpgsql
	AS \$\$ BEGIN RAISE NOTICE '% %', i, repeat('x', 200); RETURN i; END \$\$;
END

# ---- the columns: what the holder is doing ----

my $lost = "SELECT pgmc.acquire(), pgmc.execute('INSERT INTO t VALUES (''lost'')')";
my $stuck = "EXISTS (SELECT FROM pg_stat_activity WHERE pid = %d AND wait_event = 'ClientWrite')";

sub sleeps
{
	return wait_for($admin, "SELECT count(*) = 1 FROM pg_stat_activity
		WHERE application_name LIKE 'pgmc%' AND state = 'active' AND wait_event = 'PgSleep'");
}

my %doing = (
	idle => sub { $holder->value($lost) },
	waiting => sub {
		$other->value("SELECT pgmc.acquire('b')");
		$holder->value($lost);
		$holder->send("SELECT pgmc.acquire('b')");
		is_waiting($admin, 1);
	},
	connecting => sub {
		# a login waits for this lock
		$admin->value('SELECT pgmc.close()');
		$other->value('BEGIN; LOCK TABLE pg_catalog.pg_db_role_setting IN ACCESS EXCLUSIVE MODE');
		$holder->send('SELECT pgmc.acquire()');
		wait_for($admin, 'SELECT count(*) = 1 FROM pg_locks WHERE NOT granted');
	},
	executing => sub {
		$holder->value($lost);
		$holder->send("SELECT pgmc.execute('SELECT pg_sleep(600)')");
		sleeps();
	},
	streaming => sub {
		# its client doesn't read, so it doesn't, so the worker doesn't
		$holder->value($lost);
		$holder->send("SELECT count(*) FROM pgmc.query('SELECT noisy(generate_series(1, 100000))') AS q(i int)");
		wait_for($admin, "SELECT state = 'active' FROM pg_stat_activity WHERE pid = $holder->{pid}");
		$holder->signal('STOP');
		wait_for($admin, 'SELECT ' . sprintf($stuck, $_)) for $holder->{pid}, loopback_pid($admin);
	},
	committing => sub {
		$holder->value("SELECT pgmc.acquire(), pgmc.execute('INSERT INTO slow VALUES (''lost'')')");
		$holder->send('SELECT pgmc.commit()');
		sleeps();
	});

# ---- the rows: who is struck, and how ----

my %pid = (
	holder => sub { $holder->{pid} },
	waiter => sub { $waiter->{pid} },
	worker => sub { worker_pid($admin) },
	loopback => sub {
		$admin->value("SELECT coalesce((SELECT pid FROM pg_locks WHERE NOT granted),
			(SELECT backend_pid FROM pgmc.connections WHERE srvname = 'pgmc_loopback'))");
	});

my %strike = (
	cancel => sub { $admin->value("SELECT pg_cancel_backend($_[0])") },
	terminate => sub { $admin->value("SELECT pg_terminate_backend($_[0])") },
	kill => sub { kill 'KILL', $_[0] });

# ---- the cells: what the holder is told, and the waiter ----
#
# A SQLSTATE, or several: of the command that is running, or where none is, of the
# next call. "stays": goes on as if nothing had been. "gets": is given the connection, idle.

my %outcome = (
	'cancel holder' => {
		idle => [ 'stays', 'stays' ],
		waiting => [ '57014', 'gets' ],
		connecting => [ '57014', 'gets' ],
		executing => [ '57014', 'gets' ],
		streaming => [ '57014', 'gets' ],
		committing => [ '57014', 'gets' ]
	},

	# one that can't reach its client any more can't tell it why it ends
	'terminate holder' =>
	  { (map { $_ => [ '57P01', 'gets' ] } keys %doing), streaming => [ 'gone', 'gets' ] },
	'cancel waiter' => { map { $_ => [ 'stays', '57014' ] } keys %doing },
	'terminate waiter' => { map { $_ => [ 'stays', '57P01' ] } keys %doing },
	'cancel worker' => { map { $_ => [ 'stays', 'stays' ] } keys %doing },
	'terminate worker' => {
		idle => [ '08006', '08006' ],
		waiting => [ '08006', '08006' ],
		connecting => [ '08006|08001', '08006|08001' ],
		executing => [ '08006', '08006' ],
		streaming => [ '08006', '08006' ],
		committing => [ '08006', '08006' ]
	},
	'cancel loopback' => {
		idle => [ 'stays', 'stays' ],
		waiting => [ 'stays', 'stays' ],
		connecting => [ '57014|08001', '57014|08001' ],
		executing => [ '57014', 'gets' ],
		streaming => [ '57014', 'gets' ],
		committing => [ '57014', 'gets' ]
	},
	'terminate loopback' => {
		idle => [ '08006', 'gets' ],
		waiting => [ '08006', 'gets' ],
		connecting => [ '57P01|08001', '57P01|08001' ],
		executing => [ '08006', 'gets' ],
		streaming => [ '08006', 'gets' ],
		committing => [ '08006', 'gets' ]
	},

	# SIGKILL restarts the server: all that its clients are told of, one after the other, before
	# their connections end. The victim itself says nothing, nor does one that can't reach its client.
	'kill holder' => { map { $_ => [ '', '57P02' ] } keys %doing },
	'kill waiter' => { (map { $_ => [ '57P02', '' ] } keys %doing), streaming => [ '', '' ] },
	'kill worker' => { (map { $_ => [ '57P02', '57P02' ] } keys %doing), streaming => [ '', '57P02' ] },

	# ... which the worker may see a moment before the postmaster does; one that is just telling it is
	# told nothing else
	'kill loopback' => {
		idle => [ '57P02', '57P02' ],
		waiting => [ '57P02', '57P02' ],
		connecting => [ '57P02|08001(?: 57P02)?', '57P02|08001(?: 57P02)?' ],
		executing => [ '57P02|08006(?: 57P02)?', '57P02|(?:08001|57P03)(?: 57P02)?' ],
		streaming => [ '', '57P02' ],

		# whether it was committed is known after the restart only
		committing => [ '57P02', '57P02' ]
	});

# ---- the game ----

sub is_told
{
	my ($session, $state, $name) = @_;
	my $got;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$session->result;
	$session->{err} =~ s/^NOTICE: .*\nLOCATION: .*\n//mg;
	$got = sqlstate($session->{err});
	$got = 'gone' if $got eq '' && $session->{err} =~ /server closed the connection/;
	return like($got, qr/^(?:$state)$/, $name) || diag($session->{err});
}

# What the holder is told, when its running command ends or at its next call
sub holder_is_told
{
	my ($what, $state, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$holder->signal('CONT') if $what eq 'streaming';

	# this one goes on waiting for b, unless it was struck itself
	$other->run('SELECT pgmc.release_all()') if $what eq 'waiting' && $state !~ /^57/;
	if ($what eq 'waiting' && $state eq '08006')
	{
		$holder->result;
		return is(sqlstate($holder->{err}), $state, $name) if $holder->{err} ne '';
	}
	$holder->send("SELECT pgmc.execute_on('pgmc_loopback', 'SELECT 1')")
	  if $what eq 'idle' || ($what eq 'waiting' && $state eq '08006');
	return is_told($holder, $state, $name);
}

sub waiter_gets
{
	my ($name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$waiter->ok("$name: the waiter gets it");
	return is($waiter->value('SELECT pgmc.transaction_status(); SELECT pgmc.release()'), 'idle', "$name: idle");
}

sub play
{
	my ($how, $victim, $what) = @_;
	my $name = "$how $victim while $what";
	my ($to_holder, $to_waiter) = @{ $outcome{"$how $victim"}{$what} };

	$strike{$how}->($pid{$victim}->());

	if ($to_holder eq 'stays')
	{
		is_told($waiter, $to_waiter, "$name: the waiter") if $to_waiter ne 'stays';
		ok(!$waiter->done, "$name: the waiter stays") if $to_waiter eq 'stays';
		is($admin->value("SELECT holder_pid FROM pgmc.connections WHERE srvname = 'pgmc_loopback'"),
			$holder->{pid}, "$name: the holder keeps it");
		if ($what eq 'idle')
		{
			is($holder->value("SELECT * FROM pgmc.query('SELECT count(*) FROM t') AS q(n int)"),
				'1', "$name: with its transaction");
		}
		else
		{
			ok(!$holder->done, "$name: and goes on");
		}

		# that's it: it ends by another hand
		$strike{terminate}->($holder->{pid});
		$holder->signal('CONT') if $what eq 'streaming';
		$other->run('ROLLBACK; SELECT pgmc.release_all()');
		waiter_gets($name) if $to_waiter eq 'stays';
		return;
	}
	$other->run('ROLLBACK') if $what eq 'connecting';
	holder_is_told($what, $to_holder, "$name: the holder");
	like($holder->{err}, qr/was not committed/, "$name: and its fate")
	  if $what eq 'committing' && $to_holder eq '57014' && $victim eq 'holder';
	$to_waiter eq 'gets'
	  ? waiter_gets($name)
	  : is_told($waiter, $to_waiter, "$name: the waiter");
	return;
}

# Its psql ends because the connection does, which it may find out by further commands only
sub is_cut_off
{
	my ($session, $states, $name) = @_;
	my $err = '';

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	for (1 .. 3)
	{
		$session->result;
		$err .= "$session->{err}\n";
		last if $err =~ /^connection to server was lost$/m;
		$session->send('SELECT 1');
	}
	$session->quit;
	like($err, qr/^connection to server was lost$/m, "$name: its connection ends");
	is($session->{run}->result, 2, "$name: and psql with it");

	# (psql shows a WARNING as soon as it comes, an ERROR with the end of its command)
	my @told = sort { ($a eq '57P02') <=> ($b eq '57P02') }
	  $err =~ /^(?:ERROR:  |FATAL:  |WARNING:  (?=57P02))([0-9A-Z]{5}):/mg;
	return like("@told", qr/^(?:$states)$/, "$name: what it is told") || diag($err);
}

sub crash
{
	my ($victim, $what) = @_;
	my $name = "kill $victim while $what";
	my ($to_holder, $to_waiter) = @{ $outcome{"kill $victim"}{$what} };
	my $restart = qr/all server processes terminated; reinitializing/;
	my $offset = -s $node->logfile;

	$strike{kill}->($pid{$victim}->());
	$node->wait_for_log($restart, $offset);
	$holder->signal('CONT');
	$holder->send('SELECT 1') if $what eq 'idle';
	is_cut_off($holder, $to_holder, "$name: the holder");
	is_cut_off($waiter, $to_waiter, "$name: the waiter");
	$admin->quit;
	await_up($node);
	is(scalar(() = slurp_file($node->logfile, $offset) =~ /$restart/g), 1, "$name: the server has restarted, once");
	$admin = session($node);
	return is( $admin->value(
			"SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pgmc worker'
				OR application_name LIKE 'pgmc%'"),
		'0', "$name: nothing of pgmc runs after the restart");
}

for my $what (sort keys %doing)
{
	for my $how (sort keys %strike)
	{
		for my $victim (sort keys %pid)
		{
			my $name = "$how $victim while $what";

			($holder, $waiter, $other) = map { session($node) } 1 .. 3;
			$doing{$what}->();
			$waiter->send('SELECT pgmc.acquire()');
			wait_for($admin,
				"SELECT max(waiters) = 1 FROM pgmc.connections WHERE srvname = 'pgmc_loopback'", $name);
			$how eq 'kill' ? crash($victim, $what) : play($how, $victim, $what);
			for my $session ($holder, $waiter, $other)
			{
				$session->signal('CONT');
				$session->quit;
			}
			is_free($admin, $name);
			is_clean($admin, $name);
			is($admin->value('SELECT (SELECT count(*) FROM t) + (SELECT count(*) FROM slow)'),
				'0', "$name: nothing was committed");
		}
	}
}

$admin->quit;
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|signal (?!9)\d+/, 'nothing else crashed');

done_testing();
