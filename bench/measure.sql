-- Measures the pairs of pairs.sql and prints the table.

SELECT dblink_connect('bench', loopback()) \g /dev/null

SELECT format('CALL measure(%L, %s, %s)', name, greatest(calls * :scale / 100, 1), :rounds)
	FROM pair
	WHERE needs IN (SELECT extname FROM pg_extension)
		AND (:'keys' = '' OR name = ANY (string_to_array(:'keys', ',')))
	ORDER BY place \gexec

\pset footer off
\pset border 0
SELECT work, pair.other AS "against",
		readable(percentile_cont(0.5) WITHIN GROUP (ORDER BY m.ours)) AS "pgmc",
		readable(percentile_cont(0.5) WITHIN GROUP (ORDER BY m.other)) AS "other",
		to_char(percentile_cont(0.5) WITHIN GROUP (ORDER BY m.ours / m.other), 'FM9990.000') AS "ratio",
		format('%s - %s', to_char(min(m.ours / m.other), 'FM9990.000'),
			to_char(max(m.ours / m.other), 'FM9990.000')) AS "from - to"
	FROM pair JOIN measurement AS m USING (name)
	GROUP BY place, work, pair.other
	ORDER BY place;
