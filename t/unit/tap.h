/*
 * tap.h
 *		What the server-free tests have in common: results in TAP, and memory
 *		blocks that end where an inaccessible page begins.
 *
 * For one .c file of a program each.
 */
#ifndef PGMC_TAP_H
#define PGMC_TAP_H

#include <stdarg.h>
#include <sys/mman.h>
#include <unistd.h>

static int	tap_tests = 0;
static int	tap_failed = 0;

static bool ok(bool good, const char *format,...) pg_attribute_printf(2, 3);

static bool
ok(bool good, const char *format,...)
{
	va_list		args;

	printf("%sok %d - ", good ? "" : "not ", ++tap_tests);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	tap_failed += !good;
	return good;
}

static int
done_testing(void)
{
	printf("1..%d\n", tap_tests);
	return tap_failed == 0 ? 0 : 1;
}

/* The same numbers in each run */
static inline uint32
tap_random(uint32 below)
{
	static uint64 state = 1;

	state = state * UINT64CONST(6364136223846793005) +
		UINT64CONST(1442695040888963407);
	return (uint32) (state >> 33) % below;
}

/*
 * A copy of these bytes; whoever reads one behind them crashes, whether or not
 * a sanitizer watches.  There is one such copy at a time.
 */
static inline char *
tap_fenced_copy(const char *data, Size length)
{
	static char *map = NULL;
	static Size size = 0;
	Size		page = (Size) sysconf(_SC_PAGESIZE);
	Size		needed = (length + page) / page * page + page;
	char	   *copy;

	if (needed > size)
	{
		if (map != NULL)
			munmap(map, size);
		map = mmap(NULL, needed, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (map == MAP_FAILED || mprotect(map + needed - page, page, PROT_NONE) != 0)
		{
			printf("Bail out! no memory\n");
			exit(1);
		}
		size = needed;
	}
	copy = map + size - page - length;
	if (length > 0)
		memcpy(copy, data, length);
	return copy;
}

#endif							/* PGMC_TAP_H */
