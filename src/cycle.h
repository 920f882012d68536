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
 * Is node 0 waiting, in the end, for itself?  If so, path (room for nnodes) is
 * set to a way back to it: node 0 first, each waiting for the next, the last
 * one for node 0; returned is its length.  0: no deadlock through node 0.
 *
 * Least fixed point over the and/or graph, as for deadlocks in systems with
 * alternative resources (Knapp, "Deadlock detection in distributed databases",
 * ACM Computing Surveys 19, 1987): a node is in the set if its condition holds
 * of nodes that were in it before.  A circle that avoids node 0 is not found:
 * it is for its own members to break.  Time: nodes x edges.
 */
extern int	pgmc_find_cycle(const PgmcNode *nodes, int nnodes, int *path);

#endif							/* PGMC_CYCLE_H */
