# Other hosts and other ways to this one: TLS with certificate checks, SCRAM, names of hosts, several
# hosts with target_session_attrs, TCP and Unix sockets, URIs.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $main = start_server('main', conf => "listen_addresses = '127.0.0.1'\n");
if ($main->safe_psql('postgres', "SELECT setting FROM pg_settings WHERE name = 'ssl_library'") ne 'OpenSSL')
{
	plan skip_all => 'this PostgreSQL is built without TLS';
}

# ---- certificates of our own ----

my $dir = PostgreSQL::Test::Utils::tempdir;

sub openssl
{
	my @command = ('openssl', @_);
	my $output;

	IPC::Run::run(\@command, '<', '/dev/null', '>&', \$output) or die "@command\n$output";
	return;
}

for my $ca ('ca', 'other_ca')
{
	openssl('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', "/CN=$ca",
		'-addext', 'basicConstraints=critical,CA:TRUE', '-keyout', "$dir/$ca.key", '-out', "$dir/$ca.crt");
}
append_to_file("$dir/server.ext", "subjectAltName=DNS:localhost\n");
append_to_file("$dir/client.ext", "keyUsage=digitalSignature\n");
for my $who ([ 'server', 'localhost' ], [ 'client', 'by_cert' ])
{
	openssl('req', '-newkey', 'rsa:2048', '-nodes', '-subj', "/CN=$who->[1]",
		'-keyout', "$dir/$who->[0].key", '-out', "$dir/$who->[0].csr");
	openssl('x509', '-req', '-days', '2', '-in', "$dir/$who->[0].csr", '-CA', "$dir/ca.crt", '-CAkey', "$dir/ca.key",
		'-CAcreateserial', '-extfile', "$dir/$who->[0].ext", '-out', "$dir/$who->[0].crt");
}
openssl('rsa', '-aes128', '-passout', 'pass:keys secret', '-in', "$dir/client.key", '-out', "$dir/client_enc.key");
chmod 0600, glob("$dir/*.key");

# ---- two servers ----

my $port = $main->port;
$main->append_conf('postgresql.conf', <<END);
ssl = on
ssl_cert_file = '$dir/server.crt'
ssl_key_file = '$dir/server.key'
ssl_ca_file = '$dir/ca.crt'
END
unlink($main->data_dir . '/pg_hba.conf');
$main->append_conf('pg_hba.conf', <<END);
local all all trust
hostssl certs all 127.0.0.1/32 cert
hostssl all all 127.0.0.1/32 scram-sha-256
END
$main->restart;
my $second = PostgreSQL::Test::Cluster->new('second');
$second->init;
$second->append_conf('postgresql.conf', "listen_addresses = '127.0.0.1'\ndefault_transaction_read_only = on\n");
unlink($second->data_dir . '/pg_hba.conf');
$second->append_conf('pg_hba.conf', "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n");
$second->start;
$second->safe_psql('postgres', "SET default_transaction_read_only = off; CREATE ROLE remote LOGIN PASSWORD 'remotes secret'");
my $second_port = $second->port;

my $admin = session($main);
my $super = $admin->value('SELECT current_user');
$admin->value(<<END);
CREATE ROLE usage LOGIN;
CREATE ROLE by_cert LOGIN;
CREATE ROLE remote LOGIN PASSWORD 'remotes secret';
CREATE SERVER s FOREIGN DATA WRAPPER pgmc;
GRANT USAGE ON FOREIGN SERVER s TO usage;
CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS ("user" 'remote', password 'remotes secret');
END
$admin->value('CREATE DATABASE certs');
my $usage = session($main, user => 'usage');

# Set the server's options to these
sub options
{
	my (%wanted) = @_;
	my %there = map { /^(\w+)=/ ? ($1 => 1) : () }
	  split /\n/, $admin->value("SELECT unnest(srvoptions) FROM pg_foreign_server WHERE srvname = 's'");
	my @changes = map { "DROP $_" } grep { !exists $wanted{$_} } keys %there;

	push @changes, map { ($there{$_} ? 'SET' : 'ADD') . " $_ '$wanted{$_}'" } keys %wanted;
	$admin->value('ALTER SERVER s OPTIONS (' . join(', ', @changes) . ')') if @changes;
	return;
}

my $about = 'SELECT current_user, coalesce(host(inet_server_addr()), \'socket\'), current_setting(\'port\'),
	coalesce((SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()), \'none\')' =~ s/\s+/ /gr;

# What one gets there: role, address, port, TLS
sub is_there
{
	my ($session, $expected, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($session->run("SELECT * FROM pgmc.autonomous_query_on('s', \$q\$$about\$q\$) AS t(a name, b text, c text, d text)")
		  . $session->{err}, $expected, $name);
	return;
}

# It can't be had, for this reason
sub is_refused
{
	my ($session, $state, $reason, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$session->run("SELECT pgmc.autonomous_on('s', 'SELECT 1')");
	is(sqlstate($session->{err}), $state, "$name: $state") || diag($session->{err});
	like($session->{err}, $reason, "$name: the reason");
	unlike($session->{err}, qr/secret/, "$name: no secret");
	return;
}

# ---- TLS ----

my $ssl_on = "remote|127.0.0.1|$port|true";

options(host => 'localhost');
is_there($usage, $ssl_on, 'libpq\'s default is TLS where it is to be had');
options(host => 'localhost', sslmode => 'disable');
is_refused($usage, '28000', qr/no pg_hba\.conf entry.*no encryption/, 'no TLS where it is demanded');
options(host => 'localhost', sslmode => 'verify-full', sslrootcert => "$dir/ca.crt");
is_there($usage, $ssl_on, 'verify-full');
options(host => 'localhost', sslmode => 'verify-full', sslrootcert => "$dir/other_ca.crt");
is_refused($usage, '08001', qr/certificate verify failed/, 'verify-full, not by this authority');
options(host => 'localhost', sslmode => 'verify-full');
is_refused($usage, '08001', qr/root certificate file .* does not exist/, 'verify-full without an authority: not the operating-system user\'s file');
options(host => '127.0.0.1', sslmode => 'verify-full', sslrootcert => "$dir/ca.crt");
is_refused($usage, '08001', qr/does not match host name|no .*name.* matches|server certificate for/, 'verify-full, another name');
options(host => '127.0.0.1', sslmode => 'verify-ca', sslrootcert => "$dir/ca.crt");
is_there($usage, $ssl_on, 'verify-ca, another name');
options(host => 'localhost', hostaddr => '127.0.0.1', sslmode => 'verify-full', sslrootcert => "$dir/ca.crt");
is_there($usage, $ssl_on, 'hostaddr and the name to check');
options(dsn => "postgresql://localhost:$port/postgres?sslmode=verify-full&sslrootcert=$dir/ca.crt&channel_binding=require");
is_there($usage, $ssl_on, 'all in a URI, with channel binding');
options(dsn => "host=localhost sslmode=disable", sslmode => 'require');
is_there($usage, $ssl_on, 'an option goes before the dsn');

# ---- SCRAM ----

$admin->value("ALTER USER MAPPING FOR PUBLIC SERVER s OPTIONS (SET password 'not the secret')");
is_refused($usage, '28P01', qr/password authentication failed for user "remote"/, 'a wrong password');
$admin->value("ALTER USER MAPPING FOR PUBLIC SERVER s OPTIONS (SET password 'remotes secret')");
is_there($usage, $ssl_on, 'the right one, at the next acquire');
$admin->value("ALTER ROLE remote PASSWORD 'new secret'");
is_there($usage, $ssl_on, 'an open connection goes on');
$admin->value("SELECT pgmc.close('s')");
is_refused($usage, '28P01', qr/password authentication failed/, 'a new one needs the new password');
$admin->value("ALTER ROLE remote PASSWORD 'remotes secret'");

# ---- client certificates ----

options(host => 'localhost', dbname => 'certs', sslmode => 'require');
$admin->value(<<END);
CREATE USER MAPPING FOR $super SERVER s OPTIONS ("user" 'by_cert', sslcert '$dir/client.crt', sslkey '$dir/client.key');
CREATE USER MAPPING FOR usage SERVER s OPTIONS ("user" 'by_cert', sslcert '$dir/client.crt', sslkey '$dir/client.key');
END
is_there($admin, "by_cert|127.0.0.1|$port|true", 'a certificate for a superuser');
is_refused($usage, '2F003', qr/Non-superusers must have a password/, 'a certificate is no password');
$admin->value("ALTER USER MAPPING FOR usage SERVER s OPTIONS (ADD password_required 'false')");
is_there($usage, "by_cert|127.0.0.1|$port|true", 'a certificate, where a superuser says that it will do');
$admin->value("ALTER USER MAPPING FOR usage SERVER s OPTIONS (SET sslkey '$dir/client_enc.key', ADD sslpassword 'keys secret')");
is_there($usage, "by_cert|127.0.0.1|$port|true", 'a key with a password');
$admin->value("ALTER USER MAPPING FOR usage SERVER s OPTIONS (SET sslpassword 'wrong secret')");
is_refused($usage, '08001', qr/could not load private key file/, 'a key with a wrong password');
$admin->value("DROP USER MAPPING FOR usage SERVER s; DROP USER MAPPING FOR $super SERVER s");
options(host => 'localhost', dbname => 'certs');
is_refused($usage, '28000', qr/certificate authentication failed|connection requires a valid client certificate/, 'no certificate');

# ---- several hosts ----

my $there = "remote|127.0.0.1|$second_port|false";

options(host => '127.0.0.1', port => $second_port);
is_there($usage, $there, 'another cluster');
like($usage->value("SELECT pgmc.describe('s')"), qr/host=127\.0\.0\.1 port=$second_port dbname=postgres user=remote/, 'describe says where');
options(host => 'localhost,127.0.0.1', port => "$port,$second_port", target_session_attrs => 'read-write');
is_there($usage, $ssl_on, 'read-write is the first');
options(host => '127.0.0.1,localhost', port => "$second_port,$port", target_session_attrs => 'read-write');
is_there($usage, $ssl_on, 'read-write is the second');
options(host => '127.0.0.1,localhost', port => "$port,$second_port", target_session_attrs => 'read-only');
is_there($usage, $there, 'read-only');
options(dsn => "postgresql://127.0.0.1:$second_port,localhost:$port/postgres?target_session_attrs=any");
is_there($usage, $there, 'any, in a URI');
my $dead = PostgreSQL::Test::Cluster::get_free_port();
options(host => '127.0.0.1,127.0.0.1', port => "$dead,$second_port");
is_there($usage, $there, 'the first one refuses');
options(host => '127.0.0.1,localhost', port => "$second_port,$dead", target_session_attrs => 'read-write');
is_refused($usage, '08001', qr/session is read-only.*Connection refused|Connection refused/s, 'none will do');
$second->stop;
options(host => '127.0.0.1,localhost', port => "$second_port,$port", target_session_attrs => 'any');
is_there($usage, $ssl_on, 'one is down');
$second->start;
options(host => 'localhost,127.0.0.1', port => "$port,$second_port,$port");
is_refused($usage, '08001', qr/could not match 3 port numbers to 2 hosts/, 'libpq says what is wrong with a list');

# ---- names, sockets ----

options(host => 'no-such-host.invalid');
is_refused($usage, '08001', qr/[Cc]ould not translate host name "no-such-host\.invalid"/, 'a name that there isn\'t');

# those who are queued then are told the same, without looking it up once more
options(host => '127.0.0.1', port => $port);
$usage->value("SELECT pgmc.acquire('s')");
options(host => 'no-such-host.invalid');
my @queued = map { session($main, user => 'usage') } 1 .. 3;
$admin->value("SELECT pgmc.stat_reset('s')");
for my $i (1 .. @queued)
{
	$queued[ $i - 1 ]->send("SELECT pgmc.acquire('s')");
	is_waiting($admin, $i);
}
$usage->value('SELECT pgmc.release()');
for my $session (@queued)
{
	is_state($session, undef, '08001', 'a name that there isn\'t: one who was queued');
	like($session->{err}, qr/could not translate host name "no-such-host\.invalid"/, 'is told why');
	$session->quit;
}
is($admin->value("SELECT sum(failures) FROM pgmc.stat_connections WHERE srvname = 's'"),
	'1', 'it was looked up once for all');

options(host => $main->host);
is_there($admin, "remote|socket|$port|false", 'a Unix socket: superuser');
is_refused($usage, '2F003', qr/did not ask for one/, 'a Unix socket that asks for no password: another role');
options(host => $main->host . '/none');
is_refused($admin, '08001', qr/No such file or directory/, 'a socket that isn\'t there');
$admin->value('DROP USER MAPPING FOR PUBLIC SERVER s');
options();
is_there($usage, "usage|socket|$port|false", 'everything left out: oneself, over the socket');
options(options => '-c application_name=by_options', application_name => 'mine');
is($usage->value("SELECT * FROM pgmc.autonomous_query_on('s', 'SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()') AS t(n text)"),
	'mine', 'application_name of one\'s own');

# nothing of the server process's own environment and files counts
$main->stop;
{
	local %ENV = (%ENV, PGHOST => '/nowhere', PGPORT => $dead, PGUSER => 'nobody', PGPASSWORD => 'env', PGDATABASE => 'none',
		PGOPTIONS => '-c geqo=off', PGAPPNAME => 'env', PGSSLMODE => 'require', PGCONNECT_TIMEOUT => '1', HOME => $dir);
	append_to_file("$dir/.pgpass", "*:*:*:*:remotes secret\n");
	chmod 0600, "$dir/.pgpass";
	system_or_bail('pg_ctl', '-w', '-s', '-D', $main->data_dir, '-l', $main->logfile, 'start');
	$main->_update_pid(1);
}
$usage = session($main, user => 'usage');
$admin = session($main);
options();
is_there($usage, "usage|socket|$port|false", 'environment variables of the server don\'t count');
is($usage->value("SELECT * FROM pgmc.autonomous_query_on('s', \$\$SELECT current_setting('application_name'), current_setting('geqo')\$\$) AS t(n text, g text)"),
	'pgmc loopback|on', '... none of them');
$admin->value("CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (\"user\" 'remote')");
options(host => 'localhost');
is_refused($admin, '08001', qr/no password supplied/, 'nor does the operating-system user\'s .pgpass');
options(host => 'localhost', passfile => "$dir/.pgpass");
is_there($admin, $ssl_on, 'a passfile that a superuser names: for a superuser');
is_refused($usage, '2F003', qr/Non-superusers must have a password/, '... but for nobody else');

done_testing();
