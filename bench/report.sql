-- The table of ratios, a view.

-- 'A/B' or a number
CREATE FUNCTION number(target text) RETURNS float8 LANGUAGE sql AS $$
	SELECT split_part(target, '/', 1)::float8 / coalesce(nullif(split_part(target, '/', 2), '')::float8, 1)
$$;

-- as people read it
CREATE FUNCTION readable(figure float8, unit text) RETURNS text LANGUAGE sql AS $$
	SELECT CASE WHEN unit <> 'us' THEN to_char(figure, 'FM999999990') || ' ' || unit
		WHEN figure < 10 THEN to_char(figure, 'FM90.00') || ' us'
		WHEN figure < 1000 THEN to_char(figure, 'FM9990.0') || ' us'
		WHEN figure < 100000 THEN to_char(figure / 1e3, 'FM9990.00') || ' ms'
		ELSE to_char(figure / 1e3, 'FM9999990') || ' ms' END
$$;

-- small ones also as a fraction
CREATE FUNCTION readable(ratio float8) RETURNS text LANGUAGE sql AS $$
	SELECT CASE WHEN ratio < 0.095 THEN '1/' || to_char(1 / ratio, 'FM999990')
		WHEN ratio < 10 THEN to_char(ratio, 'FM0.00')
		ELSE to_char(ratio, 'FM999990.0') END
$$;

CREATE FUNCTION meets(ratio float8, sense text, target text) RETURNS boolean LANGUAGE sql AS $$
	SELECT CASE sense WHEN '<=' THEN ratio <= number(target) WHEN '>=' THEN ratio >= number(target) END
$$;

CREATE FUNCTION middle(figures float8[]) RETURNS float8 LANGUAGE sql AS $$
	SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY f) FROM unnest(figures) AS f
$$;

CREATE AGGREGATE median(float8) (SFUNC = array_append, STYPE = float8[], INITCOND = '{}', FINALFUNC = middle);

CREATE VIEW figure AS
	SELECT name,
			median(ours) AS ours,
			median(other) AS other,
			median(ours / other) AS ratio,
			min(ours / other) AS least,
			max(ours / other) AS most
		FROM measurement
		GROUP BY name;

CREATE VIEW report AS
	SELECT name AS key, work, pair.other AS against,
			readable(figure.ours, unit) AS pgmc,
			readable(figure.other, unit) AS "other",
			readable(ratio) AS ratio,
			readable(least) || ' - ' || readable(most) AS "from - to",
			concat_ws(' ', CASE WHEN target IS NULL THEN NULL ELSE sense END, target) AS target,
			CASE meets(ratio, sense, target) WHEN true THEN 'met' WHEN false THEN 'not met' ELSE '' END AS " "
		FROM pair JOIN figure USING (name)
		ORDER BY place;

-- The table of limits, another: what a bare client needs for the same, asleep meanwhile or polling.
CREATE VIEW limit_report AS
	SELECT work, readable(m[1], unit) AS libpq, readable(m[2], unit) AS polling,
			readable(m[3], unit) AS pgmc, readable(m[4], unit) AS dblink,
			readable(m[5]) AS "pgmc to polling", readable(m[6]) AS "polling to dblink"
		FROM pair JOIN (
			SELECT name, ARRAY[median(bare), median(polling), median(ours), median(other),
					median(ours / polling), median(polling / other)] AS m
				FROM limits GROUP BY name) AS medians USING (name)
		ORDER BY place;
