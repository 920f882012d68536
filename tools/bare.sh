# shellcheck shell=sh disable=SC2034
# Bare Debian systems for tools/test-package and tools/test-docker. To be sourced after
# tools/lib.sh, in the top directory.
#
# A system is a debootstrap chroot below $work/systems, with nothing installed but the base. The
# script runs itself again in namespaces of its own, so that whatever is mounted or started in a
# system is gone when the script has ended, however that is. The machine gets debootstrap, if it
# isn't there, and is left as it was otherwise: its packages and clusters take no part in this.
#
#   PGMC_SUITE=trixie          another Debian release than bookworm
#   PGMC_BASE=/var/tmp/b.tar   keeps the base system there, and takes it from there the next time
#   KEEP=1                     keeps the systems, for a look

suite=${PGMC_SUITE:-bookworm}
passed=0
failed=0

# To be called with the script's name and arguments
in_own_namespaces() {
	[ "$(id -u)" = 0 ] || die "making a bare system needs root"
	[ -z "${PGMC_NAMESPACES:-}" ] || return 0
	exec env PGMC_NAMESPACES=1 unshare --mount --pid --ipc --fork --kill-child --mount-proc sh "$@"
}

# Sets $work, which is root's here, and what happens at the end
make_room_for_systems() {
	last_words='0 passed, 1 failed'
	work=$(mktemp -d "${TMPDIR:-/tmp}/pgmc.XXXXXX")
	chmod 755 "$work"
	mkdir "$work/systems" "$work/archives"
	trap 'end_systems $?; clean_up' EXIT
}

# check WHAT COMMAND...: a test. Should the script end before it has called all_done, that is a
# failure, too.
check() {
	what=$1
	shift
	if "$@" >"$work/log" 2>&1; then
		passed=$((passed + 1))
		echo "ok - $what"
	else
		failed=$((failed + 1))
		echo "not ok - $what"
		tail -n 60 "$work/log"
	fi
	last_words="$passed passed, $((failed + 1)) failed"
}

# The same, for steps without which the rest makes no sense
must() {
	before=$failed
	check "$@"
	if [ "$failed" != "$before" ]; then
		last_words="$passed passed, $failed failed"
		exit 1
	fi
}

# To be called at the end; its status is the script's
all_done() {
	last_words="$passed passed, $failed failed" # printed by lib.sh
	echo
	[ "$failed" = 0 ]
}

# ---- making systems ----

mirror() {
	# shellcheck disable=SC2016 # apt's, not the shell's
	apt-get indextargets --format '$(REPO_URI) $(SUITE)' 2>/dev/null |
		awk '/\/debian\/ / { print $1; exit }'
}

make_base() {
	base=${PGMC_BASE:-$work/base.tar}
	[ ! -e "$base" ] || return 0
	say "debootstrap $suite"
	install_packages debootstrap
	[ -n "$(mirror)" ] || apt_get update -qq
	from=$(mirror)
	debootstrap --variant=minbase "$suite" "$work/systems/base" "${from:?no Debian mirror in the package lists}" \
		>"$work/log" 2>&1 || { tail -n 20 "$work/log"; die "debootstrap failed"; }
	tar -C "$work/systems/base" -cf "$base.part" .
	mv "$base.part" "$base"
	rm -rf "$work/systems/base"
}

# new_system NAME: makes a system, the present one from now on. Packages that one of them has
# fetched are there for the others. A package's server isn't started by its installation, as in any
# container. /dev is the few nodes that debootstrap makes; the machine's own stays out of reach.
new_system() {
	system=$work/systems/$1
	mkdir "$system"
	tar -C "$system" -xf "$base"
	chmod 755 "$system"
	mount -t tmpfs tmpfs "$system/dev/shm"
	mount -t proc proc "$system/proc"
	mount --bind "$work/archives" "$system/var/cache/apt/archives"
	cp /etc/resolv.conf "$system/etc/resolv.conf"
	[ -e "$system/etc/hosts" ] || echo '127.0.0.1 localhost' >"$system/etc/hosts"
	for file in /etc/apt/apt.conf /etc/apt/apt.conf.d/*; do
		# how this machine reaches its mirror, if there is something to it
		if [ -f "$file" ] && grep -qi -e proxy -e 'Acquire::Check-' -e 'Acquire::https\?::' "$file"; then
			cp "$file" "$system/etc/apt/apt.conf.d/"
		fi
	done
	echo force-unsafe-io >"$system/etc/dpkg/dpkg.cfg.d/unsafe-io" # several times as fast
	printf '#!/bin/sh\nexit 101\n' >"$system/usr/sbin/policy-rc.d"
	chmod 755 "$system/usr/sbin/policy-rc.d"
	inside "echo man-db man-db/auto-update boolean false | debconf-set-selections" # slow, for nobody
	must "a bare system, $(cat "$system/etc/debian_version")" inside "apt-get update -qq"
}

# A copy of this tree in the directory $1 of the present system
copy_tree() {
	mkdir -p "$system$1"
	tar -cf - --exclude=./.git --exclude='*.o' --exclude='*.bc' --exclude='*.so' \
		--exclude=./results --exclude=./output_iso --exclude='./tmp_check*' --exclude=./log \
		--exclude='./build-*' --exclude='./pgmc-*' --exclude='./t/unit/*_test' . |
		tar -C "$system$1" --no-same-owner -xf -
}

# Runs a shell command in the present system, as root or as somebody else
inside() {
	chroot_as root /root "$1"
}

inside_as() {
	chroot_as "$1" "$(awk -F: -v user="$1" '$1 == user { print $6 }' "$system/etc/passwd")" "$2"
}

chroot_as() {
	env -i HOME="$2" USER="$1" LOGNAME="$1" LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
		PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		chroot "$system" setpriv --reuid="$1" --regid="$1" --init-groups sh -ec "cd; $3" </dev/null
}

install_inside() {
	inside "apt-get install -y -qq --no-install-recommends $*"
}

# Ends every process of the present system, unmounts what is mounted in it, and removes it. (The
# processes that are seen are those of our own namespace.)
end_system() {
	for process in /proc/[0-9]*; do
		case $(readlink "$process/root") in
			"$system" | "$system"/*) kill -9 "${process#/proc/}" 2>/dev/null || true ;;
		esac
	done
	for mounted in dev/shm proc var/cache/apt/archives; do
		umount -l "$system/$mounted"
	done
	[ -n "${KEEP:-}" ] || rm -rf --one-file-system "$system"
}

# end_systems STATUS: for the end of the script, whose status it returns
end_systems() {
	set +e
	trap '' HUP INT TERM
	for system in "$work"/systems/*; do
		[ ! -d "$system/proc/1" ] || end_system
	done
	return "$1"
}
