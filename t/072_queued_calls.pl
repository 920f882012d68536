# Calls of autonomous() that queue for a connection leave their command with the queue, and it may run
# before its session wakes up: whatever happens to the session meanwhile, every call is told the
# truth, each runs once, in turn, and only where the connection suits it.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_server('queued', conf => "deadlock_timeout = 200ms\nlog_statement = none\n");
my $admin = session($node);
my $holder = session($node);
my @s = map { session($node) } 0 .. 5;

$admin->value(<<END);
CREATE TABLE work (n int, who int, place int GENERATED ALWAYS AS IDENTITY);
CREATE TABLE own (id int PRIMARY KEY);
INSERT INTO own VALUES (1);
CREATE SERVER calls FOREIGN DATA WRAPPER pgmc;
END

sub insert
{
	my ($n, $who) = @_;
	return "SELECT pgmc.autonomous_on('calls', 'INSERT INTO work VALUES (\$1, \$2)', $n, $who)";
}

sub rows
{
	return $admin->value("SELECT coalesce(string_agg(who::text, ' ' ORDER BY place), '') FROM work WHERE n = $_[0]");
}

# Let all queue, one after the other, behind a hold
sub queue_up
{
	my ($n, @who) = @_;

	$holder->value("SELECT pgmc.acquire('calls')");
	for my $i (0 .. $#who)
	{
		$s[$who[$i]]->send(insert($n, $who[$i]));
		is_waiting($admin, $i + 1);
	}
}

# each of them has used the connection before: then the last holder can hand the command over
$_->value(insert(0, 9)) for $holder, @s;

# ---- in turn ----

queue_up(1, 0 .. 5);
$holder->value("SELECT pgmc.release('calls')");
is_state($_, undef, '', 'a queued call succeeds') for @s;
is(rows(1), '0 1 2 3 4 5', 'they ran in turn, each once');

# ---- what happens to one in the queue ----

queue_up(2, 0 .. 4);
$admin->value("SELECT pg_cancel_backend($s[1]->{pid})");
is_state($s[1], undef, '57014', 'cancelled in the queue');
unlike($s[1]->{err}, qr/committed/, 'with nothing to tell of its command');
$admin->value("SELECT pg_terminate_backend($s[3]->{pid})");
is_waiting($admin, 3);
$holder->value("SELECT pgmc.release('calls')");
is_state($s[$_], undef, '', 'the others succeed') for 0, 2, 4;
is(rows(2), '0 2 4', 'and only they ran');
$s[3] = session($node);
$s[3]->value(insert(0, 9));

# ---- the session doesn't wake up ----

queue_up(3, 0, 1, 2);
stand_still($s[1]->{pid});
$holder->value("SELECT pgmc.release('calls')");
is_state($s[$_], undef, '', 'one behind a session that is stopped is not held up') for 0, 2;
is(rows(3), '0 1 2', 'nor is the command of that session');
kill 'CONT', $s[1]->{pid};
is_state($s[1], undef, '', 'which is told, when it wakes up');

# ---- errors and notices go the way they always do ----

$holder->value("SELECT pgmc.acquire('calls')");
$s[0]->send("SELECT pgmc.autonomous_on('calls', 'SELECT 1/0')");
is_waiting($admin, 1);
$s[1]->send("SELECT pgmc.autonomous_on('calls', \$\$DO 'BEGIN RAISE NOTICE ''heard''; END'\$\$)");
is_waiting($admin, 2);
$s[2]->send("SELECT pgmc.autonomous_on('calls', 'BEGIN')");
is_waiting($admin, 3);
$s[4]->send(insert(4, 4));
is_waiting($admin, 4);
$holder->value("SELECT pgmc.release('calls')");
is_state($s[0], undef, '22012', 'an error of a queued call');
is_state($s[1], undef, '', 'a notice of one');
like($s[1]->{err}, qr/heard/, 'is heard');
is_state($s[2], undef, '25001', 'a transaction that one has left open');
is_state($s[4], undef, '', 'and the next one is not concerned');
is(rows(4), '4', 'by any of it');

# ---- a command that waits for its own caller ----

$holder->value("SELECT pgmc.acquire('calls')");
$s[0]->value('BEGIN');
$s[0]->value('UPDATE own SET id = id');
$s[0]->send("SELECT pgmc.autonomous_on('calls', 'UPDATE own SET id = id')");
is_waiting($admin, 1);
$holder->value("SELECT pgmc.release('calls')");
is_state($s[0], undef, '40P01', 'a queued call that waits for a lock of its own session');
$s[0]->value('ROLLBACK');
is_clean($admin, 'deadlock');

# ---- only on a connection that suits it ----

$admin->value(<<END);
CREATE ROLE guest LOGIN;
CREATE ROLE other LOGIN SUPERUSER;
GRANT USAGE ON FOREIGN SERVER calls TO guest;
CREATE USER MAPPING FOR PUBLIC SERVER calls OPTIONS ("user" 'other');
END
my $guest = session($node, user => 'guest');
$holder->value("SELECT pgmc.acquire('calls')");
is_state($guest, insert(5, 1), '2F003', 'a role that must give a password does not get as far as the queue');
$s[0]->send(insert(5, 0));
is_waiting($admin, 1);
$admin->value("ALTER SERVER calls OPTIONS (application_name 'pgmc renamed')");
$s[1]->send("SELECT pgmc.autonomous_on('calls', 'INSERT INTO work SELECT 6, 1 WHERE current_setting(''application_name'') = ''pgmc renamed''')");
is_waiting($admin, 2);
$holder->value("SELECT pgmc.release('calls')");
is_state($s[0], undef, '', 'one that was queued before the options changed');
is_state($s[1], undef, '', 'and one after that');
is(rows(6), '1', 'which has a connection with the new ones');
$admin->value('DROP USER MAPPING FOR PUBLIC SERVER calls');
is_clean($admin, 'options');

# ---- time-outs, at all moments, with others queued behind ----

$_->value(insert(0, 9)) for @s;
my %told = (yes => 0, no => 0, early => 0);
my @wrong;
my $late = 0;
my $rounds = 150;

for my $round (1 .. $rounds)
{
	my $n = 1000 + $round;

	$s[$_]->send('SET statement_timeout = ' . (1 + int(rand(10))) . '; ' . insert($n, $_)) for 0 .. 3;
	for my $i (0 .. 3)
	{
		$s[$i]->result;
		my $state = sqlstate($s[$i]->{err});
		my $there = $admin->value("SELECT count(*) FROM work WHERE n = $n AND who = $i");

		if ($state eq '' || $s[$i]->{err} =~ /connection was committed\./ && $s[$i]->{err} !~ /not known/)
		{
			$told{yes}++;
			push @wrong, "$n: $there instead of 1" if $there != 1;
		}
		elsif ($state ne '57014')
		{
			push @wrong, "$n: $s[$i]->{err}";
		}
		elsif ($s[$i]->{err} =~ /was not committed/)
		{
			$told{no}++;
			push @wrong, "$n: $there instead of 0" if $there != 0;
		}
		else
		{
			# before the command has gone out; or after the call, which can't be told from it
			$told{early}++;
			$late++ if $there;
			push @wrong, "$n: $there times" if $there > 1;
		}
	}
	$_->send('SET statement_timeout = 0') for @s[0 .. 3];
	$_->result for @s[0 .. 3];
}
note("committed $told{yes}, not committed $told{no}, cancelled in the queue $told{early}, of these after the call $late");
is("@wrong", '', 'every call that was cancelled, or not, was told the truth');
cmp_ok($told{yes}, '>', 0, 'some succeeded');
cmp_ok($late, '<=', $rounds / 10, 'hardly any was cancelled between its call and its end');
is_clean($admin, 'time-outs');
is_free($s[0], 'time-outs');

done_testing();
