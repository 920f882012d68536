# shellcheck shell=sh
# What the scripts in tools/, bench/run and .ci/run have in common. To be sourced in the top directory.
#
# Everything that is built or run goes into one temporary directory, $work, owned by an
# unprivileged user (the server refuses to run as root), and is removed with it at the end:
#
#   $work/source    a copy of this tree; nothing is built in the tree itself
#   $work/root      a private copy of the PostgreSQL installation, see private_installation
#   $work/data      a throw-away cluster, its socket in $sockets (a short path)
#
# So no cluster and no file of the machine's PostgreSQL is touched, and root is needed for
# nothing but the installation of missing packages.

work=
work_in=
sockets=
running=
beside= # what else runs in the background, to be ended with us
apt_undo=
last_words=
limit=${PGMC_TEST_LIMIT:-300}

say() {
	printf '\n== %s\n' "$*"
}

die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# The caller's PostgreSQL environment is not for the private cluster, nor make's for ours
clean_environment() {
	for name in $(env | sed -n 's/^\(PG[A-Z_]*\)=.*/\1/p'); do
		case $name in
			PG_CONFIG | PGMC_*) ;;
			*) unset "$name" ;;
		esac
	done
	unset MAKEFLAGS MAKELEVEL MFLAGS PERL5LIB 2>/dev/null || true
	export LC_ALL=C
	PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
	umask 022
}

# ---- packages ----

missing_packages() {
	for package; do
		case $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) in
			*' installed') ;;
			*) printf '%s ' "$package" ;;
		esac
	done
}

apt_get() {
	set -- env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
		apt-get -o DPkg::Lock::Timeout=300 "$@"
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		die "installing packages needs root or sudo"
	fi
}

root_sh() {
	if [ "$(id -u)" = 0 ]; then sh -c "$1"; else sudo sh -c "$1"; fi
}

# A new server package makes a cluster "main" and starts it, and might start others that are
# stopped; pgbouncer's would be started, too. While we install, a temporary file for each tells
# Debian's scripts not to.
keep_clusters_still() {
	settings=/etc/postgresql-common/createcluster.d
	apt_undo="rm -f $settings/pgmc-temporary.conf
		dpkg -S $settings >/dev/null 2>&1 || rmdir $settings 2>/dev/null"
	root_sh "mkdir -p $settings
		echo 'create_main_cluster = false' >$settings/pgmc-temporary.conf"
	if [ ! -e /usr/sbin/policy-rc.d ]; then
		apt_undo="rm -f /usr/sbin/policy-rc.d
			$apt_undo"
		root_sh "printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
			chmod 755 /usr/sbin/policy-rc.d"
	fi
}

undo_keep_clusters_still() {
	[ -z "$apt_undo" ] || root_sh "$apt_undo" || true
	apt_undo=
}

# Installs those that are missing. The package lists are fetched only where they are needed.
install_packages() {
	missing=$(missing_packages "$@")
	[ -n "$missing" ] || return 0
	command -v apt-get >/dev/null || die "missing: $missing"
	say "installing $missing"
	# $missing is several words
	# shellcheck disable=SC2086
	if ! plan=$(apt-get install -s --no-install-recommends $missing 2>&1); then
		apt_get update -qq
		plan=$(apt-get install -s --no-install-recommends $missing 2>&1) || die "$plan"
	fi
	if echo "$plan" | grep -q '^Inst postgresql-[0-9]* \['; then
		die "this would upgrade the PostgreSQL server and restart its clusters, please do that first: apt-get install $missing"
	fi
	case " $missing" in
		*' postgresql-'[0-9]* | *' pgbouncer '*) keep_clusters_still ;;
	esac
	# The mirror may have newer versions by now than the lists say: then once more
	# shellcheck disable=SC2086
	if ! output=$(apt_get install -y -qq --no-install-recommends $missing 2>&1); then
		printf '%s\n' "$output"
		apt_get update -qq
		apt_get install -y -qq --no-install-recommends $missing ||
			die "apt-get could not install $missing"
	fi
	undo_keep_clusters_still
}

# ---- which PostgreSQL ----

newest_installed() {
	for dir in /usr/lib/postgresql/*/; do
		[ -x "$dir/bin/postgres" ] && basename "$dir"
	done | sort -n | awk '$1 >= 15 { newest = $1 } END { print newest }'
}

newest_packaged() {
	apt-cache show postgresql 2>/dev/null |
		sed -n 's/^Depends:.* postgresql-\([0-9]*\).*/\1/p' | sort -n | tail -1
}

# Sets pg_config: PG_CONFIG's where given, else Debian's newest installed server, else the one
# its package "postgresql" stands for. Installs what is missing to build and test with it.
find_postgres() {
	if [ -n "${PG_CONFIG:-}" ]; then
		pg_config=$(command -v "$PG_CONFIG") || die "PG_CONFIG=$PG_CONFIG: no such command"
		unset PG_CONFIG
		set --
	elif command -v apt-get >/dev/null; then
		major=$(newest_installed)
		[ -n "$major" ] || major=$(newest_packaged)
		if [ -z "$major" ]; then
			apt_get update -qq
			major=$(newest_packaged)
		fi
		[ "${major:-0}" -ge 15 ] || die "no package of PostgreSQL 15 or newer here"
		pg_config=/usr/lib/postgresql/$major/bin/pg_config
		set -- "postgresql-$major" "postgresql-server-dev-$major" libpq-dev
	else
		pg_config=$(command -v pg_config) || die "no pg_config in the PATH, and PG_CONFIG isn't set"
		set --
	fi
	if command -v dpkg-query >/dev/null; then
		install_packages gcc libc6-dev make perl libipc-run-perl "$@"
	fi

	for command in gcc make prove; do
		command -v $command >/dev/null || die "there is no $command here"
	done
	perl -MIPC::Run -e 1 2>/dev/null || die "the Perl module IPC::Run is missing"
	[ -x "$("$pg_config" --bindir)/postgres" ] || die "$pg_config: its server is not installed"
	[ -e "$("$pg_config" --pgxs)" ] || die "$pg_config: its development files are not installed"
}

# ---- the temporary directory ----

# Makes $work, in directory $work_in where set, and sets the user who owns it. as_user runs a command
# as that user and in that directory; it replaces the shell, so call it in a subshell. (setpriv
# rather than runuser or sudo: it leaves no process in between, so signals arrive.)
make_work() {
	user=$(id -un)
	if [ "$user" = root ]; then
		unset TMPDIR # root's own may be closed to others
		user=postgres
		id postgres >/dev/null 2>&1 || user=nobody
	fi
	work=$(mktemp -d "${work_in:-${TMPDIR:-/tmp}}/pgmc.XXXXXX")
	work=$(cd "$work" && pwd -P)
	sockets=$(mktemp -d /tmp/pgmc.XXXXXX)
	chmod 755 "$work"
	if [ "$(id -un)" = root ]; then
		chown "$user" "$work" "$sockets"
	fi
}

as_user() {
	cd "$work" || exit
	if [ "$(id -un)" = "$user" ]; then
		exec env HOME="$work" "$@"
	else
		exec setpriv --reuid="$user" --regid="$(id -g "$user")" --init-groups \
			env HOME="$work" USER="$user" LOGNAME="$user" "$@"
	fi
}

do_as_user() {
	(as_user "$@")
}

# The same for what may take long: in the background, so that a signal to this script is
# answered at once, and with a limit, so that a hang becomes a failure (124).
run() {
	(as_user timeout -k 10 "$limit" "$@") </dev/null &
	running=$!
	status=0
	wait "$running" || status=$?
	running=
	return $status
}

copy_source() {
	do_as_user mkdir -p source
	tar -cf - --exclude=./.git --exclude='*.o' --exclude='*.bc' --exclude='*.so' \
		--exclude=./results --exclude=./output_iso --exclude='./tmp_check*' --exclude=./log . |
		do_as_user tar -C source --no-same-owner -xf -
}

# PostgreSQL finds its files relative to its programs. So a copy of the programs, together with
# links to all other files at the same places below another root, is an installation of its own:
# "make install" with its pg_config changes nothing but that.
private_installation() {
	setting() { "$pg_config" "--$1"; }
	root=$work/root
	bin=$root$(setting bindir)

	do_as_user mkdir -p "$bin"
	do_as_user sh -c "cp -L '$(setting bindir)'/* '$bin/'"
	for dir in "$(setting pkglibdir)" "$(setting sharedir)"; do
		do_as_user mkdir -p "$root$dir"
		do_as_user cp -Rs "$dir/." "$root$dir/"
	done
	for dir in "$(setting includedir)" "$(setting includedir-server)" "$(setting pkgincludedir)"; do
		[ -e "$root$dir" ] || do_as_user sh -c "mkdir -p '$root${dir%/*}' && ln -s '$dir' '$root$dir'"
	done
	do_as_user mkdir -p "$root$(setting libdir)"
	for file in "$(setting libdir)"/libpq* "$(setting libdir)"/libpg*; do
		[ ! -e "$file" ] || [ -e "$root$file" ] || do_as_user ln -s "$file" "$root$file"
	done
	# another pgmc may be installed there
	do_as_user find "$root" -name 'pgmc*' ! -type d -exec rm -f {} +

	for dir in pkglibdir sharedir; do
		[ "$("$bin/pg_config" --$dir)" = "$root$(setting $dir)" ] ||
			die "$pg_config: this installation of PostgreSQL can't be copied"
	done
	PATH=$bin:$PATH
}

# For a pgmc that is compiled with gcc's sanitizers: its server must load their libraries first.
# What they have to report goes into files sanitizer.* in $work.
sanitize_server() {
	do_as_user mv "$bin/postgres" "$bin/postgres.real"
	# "pg_ctl restart" starts what the server took itself for
	do_as_user sh -c "cat >'$bin/postgres'; chmod 755 '$bin/postgres'" <<-END
		#!/bin/bash
		LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)"
		ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0:log_path=$work/sanitizer
		UBSAN_OPTIONS=print_stacktrace=1:log_path=$work/sanitizer
		export LD_PRELOAD ASAN_OPTIONS UBSAN_OPTIONS
		exec -a "$bin/postgres" "$bin/postgres.real" "\$@"
	END
	# Debian's, for one, hangs in bindtextdomain
	do_as_user timeout 20 "$bin/postgres" -V >"$work/log" 2>&1 ||
		die "$pg_config: this server doesn't run with AddressSanitizer loaded; take one built without --enable-nls"
	export ASAN_OPTIONS=detect_leaks=0 # of the server-free tests
}

# make TARGET ... in $work/source, with the private installation
make_source() {
	run make -s -C "$work/source" PG_CONFIG="$bin/pg_config" "$@"
}

# Compiles bench/NAME.c, a client of libpq, as $work/NAME
compile_client() {
	do_as_user gcc -O2 -g -Wall -I"$("$pg_config" --includedir)" -o "$1" "source/bench/$1.c" \
		-L"$("$pg_config" --libdir)" -Wl,-rpath,"$("$pg_config" --libdir)" -lpq
}

# ---- the tests, as a part of something ----

# Runs tools/test with these arguments and adds what it counted to $passed and $failed. Its output
# is shown, but not its last line, which is the caller's to say.
counted_tests() {
	: >"$work/tests"
	sh tools/test "$@" >"$work/tests" 2>&1 </dev/null &
	running=$!
	tail -n +1 -f --pid="$running" "$work/tests" | sed '/^[0-9]* passed, [0-9]* failed$/d'
	wait "$running" || true
	running=
	counts=$(tail -1 "$work/tests")
	case $counts in
		*' passed, '*' failed') ;;
		*) counts='0 passed, 1 failed' ;;
	esac
	passed=$((passed + ${counts%% passed*}))
	counts=${counts#* passed, }
	failed=$((failed + ${counts%% failed}))
}

# ---- the cluster ----

# Starts the cluster $work/data with the settings that most servers have, but for speed, and the
# superuser $1; each further argument is a line of its configuration. Sets PGHOST, PGPORT and
# PGUSER for it.
start_cluster() {
	superuser=$1
	shift
	do_as_user "$bin/initdb" -D "$work/data" -U "$superuser" -A trust -E UTF8 --locale=C -N \
		>"$work/initdb.log" 2>&1 || { cat "$work/initdb.log"; die "initdb failed"; }
	do_as_user sh -c "cat >>'$work/data/postgresql.conf'" <<-END
		listen_addresses = '127.0.0.1'
		unix_socket_directories = '$sockets'
		log_line_prefix = '%m [%p] %q%u@%d/%a '
		fsync = off
		full_page_writes = off
		$(printf '%s\n' "$@")
	END
	port=$((40000 + $$ % 20000))
	until do_as_user "$bin/pg_ctl" -D "$work/data" -l "$work/server.log" -o "-p $port" -w -s start \
		>"$work/start.log" 2>&1; do
		# another port where this one is taken; nothing else is worth another trial
		if [ "$port" -gt 60100 ] || ! grep -q 'Address already in use' "$work/server.log"; then
			cat "$work/start.log" "$work/server.log"
			die "the private server did not start"
		fi
		do_as_user rm -f "$work/server.log"
		port=$((port + 7))
	done
	export PGHOST="$sockets" PGPORT="$port" PGUSER="$superuser"
}

# Stops the cluster as pg_ctl's mode $1 does; fails where it doesn't stop in time
stop_cluster() {
	[ -e "$work/data/postmaster.pid" ] || return 0
	do_as_user "$bin/pg_ctl" -D "$work/data" -m "$1" -t 60 -w -s stop
}

# ---- the end ----

# Ends what is running, stops every server below $work, also those that killed tests left, and
# removes the temporary directories (KEEP=1 keeps them, for a look). $last_words, where set, is
# the last line of all.
clean_up() {
	status=$?
	trap - EXIT
	trap '' HUP INT TERM
	if [ -n "$running" ]; then
		kill "$running" 2>/dev/null || true
		wait "$running" 2>/dev/null || true
	fi
	for child in $beside; do
		kill "$child" 2>/dev/null || true
	done
	undo_keep_clusters_still
	if [ -n "$work" ]; then
		find "$work" -name postmaster.pid | while read -r file; do
			# a file left by a dead server may name somebody else's process by now
			if [ "$(readlink "/proc/$(head -1 "$file")/cwd")" = "${file%/*}" ]; then
				do_as_user "$bin/pg_ctl" -D "${file%/*}" -m immediate -w -s stop || true
			fi
		done
		if [ -n "${KEEP:-}" ]; then
			printf 'kept: %s\n' "$work" >&2
			rm -rf "$sockets"
		else
			rm -rf "$work" "$sockets"
		fi
	fi
	[ -z "$last_words" ] || printf '%s\n' "$last_words"
	exit $status
}

at_end_clean_up() {
	trap clean_up EXIT
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 143' TERM
}
