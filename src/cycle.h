/*
 * cycle.h
 *		Finding a deadlock in a graph of who waits for whom.  Pure.
 */
#ifndef PGMC_CYCLE_H
#define PGMC_CYCLE_H

/*
 * A process that waits.  One that waits for locks, or for a reply, is stuck if
 * any of those it waits for is; one that waits for whichever connection of a
 * pool comes back first is stuck only if all of their holders are.
 */
typedef struct PgmcNode
{
	bool		all;			/* stuck only if all edges lead to one who is */
	int			nedges;
	int		   *edges;			/* indexes of nodes */
} PgmcNode;

/*
 * Is node 0 part of a deadlock?  If so, path (room for nnodes) begins with a
 * way back to it: node 0 first, each waiting for the next, the last one for
 * node 0; returned is its length.  0: no deadlock through node 0.
 *
 * A deadlock is one of these:
 *
 * Node 0 waits, in the end, for itself, whichever connection of a pool comes
 * back.  Least fixed point over the and/or graph, as for deadlocks in systems
 * with alternative resources (Knapp, "Deadlock detection in distributed
 * databases", ACM Computing Surveys 19, 1987): a node is in the set if its
 * condition holds of nodes that were in it before.
 *
 * Or it is in a knot: nobody of those it waits for, directly or not, can ever
 * go on, and all of them wait for node 0, directly or not.  So it is with two
 * pools if the holders of each wait for the other: each of them could be
 * helped by either of two, and neither comes.
 *
 * Those who must agree on the one who breaks it are the first *members of
 * path: the circle, or all of the knot.  A circle or knot that avoids node 0
 * is not found: it is for its own members to break.  Time: nodes x edges.
 */
extern int	pgmc_find_cycle(const PgmcNode *nodes, int nnodes, int *path,
							int *members);

#endif							/* PGMC_CYCLE_H */
