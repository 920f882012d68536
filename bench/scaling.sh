# shellcheck shell=sh
# Throughput over the number of sessions, for bench/run: a table and a plot.

# in the order of the plot's colours
scaling_kinds() {
	echo pgmc_loopback shared pool kept
	[ "$bouncer_port" = 0 ] || echo bouncer
}

scaling_title() {
	case $1 in
		pgmc_loopback) echo 'pgmc, one connection' ;;
		shared) echo 'pgmc, one connection, no reset' ;;
		pool) echo 'pgmc, pool of 8' ;;
		kept) echo 'dblink, connections kept' ;;
		bouncer) echo 'dblink, connecting per call, pgbouncer' ;;
	esac
}

# scaling_round ROUND NAME: appends its throughputs to $work/NAME.runs
scaling_round() {
	for count in $curve; do
		for kind in $(scaling_kinds); do
			throughput "$count" "$scaling_seconds" "$kind"
			echo "$count $kind $tps" >>"$work/$2.runs"
		done
	done
}

# scaling_runs NAME: the throughputs into $work/NAME.runs, and their medians into $work/NAME.dat
scaling_runs() {
	: >"$work/$1.runs"
	rounds_of "$few_rounds" scaling_round "$1"
	for count in $curve; do
		printf '%s' "$count"
		for kind in $(scaling_kinds); do
			printf ' %.0f' "$(sed -n "s/^$count $kind //p" "$work/$1.runs" | median)"
		done
		echo
	done >"$work/$1.dat"
}

# scaling_table NAME: as Markdown
scaling_table() {
	printf '| sessions |'
	for kind in $(scaling_kinds); do
		printf ' %s |' "$(scaling_title "$kind")"
	done
	printf '\n|--:|'
	for kind in $(scaling_kinds); do
		printf -- '--:|'
	done
	echo
	sed 's/ / | /g; s/^/| /; s/$/ |/' "$work/$1.dat"
}

measure_scaling() {
	wanted scaling || return 0
	scaling_runs relaxed
	durably scaling_runs durable
	titles=$(for kind in $(scaling_kinds); do scaling_title "$kind"; done)
	do_as_user gnuplot -e "titles = '$titles'; most = ${curve##* }" source/bench/scaling.gp
}
