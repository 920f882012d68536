/*
 * netcancel.h
 *		Cancelling over the network, without blocking, where libpq can (17 and
 *		later).
 *
 * While a cancel is on its way nothing new may be sent to the backend, or it
 * would be hit instead.  It has arrived once the server has closed the cancel's
 * connection: the server signals the backend before it does that.
 */
#ifndef PGMC_NETCANCEL_H
#define PGMC_NETCANCEL_H

#include "libpq-fe.h"

typedef struct PgmcNetCancel PgmcNetCancel;

/* Begin one; NULL where this can't be done, so that the connection must be closed. */
extern PgmcNetCancel *pgmc_netcancel_begin(PGconn *conn, MemoryContext context);

/* its socket, and the events of it to wait for */
extern int	pgmc_netcancel_socket(const PgmcNetCancel *cancel, uint32 *events);

/* Go on; true when it has ended, well or not, and has been freed. */
extern bool pgmc_netcancel_advance(PgmcNetCancel *cancel);

extern void pgmc_netcancel_free(PgmcNetCancel *cancel);

#endif							/* PGMC_NETCANCEL_H */
