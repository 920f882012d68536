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

#define NOT_IN	(-1)

/*
 * Does the node's condition hold of the set?  Returns the edge to go on along,
 * or NOT_IN.  next[n] is NOT_IN for nodes outside of the set.
 */
static int
follow(const PgmcNode *node, const int *next)
{
	int			found = NOT_IN;

	for (int i = 0; i < node->nedges; i++)
	{
		bool		in = node->edges[i] == 0 || next[node->edges[i]] != NOT_IN;

		if (in && !node->all)
			return node->edges[i];
		if (!in && node->all)
			return NOT_IN;
		if (in)
			found = node->edges[i];
	}
	return found;
}

int
pgmc_find_cycle(const PgmcNode *nodes, int nnodes, int *path)
{
	int		   *next = palloc(nnodes * sizeof(int));
	bool		changed = true;
	int			length = 0;
	int			first;

	for (int i = 0; i < nnodes; i++)
		next[i] = NOT_IN;
	while (changed)
	{
		changed = false;
		for (int i = 1; i < nnodes; i++)
		{
			if (next[i] != NOT_IN)
				continue;
			next[i] = follow(&nodes[i], next);
			changed = changed || next[i] != NOT_IN;
		}
	}

	first = follow(&nodes[0], next);
	if (first != NOT_IN)
	{
		/* each step goes to a node that was in the set earlier, so this ends */
		path[length++] = 0;
		for (int at = first; at != 0; at = next[at])
			path[length++] = at;
	}
	pfree(next);
	return length;
}
