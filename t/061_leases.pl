# hold_timeout and idle_hold_timeout: a holder that is too long loses the connection, the next one
# gets it idle, and the old one can't touch it any more, by no call and in no moment.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $node = start_server('leases');
my $admin = session($node);
my $holder = session($node);
my $next = session($node);

$admin->value(<<END);
CREATE SERVER lease FOREIGN DATA WRAPPER pgmc;
CREATE SERVER idle FOREIGN DATA WRAPPER pgmc;
CREATE TABLE t (id text);
CREATE TABLE slow (id text);
CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql
	AS \$\$ BEGIN PERFORM pg_sleep(600); RETURN NULL; END \$\$;
CREATE CONSTRAINT TRIGGER slow_commit AFTER INSERT ON slow
	DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hang();

-- how a call ends, with the hold kept whatever happens
CREATE FUNCTION try(call text) RETURNS text LANGUAGE plpgsql AS \$\$
BEGIN
	EXECUTE call;
	RETURN 'done';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END \$\$;
END

# The time that it takes to start the worker and to open a connection counts, too
$admin->value("SELECT pgmc.acquire('$_'), pgmc.release('$_')") for 'lease', 'idle';
$admin->value("ALTER SERVER lease OPTIONS (ADD hold_timeout '150ms')");
$admin->value("ALTER SERVER idle OPTIONS (ADD idle_hold_timeout '150ms')");

# This session has taken the server's connection, and no longer has it
sub is_revoked
{
	my ($session, $server) = @_;

	return wait_for($admin,
		"SELECT count(*) = 0 FROM pgmc.connections WHERE srvname = '$server' AND holder_pid = $session->{pid}",
		"$server is revoked");
}

# The holder takes a connection and does this, before time is up: once more where the machine was too slow for that
sub takes
{
	my (@sql) = @_;

	for (1 .. 100)
	{
		my $err = '';

		for my $sql (@sql)
		{
			$holder->run($sql);
			last if $err = $holder->{err};
		}
		return if $err eq '';
		die $err if sqlstate($err) ne '25P03';
		$holder->run('ROLLBACK; SELECT pgmc.release_all()');
	}
	die 'no hold is long enough';
}

# The same with one command that goes on: until this is to be seen, or it ends before that and is repeated
sub begins
{
	my ($sql, $seen) = @_;

	for (1 .. 100)
	{
		$holder->send($sql);
		until ($holder->done)
		{
			return if $admin->value($seen) eq 't';
			usleep(5_000);
		}
		$holder->run('ROLLBACK; SELECT pgmc.release_all()');
	}
	die "gave up waiting for: $seen";
}

# The next one is given the connection, idle, and works in a transaction that lasts while the old
# holder does what it can; then that is there, and nothing else.
sub next_is_safe
{
	my ($server, $name, $old) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$admin->value("ALTER SERVER $server OPTIONS (DROP "
		  . ($server eq 'idle' ? 'idle_' : '') . 'hold_timeout)');
	$next->value("SELECT pgmc.acquire('$server', '20 s')");
	is($next->value('SELECT pgmc.transaction_status()'), 'idle', "$name: the next one gets it, idle");
	$next->value("SELECT pgmc.execute('INSERT INTO t VALUES (''next'')')");
	$old->();
	is($next->value('SELECT pgmc.transaction_status()'), 'intrans', "$name: its transaction is not touched");
	$next->value('SELECT pgmc.commit(), pgmc.release()');
	is($admin->value("SELECT string_agg(id, ' ') FROM t"), 'next', "$name: it is committed, and nothing else");
	$admin->value('DELETE FROM t');
	$admin->value("ALTER SERVER $server OPTIONS (ADD "
		  . ($server eq 'idle' ? 'idle_' : '') . "hold_timeout '150ms')");
	return;
}

# ---- every call of one that was revoked ----

my @calls = (
	"SELECT pgmc.execute('INSERT INTO t VALUES (''lost'')')",
	"SELECT pgmc.execute('INSERT INTO t VALUES (\$1)', repeat('x', 1000000))",
	"SELECT pgmc.execute_many('INSERT INTO t VALUES (\$1)', ARRAY['lost', 'lost'])",
	"SELECT * FROM pgmc.query('SELECT 1') AS q(i int)",
	"SELECT pgmc.execute_on('%s', 'INSERT INTO t VALUES (''lost'')')",
	"SELECT * FROM pgmc.query_on('%s', 'SELECT 1') AS q(i int)",
	'SELECT pgmc.commit()',
	"SELECT pgmc.commit('%s')",
	'SELECT pgmc.rollback()',
	'SELECT pgmc.set_autocommit(true)',
	"SELECT pgmc.set_autocommit(false, '%s')");

for my $server ('lease', 'idle')
{
	for my $in_transaction (0, 1)
	{
		my $name = "$server" . ($in_transaction ? ' in a transaction' : '');

		takes("SELECT pgmc.acquire('$server')", $in_transaction ? "SELECT pgmc.execute('INSERT INTO t VALUES (''lost'')')" : ());
		is_revoked($holder, $server);
		next_is_safe($server, $name, sub {
			for my $call (@calls)
			{
				my $sql = sprintf($call, $server);

				is($holder->value("SELECT try(\$c\$$sql\$c\$)"), '25P03', "$name: $sql") for 1, 2;
			}
			is($holder->value('SELECT pgmc.transaction_status()'), '', "$name: no status");
			$holder->run("SELECT pgmc.release('$server')");
			is(sqlstate($holder->{err}), '', "$name: but it can be released");
			is($holder->{err} =~ m{WARNING} ? 1 : 0, $in_transaction, "$name: with a warning where something was lost");
			is_state($holder, "SELECT pgmc.execute('SELECT 1')", '55000', "$name: then there is none"); });
		is_free($holder, $name);
		is_clean($admin, $name);
	}

	# by an error, by release_all, by the end of the session
	my %end = (
		'an error' => sub { is_state($holder, "SELECT pgmc.execute('SELECT 1')", '25P03', "$server: told by an error");
			is($holder->value('SELECT pgmc.release_all()'), '0', "$server: which ends the hold"); },
		'release_all' => sub { is($holder->value('SELECT pgmc.release_all()'), '1', "$server: ends by release_all") },
		'release(close)' => sub { $holder->run('SELECT pgmc.release(close => true)');
			is(sqlstate($holder->{err}), '', "$server: ends by release(close => true)") },
		'exit' => sub { $holder->quit; $holder = session($node); },
		'acquire' => sub {
			is_state($holder, "SELECT pgmc.acquire('$server')", '55006', "$server: the broken hold is in the way of another");
			is($holder->value('SELECT pgmc.release_all()'), '0', "$server: until that error ends it"); });
	for my $how (sort keys %end)
	{
		$holder->value("SELECT pgmc.acquire('$server')");
		is_revoked($holder, $server);
		next_is_safe($server, "$server, ended by $how", $end{$how});
		is_clean($admin, "$server, ended by $how");
	}
}

# ---- each call as the first one since ----

for my $call (@calls)
{
	my $sql = sprintf($call, 'lease');

	takes("SELECT pgmc.acquire('lease'), pgmc.execute('INSERT INTO t VALUES (''lost'')')");
	is_revoked($holder, 'lease');
	next_is_safe('lease', "first $sql", sub {
		is_state($holder, $sql, '25P03', "first call: $sql");
		is($holder->value('SELECT pgmc.release_all()'), '0', 'whose error ends the hold'); });
}
is_clean($admin, 'first calls');

# ---- calls for another hold of the same key ----

my @acquires = map { "SELECT pgmc.$_('lease')" } 'acquire', 'acquire_xact', 'try_acquire', 'try_acquire_xact';

# The limit of holds that begin from now on
sub limit
{
	my ($server, $value) = @_;
	my $option = $server eq 'idle' ? 'idle_hold_timeout' : 'hold_timeout';

	$admin->value("ALTER SERVER $server OPTIONS (SET $option '$value')");
	return;
}

for my $in_transaction (0, 1)
{
	my $name = 'revoked' . ($in_transaction ? ' in a transaction' : '');

	takes("SELECT pgmc.acquire('lease')", $in_transaction ? "SELECT pgmc.execute('INSERT INTO t VALUES (''lost'')')" : ());
	is_revoked($holder, 'lease');
	next_is_safe('lease', $name, sub {
		is($holder->value("SELECT try(\$c\$$_\$c\$)"), '55006', "$name, not told yet: $_") for @acquires;
		is($holder->value("SELECT try(\$c\$SELECT pgmc.execute('SELECT 1')\$c\$)"), '25P03', "$name: told");
		is($holder->value("SELECT try(\$c\$$_\$c\$)"), '55006', "$name and told: $_") for @acquires;
		is($admin->value("SELECT holder_pid, waiters FROM pgmc.connections WHERE srvname = 'lease'"),
			"$next->{pid}|0", "$name: it is not queued for it, nor has it got it");
		is($holder->value('SELECT pgmc.release_all()'), '1', "$name: it has one hold, the broken one"); });
	limit('lease', '1h');
	is($holder->value("SELECT pgmc.try_acquire('lease')"), 't', "$name: that released, it gets another");
	is($holder->value("SELECT pgmc.execute_on('lease', 'SELECT 1')"), '1', "$name: which works");
	$holder->value('SELECT pgmc.rollback(), pgmc.release()');
	limit('lease', '150ms');
	is_clean($admin, $name);
}

# What has a transaction of its own takes turns as in a session that holds nothing
my $alone = "SELECT pgmc.autonomous_on('lease', 'INSERT INTO t VALUES (''own'')')";
for my $told (0, 1)
{
	my $name = 'autonomous' . ($told ? ', told' : '');

	takes("SELECT pgmc.acquire('lease'), pgmc.execute('INSERT INTO t VALUES (''lost'')')");
	is_revoked($holder, 'lease');
	$holder->value("SELECT try(\$c\$SELECT pgmc.execute('SELECT 1')\$c\$)") if $told;
	limit('lease', '1h');
	$next->value("SELECT pgmc.acquire('lease', '20 s'), pgmc.execute('INSERT INTO t VALUES (''next'')')");
	$holder->send("SELECT try(\$c\$$alone\$c\$)");
	is_waiting($admin, 1);
	is($next->value('SELECT pgmc.transaction_status()'), 'intrans', "$name waits for the next one");
	$next->value('SELECT pgmc.rollback(), pgmc.release()');
	$holder->ok("$name: its turn comes");
	is($holder->{out}, 'done', "$name: and it is done");
	is($admin->value("SELECT string_agg(id, ' ') FROM t"), 'own', "$name: that is there, and nothing else");
	is($holder->value("SELECT try(\$c\$SELECT pgmc.execute('INSERT INTO t VALUES (''lost'')')\$c\$)"),
		'25P03', "$name: the hold stays broken");
	is($holder->value('SELECT pgmc.release_all()'), '1', "$name: until it is released");
	$admin->value('DELETE FROM t');
	limit('lease', '150ms');
	is_clean($admin, $name);
}

# ---- revoked while its session is queued for another server ----

$admin->value('CREATE SERVER other FOREIGN DATA WRAPPER pgmc');
my $third = session($node);
for my $server ('lease', 'idle')
{
	for my $granted (0, 1)
	{
		my $name = "$server, revoked in the queue of another server" . ($granted ? '' : ' that is left');
		my $timeout = $granted ? '20 s' : '3 s';

		# (with time enough to come there)
		limit($server, '1s');
		$third->value("SELECT pgmc.acquire('other')");
		begins("SELECT pgmc.acquire('$server'), pgmc.execute('INSERT INTO t VALUES (''lost'')'),
			try(\$c\$SELECT pgmc.acquire('other', '$timeout')\$c\$)", "SELECT sum(waiters) = 1 FROM pgmc.connections");
		is_revoked($holder, $server);
		limit($server, '150ms');
		next_is_safe($server, $name, sub {
			$third->value('SELECT pgmc.release()') if $granted;
			$holder->ok("$name: the wait goes on");
			is($holder->{out}, $granted ? '|1|done' : '|1|55P03', "$name: and ends as any other");
			is($holder->value("SELECT pgmc.execute('SELECT 1'), pgmc.transaction_status()"), '1|intrans',
				"$name: that server can be used") if $granted;
			for my $call ("SELECT pgmc.execute_on('$server', 'INSERT INTO t VALUES (''lost'')')",
				"SELECT pgmc.commit('$server')", "SELECT pgmc.rollback('$server')")
			{
				is($holder->value("SELECT try(\$c\$$call\$c\$)"), '25P03', "$name: $call");
			}
			$holder->value('SELECT pgmc.commit()') if $granted;
			is($holder->value('SELECT pgmc.release_all()'), 1 + $granted, "$name: all holds end"); });
		$third->value('SELECT pgmc.release_all()');
		is_clean($admin, $name);
	}
}
$third->quit;

# ---- at the end of the transaction ----

for my $dirty (0, 1)
{
	takes("BEGIN; INSERT INTO t VALUES ('own'); SELECT pgmc.acquire_xact('lease')",
		$dirty ? "SELECT pgmc.execute('INSERT INTO t VALUES (''lost'')')" : ());
	is_revoked($holder, 'lease');
	is_state($holder, 'COMMIT', $dirty ? '25P03' : '',
		'COMMIT with a revoked hold' . ($dirty ? ' whose transaction was open' : ''));
	is($admin->value('SELECT count(*) FROM t'), 1 - $dirty, $dirty ? 'nothing is committed' : 'is done');
	is($holder->value('SELECT pgmc.release_all()'), '0', 'the hold has ended');
	$admin->value('DELETE FROM t');
	is_clean($admin, 'COMMIT with a revoked hold');
}

# ---- not idle, and not too long ----

# (with limits that a busy machine doesn't reach by itself)
$admin->value("ALTER SERVER idle OPTIONS (SET idle_hold_timeout '1s')");
$admin->value("ALTER SERVER lease OPTIONS (SET hold_timeout '1s')");
takes("SELECT pgmc.acquire('idle')", "SELECT * FROM pgmc.query('SELECT 1 FROM pg_sleep(1.5)') AS q(i int)",
	'SELECT pgmc.rollback(), pgmc.release()');
ok(1, 'a command that is running is not idle');
takes("SELECT pgmc.acquire('idle')", ("SELECT pgmc.execute('SELECT pg_sleep(0.1)'), pg_sleep(0.2)") x 5,
	'SELECT pgmc.commit(), pgmc.release()');
ok(1, 'and each command is a new beginning');

takes(("SELECT pgmc.acquire('lease'), pgmc.execute('SELECT 1'), pg_sleep(0.3), pgmc.commit(), pgmc.release()") x 5);
ok(1, 'each hold has its own time');
$admin->value("ALTER SERVER idle OPTIONS (SET idle_hold_timeout '150ms')");
$admin->value("ALTER SERVER lease OPTIONS (SET hold_timeout '150ms')");

# ---- in the middle of something ----

my %doing = (
	executing => "SELECT pgmc.execute('INSERT INTO t SELECT ''lost'' FROM pg_sleep(600)')",
	'executing several' => "SELECT pgmc.execute('INSERT INTO t VALUES (''lost''); SELECT pg_sleep(600); SELECT 1')",
	streaming => "SELECT count(*) FROM pgmc.query('SELECT generate_series(1, 2000000000)') AS g(i int)",
	'skipping rows' => "SELECT pgmc.execute('SELECT generate_series(1, 2000000000)')",
	sending => "SELECT pgmc.execute('INSERT INTO t SELECT ''lost'' FROM pg_sleep(600) WHERE \$1 IS NOT NULL', repeat('x', 200000000))",
	committing => "SELECT pgmc.execute('INSERT INTO slow VALUES (''lost'')'), pgmc.commit()",
	'in autocommit' => "SELECT pgmc.set_autocommit(true), pgmc.execute('INSERT INTO t SELECT ''lost'' FROM pg_sleep(600)')");

for my $what (sort keys %doing)
{
	my $name = "revoked while $what";

	$holder->value('SELECT 1');
	for (1 .. 100)
	{
		$holder->run("SELECT pgmc.acquire('lease'); $doing{$what}");
		last if $what !~ /commit/ || $holder->{err} =~ /not known whether/ || sqlstate($holder->{err}) ne '25P03';
	}
	is(sqlstate($holder->{err}), '25P03', "$name: the holder is told");
	like($holder->{err}, qr/not known whether/, "$name: with its fate") if $what =~ /commit/;
	next_is_safe('lease', $name, sub { $holder->run('SELECT pgmc.release_all()') });
	is_clean($admin, $name);
	is($admin->value('SELECT count(*) FROM slow'), '0', "$name: nothing was committed");
}

# ---- a connection that is lost while a command runs: idle from then on ----

my %lost = (
	'the error is caught' => "SELECT pgmc.acquire('idle'), try(\$c\$SELECT pgmc.execute('SELECT pg_sleep(600)')\$c\$)",
	'the error ends a subtransaction' => "BEGIN; SELECT pgmc.acquire('idle'); SAVEPOINT s; SELECT pgmc.execute('SELECT pg_sleep(600)')");

for my $how (sort keys %lost)
{
	my $name = "a connection that is lost, and $how";

	begins($lost{$how}, "SELECT count(*) > 0 FROM pg_stat_activity, pgmc.connections WHERE backend_pid = pid AND holder_pid = $holder->{pid} AND wait_event = 'PgSleep'");
	$admin->value("SELECT pg_terminate_backend(backend_pid) FROM pgmc.connections WHERE srvname = 'idle'");
	$holder->result;
	like("$holder->{out} $holder->{err}", qr/\b08006\b/, "$name: the holder is told");
	$holder->value('ROLLBACK TO s') if $how =~ /subtransaction/;
	is_revoked($holder, 'idle');
	next_is_safe('idle', $name, sub {
		is_state($holder, "SELECT pgmc.execute('SELECT 1')", '25P03', "$name: until idle_hold_timeout"); });
	$holder->run('ROLLBACK; SELECT pgmc.release_all()');
	is_clean($admin, $name);
}

is_state($holder, "SELECT pgmc.autonomous_on('lease', 'INSERT INTO t SELECT ''lost'' FROM pg_sleep(600)')",
	'25P03', 'an autonomous command that is too long');
like($holder->{err}, qr/not known whether/, 'with its fate');
unlike($holder->{err}, qr/Release it/, 'and no hint at releasing what there is not');
next_is_safe('lease', 'an autonomous command that is too long', sub { });


# ---- the opening is not the holder's time ----

$admin->value("CREATE SERVER slow_lease FOREIGN DATA WRAPPER pgmc
	OPTIONS (hold_timeout '1500ms', idle_hold_timeout '1500ms', options '-c post_auth_delay=2')");
is_state($holder, "SELECT pgmc.autonomous_on('slow_lease', 'SELECT 1')", '',
	'a command whose connection takes longer to open than a hold may last');
$admin->value("SELECT pgmc.close('slow_lease')");
is_state($holder, "SELECT pgmc.acquire('slow_lease')", '', 'a hold of such a connection');
is_revoked($holder, 'slow_lease');
is_state($holder, "SELECT pgmc.execute('SELECT 1')", '25P03', 'its time begins then');
like($holder->{err}, qr/^HINT:  Release it and acquire it again/m, 'and the hint says what to do');
is_free($holder, 'after a slow opening');

# the same where an open one is replaced, its options having changed
$admin->value("ALTER SERVER slow_lease OPTIONS (SET options '-c post_auth_delay=2 -c work_mem=1MB')");
is_state($holder, "SELECT pgmc.autonomous_on('slow_lease', 'SELECT 1')", '', 'a connection that is opened anew');
is_clean($admin, 'slow openings');

# ---- a holder that stands still in any moment, and wakes up after the next has begun ----

my $rounds = 25;
my ($bad, $told) = (0, 0);
$admin->value(<<END);
CREATE FUNCTION busy() RETURNS text LANGUAGE plpgsql AS \$\$
BEGIN
	PERFORM pgmc.acquire('lease');
	LOOP
		PERFORM pgmc.execute('INSERT INTO t SELECT left(\$1, 4) WHERE false', repeat('lost', 100000));
		PERFORM count(*) FROM pgmc.query('SELECT i, repeat(''x'', 100) FROM generate_series(1, 2000) AS i') AS q(i int, x text);
		PERFORM pgmc.execute('INSERT INTO t VALUES (''lost'')');
		PERFORM pgmc.rollback();
	END LOOP;
END \$\$;
END
$next->value("SET statement_timeout = '20s'");
for my $round (1 .. $rounds)
{
	# after it has begun, some milliseconds more each time
	begins('SELECT busy()', "SELECT count(*) = 1 FROM pgmc.connections WHERE holder_pid = $holder->{pid}");
	usleep($round * 1_700);
	stand_still($holder->{pid});
	is_revoked($holder, 'lease');
	my $got = $next->run(<<END);
SELECT pgmc.acquire('lease', '20 s');
SELECT pgmc.transaction_status();
SELECT pgmc.execute('INSERT INTO t VALUES (\$1)', 'next $round');
END
	my $first_err = $next->{err};
	kill 'CONT', $holder->{pid};
	$holder->result;
	$told++ if sqlstate($holder->{err}) eq '25P03';
	my $rest = $next->run(<<END);
SELECT * FROM pgmc.query('SELECT id FROM t WHERE id LIKE \$1', 'next $round') AS q(id text);
SELECT pgmc.commit();
SELECT pgmc.release();
END
	next if $got eq "\nidle\n1" && $rest eq "next $round" && $next->{err} eq '';
	next if "$first_err$next->{err}" =~ /25P03/ && $rest =~ /^\s*$/;    # it was too long itself
	$bad++;
	diag("round $round: $got / $rest / $next->{err} / $holder->{err}");
}
is($bad, 0, "$rounds holders that stood still are fenced off");
is($told, $rounds, 'and told when they wake up');
cmp_ok($admin->value("SELECT count(*) FROM t WHERE id LIKE 'next%'"), '>', $rounds / 5, 'while the next ones worked');
is($admin->value("SELECT count(*) FROM t WHERE id LIKE 'lost%'"), '0', 'nothing of theirs is there');
is_clean($admin, 'holders that stood still');

# ---- the worker ends: the next one sees to the holds that it leaves behind, and there is a next one ----

$admin->value("ALTER SERVER lease OPTIONS (SET hold_timeout '1s')");
for my $call ("SELECT true FROM pgmc.acquire('lease', '30 s')", "SELECT pgmc.try_acquire('lease')",
	"SELECT pgmc.autonomous_on('lease', 'SELECT 1') = 1", "SELECT true FROM pgmc.acquire(), pgmc.release()")
{
	$holder->value("SELECT pgmc.acquire('lease')");
	$admin->value('SELECT pgmc.stop_worker()');
	is($admin->value("SELECT holder_pid FROM pgmc.connections WHERE srvname = 'lease'"), $holder->{pid},
		'a hold outlives the worker');
	wait_for($next, $call);
	is_revoked($holder, 'lease');
	is_state($holder, "SELECT pgmc.execute('SELECT 1')", '25P03', "but not its time limit: $call");
	$next->value('SELECT pgmc.release_all()');
	is_clean($admin, 'after the worker');
}

like(slurp_file($node->logfile), qr/LOG:  hold of server "lease" by process \d+ was revoked/, 'the log tells it');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');

done_testing();
