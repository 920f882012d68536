# Plots relaxed.dat and durable.dat, a line for each number of sessions, into scaling.svg. titles
# are those of the columns after the first, a line each; most is the largest number of sessions.
set terminal svg size 1000,480 font 'sans-serif,13' background 'white'
set output 'scaling.svg'

# titles has spaces: count and cut it at its ends of lines
title_end(s) = strstrt(s, "\n") == 0 ? strlen(s) : strstrt(s, "\n") - 1
array title_of[9]
n = 0
rest = titles
while (strlen(rest) > 0) {
	n = n + 1
	title_of[n] = rest[1:title_end(rest)]
	rest = title_end(rest) + 2 > strlen(rest) ? '' : rest[title_end(rest) + 2:*]
}

set multiplot layout 1,2 margins 0.08,0.98,0.32,0.9 spacing 0.08
set logscale x 2
set logscale y 10
set xrange [1:(most > 1 ? most : 2)]
set xlabel 'sessions'
set ylabel 'autonomous inserts per second'
set grid
set key off
set linetype 1 linecolor rgb '#1f4e9e' linewidth 2 pointtype 7 pointsize 0.6
set linetype 2 linecolor rgb '#6fa3e8' linewidth 2 pointtype 7 pointsize 0.6
set linetype 3 linecolor rgb '#0b8a4b' linewidth 2 pointtype 7 pointsize 0.6
set linetype 4 linecolor rgb '#d1600f' linewidth 2 pointtype 5 pointsize 0.6
set linetype 5 linecolor rgb '#8a8a8a' linewidth 2 pointtype 5 pointsize 0.6

set title 'synchronous\_commit off'
plot for [i = 1:n] 'relaxed.dat' using 1:i+1 with linespoints linetype i title title_of[i]
set title 'durable commits'
unset ylabel
set key at screen 0.5,0.08 center vertical Left reverse maxrows 3 samplen 3
plot for [i = 1:n] 'durable.dat' using 1:i+1 with linespoints linetype i title title_of[i]
unset multiplot
