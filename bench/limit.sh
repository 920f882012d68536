# shellcheck shell=sh
# How near the limit, for bench/run: pgmc and dblink against a client that does nothing but ask a
# backend over libpq (limit.c), and against sessions that do their work themselves.

compile_limit() {
	compile_client limit
}

# measure_limit ROUND: all four in turn
measure_limit() {
	for name in held insert block rows; do
		calls=$(ask "SELECT greatest(calls * $scale / 100, 1) FROM pair WHERE name = '$name'")
		bare=$(run env PGDATABASE=bench "$work/limit" $name "$calls")
		polling=$(run env PGDATABASE=bench "$work/limit" $name "$calls" poll)
		# one session: dblink's connection is its own
		both=$(bench_psql -A -t -F ', ' -c "SELECT dblink_connect('bench', loopback())" \
			-c "SELECT pgmc_$name(1), other_$name(1)" \
			-c "SELECT 'both', clocked('pgmc_$name', $calls), clocked('other_$name', $calls)" |
			sed -n 's/^both, //p')
		ask "INSERT INTO limits VALUES ('$name', $1, $bare, $polling, $both)"
	done
}

# The same INSERT by the sessions themselves: what so many processes alone cost
measure_plain() {
	throughput "$sessions" "$seconds" plain
	many=$tps
	throughput 1 "$seconds" plain
	note alone_plain "$1" "$many" "$tps"
}

measure_limits() {
	if wanted limit; then
		compile_limit
		rounds_of "$rounds" measure_limit
	fi
	if wanted sessions; then
		rounds_of "$rounds" measure_plain
	fi
}

# Does anything stand in the table of limits?
limits_known() {
	[ "$(ask 'SELECT count(*) FROM limits')" != 0 ]
}

table_of_limits() {
	bench_psql -P footer=off -P border=0 -c 'TABLE limit_report'
}

# The same as Markdown
markdown_of_limits() {
	echo '| work | bare libpq | polling | pgmc | dblink | pgmc to polling | polling to dblink |'
	echo '|---|--:|--:|--:|--:|--:|--:|'
	ask "SELECT format('| %s | %s | %s | %s | %s | %s | %s |', work, libpq, polling, pgmc, dblink,
		\"pgmc to polling\", \"polling to dblink\") FROM limit_report"
}
