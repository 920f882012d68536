/*
 * cycle_test.c
 *		The deadlock finder: known graphs, and random ones against a checker
 *		that knows nothing but the definition.
 */
#include "postgres_fe.h"

#include "cycle.h"

#include "tap.h"

#define MAX_NODES	10
#define GRAPHS		200000

typedef struct Graph
{
	int			n;
	PgmcNode	nodes[MAX_NODES];
	int			edges[MAX_NODES][MAX_NODES];
} Graph;

static void
start(Graph *g, int n)
{
	memset(g, 0, sizeof(*g));
	g->n = n;
	for (int i = 0; i < n; i++)
		g->nodes[i].edges = g->edges[i];
}

static void
edge(Graph *g, int from, int to)
{
	g->edges[from][g->nodes[from].nedges++] = to;
}

/* ---- the definition ---- */

static bool
has_edge(const PgmcNode *node, int to)
{
	for (int i = 0; i < node->nedges; i++)
		if (node->edges[i] == to)
			return true;
	return false;
}

/* Does the node's condition, that it is stuck, hold if these are? */
static bool
holds(const PgmcNode *node, unsigned stuck)
{
	bool		all = node->nedges > 0;
	bool		any = false;

	for (int i = 0; i < node->nedges; i++)
	{
		bool		in = (stuck >> node->edges[i] & 1) != 0;

		all = all && in;
		any = any || in;
	}
	return node->all ? all : any;
}

/* Whom does the node wait for, directly or not, in the set? */
static unsigned
reached_from(const Graph *g, int from, unsigned set)
{
	unsigned	reached = 0;
	bool		changed = true;

	while (changed)
	{
		changed = false;
		for (int i = 0; i < g->n; i++)
			for (int e = 0; e < g->nodes[i].nedges; e++)
			{
				unsigned	to = 1U << g->edges[i][e] & set & ~reached;

				if (to == 0 || (i != from && (reached >> i & 1) == 0))
					continue;
				reached |= to;
				changed = true;
			}
	}
	return reached;
}

/* Is each of the set stuck by the others, and waits for each other one? */
static bool
is_deadlock(const Graph *g, unsigned set)
{
	for (int i = 0; i < g->n; i++)
		if ((set >> i & 1) != 0 &&
			(!holds(&g->nodes[i], set) || reached_from(g, i, set) != set))
			return false;
	return true;
}

/* By trying all sets: the largest deadlock with node 0 in it */
static unsigned
deadlock_of_zero(const Graph *g)
{
	unsigned	largest = 0;

	for (unsigned set = 1; set < 1U << g->n; set += 2)
		if (is_deadlock(g, set))
			largest |= set;
	return largest;
}

static unsigned
set_of(const int *path, int members)
{
	unsigned	set = 0;

	for (int i = 0; i < members; i++)
		set |= 1U << path[i];
	return set;
}

/* Is it a way along edges from 0 that comes back to it, each node once? */
static bool
is_circle(const Graph *g, const int *path, int length)
{
	unsigned	seen = 0;

	if (length < 1 || length > g->n || path[0] != 0)
		return false;
	for (int i = 0; i < length; i++)
	{
		if (path[i] < 0 || path[i] >= g->n || (seen >> path[i] & 1) != 0 ||
			!has_edge(&g->nodes[path[i]], path[(i + 1) % length]))
			return false;
		seen |= 1U << path[i];
	}
	return true;
}

/* Is the found one what it should be: a circle, then others, nobody twice? */
static bool
is_answer(const Graph *g, const int *path, int length, int members)
{
	unsigned	seen = 0;

	if (!is_circle(g, path, length) || members < length || members > g->n)
		return false;
	for (int i = 0; i < members; i++)
	{
		if (path[i] < 0 || path[i] >= g->n || (seen >> path[i] & 1) != 0)
			return false;
		seen |= 1U << path[i];
	}
	return true;
}

/* Expects a deadlock of so many members, 0 for none. */
static void
expect(const Graph *g, int members, const char *name)
{
	int			path[MAX_NODES];
	int			found_members;
	int			found = pgmc_find_cycle(g->nodes, g->n, path, &found_members);

	if (!ok(members == 0 ? found == 0 :
			found > 0 && found_members == members &&
			is_answer(g, path, found, members), "%s", name))
		printf("# length %d, members %d\n", found, found_members);
}

/* ---- known graphs ---- */

static void
test_any(void)
{
	Graph		g;

	start(&g, 1);
	expect(&g, 0, "waits for nobody");
	edge(&g, 0, 0);
	expect(&g, 1, "waits for itself");

	start(&g, 2);
	edge(&g, 0, 1);
	expect(&g, 0, "waits for one that runs");
	edge(&g, 1, 0);
	expect(&g, 2, "two wait for each other");

	start(&g, MAX_NODES);
	for (int i = 0; i < MAX_NODES; i++)
		edge(&g, i, (i + 1) % MAX_NODES);
	expect(&g, MAX_NODES, "a long circle");
	g.nodes[MAX_NODES / 2].nedges = 0;
	expect(&g, 0, "a long circle with a gap");

	start(&g, 4);
	edge(&g, 0, 1);
	edge(&g, 1, 2);
	edge(&g, 2, 3);
	edge(&g, 3, 1);
	expect(&g, 0, "a circle that node 0 only waits for is not its own");

	start(&g, 3);
	edge(&g, 1, 0);
	edge(&g, 2, 1);
	expect(&g, 0, "others wait for node 0, which runs");

	start(&g, 4);
	edge(&g, 0, 3);
	edge(&g, 0, 1);
	edge(&g, 1, 2);
	edge(&g, 2, 3);
	edge(&g, 2, 0);
	expect(&g, 3, "one of several locks leads back");
}

/* 0 has connections a and b of two pools; others wait for either of a pool */
static void
test_all(void)
{
	Graph		g;

	start(&g, 3);
	g.nodes[0].all = true;
	edge(&g, 0, 1);
	edge(&g, 0, 2);
	edge(&g, 1, 0);
	expect(&g, 0, "a pool of two, one holder is free");
	edge(&g, 2, 0);
	expect(&g, 3, "a pool of two, both holders wait for the waiter");

	start(&g, 4);
	g.nodes[0].all = true;
	edge(&g, 0, 1);
	edge(&g, 0, 2);
	edge(&g, 1, 0);
	edge(&g, 2, 3);
	expect(&g, 0, "a pool of two, the second holder waits for one that runs");
	edge(&g, 3, 1);
	expect(&g, 4, "the second holder waits for the first in the end");

	start(&g, 3);
	g.nodes[1].all = true;
	edge(&g, 0, 1);
	edge(&g, 1, 0);
	edge(&g, 1, 2);
	expect(&g, 0, "the other one's pool has a free holder");
	edge(&g, 2, 0);
	expect(&g, 3, "the other one's pool has none");

	start(&g, 3);
	g.nodes[0].all = true;
	edge(&g, 0, 0);
	expect(&g, 1, "all of a pool of one are one's own");
	edge(&g, 0, 1);
	expect(&g, 0, "one of a pool of two is somebody else's");

	start(&g, 2);
	g.nodes[0].all = true;
	g.nodes[1].all = true;
	edge(&g, 1, 0);
	expect(&g, 0, "a pool without holders blocks nobody");

	/* two pools of two, held crosswise: everybody waits for the other pool */
	start(&g, 4);
	for (int i = 0; i < 4; i++)
	{
		g.nodes[i].all = true;
		edge(&g, i, i < 2 ? 2 : 0);
		edge(&g, i, i < 2 ? 3 : 1);
	}
	expect(&g, 4, "two pools, the holders of each wait for the other");
	g.nodes[2].nedges = 1;
	expect(&g, 4, "one of them waits for just one of the pool");
	g.nodes[3].nedges = 0;
	expect(&g, 0, "one of them is free");

	/* stuck, but not by what node 0 could give up */
	start(&g, 5);
	g.nodes[0].all = true;
	edge(&g, 0, 1);
	edge(&g, 0, 2);
	edge(&g, 1, 0);
	edge(&g, 2, 3);
	edge(&g, 3, 2);
	expect(&g, 0, "a pool of two, one holder is in a circle of its own");

	start(&g, 4);
	edge(&g, 0, 1);
	edge(&g, 1, 0);
	edge(&g, 1, 2);
	edge(&g, 2, 3);
	edge(&g, 3, 2);
	expect(&g, 2, "another deadlock behind one's own");

	/* 0 and 1 hold a pool and wait for 2 and 3, who wait for the pool */
	start(&g, 4);
	edge(&g, 0, 2);
	edge(&g, 1, 3);
	for (int i = 2; i < 4; i++)
	{
		g.nodes[i].all = true;
		edge(&g, i, 0);
		edge(&g, i, 1);
	}
	expect(&g, 4, "each holder of a pool waits for another waiter");
}

/* ---- random graphs ---- */

static void
make_random(Graph *g)
{
	int			n = 1 + tap_random(MAX_NODES - 1);
	uint32		density = 1 + tap_random(4);

	start(g, n);
	for (int i = 0; i < n; i++)
	{
		g->nodes[i].all = tap_random(3) == 0;
		for (uint32 e = tap_random(density + 1); e > 0; e--)
			edge(g, i, (int) tap_random(n));
	}
}

static void
show(const Graph *g)
{
	for (int i = 0; i < g->n; i++)
	{
		printf("# %d %s", i, g->nodes[i].all ? "all" : "any");
		for (int e = 0; e < g->nodes[i].nedges; e++)
			printf(" %d", g->nodes[i].edges[e]);
		printf("\n");
	}
}

static void
test_random(void)
{
	Graph		g;
	int			path[MAX_NODES];
	int			wrong = 0;
	int			circles = 0;

	for (int i = 0; i < GRAPHS && wrong == 0; i++)
	{
		int			length;
		int			members;

		make_random(&g);
		length = pgmc_find_cycle(g.nodes, g.n, path, &members);
		if (set_of(path, members) != deadlock_of_zero(&g) ||
			(length > 0 && !is_answer(&g, path, length, members)))
		{
			show(&g);
			wrong++;
		}
		circles += length > 0;
	}
	ok(wrong == 0, "%d random graphs, as by the definition", GRAPHS);
	ok(circles > GRAPHS / 20 && circles < GRAPHS * 19 / 20,
	   "both kinds of them: %d deadlocks", circles);
}

int
main(void)
{
	test_any();
	test_all();
	test_random();
	return done_testing();
}
