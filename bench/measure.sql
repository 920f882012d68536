-- Measures those pairs of pairs.sql that one session does.

SELECT dblink_connect('bench', loopback()) \g /dev/null

SELECT format('CALL measure(%L, %s, %s, %s, %s)', name, greatest(calls * :scale / 100, 1), more,
		pause, :rounds)
	FROM pair
	WHERE calls IS NOT NULL AND needs IN (SELECT extname FROM pg_extension)
		AND (:'keys' = '' OR name = ANY (string_to_array(:'keys', ',')))
	ORDER BY place \gexec
