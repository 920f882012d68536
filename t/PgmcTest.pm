# What the TAP tests of pgmc have in common: a server with pgmc, and psql sessions that can be
# left waiting, killed or stopped.
#
# No test sleeps for a time that "should be enough": wait_for polls for a condition.

package PgmcTest;

use strict;
use warnings;

use Exporter 'import';
use File::Copy;
use FindBin;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

our @EXPORT = qw(
  start_server attempt await_up await_standby session wait_for set_and_reload is_waiting holds_up sqlstate is_state is_clean is_free
  worker_pid loopback_pid stand_still cpu_seconds proc_kb is_less_kb build_library replace_library);

my $patience = $PostgreSQL::Test::Utils::timeout_default;

# A running server with pgmc in the database postgres. Options: conf => text, plain => 1 (no
# CREATE EXTENSION), init => [arguments of init].
sub start_server
{
	my ($name, %opt) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(@{ $opt{init} || [] });
	$node->append_conf('postgresql.conf', <<END . ($opt{conf} || ''));
max_connections = 60
max_worker_processes = 8
autovacuum = off
restart_after_crash = on
log_min_messages = warning
END
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION pgmc')
	  unless $opt{plain};
	return $node;
}

# What one psql says, on a server that may refuse it: its output and its errors. The command isn't
# written to a psql that may have ended by then, which would be the end of the test program.
sub attempt
{
	my ($node, $sql) = @_;
	my ($out, $err) = ('', '');

	IPC::Run::run([ $node->installed_command('psql'), '-XAtq', '-d', $node->connstr('postgres'), '-c', $sql ],
		'<', '/dev/null', '>', \$out, '2>', \$err);
	return ($out, $err);
}

# Wait until a server that starts or restarts lets somebody in, and takes writes.
sub await_up
{
	my ($node) = @_;
	my $tries = $patience * 100;

	while ($tries-- > 0)
	{
		my ($out) = attempt($node, 'SELECT NOT pg_is_in_recovery()');

		return if $out eq "t\n";
		usleep(10_000);
	}
	die 'the server did not come up';
}

# With synchronous_standby_names just set: wait until commits wait for one (the checkpointer says when).
sub await_standby
{
	my ($node, $admin) = @_;
	my $probe = session($node);
	my $tries = $patience * 100;

	while ($tries-- > 0)
	{
		$probe->send("COMMENT ON DATABASE postgres IS 'waits for a standby'");
		until ($probe->done)
		{
			usleep(2_000);
			next if $admin->value("SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = $probe->{pid}") ne 't';
			$admin->value("SELECT pg_cancel_backend($probe->{pid})");
			$probe->result;
			$probe->quit;
			return;
		}
		$probe->result;
		usleep(10_000);
	}
	die 'commits do not wait for a standby';
}

# A psql session; see PgmcTest::Session below. Options: db, user, options (of the server).
sub session
{
	return PgmcTest::Session->new(@_);
}

# Wait until the query gives true (t); fails the test program where that doesn't come.
sub wait_for
{
	my ($session, $sql, $what) = @_;
	my $tries = $patience * 100;
	my $got;

	while ($tries-- > 0)
	{
		$got = $session->value($sql);
		return 1 if $got eq 't';
		usleep(10_000);
	}
	diag("gave up waiting for: " . ($what || $sql));
	diag($session->value(
			"SELECT string_agg(concat_ws(' | ', pid, application_name, backend_type, state, wait_event, left(query, 80)), E'\\n')
			FROM pg_stat_activity"));
	diag($session->value('SELECT string_agg(c::text, E\'\\n\') FROM pgmc.connections c'));
	die "gave up waiting for: " . ($what || $sql);
}

# Change a setting of the server, and wait until these sessions have it.
sub set_and_reload
{
	my ($node, $name, $value, @sessions) = @_;

	$node->append_conf('postgresql.conf', "$name = $value\n");
	$node->reload;
	wait_for($_, "SELECT current_setting('$name') = '$value'") for @sessions;
	return;
}

# Wait until n sessions are queued.
sub is_waiting
{
	my ($admin, $n) = @_;

	return wait_for($admin,
		"SELECT coalesce(sum(waiters), 0) = $n FROM (SELECT DISTINCT datname, srvname, usename, waiters FROM pgmc.connections) AS c",
		"$n waiters");
}

# Wait until the loopback backend runs something that waits (in pg_sleep or for a lock).
sub holds_up
{
	my ($admin) = @_;

	return wait_for($admin,
		"SELECT count(*) > 0 FROM pg_stat_activity
			WHERE application_name LIKE 'pgmc%' AND state = 'active'
			AND wait_event IN ('PgSleep', 'advisory', 'transactionid', 'relation')
			AND pid IN (SELECT backend_pid FROM pgmc.connections)",
		"a loopback statement that waits");
}

# The SQLSTATE of the first error in what psql has written, '' where there is none.
sub sqlstate
{
	my ($text) = @_;

	return $text =~ /(?:ERROR|FATAL):  ([0-9A-Z]{5}):/ ? $1 : '';
}

# The session's pending (or given) command ends with this SQLSTATE.
sub is_state
{
	my ($session, $sql, $state, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$session->send($sql) if defined $sql;
	$session->result;
	return is(sqlstate($session->{err}), $state, $name) || diag($session->{err});
}

# In the end nothing is left behind: no transaction, no lock, no holder, no broken connection.
sub is_clean
{
	my ($admin, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_for($admin,
		"SELECT count(*) = 0 FROM pgmc.connections WHERE state <> 'idle'",
		"$name: idle or closed");

	# (it tries one for a moment, once a second)
	wait_for($admin,
		"SELECT count(*) = 0 FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE backend_type = 'pgmc worker'",
		"$name: the worker has no lock");

	# (the backend of a connection that was closed may take its time to end)
	wait_for($admin,
		"SELECT count(*) = 0 FROM pg_stat_activity AS a WHERE application_name LIKE 'pgmc%'
			AND (state <> 'idle' OR xact_start IS NOT NULL OR EXISTS (SELECT FROM pg_locks AS l WHERE l.pid = a.pid))
			AND NOT EXISTS (SELECT FROM pgmc.connections WHERE backend_pid = a.pid)",
		"$name: the backends of closed connections end");
	return is(
		$admin->value(
			"SELECT coalesce(string_agg(x, ', '), '') FROM (
			SELECT concat_ws(' ', pid, state, query) FROM pg_stat_activity
				WHERE application_name LIKE 'pgmc%' AND (state <> 'idle' OR xact_start IS NOT NULL)
			UNION ALL SELECT concat_ws(' ', l.pid, locktype, mode)
				FROM pg_locks l JOIN pg_stat_activity a USING (pid)
				WHERE a.application_name LIKE 'pgmc%'
			UNION ALL SELECT concat_ws(' ', state, xact_status, waiters) FROM pgmc.connections
				WHERE xact_status <> 'idle' OR waiters > 0) AS left_over(x)"),
		'', "$name: nothing is left behind");
}

# The next one simply gets an idle connection that works.
sub is_free
{
	my ($session, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$session->send(
		"SELECT pgmc.acquire(timeout => '20 s'), pgmc.transaction_status();
		SELECT pgmc.execute('SELECT 1'); SELECT pgmc.commit(); SELECT pgmc.release()");
	$session->result;
	return is("$session->{out}$session->{err}", "|idle\n1", "$name: the next one gets it, idle");
}

sub worker_pid
{
	my ($session) = @_;

	return $session->value(
		"SELECT pid FROM pg_stat_activity WHERE backend_type = 'pgmc worker'");
}

sub loopback_pid
{
	my ($session) = @_;

	# (in pg_stat_activity there may be some whose connection was closed)
	return $session->value(
		"SELECT backend_pid FROM pgmc.connections WHERE backend_pid IS NOT NULL ORDER BY backend_start LIMIT 1");
}

# ---- other libraries ----

# Another build of the library, from the same sources; the file's name. Options: flags => of the
# compiler, changed => 1 (a source differs). Skips the test program where it can't be built.
sub build_library
{
	my (%opt) = @_;
	my $top = "$FindBin::RealBin/..";
	my $build = PostgreSQL::Test::Utils::tempdir();
	my $flags = $opt{flags} || '';

	plan(skip_all => 'needs make and the sources')
	  if !-e "$top/src/worker.c" || system_log('make', '--version') != 0;
	mkdir "$build/src";
	copy($_, "$build/src") for glob("$top/src/*");
	copy("$top/$_", $build) for 'Makefile', 'pgmc.control';
	append_to_file("$build/src/pgmc.c", "/* changed */\n") if $opt{changed};

	# this make is none of the one that runs us
	delete local @ENV{qw(MAKEFLAGS MAKELEVEL MFLAGS)};
	system_log('make', '-s', '-j2', '-C', $build, 'PG_CONFIG=pg_config', 'with_llvm=no',
		"COPT=-O0 $flags", 'pgmc.so') == 0
	  || BAIL_OUT('no second build');
	return "$build/pgmc.so";
}

# Put a library where a server loads it from, as a package manager does it: those who have the old
# file go on with it.
sub replace_library
{
	my ($library, $dir) = @_;

	copy($library, "$dir/pgmc.so.new") || die "no library $library: $!";
	chmod 0755, "$dir/pgmc.so.new";
	rename("$dir/pgmc.so.new", "$dir/pgmc.so") || die $!;
	return;
}

# ---- /proc ----

# A process that is stopped with a lock of the server in its hand holds up the server itself: so it is
# stopped where it sleeps and has none, in epoll_wait (its number on x86-64 and arm64).
sub stand_still
{
	my ($pid) = @_;

	for (1 .. 10_000)
	{
		kill 'STOP', $pid;
		usleep(100) until slurp_file("/proc/$pid/stat") =~ /^\d+ \(.*\) T/s;
		return if slurp_file("/proc/$pid/syscall") =~ /^(?:232|281|22) /;
		kill 'CONT', $pid;
		usleep(50);
	}
	die "process $pid never sleeps";
}

# CPU time that a process has used, in clock ticks
sub cpu_seconds
{
	my ($pid) = @_;
	my @fields = split / /, slurp_file("/proc/$pid/stat") =~ s/^.*\) //sr;

	return ($fields[11] + $fields[12]) / 100;
}

# A figure of /proc/PID/smaps_rollup or status in kB, such as Pss or VmRSS
sub proc_kb
{
	my ($pid, $file, $name) = @_;

	return slurp_file("/proc/$pid/$file") =~ /^$name:\s+(\d+)/m ? $1 : undef;
}

# Less memory than that, kB. A sanitizer keeps what is freed, so nothing can be said of it then.
sub is_less_kb
{
	my ($got, $limit, $name) = @_;

  SKIP:
	{
		skip("$name: with a sanitizer", 1) if $ENV{PGMC_SANITIZE};
		return cmp_ok($got, '<', $limit, $name);
	}
	return 1;
}

package PgmcTest::Session;

use strict;
use warnings;

use Time::HiRes qw(time);

# A psql that is given commands one after the other: send starts one, result waits for its end.
sub new
{
	my ($class, $node, %opt) = @_;
	my $self = bless {
		in => '',
		stdout => '',
		stderr => '',
		out => '',
		err => '',
		mark => 0
	}, $class;
	my $conninfo = $node->connstr($opt{db} || 'postgres');

	$conninfo .= " user=$opt{user}" if $opt{user};
	local $ENV{PGOPTIONS} = $opt{options} || '';
	local $ENV{PGAPPNAME} = $opt{name} || 'client';
	$self->{run} = IPC::Run::start(
		[
			$node->installed_command('psql'), '-XAtq',
			'-v', 'VERBOSITY=verbose',
			'-v', 'SHOW_CONTEXT=never',
			'-d', $conninfo
		],
		'<', \$self->{in},
		'>', \$self->{stdout},
		'2>', \$self->{stderr});
	return $self if $opt{nowait};
	$self->{pid} = $self->value('SELECT pg_backend_pid()');
	return $self;
}

# The rest of these take no time that matters

sub psql_pid
{
	my ($self) = @_;

	return $self->{run}->{KIDS}[0]{PID};
}

# psql's copy of the input is read line by line: a command may be of several lines
sub send
{
	my ($self, $sql) = @_;
	my $mark = ++$self->{mark};

	$self->{in} .= "$sql\n;\n\\echo '#$mark#'\n\\warn '#$mark#'\n";
	eval { $self->{run}->pump_nb };
	return;
}

# True as soon as the last command has ended, or psql has
sub done
{
	my ($self) = @_;
	my $mark = $self->{mark};

	return 1 if $self->{stdout} =~ /^#$mark#\n/m && $self->{stderr} =~ /^#$mark#\n/m;
	return 1 unless eval { $self->{run}->pump_nb; $self->{run}->pumpable };
	return $self->{stdout} =~ /^#$mark#\n/m && $self->{stderr} =~ /^#$mark#\n/m;
}

# Wait for the end of the last command; then {out} and {err} are what it has written.
sub result
{
	my ($self) = @_;
	my $limit = time() + $PostgreSQL::Test::Utils::timeout_default;

	until ($self->done)
	{
		die "timed out: $self->{stdout}$self->{stderr}" if time() > $limit;
		select(undef, undef, undef, 0.002);
	}
	for my $end ([ 'stdout', 'out' ], [ 'stderr', 'err' ])
	{
		my ($from, $to) = @$end;

		$self->{$to} = $self->{$from};
		$self->{$from} = '';
		$self->{$to} =~ s/^#\d+#\n//mg;
		$self->{$to} =~ s/\n+\z//;
	}
	return $self->{out};
}

sub run
{
	my ($self, $sql) = @_;

	$self->send($sql);
	return $self->result;
}

# The result of a command that must not fail
sub value
{
	my ($self, $sql) = @_;
	my $out = $self->run($sql);

	die "$sql\n$self->{err}" if $self->{err} =~ /(?:ERROR|FATAL): |connection/;
	return $out;
}

# A command sent before must end without an error; true then
sub ok
{
	my ($self, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$self->result;
	return Test::More::is($self->{err}, '', $name);
}

sub signal
{
	my ($self, $signal) = @_;

	kill $signal, $self->psql_pid;
	return;
}

sub quit
{
	my ($self) = @_;

	$self->{in} .= "\n\\q\n";
	eval { $self->{run}->finish };
	return;
}

1;
