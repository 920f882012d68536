# shellcheck shell=sh
# What the parts of bench/run have in common: SQL, pgbench, durability, pgbouncer. To be sourced
# after tools/lib.sh, in the top directory.

bouncer_port=0

bench_psql() {
	run psql -X -q -d bench -v ON_ERROR_STOP=1 "$@"
}

ask() {
	do_as_user psql -X -q -A -t -F ' ' -d bench -v ON_ERROR_STOP=1 -c "$1"
}

has_extension() {
	[ "$(ask "SELECT count(*) FROM pg_available_extensions WHERE name = '$1'")" = 1 ]
}

# Is one of these to be measured?
wanted() {
	[ -n "$keys" ] || return 0
	for key; do
		case ,$keys, in
			*,"$key",*) return 0 ;;
		esac
	done
	return 1
}

# note NAME ROUND OURS OTHER: a measurement of a pair
note() {
	ask "INSERT INTO measurement VALUES ('$1', $2, $3, $4)"
}

# rounds_of N COMMAND ...: runs COMMAND 1 ..., COMMAND 2 ..., up to N
rounds_of() {
	last_round=$1 command=$2
	shift 2
	round=1
	while [ $round -le "$last_round" ]; do
		"$command" $round "$@"
		round=$((round + 1))
	done
}

# calculate EXPRESSION
calculate() {
	awk "BEGIN { print $1 }"
}

# median of lines of numbers
median() {
	sort -g | awk '
		{ v[NR] = $1 }
		END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

# Ends all of pgmc's connections, so that what is there next is what the next calls need
start_afresh() {
	ask 'SELECT pgmc.stop_worker()' >/dev/null
}

# ---- pgbench ----

# run_pgbench SESSIONS SECONDS SCRIPT SERVER: with a log of all calls
run_pgbench() {
	do_as_user sh -c "rm -f '$work'/bench_log.*"
	run env PGOPTIONS="${4:+-c pgmc.default_server=$4}" \
		pgbench -n -c "$1" -j "$(nproc)" -T "$2" -D connected=0 -l --log-prefix="$work/bench_log" \
		-f "source/bench/insert_$3.pgbench" bench >"$work/pgbench.out" 2>&1 || {
		cat "$work/pgbench.out"
		die "pgbench failed"
	}
}

# count_calls SESSIONS: prints of the log the seconds in which all sessions were at work, from when
# the last of them had finished a first call (some have to log in then) to when the first of them
# ended; and the calls per second of all, of the slowest and of the fastest one in that time.
# A line is: session, number of the transaction, its time, script, seconds and microseconds of
# its end. A session that never had its turn doesn't keep the others from being counted.
count_calls() {
	cat "$work"/bench_log.* | awk -v sessions="$1" '
		{
			session[NR] = $1
			at = end[NR] = $5 + $6 / 1e6
			if (!($1 in first)) { first[$1] = at; seen++ }
			if (at < first[$1]) first[$1] = at
			if (at > last[$1]) last[$1] = at
		}
		END {
			for (s in first) {
				done[s] = 0
				if (since == "" || first[s] > since) since = first[s]
				if (upto == "" || last[s] < upto) upto = last[s]
			}
			for (i = 1; i <= NR; i++)
				if (end[i] > since && end[i] <= upto) { done[session[i]]++; calls++ }
			least = seen < sessions ? 0 : calls
			for (s in done) {
				if (done[s] < least) least = done[s]
				if (done[s] > most) most = done[s]
			}
			span = upto - since
			if (span <= 0) span = calls = least = most = 0
			else { calls /= span; least /= span; most /= span }
			printf "%.3f %.3f %.3f %.3f\n", span, calls, least, most
		}'
}

# throughput SESSIONS SECONDS KIND: sets tps, the calls per second of all sessions, and least and
# most, those of the slowest and the fastest one. KIND is what bench/insert_KIND.pgbench does, or
# a pgmc server. Logging in takes from pgbench's time, so many sessions get more; if it was not
# enough for all of them to be at work together for half of the seconds, it is done again.
throughput() {
	case $3 in
		kept | bouncer | plain) script=$3 server= ;;
		*) script=pgmc server=$3 ;;
	esac
	lead=$(($1 / 50))
	[ "$3" != kept ] || lead=$(($1 / 12))
	while :; do
		run_pgbench "$1" $(($2 + lead)) "$script" "$server"
		counted=$(count_calls "$1")
		[ "$(calculate "${counted%% *} < $2 / 2")" = 1 ] || break
		[ $lead -lt 60 ] || die "sessions don't come to work together: $1, $3"
		lead=$((lead * 2 + 1))
	done
	# four words
	# shellcheck disable=SC2086
	set -- $counted
	tps=$2
	# shellcheck disable=SC2034 # for those who look at fairness
	least=$3 most=$4
}

# ---- durable commits ----

# durably COMMAND...: with commits that wait for the disk
durably() {
	set_fsync on
	PGUSER=durable
	"$@"
	PGUSER=pgmc_admin
	set_fsync off
}

set_fsync() {
	ask "ALTER SYSTEM SET fsync = $1"
	ask "ALTER SYSTEM SET full_page_writes = $1"
	ask "CHECKPOINT"
	ask "SELECT pg_reload_conf()" >/dev/null
	until [ "$(ask 'SHOW fsync')" = "$1" ]; do
		sleep 0.1
	done
	ask "CHECKPOINT"
}

# ---- pgbouncer ----

# Starts one in front of the cluster, where it is installed, and sets its port
start_bouncer() {
	command -v pgbouncer >/dev/null || return 0
	bouncer_port=$((PGPORT + 1))
	do_as_user sh -c 'cat >bouncer.ini' <<-END
		[databases]
		* = host=$sockets port=$PGPORT
		[pgbouncer]
		listen_addr =
		listen_port = $bouncer_port
		unix_socket_dir = $sockets
		auth_type = trust
		auth_file = bouncer.users
		pool_mode = session
		default_pool_size = 8
		max_client_conn = 1000
		log_connections = 0
		log_disconnections = 0
	END
	do_as_user sh -c 'cat >bouncer.users' <<-END
		"pgmc_admin" ""
		"durable" ""
	END
	(as_user pgbouncer -q bouncer.ini) >"$work/bouncer.log" 2>&1 </dev/null &
	beside="$beside $!"
	tries=0
	until do_as_user psql -X -q -p "$bouncer_port" -d postgres -c '' 2>/dev/null; do
		tries=$((tries + 1))
		[ $tries -lt 100 ] || {
			cat "$work/bouncer.log"
			die "pgbouncer did not start"
		}
		sleep 0.1
	done
}
