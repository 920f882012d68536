/*
 * netcancel.c
 *		Cancelling over the network, without blocking, where libpq can.
 */
#include "postgres.h"

#include "storage/fd.h"
#include "storage/latch.h"

#include "compat.h"
#include "netcancel.h"

#ifdef LIBPQ_HAS_ASYNC_CANCEL

struct PgmcNetCancel
{
	PGcancelConn *conn;
	PostgresPollingStatusType polling;
};

PgmcNetCancel *
pgmc_netcancel_begin(PGconn *conn, MemoryContext context)
{
	PgmcNetCancel *cancel;

	if (!AcquireExternalFD())
		return NULL;
	cancel = MemoryContextAllocZero(context, sizeof(PgmcNetCancel));
	cancel->conn = PQcancelCreate(conn);
	cancel->polling = PGRES_POLLING_WRITING;
	if (cancel->conn == NULL || !PQcancelStart(cancel->conn))
	{
		pgmc_netcancel_free(cancel);
		return NULL;
	}
	return cancel;
}

int
pgmc_netcancel_socket(const PgmcNetCancel *cancel, uint32 *events)
{
	*events = cancel->polling == PGRES_POLLING_WRITING ?
		WL_SOCKET_WRITEABLE : WL_SOCKET_READABLE;
	return PQcancelSocket(cancel->conn);
}

bool
pgmc_netcancel_advance(PgmcNetCancel *cancel)
{
	cancel->polling = PQcancelPoll(cancel->conn);
	if (cancel->polling != PGRES_POLLING_OK &&
		cancel->polling != PGRES_POLLING_FAILED)
		return false;
	pgmc_netcancel_free(cancel);
	return true;
}

void
pgmc_netcancel_free(PgmcNetCancel *cancel)
{
	PQcancelFinish(cancel->conn);
	ReleaseExternalFD();
	pfree(cancel);
}

#else

PgmcNetCancel *
pgmc_netcancel_begin(PGconn *conn, MemoryContext context)
{
	return NULL;
}

int
pgmc_netcancel_socket(const PgmcNetCancel *cancel, uint32 *events)
{
	*events = 0;
	return PGINVALID_SOCKET;
}

bool
pgmc_netcancel_advance(PgmcNetCancel *cancel)
{
	return true;
}

void
pgmc_netcancel_free(PgmcNetCancel *cancel)
{
}

#endif
