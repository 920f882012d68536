/*
 * transfer.h
 *		How values travel between two servers and stay what they are.
 *
 * Binary format depends on no setting, so it is what values travel in wherever
 * both ends know the type to be the same.  Elsewhere they travel as text, and
 * the reading end adopts the settings that the writing end wrote under.
 */
#ifndef PGMC_TRANSFER_H
#define PGMC_TRANSFER_H

#include "wire.h"

/*
 * Can values of this type of the other end be received in binary format here?
 * Types that are built in are the same everywhere; others only where the other
 * end is our own database.
 */
extern bool pgmc_transfer_binary_ok(Oid type, bool own_database);

/*
 * Are these names of database objects, whose numbers are sent in binary format?
 * These may be others' at the other end, or not be known here yet.
 */
extern bool pgmc_transfer_object_name(Oid type);

/*
 * The send and receive functions of texts convert between the database's
 * encoding and that of this session's client.  What travels to and from the
 * loopback is in the database's encoding, so it is made the client's for the
 * time of a conversion.  Returns what end must be given; no errors between
 * them may escape without a call of end.
 */
extern int	pgmc_transfer_begin_encoding(void);
extern void pgmc_transfer_end_encoding(int saved);

/*
 * Read text as it was written under these settings; convert values from one
 * type to another by way of text, without a loss of digits; or write text so
 * that it is read right under any settings.  All return the GUC nest level for
 * end.
 */
extern int	pgmc_transfer_begin_reading(const PgmcDescribe *desc);
extern int	pgmc_transfer_begin_converting(void);
extern int	pgmc_transfer_begin_writing(void);
extern void pgmc_transfer_end_settings(int nestlevel);

/*
 * A message that was kept in shared memory, perhaps cut, perhaps by a session
 * of a database in another encoding: what can be shown of it here.
 */
extern char *pgmc_transfer_clean(const char *message);

#endif							/* PGMC_TRANSFER_H */
