/*
 * fuzz_cycle.c
 *		Any graph: what the deadlock finder returns is a circle of it.
 *
 * For tools/fuzz.  The first byte is the number of nodes; then for each node a
 * byte with its kind and number of edges, and one for each edge.
 */
#include "postgres_fe.h"

#include "cycle.h"

#define MAX_NODES	32
#define MAX_EDGES	8

extern int	LLVMFuzzerTestOneInput(const uint8 *data, size_t size);

static bool
has_edge(const PgmcNode *node, int to)
{
	for (int i = 0; i < node->nedges; i++)
		if (node->edges[i] == to)
			return true;
	return false;
}

static void
check(const PgmcNode *nodes, int n, const int *path, int length, int members)
{
	uint64		seen = 0;

	if (length > members || members > n || path[0] != 0)
		abort();
	for (int i = 0; i < members; i++)
	{
		if (path[i] < 0 || path[i] >= n || (seen >> path[i] & 1) != 0)
			abort();
		seen |= UINT64CONST(1) << path[i];
		if (i < length && !has_edge(&nodes[path[i]], path[(i + 1) % length]))
			abort();
	}
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	const uint8 *end = data + size;
	PgmcNode	nodes[MAX_NODES];
	int			edges[MAX_NODES][MAX_EDGES];
	int			n;
	int		   *path;
	int			members;
	int			length;

	if (size == 0)
		return 0;
	n = 1 + *data++ % MAX_NODES;
	for (int i = 0; i < n; i++)
	{
		nodes[i].all = data < end && (*data & 0x80) != 0;
		nodes[i].nedges = data < end ? *data++ % MAX_EDGES : 0;
		nodes[i].edges = edges[i];
		for (int e = 0; e < nodes[i].nedges; e++)
			edges[i][e] = data < end ? *data++ % n : 0;
	}
	path = malloc(n * sizeof(int));
	length = pgmc_find_cycle(nodes, n, path, &members);
	if (length > 0)
		check(nodes, n, path, length, members);
	free(path);
	return 0;
}
