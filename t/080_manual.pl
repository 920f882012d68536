# The examples of README.md and doc/pgmc.md, run in the order of the text: what they show is what
# happens. And everything there is of pgmc is in the manual.
#
# A fenced block is run by its language:
#
#   sql [ROLE]   commands, run by that role (else the superuser): no error, no warning
#   psql [ROLE]  what psql shows. A prompt such as "ann=> " names the role whose session it is; the
#                lines after the command are its output, compared exactly but for what mask()
#                replaces and blanks at the ends of lines. A command that ends with "-- waits" has
#                no output yet: that is at the top of a later block, which then names the role.
#   sh, conf     for other places than psql: not run
#
# Each heading of the second level starts with new sessions and a new database "app", which has the
# extension, unless it begins by creating that. There are the roles ann and bob, who may use
# pgmc_loopback and create tables.
#
# PGMC_MANUAL_OUT=DIRECTORY writes the texts with the output as it came there, for review: write
# the commands of a new example, and have the rest filled in.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $top = "$FindBin::RealBin/..";
my @files = ('README.md', 'doc/pgmc.md');
my %roles = map { $_ => 1 } qw(ann bob);

plan skip_all => 'the texts are not here' if grep { !-e "$top/$_" } @files;

# The superuser has the name that the examples give him. Ordinary roles are asked for a password
# where they come by TCP, as Debian has it.
$ENV{PGUSER} = 'postgres';
my $node = start_server(
	'manual',
	init => [ extra => [ '-U', 'postgres', '-E', 'UTF8', '--locale=C' ] ],
	conf => <<END);
listen_addresses = '127.0.0.1'
timezone = 'UTC'
log_timezone = 'UTC'
max_prepared_transactions = 2
END
unlink($node->data_dir . '/pg_hba.conf');
$node->append_conf('pg_hba.conf', <<END);
local all all trust
host all all 127.0.0.1/32 scram-sha-256
END
$node->reload;
my $admin = session($node);
$admin->value('CREATE ROLE ann LOGIN; CREATE ROLE bob LOGIN');

# ---- reading the texts ----

# A text as a list of blocks { lang, who, text, line, heading } and of the lines between them
sub read_text
{
	my ($file) = @_;
	my @parts = ({ text => '' });
	my $heading = '';
	my $n = 0;

	for my $line (split /^/, slurp_file("$top/$file"))
	{
		my $in_block = defined $parts[-1]{lang};

		$n++;
		if (!$in_block && $line =~ /^```(\S*)(?: (\w+))?\s*$/)
		{
			push @parts,
			  { lang => $1, who => $2, text => '', line => $n, heading => $heading, opening => $line };
		}
		elsif ($in_block && $line =~ /^```\s*$/)
		{
			push @parts, { text => $line };
		}
		else
		{
			$heading = $1 if !$in_block && $line =~ /^## (.*?)\s*$/;
			$parts[-1]{text} .= $line;
		}
	}
	return @parts;
}

# A transcript as a list of { who, state, sql, waits, expected }; the first may have no sql: it is
# what a command that was waiting has to say
my $prompt = qr/^(\w+)([-=('"\$])([*!]?)[#>](?: |$)/;

sub read_transcript
{
	my ($block) = @_;
	my @steps = ({ who => $block->{who}, expected => [] });

	for my $line (split /\n/, $block->{text})
	{
		if ($line =~ s/$prompt//)
		{
			push @steps, { who => $1, state => $3, sql => '', expected => [] } if $2 eq '=';
			$steps[-1]{sql} .= "$line\n";
		}
		else
		{
			push @{ $steps[-1]{expected} }, $line;
		}
	}
	for my $step (@steps)
	{
		$step->{expected} = strip(join("\n", @{ $step->{expected} }));
		$step->{waits} = defined $step->{sql} && $step->{sql} =~ s/\s*-- waits\s*\z/\n/;
	}
	shift @steps if $steps[0]{expected} eq '' && !defined $block->{who};
	return @steps;
}

# Without blanks at the ends of lines and empty lines at the end
sub strip
{
	my ($text) = @_;

	$text =~ s/[ \t]+$//mg;
	$text =~ s/\n+\z//;
	return $text;
}

# ---- comparing ----

# What differs from run to run, and from machine to machine: points in time, durations, ids of
# processes, transactions and tables, and where the server listens. Where there was any of it, the
# widths of columns may differ as well.
sub mask
{
	my ($text) = @_;
	my $seen = 0;

	$seen += $text =~ s/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?(?: UTC|[+-]\d\d)/TIME/g;
	$seen += $text =~ s/\b\d\d:\d\d:\d\d(?:\.\d+)?/DURATION/g;
	$seen += $text =~ s/\b\d+\.\d{3} s\b/DURATION/g;
	$seen += $text =~ s/\b(process|transaction|relation|database) \d[\d\/]*/$1 ID/gi;
	$seen += $text =~ s/\bhost=\S+ port=\d+/host=HOST port=PORT/g;
	$seen += $text =~ s/"[^"\s]*\.s\.PGSQL\.\d+"/SOCKET/g;

	# columns, in both of psql's formats
	my $named = qr/\w*(?:pid|_time)/;
	my @masked;

	$text = join("\n",
		map {
			if (/^\s*($named)\s*\|\s*[\d.]+$/)
			{
				$seen++;
				$_ = "$1 | N";
			}
			elsif (/^[-+]+$/ || /^\(/) { }
			elsif (!/\|/ || !@masked)
			{
				my @names = map { s/^\s+|\s+$//gr } split /\|/;

				@masked = grep { $names[$_] =~ /^$named$/ } 0 .. $#names;
			}
			else
			{
				my @values = split /\|/;

				for my $i (@masked)
				{
					$seen += $values[$i] =~ s/[\d.]+/N/ if defined $values[$i];
				}
				$_ = join '|', @values;
			}
			$_;
		} split /\n/, $text, -1);
	if ($seen)
	{
		$text =~ s/-{2,}/--/g;
		$text =~ s/ +/ /g;
		$text = strip($text);
	}

	# psql may show a WARNING of the abort before or after the error that is its reason
	my @messages = split /^(?=ERROR:  |WARNING:  )/m, "$text\n";
	@messages = sort @messages if @messages > 1 && "@messages" !~ /^\(\d+ rows?\)$/m;
	return strip(join '', @messages);
}

# ---- sessions ----

my %session;

sub start_psql
{
	my ($who) = @_;
	my $self = { in => '', out => '', mark => 0 };

	delete local $ENV{PGAPPNAME};
	$self->{run} = IPC::Run::start(
		[ $node->installed_command('psql'), '-X', '-d', $node->connstr('app') . " user=$who" ],
		'<', \$self->{in}, '>', \$self->{out}, '2>&1');
	$session{$who} = $self;
	run_sql($self, '');
	return $self;
}

sub session_of
{
	my ($who) = @_;

	return $session{$who} || start_psql($who);
}

sub send_sql
{
	my ($self, $sql) = @_;
	my $mark = ++$self->{mark};

	$self->{out} = '';
	$self->{in} .= "$sql\n\\echo '#$mark#'\n";
	eval { $self->{run}->pump_nb };
	return;
}

sub output
{
	my ($self) = @_;
	my $limit = time() + $PostgreSQL::Test::Utils::timeout_default;
	my $mark = $self->{mark};

	until ($self->{out} =~ s/^#$mark#\n//m)
	{
		die "timed out: $self->{out}" if time() > $limit;
		die "psql has ended: $self->{out}" unless eval { $self->{run}->pump_nb; $self->{run}->pumpable };
		usleep(1000);
	}
	return strip($self->{out});
}

sub run_sql
{
	my ($self, $sql) = @_;

	send_sql($self, $sql);
	return output($self);
}

sub backend
{
	my ($who, $column) = @_;

	return $admin->value("SELECT $column FROM pg_stat_activity
		WHERE usename = '$who' AND datname = 'app' AND application_name = 'psql'
		ORDER BY backend_start DESC LIMIT 1");
}

# ---- sections ----

sub end_section
{
	for my $who (sort keys %session)
	{
		my $self = $session{$who};

		$self->{in} .= "\\q\n";
		eval { $self->{run}->finish };
	}
	%session = ();
	$admin->value('SELECT pgmc.stop_worker()');
	$admin->value('DROP DATABASE IF EXISTS app');
	$admin->value("DROP ROLE $_") for grep { !$roles{$_} } split /\n/,
	  $admin->value("SELECT rolname FROM pg_roles WHERE rolname !~ '^(pg_|postgres\$)'");
	$admin->value("ALTER ROLE $_ RESET ALL") for sort keys %roles;
	$admin->value('ALTER SYSTEM RESET ALL');
	$node->reload;
	return;
}

sub start_section
{
	my (%opt) = @_;

	end_section();
	$admin->value('CREATE DATABASE app');
	$node->safe_psql('app', <<END) unless $opt{empty};
CREATE EXTENSION pgmc;
GRANT USAGE ON FOREIGN SERVER pgmc_loopback TO ann, bob;
GRANT CREATE ON SCHEMA public TO ann, bob;
END
	return;
}

# ---- blocks ----

my $bad;

sub wrong
{
	my ($where, $sql, $got, $expected) = @_;

	$bad++;
	diag("$where: " . ($sql || 'the output of what was waiting'));
	diag("expected:\n$expected");
	diag("got:\n$got");
	return;
}

sub run_commands
{
	my ($where, $block) = @_;
	my $out = run_sql(session_of($block->{who} || 'postgres'), $block->{text});

	wrong($where, $block->{text}, $out, 'no error and no warning')
	  if $out =~ /^(?:ERROR|FATAL|PANIC|WARNING|psql|\\|invalid)/m;
	return $block->{text};
}

# Runs one step; its output as it came, or as in the text where that is the same
sub run_step
{
	my ($where, $step) = @_;
	my $who = $step->{who};
	my $self = session_of($who);

	if (defined $step->{sql})
	{
		my %states = (
			'' => 'idle',
			'*' => 'idle in transaction',
			'!' => 'idle in transaction (aborted)');
		my $state = backend($who, 'state');

		wrong("$where: prompt of $who", $step->{sql}, $state, $states{ $step->{state} })
		  if $state ne $states{ $step->{state} };
		send_sql($self, $step->{sql});
		if ($step->{waits})
		{
			wait_for($admin,
				"SELECT count(*) > 0 FROM pg_stat_activity
					WHERE usename = '$who' AND datname = 'app' AND application_name = 'psql'
					AND (wait_event_type = 'Lock' OR (SELECT sum(waiters) > 0 FROM pgmc.connections))",
				"$where: $step->{sql} waits");
			return '';
		}
	}
	my $out = output($self);

	wrong($where, $step->{sql}, $out, $step->{expected})
	  if mask($out) ne mask($step->{expected});
	return mask($out) eq mask($step->{expected}) ? $step->{expected} : $out;
}

# The transcript as it came, with the prompts of the text
sub run_transcript
{
	my ($where, $block) = @_;
	my @outputs = map { run_step($where, $_) } read_transcript($block);
	my $text = '';
	my $first = 1;

	$text .= shift(@outputs) . "\n\n" if defined $block->{who};
	for my $line (split /\n/, $block->{text})
	{
		next unless $line =~ $prompt;
		if ($2 eq '=')
		{
			$text .= shown(shift @outputs) unless $first;
			$first = 0;
		}
		$text .= "$line\n";
	}
	$text .= shown(shift @outputs) if @outputs;
	return strip($text) . "\n";
}

# psql has an empty line after a table
sub shown
{
	my ($out) = @_;

	return $out eq '' ? '' : $out =~ /^\(\d+ rows?\)\z/m || $out =~ /\|[^\n]*\z/ ? "$out\n\n" : "$out\n";
}

sub run_text
{
	my ($file) = @_;
	my $heading = undef;
	my %skipped;
	my $result = '';

	for my $block (read_text($file))
	{
		my $where = "$file line " . ($block->{line} || 0);
		my $lang = $block->{lang};

		$bad = 0;
		$result .= $block->{opening} || '';
		if (!defined $lang)
		{
			$result .= $block->{text};
			next;
		}
		if ($lang eq 'sql' || $lang eq 'psql')
		{
			if (!defined $heading || $heading ne $block->{heading})
			{
				$heading = $block->{heading};
				start_section(empty => scalar($block->{text} =~ /^CREATE EXTENSION/m));
			}
			$result .= $lang eq 'sql' ? run_commands($where, $block) : run_transcript($where, $block);
			ok(!$bad, "$where, $heading");
		}
		else
		{
			like($lang, qr/^(?:sh|conf)\z/, "$where is of a kind that is known");
			unlike($block->{text}, qr/^\s*(?:SELECT|CALL|CREATE|ALTER|GRANT|BEGIN)\b/m, "$where: and no SQL");
			$skipped{$lang}++;
			$result .= $block->{text};
		}
	}
	note("$file: not run: " . join(', ', map { "$skipped{$_} of $_" } sort keys %skipped));
	if ($ENV{PGMC_MANUAL_OUT})
	{
		my $out = "$ENV{PGMC_MANUAL_OUT}/" . ($file =~ s/.*\///r);

		open(my $handle, '>', $out) || die "$out: $!";
		print $handle $result;
		close($handle) || die "$out: $!";
	}
	return;
}

run_text($_) for @files;

# ---- nothing is left out ----

my @parts = read_text('doc/pgmc.md');
my $prose = join '', map { $_->{text} } grep { !defined $_->{lang} } @parts;
my $code = join "\n", map { $_->{text} } grep { defined $_->{lang} && $_->{lang} =~ /^p?sql$/ } @parts;

# The names that a query gives are in the text, as code, and are used in an example.
sub is_documented
{
	my ($kind, $example, @names) = @_;

	cmp_ok(scalar(@names), '>', 0, "there are names of: $kind");
	for my $name (@names)
	{
		# no like(), which would show all of the text
		ok($prose =~ /`[^`\n]*(?<![\w.])(?:pgmc\.)?\Q$name\E\b[^`\n]*`/, "$kind: $name is in the manual");
		ok($code =~ $example->($name), "$kind: $name has an example") if $example;
	}
	return;
}

sub names
{
	my ($query) = @_;

	return split /\n/, $node->safe_psql('app', $query);
}

# These two are called by the server and by a view.
my $internal = "'fdw_validator', 'get_connections', 'get_stat_connections'";

start_section();
is_documented(
	'function',
	sub { qr/\bpgmc\.\Q$_[0]\E\(/ },
	names("SELECT DISTINCT proname FROM pg_proc
		WHERE pronamespace = 'pgmc'::regnamespace AND proname NOT IN ($internal)"));
is_documented('internal function', undef,
	names("SELECT proname FROM pg_proc
		WHERE pronamespace = 'pgmc'::regnamespace AND proname IN ($internal)"));
is_documented(
	'view',
	sub { qr/\bpgmc\.\Q$_[0]\E\b/ },
	names("SELECT relname FROM pg_class WHERE relnamespace = 'pgmc'::regnamespace AND relkind <> 'c'"));
is_documented(
	'column',
	sub { qr/\b\Q$_[0]\E\b/ },
	names("SELECT DISTINCT attname FROM pg_attribute JOIN pg_class AS c ON c.oid = attrelid
		WHERE relnamespace = 'pgmc'::regnamespace AND relkind <> 'c' AND attnum > 0"));
is_documented(
	'setting',
	sub { qr/\b\Q$_[0]\E\b/ },
	names("SELECT name FROM pg_settings, pgmc.release_all() WHERE name LIKE 'pgmc.%'"));

# pgmc's own options are in a table of the source; a hint lists them, too
my ($table) = slurp_file("$top/src/options.c") =~ /own_options\[\] = \{(.*?)^\};/ms;
my @options = $table =~ /^\t\{"(\w+)"/mg;
my ($psql_status, $out, $hints) = $node->psql('app',
	"CREATE SERVER s FOREIGN DATA WRAPPER pgmc OPTIONS (nothing_like_it '');
	CREATE USER MAPPING FOR ann SERVER pgmc_loopback OPTIONS (nothing_like_it '')",
	on_error_stop => 0);

like($hints, qr/\b$_\b/, "option: $_ is in the hint") for @options;
is_documented('option', sub { qr/\b\Q$_[0]\E"? '/ }, @options, 'user', 'password');

# every error that pgmc raises itself is in the table of errors
my $header = `pg_config --includedir-server`;
chomp $header;
my %sqlstate = slurp_file("$header/utils/errcodes.h") =~
  /^#define (ERRCODE_\w+) MAKE_SQLSTATE\((.*?)\)/mg;
my %raised;

for my $source (glob("$top/src/*.c"))
{
	$raised{$_} = 1 for slurp_file($source) =~ /\b(ERRCODE_\w+)/g;
}
my ($errors) = $prose =~ /^## Errors$(.*?)^## /ms;
my %in_table = map { $_ => 1 } map { /\b([0-9A-Z]{5})\b/g } $errors =~ /^\| ([^|]*) \|/mg;

for my $name (sort keys %raised)
{
	my $state = ($sqlstate{$name} || '') =~ s/[^0-9A-Z]//gr;

	# that of some warnings
	next if $name eq 'ERRCODE_WARNING';
	ok($in_table{$state}, "error: $name, $state, is in the manual's table");
}

# ---- links ----

# Every link within the two texts leads somewhere
for my $file (@files)
{
	for my $target (slurp_file("$top/$file") =~ /\]\((?!https?:)([^)\s]+)\)/g)
	{
		my ($path, $anchor) = split /#/, $target, 2;
		my $to = $path eq '' ? $file : $file =~ /\// ? ($path =~ /^\.\.\/(.*)/ ? $1 : "doc/$path") : $path;

		ok(-e "$top/$to", "$file: link to $target") || next;
		next unless defined $anchor;
		my @anchors = map { lc =~ s/[^\w\- ]//gr =~ s/ /-/gr } slurp_file("$top/$to") =~ /^#+ (.*?)\s*$/mg;
		ok((grep { $_ eq $anchor } @anchors), "$file: link to $target: the heading is there");
	}
}

end_section();
$admin->quit;
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');

done_testing();
