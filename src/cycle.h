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
 * shortest way back to it: node 0 first, each waiting for the next, the last
 * one for node 0; returned is its length.  0: node 0 is in no deadlock.
 *
 * A deadlock is a set of nodes each of which is stuck if only those in the set
 * are, and waits for each other one, directly or not.  The first *members of
 * path are the largest such set that node 0 is in.  All of them find the same
 * one, so they can agree on who breaks it.  It may be more than one circle: so
 * it is with two pools if the holders of each wait for the other.  Who only
 * waits behind a deadlock isn't in it: that is for its members to break.
 *
 * Found by taking out those who can go on, as in graphs of alternative
 * resources (Knapp, "Deadlock detection in distributed databases", ACM
 * Computing Surveys 19, 1987), and those who are in no circle with node 0.
 */
extern int	pgmc_find_cycle(const PgmcNode *nodes, int nnodes, int *path,
							int *members);

#endif							/* PGMC_CYCLE_H */
