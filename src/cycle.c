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

/* The way back to node 0 by edges that are all of waits for node 0 */
static int
find_circle(const PgmcNode *nodes, int nnodes, int *path)
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

/* Will this node go on if all those in the set do? */
static bool
can_go_on(const PgmcNode *node, const bool *going)
{
	bool		any = node->nedges == 0;
	bool		all = true;

	for (int i = 0; i < node->nedges; i++)
	{
		any = any || going[node->edges[i]];
		all = all && going[node->edges[i]];
	}
	return node->all ? any : all;
}

static bool *
find_going(const PgmcNode *nodes, int nnodes)
{
	bool	   *going = palloc0(nnodes * sizeof(bool));
	bool		changed = true;

	while (changed)
	{
		changed = false;
		for (int i = 0; i < nnodes; i++)
		{
			if (going[i] || !can_go_on(&nodes[i], going))
				continue;
			going[i] = changed = true;
		}
	}
	return going;
}

/*
 * Nodes that node 0 waits for and that never go on, nearest first, itself at
 * the head; from[n] is the node on the way to n.  Returns how many.
 */
static int
find_stuck(const PgmcNode *nodes, int nnodes, const bool *going, int *stuck,
		   int *from)
{
	int			n = 0;

	for (int i = 0; i < nnodes; i++)
		from[i] = NOT_IN;
	from[0] = 0;
	stuck[n++] = 0;
	for (int i = 0; i < n; i++)
	{
		const PgmcNode *node = &nodes[stuck[i]];

		for (int k = 0; k < node->nedges; k++)
		{
			int			to = node->edges[k];

			if (going[to] || from[to] != NOT_IN)
				continue;
			from[to] = stuck[i];
			stuck[n++] = to;
		}
	}
	return n;
}

/* Do all of these wait for node 0, directly or not? */
static bool
all_lead_back(const PgmcNode *nodes, int nnodes, const int *stuck, int n)
{
	bool	   *back = palloc0(nnodes * sizeof(bool));
	bool		changed = true;
	int			count = 1;

	back[0] = true;
	while (changed)
	{
		changed = false;
		for (int i = 1; i < n; i++)
		{
			const PgmcNode *node = &nodes[stuck[i]];
			bool		leads = false;

			for (int k = 0; k < node->nedges; k++)
				leads = leads || back[node->edges[k]];
			if (back[stuck[i]] || !leads)
				continue;
			back[stuck[i]] = changed = true;
			count++;
		}
	}
	pfree(back);
	return count == n;
}

static bool
waits_for_first(const PgmcNode *node)
{
	for (int i = 0; i < node->nedges; i++)
		if (node->edges[i] == 0)
			return true;
	return false;
}

/* Put a shortest way back to node 0 into path, the other members behind it. */
static int
arrange_knot(const PgmcNode *nodes, const int *stuck, int n, const int *from,
			 int *path)
{
	int			last = 0;
	int			length = 1;
	int			end = n;

	while (!waits_for_first(&nodes[stuck[last]]))
		last++;
	for (int at = stuck[last]; at != 0; at = from[at])
		length++;
	for (int at = stuck[last], i = length - 1; i >= 0; at = from[at], i--)
		path[i] = at;
	for (int i = n - 1; i >= 0; i--)
	{
		bool		there = false;

		for (int k = 0; k < length; k++)
			there = there || path[k] == stuck[i];
		if (!there)
			path[--end] = stuck[i];
	}
	return length;
}

static int
find_knot(const PgmcNode *nodes, int nnodes, int *path, int *members)
{
	bool	   *going = find_going(nodes, nnodes);
	int		   *stuck = palloc(nnodes * sizeof(int));
	int		   *from = palloc(nnodes * sizeof(int));
	int			length = 0;

	if (!going[0])
	{
		*members = find_stuck(nodes, nnodes, going, stuck, from);
		if (all_lead_back(nodes, nnodes, stuck, *members))
			length = arrange_knot(nodes, stuck, *members, from, path);
	}
	pfree(from);
	pfree(stuck);
	pfree(going);
	return length;
}

int
pgmc_find_cycle(const PgmcNode *nodes, int nnodes, int *path, int *members)
{
	*members = find_circle(nodes, nnodes, path);
	if (*members > 0)
		return *members;
	return find_knot(nodes, nnodes, path, members);
}
