# On a standby, during its promotion, with prepared transactions, and far behind in invalidations.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PgmcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = start_server(
	'primary',
	init => [ allows_streaming => 1 ],
	conf => "max_prepared_transactions = 4\n");
my $admin = session($primary);

$admin->value('CREATE TABLE t (id text); CREATE SERVER audit FOREIGN DATA WRAPPER pgmc');

# ---- prepared transactions ----

is_state($admin,
	"BEGIN; SELECT pgmc.acquire_xact(), pgmc.execute('INSERT INTO t VALUES (''a'')'), pgmc.commit();
	INSERT INTO t VALUES ('b'); PREPARE TRANSACTION 'clean'", '', 'PREPARE with a clean hold');
is($admin->value('SELECT pgmc.release_all()'), '0', 'ends it');
is_free($admin, 'while the transaction is prepared');
$admin->value("COMMIT PREPARED 'clean'");
is_state($admin,
	"BEGIN; SELECT pgmc.acquire_xact(), pgmc.execute('INSERT INTO t VALUES (''c'')');
	PREPARE TRANSACTION 'dirty'", '25001', 'PREPARE with a dirty hold');
is($admin->value('SELECT count(*) FROM pg_prepared_xacts'), '0', 'is not done');
is_free($admin, 'after it');

# a hold of the session lasts
$admin->value(
	"BEGIN; SELECT pgmc.acquire(), pgmc.execute('INSERT INTO t VALUES (''d'')');
	PREPARE TRANSACTION 'session'; ROLLBACK PREPARED 'session';
	SELECT pgmc.commit(), pgmc.release()");
is($admin->value("SELECT string_agg(id, '' ORDER BY id) FROM t"), 'abd', 'what was committed');
is_clean($admin, 'after prepared transactions');

# ---- 5,000 commands that send invalidations ----

my $worker = worker_pid($admin);
my $ddl = session($primary);
my $log = -s $primary->logfile;
# each process that has caught up signals the next one, and logs it at this level
$admin->value('ALTER SYSTEM SET log_min_messages = debug4');
$admin->value('SELECT pg_reload_conf()');
wait_for($_, "SELECT current_setting('log_min_messages') = 'debug4'") for $admin, $ddl;
$admin->value('SELECT pgmc.close()');
is_free($admin, 'with a loopback backend that logs it as well');
$ddl->value("CREATE TABLE x (i int); DROP TABLE x;\n" x 2500);
$admin->value('ALTER SYSTEM RESET log_min_messages');
$admin->value('SELECT pg_reload_conf()');
my $catchups = () = substr(slurp_file($primary->logfile), $log) =~
  /sending sinval catchup signal to PID $worker/g;
cmp_ok($catchups, '>=', 2, 'the idle worker catches up with invalidations whenever it is told');
is(worker_pid($admin), $worker, 'and is still there');
is_free($ddl, 'after many DDL commands');
$ddl->quit;

# ---- a standby ----

$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;
my $reader = session($standby);
my $other = session($standby);

is($reader->value('SELECT pg_is_in_recovery()'), 't', 'a standby');
is( $reader->value(
		"SELECT pgmc.acquire(); SELECT * FROM pgmc.query('SELECT count(*) FROM t') AS q(n int);
		SELECT pgmc.rollback(), pgmc.release()"),
	"\n3\n|", 'reading works');
is_state($reader, "SELECT pgmc.autonomous('INSERT INTO t VALUES (''x'')')", '25006', 'writing does not');
is_free($other, 'on a standby');
is_clean($reader, 'on a standby');

# ---- promotion in the middle of holds ----

my $rounds = 3000;
$reader->value('SELECT pgmc.acquire()');
$other->send("DO \$\$ BEGIN
	WHILE pg_is_in_recovery() LOOP
		PERFORM pgmc.acquire('audit', '20 s'), pgmc.execute('SELECT 1'), pgmc.commit(), pgmc.release();
		PERFORM pgmc.autonomous_on('audit', 'SELECT 1');
	END LOOP; END \$\$");
my $watch = session($standby);
wait_for($watch, "SELECT count(*) > 0 FROM pg_stat_activity WHERE pid = $other->{pid} AND state = 'active'");
$standby->promote;
wait_for($watch, 'SELECT NOT pg_is_in_recovery()');
$other->ok('taking turns while the standby is promoted');
$reader->value("SELECT pgmc.execute('INSERT INTO t VALUES (''promoted'')'), pgmc.commit(), pgmc.release()");
is($watch->value("SELECT count(*) FROM t WHERE id = 'promoted'"), '1', 'a hold lasts over promotion');
is_free($other, 'after promotion');
is_clean($watch, 'after promotion');

$_->quit for $admin, $reader, $other, $watch;
$standby->stop;
$primary->stop;
unlike(slurp_file($_->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed')
  for $primary, $standby;

done_testing();
