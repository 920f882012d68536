# Several databases of one cluster, with different encodings; dumps; and what is left behind when
# servers, mappings, roles and the extension are dropped.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_server('databases');
my $admin = session($node);
my $super = $admin->value('SELECT current_user');
my $dir = PostgreSQL::Test::Utils::tempdir;

$admin->value("CREATE ROLE app LOGIN; CREATE ROLE log LOGIN PASSWORD 'dumped secret'; CREATE ROLE owner");
my %encoding = (utf => 'UTF8', latin => 'LATIN1', ascii => 'SQL_ASCII');
for my $db (sort keys %encoding)
{
	$admin->value("CREATE DATABASE $db ENCODING '$encoding{$db}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
	$node->safe_psql($db, 'CREATE EXTENSION pgmc');
}

# ---- dump and restore ----

$node->safe_psql('utf', <<END);
CREATE SERVER mine FOREIGN DATA WRAPPER pgmc OPTIONS (dsn 'postgres:///utf?connect_timeout=3', pool_size '3', idle_timeout '30s', reset_query '', on_error 'close');
CREATE SERVER plain FOREIGN DATA WRAPPER pgmc;
ALTER SERVER plain OWNER TO owner;
CREATE USER MAPPING FOR app SERVER mine OPTIONS ("user" 'log', password 'dumped secret');
CREATE USER MAPPING FOR PUBLIC SERVER plain OPTIONS (password_required 'false');
GRANT USAGE ON FOREIGN SERVER mine, pgmc_loopback TO app;
CREATE TABLE protocol (what text);
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS \$\$
	BEGIN PERFORM pgmc.autonomous_on('mine', 'SELECT 1'); RETURN NULL; END \$\$;
CREATE TRIGGER keep AFTER INSERT ON protocol FOR EACH ROW EXECUTE FUNCTION keep();
END
my (undef, undef, $warning) = $node->psql('utf', 'CREATE USER MAPPING FOR app SERVER pgmc_loopback; ALTER SERVER pgmc_loopback OPTIONS (pool_size \'2\')');
like($warning, qr/WARNING:  pg_dump will not keep user mappings of server "pgmc_loopback".*WARNING:  pg_dump will not keep changed options/s,
	'what a dump will not keep is told when it is set');

my $definitions = "SELECT 'server', srvname::text, srvowner::regrole::text, (SELECT array_agg(o ORDER BY o) FROM unnest(srvoptions) AS o)::text, srvacl::text FROM pg_foreign_server
	UNION ALL SELECT 'mapping', srvname, usename, (SELECT array_agg(o ORDER BY o) FROM unnest(umoptions) AS o)::text, NULL FROM pg_user_mappings
	UNION ALL SELECT 'function', count(*)::text, '', '', '' FROM pg_proc WHERE pronamespace = 'pgmc'::regnamespace ORDER BY 1, 2, 3";
# ... but for what the warnings were about
my $kept = $node->safe_psql('utf', $definitions) =~ s/^mapping\|pgmc_loopback.*\n//mr =~ s/pool_size=2//r =~ s/\{\}//r;
for my $format ('plain', 'custom')
{
	my $file = "$dir/$format.dump";

	$node->command_ok([ 'pg_dump', '-F', $format, '-f', $file, $node->connstr('utf') ], "$format: pg_dump");
	$admin->value("CREATE DATABASE restored TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'");
	$format eq 'plain'
	  ? $node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-f', $file, $node->connstr('restored') ], "$format: restore")
	  : $node->command_ok([ 'pg_restore', '-e', '-d', $node->connstr('restored'), $file ], "$format: restore");
	is($node->safe_psql('restored', $definitions) =~ s/\{\}//r, $kept, "$format: servers, mappings and rights are the same");
	is($node->safe_psql('restored', "SELECT pgmc.autonomous_on('mine', 'SELECT 1')"), '1', "$format: and work");
	$node->safe_psql('restored', "SELECT pgmc.close('mine')");
	$admin->value('DROP DATABASE restored');
}

# ---- encodings ----

my %s = map { $_ => session($node, db => $_) } keys %encoding;
$s{utf}->value('DROP TRIGGER keep ON protocol');
$s{$_}->value('CREATE TABLE IF NOT EXISTS protocol (what text)') for 'latin', 'ascii';
$s{$_}->value('CREATE FUNCTION bytes(t text) RETURNS text LANGUAGE sql AS $$ SELECT encode(textsend(t), \'hex\') $$;
	SET client_encoding = SQL_ASCII') for keys %s;
my %e_acute = (utf => "U&'\\00E9'", latin => 'chr(233)', ascii => "convert_from('\\xe9', 'SQL_ASCII')");
my %bytes = (utf => 'c3a9', latin => 'e9', ascii => 'e9');

# textsend converts to client_encoding, which is SQL_ASCII: the bytes as they are
for my $db (sort keys %s)
{
	my $s = $s{$db};

	$s->value('SELECT pgmc.acquire()');
	$s->value("SELECT pgmc.execute('INSERT INTO protocol VALUES (\$1)', $e_acute{$db})");
	is($s->value('SELECT bytes(what) FROM protocol'), '', "$db: not yet");
	$s->value('SELECT pgmc.commit()');
	is($s->value('SELECT bytes(what) FROM protocol'), $bytes{$db}, "$db: a parameter");
	is($s->value("SELECT bytes(t) FROM pgmc.query('SELECT what FROM protocol') AS q(t text)"), $bytes{$db}, "$db: a result");
	is($s->value("SELECT bytes(t::text) FROM pgmc.query('SELECT what FROM protocol') AS q(t name)"), $bytes{$db}, "$db: a result as text");
	is($s->value("SELECT pgmc.execute(format('INSERT INTO protocol VALUES (%L)', $e_acute{$db} || 'x'))"), '1', "$db: in the command");
	$s->value('DO $d$ BEGIN PERFORM pgmc.execute(format($q$DO $i$ BEGIN RAISE %L; END $i$$q$, ' . $e_acute{$db} . '));
		EXCEPTION WHEN OTHERS THEN CREATE TEMP TABLE message AS SELECT bytes(SQLERRM) AS m; END $d$');
	is($s->value('SELECT m FROM message'), $bytes{$db}, "$db: an error");
	$s->value('SELECT pgmc.rollback(), pgmc.release()');
}

# from one to another: the server converts to the encoding of the caller's database
$s{$_}->value("CREATE SERVER to_utf FOREIGN DATA WRAPPER pgmc OPTIONS (dbname 'utf'); CREATE SERVER to_latin FOREIGN DATA WRAPPER pgmc OPTIONS (dbname 'latin')") for keys %s;
$s{utf}->value('TRUNCATE protocol');
is($s{latin}->value("SELECT pgmc.autonomous_on('to_utf', 'INSERT INTO protocol VALUES (\$1)', chr(233))"), '1', 'LATIN1 to UTF8: a parameter');
is($s{utf}->value('SELECT bytes(what) FROM protocol'), 'c3a9', '... is converted');
is($s{latin}->value("SELECT bytes(t) FROM pgmc.autonomous_query_on('to_utf', 'SELECT what FROM protocol') AS q(t text)"), 'e9', '... and back');
$s{utf}->value("TRUNCATE protocol; INSERT INTO protocol VALUES (U&'\\20AC')");
is_state($s{latin}, "SELECT * FROM pgmc.autonomous_query_on('to_utf', 'SELECT what FROM protocol') AS q(t text)", '22P05', 'what LATIN1 doesn\'t have is an error');
is_state($s{utf}, "SELECT pgmc.autonomous_on('to_latin', 'INSERT INTO protocol VALUES (\$1)', U&'\\20AC')", '22P05', '... the other way as well');
is($s{ascii}->value("SELECT bytes(t) FROM pgmc.autonomous_query_on('to_utf', 'SELECT what FROM protocol') AS q(t text)"), 'e282ac', 'SQL_ASCII: the bytes as they are');
is_state($s{ascii}, "SELECT pgmc.autonomous_on('to_utf', 'INSERT INTO protocol VALUES (\$1)', convert_from('\\xe9', 'SQL_ASCII'))", '22021', 'SQL_ASCII: bytes that are none are refused there');

# ---- what each of them sees ----

for my $db (keys %s)
{
	$s{$db}->value("CREATE SERVER accented FOREIGN DATA WRAPPER pgmc; GRANT USAGE ON FOREIGN SERVER accented TO app");
	$s{$db}->value("DO \$\$ BEGIN EXECUTE format('ALTER SERVER accented RENAME TO %I', $e_acute{$db}); END \$\$");
	$s{$db}->value("SELECT pgmc.acquire($e_acute{$db}::name)");
}
$admin->value('SELECT pgmc.acquire()');
my $rows = "SELECT string_agg(datname || ' ' || state, ', ' ORDER BY datname COLLATE \"C\") FROM pgmc.connections WHERE state = 'held'";
is($_->value($rows), 'ascii held, latin held, postgres held, utf held', 'a superuser sees all databases, from each')
  for $admin, map { $s{$_} } sort keys %s;
my $invalid = 'DO $$ BEGIN PERFORM convert_from(convert_to(c::text, getdatabaseencoding()), getdatabaseencoding()) FROM pgmc.connections AS c; END $$';
is($s{utf}->run($invalid) . $s{utf}->{err}, '', 'names in another encoding are no invalid text');
is($s{utf}->value("SELECT count(*) FROM pgmc.connections WHERE srvname = $e_acute{utf}"), '1', 'one\'s own is as it is');
my $app = session($node, db => 'latin', user => 'app');
is($app->value("SELECT count(*), count(state), count(holder_pid) FROM pgmc.connections"), '10|0|0', 'an ordinary role sees that they are there')
  || diag($app->value('SELECT * FROM pgmc.connections'));
$app->value("SELECT pgmc.acquire(chr(233)::name)");
is($app->value("SELECT string_agg(datname || ' ' || usename, ', ') FROM pgmc.connections WHERE state IS NOT NULL"), 'latin app', '... and more of its own');
$app->quit;
$_->value('SELECT pgmc.release_all()') for $admin, values %s;

# ---- dropping ----

# a connection that is idle, and one that is held: both go, the latter with its hold
my $gone = "SELECT count(*) = 0 FROM pgmc.connections WHERE srvname = 'd' OR usename IN ('d_login', 'd_role')";
my %drop = (
	'DROP SERVER' => 'DROP SERVER d CASCADE',
	'DROP USER MAPPING' => "DROP USER MAPPING FOR $super SERVER d",
	'DROP ROLE' => "DROP USER MAPPING FOR $super SERVER d; ALTER ROLE d_login RENAME TO d_new; ALTER ROLE d_new RENAME TO d_login; DROP ROLE d_login",
	'DROP EXTENSION' => 'DROP EXTENSION pgmc CASCADE',
	'DROP SCHEMA' => 'DROP SCHEMA pgmc CASCADE');
my $holder = session($node, db => 'utf');
my $dropper = $s{utf};
for my $what (sort keys %drop)
{
	for my $held (0, 1)
	{
		my $name = $what . ($held ? ', held' : ', idle');

		$dropper->value(<<END);
CREATE ROLE d_login LOGIN SUPERUSER;
CREATE SERVER d FOREIGN DATA WRAPPER pgmc;
CREATE USER MAPPING FOR $super SERVER d OPTIONS ("user" 'd_login');
END
		$holder->value("SELECT pgmc.acquire('d'), pgmc.execute('SELECT 1'), pgmc.commit()");
		$holder->value('SELECT pgmc.release()') unless $held;
		is($admin->value("SELECT count(*) FROM pgmc.connections WHERE srvname = 'd'"), '1', "$name: it is there");
		$dropper->value("SET client_min_messages = warning; SELECT 1; $drop{$what}");
		if ($held)
		{
			$holder->run("DO \$\$ BEGIN PERFORM pgmc.execute('SELECT 1'); END \$\$") unless $what =~ /EXTENSION|SCHEMA/;
			like(sqlstate($holder->{err}), $what eq 'DROP SERVER' ? qr/^42704$/ : $what =~ /MAPPING|ROLE/ ? qr/^42501$/ : qr/^$/, "$name: the holder's next call");
			$what =~ /EXTENSION|SCHEMA/ ? $holder->run('DISCARD ALL') : $holder->run('SELECT pgmc.release_all()');
		}
		wait_for($admin, $gone, $name);
		ok(1, "$name: nothing is left");
		ok(wait_for($admin, "SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = 'd_login'", $name), "$name: no backend either");
		$dropper->value('CREATE EXTENSION pgmc') if $what =~ /EXTENSION|SCHEMA/;
		$dropper->value("SET client_min_messages = warning; DROP SERVER IF EXISTS d CASCADE; DROP ROLE IF EXISTS d_login");
	}
}

# a drop that is rolled back harms nobody
$dropper->value('CREATE SERVER d FOREIGN DATA WRAPPER pgmc');
$holder->value("SELECT pgmc.acquire('d'), pgmc.execute('SELECT 1')");
$dropper->value('BEGIN; DROP SERVER d; ROLLBACK');
is($holder->value("SELECT pgmc.execute('SELECT 1'), pgmc.commit(), pgmc.release()"), '1||', 'a drop that is rolled back: the hold goes on');
is($holder->value("SELECT pgmc.autonomous_on('d', 'SELECT 1')"), '1', '... and the next one');

# by a session that hasn't loaded the library: after idle_timeout
$dropper->value("ALTER SERVER d OPTIONS (idle_timeout '1s')");
$holder->value("SELECT pgmc.autonomous_on('d', 'SELECT 1')");
$node->safe_psql('utf', 'DROP SERVER d');
wait_for($admin, $gone, 'idle_timeout');
ok(1, 'dropped without the library: nothing is left after idle_timeout');

# ... or when a session that was there acquires any other
for my $drop ("DROP USER MAPPING FOR $super SERVER d", 'DROP SERVER d')
{
	$dropper->value('SET client_min_messages = warning; DROP SERVER IF EXISTS d CASCADE; CREATE SERVER d FOREIGN DATA WRAPPER pgmc');
	$dropper->value("CREATE USER MAPPING FOR $super SERVER d") if $drop =~ /MAPPING/;
	$holder->value("SELECT pgmc.autonomous_on('d', 'SELECT 1'), pgmc.autonomous('SELECT 1')");
	$node->safe_psql('utf', $drop);
	is($admin->value("SELECT count(*) FROM pgmc.connections WHERE srvname = 'd' AND state = 'idle'"), '1',
		"$drop without the library is not noticed");
	$holder->value("SELECT pgmc.autonomous('SELECT 1')");
	wait_for($admin, "SELECT count(*) = 0 FROM pgmc.connections WHERE srvname = 'd'", 'the next acquire');
	ok(1, "$drop: until the next acquire of another server");
	is($admin->value("SELECT count(*) FROM pgmc.connections WHERE datname = 'utf' AND srvname = 'pgmc_loopback'"), '1',
		'which keeps its own');
}

# whole databases
$_->quit for $holder, values %s;
wait_for($admin, "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname IN ('utf', 'latin', 'ascii') AND application_name NOT LIKE 'pgmc%'", 'their sessions');
$admin->value("DROP DATABASE $_") for sort keys %s;
is($admin->value("SELECT count(*) FROM pgmc.connections WHERE datname IS DISTINCT FROM 'postgres'"), '0', 'DROP DATABASE');
is_clean($admin, 'in the end');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');

done_testing();
