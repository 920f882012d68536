# shellcheck shell=sh
# Memory, for bench/run.

# ---- of the worker, while a large result passes ----

worker_pid() {
	ask "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pgmc worker'"
}

# private_memory PID: RssAnon in kB
private_memory() {
	sed -n 's/^RssAnon:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$1/status"
}

# most_memory ROWS: sets most, the most that a new worker has while so many of them pass
most_memory() {
	start_afresh
	ask 'SELECT pgmc_insert(1)' >/dev/null # there is a worker, and it has worked
	worker=$(worker_pid)
	most=0
	bench_psql -o /dev/null -c "SELECT count(*) FROM pgmc.autonomous_query('SELECT id, what, at FROM big LIMIT $1')
		AS t(id bigint, what text, at timestamptz)" &
	reader=$!
	samples=0
	while kill -0 "$reader" 2>/dev/null; do
		now=$(private_memory "$worker")
		[ "$now" -le "$most" ] || most=$now
		samples=$((samples + 1))
	done
	wait "$reader"
	now=$(private_memory "$worker")
	[ "$now" -le "$most" ] || most=$now
	[ "$samples" -gt 0 ] || die "the worker's memory was never looked at"
}

measure_flat() {
	most_memory $((rows / 10))
	few=$most
	most_memory "$rows"
	note flat "$1" "$most" "$few"
}

# ---- of all that is added for a crowd of sessions ----

# gather_crowd KIND: starts a crowd of sessions that make a call each second; sets crowd_pid
gather_crowd() {
	case $1 in
		kept) script=kept ;;
		*) script=pgmc ;;
	esac
	do_as_user sh -c "{ cat source/bench/insert_$script.pgbench; echo '\\sleep 1 s'; } >crowd.pgbench"
	run pgbench -n -c "$crowd" -j "$(nproc)" -T 600 -D connected=0 -f crowd.pgbench bench \
		>"$work/pgbench.out" 2>&1 &
	crowd_pid=$!
	since=$(date +%s)
	until [ "$(ask "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'
			AND state = 'idle' AND query LIKE '%journal%'")" = "$crowd" ]; do
		if ! kill -0 $crowd_pid 2>/dev/null || [ $(($(date +%s) - since)) -gt 120 ]; then
			cat "$work/pgbench.out"
			die "the crowd didn't gather"
		fi
		sleep 0.2
	done
}

# Sends it home
disperse_crowd() {
	ask "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
		WHERE application_name = 'pgbench'" >/dev/null
	wait "$crowd_pid" 2>/dev/null || true
	until [ "$(ask "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dblink'")" = 0 ]; do
		sleep 0.1
	done
}

# added_memory CONDITION: sum of Pss of such server processes, in kB
added_memory() {
	ask "SELECT pid FROM pg_stat_activity WHERE $1" | while read -r pid; do
		do_as_user cat "/proc/$pid/smaps_rollup"
	done | awk '$1 == "Pss:" { sum += $2; processes++ }
		END { if (processes == 0) exit 1; print sum }'
}

measure_crowd() {
	start_afresh
	gather_crowd pgmc
	ours=$(added_memory "backend_type = 'pgmc worker' OR application_name LIKE 'pgmc%'")
	disperse_crowd
	gather_crowd kept
	other=$(added_memory "application_name = 'dblink'")
	disperse_crowd
	note memory "$1" "$ours" "$other"
}

measure_memory() {
	if wanted flat; then
		rounds_of "$rounds" measure_flat
	fi
	if wanted memory; then
		rounds_of "$few_rounds" measure_crowd
	fi
}
