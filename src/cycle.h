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
 * Is node 0 part of a deadlock?  If so, members (room for nnodes) is set to who
 * is: the largest set of nodes with node 0 in it such that each of them is
 * stuck if only those in the set are, and each waits for each other, directly
 * or not.  The members of a deadlock all find the same set.  Who only waits
 * behind a deadlock isn't in it: that is for its own members to break.
 *
 * What can't be reduced any more by taking out those who can go on, as in
 * graphs of alternative resources (Knapp, "Deadlock detection in distributed
 * databases", ACM Computing Surveys 19, 1987).  Time: nodes squared x edges.
 */
extern bool pgmc_find_deadlock(const PgmcNode *nodes, int nnodes, bool *members);

/*
 * The same, and path (room for nnodes) is set to a shortest way back to node 0
 * among the members: node 0 first, each waiting for the next, the last one for
 * node 0; returned is its length.  0: node 0 is in no deadlock.
 */
extern int	pgmc_find_cycle(const PgmcNode *nodes, int nnodes, int *path);

#endif							/* PGMC_CYCLE_H */
