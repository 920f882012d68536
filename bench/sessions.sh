# shellcheck shell=sh
# Many sessions at once, for bench/run.

# ---- on one connection, against one session alone on it ----

measure_sharing() {
	throughput "$sessions" "$seconds" shared
	many=$tps
	note fair "$1" "$least" "$most"
	throughput 1 "$seconds" shared
	note alone "$1" "$many" "$tps"
	throughput "$sessions" "$seconds" pgmc_loopback
	many=$tps
	throughput 1 "$seconds" pgmc_loopback
	note alone_reset "$1" "$many" "$tps"
}

# ---- a reset each time that the connection passes on ----

measure_reset() {
	throughput "$sessions" "$seconds" pgmc_loopback
	with=$tps
	throughput "$sessions" "$seconds" shared
	note reset "$1" "$(calculate "1e6 / $with")" "$(calculate "1e6 / $tps")"
}

# ---- a small pool against a connection for each ----

# count_backends APPLICATION_NAME: in the background, while pgbench is at work
count_backends() {
	ask "SELECT most_backends('$1')" >"$work/backends" &
	counter=$!
}

# Sets backends to the number
take_backends() {
	wait "$counter"
	backends=$(cat "$work/backends")
}

measure_pool() {
	start_afresh
	count_backends 'pgmc%'
	throughput "$sessions" "$seconds" pool
	pool=$tps
	take_backends
	ours=$backends
	count_backends dblink
	throughput "$sessions" "$seconds" kept
	take_backends
	note pool "$1" "$pool" "$tps"
	note pool_backends "$1" "$ours" "$backends"
	each=$tps
	throughput "$sessions" "$seconds" pool_shared
	note pool_shared "$1" "$tps" "$each"
}

# ---- all of them ----

measure_sessions() {
	if wanted sessions; then
		rounds_of "$rounds" measure_sharing
	fi
	if wanted durable; then
		durably rounds_of "$rounds" measure_pool
	fi
	if wanted reset; then
		durably rounds_of "$rounds" measure_reset
	fi
}
