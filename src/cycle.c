/*
 * cycle.c
 *		Finding a deadlock in a graph of who waits for whom.  Pure.
 */
#ifdef PGMC_UNIT
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include "cycle.h"

#define NO_WAY	(-1)

/* Is the node stuck if those in the set are, and only those? */
static bool
is_stuck(const PgmcNode *node, const bool *set)
{
	for (int i = 0; i < node->nedges; i++)
		if (set[node->edges[i]] != node->all)
			return !node->all;
	return node->all && node->nedges > 0;
}

/* Take those out of the set who can go on, those who then can, and so on. */
static void
take_out_free(const PgmcNode *nodes, int nnodes, bool *set)
{
	bool		changed = true;

	while (changed)
	{
		changed = false;
		for (int i = 0; i < nnodes; i++)
		{
			if (!set[i] || is_stuck(&nodes[i], set))
				continue;
			set[i] = false;
			changed = true;
		}
	}
}

/* the edge of a node that leads nearest to node 0; NO_WAY: none does */
static int
nearest(const PgmcNode *node, const int *distance)
{
	int			best = NO_WAY;

	for (int i = 0; i < node->nedges; i++)
	{
		int			to = node->edges[i];

		if (distance[to] != NO_WAY &&
			(best == NO_WAY || distance[to] < distance[best]))
			best = to;
	}
	return best;
}

/* How many steps is it from each node of the set to node 0, within the set? */
static void
measure_ways(const PgmcNode *nodes, int nnodes, const bool *set, int *distance)
{
	bool		changed = true;

	for (int i = 0; i < nnodes; i++)
		distance[i] = NO_WAY;
	distance[0] = 0;
	for (int d = 0; changed; d++)
	{
		changed = false;
		for (int i = 1; i < nnodes; i++)
		{
			int			to = nearest(&nodes[i], distance);

			/* what was found in this round is for the next one */
			if (!set[i] || distance[i] != NO_WAY || to == NO_WAY ||
				distance[to] != d)
				continue;
			distance[i] = d + 1;
			changed = true;
		}
	}
}

/* Mark whom node 0 waits for, directly or not, within the set. */
static void
mark_reached(const PgmcNode *nodes, int nnodes, const bool *set, bool *reached)
{
	bool		changed = true;

	memset(reached, 0, nnodes * sizeof(bool));
	reached[0] = true;
	while (changed)
	{
		changed = false;
		for (int i = 0; i < nnodes; i++)
			for (int k = 0; reached[i] && k < nodes[i].nedges; k++)
			{
				int			to = nodes[i].edges[k];

				if (!set[to] || reached[to])
					continue;
				reached[to] = changed = true;
			}
	}
}

/* Take those out of the set who are in no circle with node 0; true: some were. */
static bool
take_out_strangers(const PgmcNode *nodes, int nnodes, bool *set)
{
	int		   *distance = palloc(nnodes * sizeof(int));
	bool	   *reached = palloc(nnodes * sizeof(bool));
	bool		any = false;

	measure_ways(nodes, nnodes, set, distance);
	mark_reached(nodes, nnodes, set, reached);
	for (int i = 1; i < nnodes; i++)
	{
		if (!set[i] || (reached[i] && distance[i] != NO_WAY))
			continue;
		set[i] = false;
		any = true;
	}
	pfree(distance);
	pfree(reached);
	return any;
}

/* The largest deadlock with node 0 in it; false: there is none. */
static bool
find_deadlock(const PgmcNode *nodes, int nnodes, bool *set)
{
	for (int i = 0; i < nnodes; i++)
		set[i] = true;
	do
		take_out_free(nodes, nnodes, set);
	while (set[0] && take_out_strangers(nodes, nnodes, set));
	return set[0];
}

/* Put a way back to node 0 into path, and the other members behind it. */
static int
arrange(const PgmcNode *nodes, int nnodes, bool *set, int *path, int *members)
{
	int		   *distance = palloc(nnodes * sizeof(int));
	int			at = 0;
	int			length = 0;

	measure_ways(nodes, nnodes, set, distance);
	do
	{
		path[length++] = at;
		set[at] = false;
		at = nearest(&nodes[at], distance);
	} while (at != 0);
	*members = length;
	for (int i = 0; i < nnodes; i++)
		if (set[i])
			path[(*members)++] = i;
	pfree(distance);
	return length;
}

int
pgmc_find_cycle(const PgmcNode *nodes, int nnodes, int *path, int *members)
{
	bool	   *set = palloc(nnodes * sizeof(bool));
	int			length = 0;

	*members = 0;
	if (find_deadlock(nodes, nnodes, set))
		length = arrange(nodes, nnodes, set, path, members);
	pfree(set);
	return length;
}
