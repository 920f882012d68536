/*
 * wire.h
 *		The messages between the holder of a connection and the worker.
 *
 * A message is a frame: eight bytes of header, then the payload.  Everything is
 * in the machine's own byte order, for both ends are processes of one server.
 * This module only arranges bytes: it knows no channel, no libpq, no catalog,
 * and can be tested without a server.
 *
 * The holder sends one request and reads its replies until a final one
 * (PGMC_REPLY_DONE or PGMC_REPLY_LOST) before it sends the next.
 *
 * A request to execute a command for many sets of parameters goes on: its head
 * has the types and formats only, and frames with any number of whole sets
 * follow, up to one that is flagged as the last.  Meanwhile the holder takes
 * what the worker has to say, notices for instance.  After an error it need
 * not send the other sets, but the last frame it must, unless the connection
 * is lost: only so does the worker know where the next request begins.
 */
#ifndef PGMC_WIRE_H
#define PGMC_WIRE_H

#include "lib/stringinfo.h"

#define PGMC_FRAME_SIZE 8

typedef struct PgmcFrame
{
	uint32		length;			/* of the payload */
	uint8		type;			/* PGMC_REQUEST_... or PGMC_REPLY_... */
	uint8		flags;
	uint16		seq;			/* the request's number, echoed by its replies */
} PgmcFrame;

/* what the holder asks */
#define PGMC_REQUEST_OPEN		'O' /* PgmcOpen */
#define PGMC_REQUEST_EXECUTE	'E' /* PgmcExecute */
#define PGMC_REQUEST_FORMAT		'F' /* answer to a PGMC_DESCRIBE_ASK: flags
									 * say which format the rows shall have */
#define PGMC_REQUEST_COMMIT		'C' /* no payload */
#define PGMC_REQUEST_ROLLBACK	'R' /* no payload */
#define PGMC_REQUEST_SETS		'S' /* sets of parameters, one after the
									 * other; per parameter: int32 length or
									 * -1, bytes, a zero byte */

/* what the worker answers */
#define PGMC_REPLY_DESCRIBE		'T' /* PgmcDescribe */
#define PGMC_REPLY_ROW			'D' /* per column: int32 length or -1, bytes */
#define PGMC_REPLY_NOTICE		'N' /* fields */
#define PGMC_REPLY_ERROR		'E' /* fields; a PGMC_REPLY_DONE follows */
#define PGMC_REPLY_DONE			'Z' /* PgmcDone: the request has ended */
#define PGMC_REPLY_LOST			'L' /* fields: so has the connection */

/* flags of PGMC_REQUEST_EXECUTE and PGMC_REQUEST_FORMAT */
#define PGMC_EXEC_ROWS			0x01	/* send the rows, don't just count
										 * them */
#define PGMC_EXEC_BEGIN			0x02	/* start a transaction where none is
										 * open */
#define PGMC_EXEC_AUTONOMOUS	0x04	/* leave no transaction open */
#define PGMC_EXEC_BINARY		0x08	/* rows in binary format */
#define PGMC_EXEC_ASK			0x10	/* describe first, wait for the format */
#define PGMC_EXEC_AUTOCOMMIT	0x20	/* outside transactions it commits
										 * itself */
#define PGMC_EXEC_MANY			0x40	/* without values: PGMC_REQUEST_SETS
										 * follow */

/* flags of PGMC_REQUEST_SETS */
#define PGMC_SETS_LAST			0x01	/* there are no more */

/* flags of PGMC_REPLY_DESCRIBE */
#define PGMC_DESCRIBE_BINARY	0x01	/* the rows come in binary format */
#define PGMC_DESCRIBE_ASK		0x02	/* the worker waits for the format */
#define PGMC_DESCRIBE_SEVERAL	0x04	/* results of further commands may
										 * follow */

/* flags of PGMC_REPLY_DONE */
#define PGMC_DONE_LEFT_OPEN		0x01	/* autonomous left a transaction:
										 * rolled back */
#define PGMC_DONE_NOT_COMMITTED 0x02	/* a commit ended as a rollback */
#define PGMC_DONE_COPY			0x04	/* the command was a COPY to or from
										 * us */
#define PGMC_DONE_REFUSED		0x08	/* the worker did not even try */
#define PGMC_DONE_LOST			0x10	/* done, but the connection was lost
										 * since */
#define PGMC_DONE_OWN_COMMIT	0x20	/* a COMMIT of the holder's own has
										 * taken place */
#define PGMC_DONE_PASSWORD		0x40	/* of an opening: it used a password */
#define PGMC_DONE_OWN_CLUSTER	0x80	/* it leads to this very cluster */

/* PgmcOpen: everything a connection needs to be made and kept */
typedef struct PgmcOpen
{
	uint64		session;
	uint64		options_hash;	/* to tell later whether the options changed */
	int32		connect_timeout;	/* milliseconds for the whole attempt */
	int32		idle_timeout;	/* milliseconds; 0: never closed for idling */
	int32		max_lifetime;	/* milliseconds; 0: as long as it lasts */
	int32		npairs;			/* libpq keywords and values */
	const char **keywords;		/* NULL-terminated */
	const char **values;
	const char *reset_query;	/* "" for none */
} PgmcOpen;

typedef struct PgmcParam
{
	Oid			type;			/* 0: the server infers it */
	int32		length;			/* -1 for NULL */
	int32		format;			/* 0 text, 1 binary */
	const char *value;			/* followed by a zero byte when decoded */
} PgmcParam;

typedef struct PgmcExecute
{
	uint64		session;
	const char *command;
	int32		nparams;
	PgmcParam  *params;
} PgmcExecute;

typedef struct PgmcColumn
{
	Oid			type;
	int32		typmod;
} PgmcColumn;

/* the settings a text value depends on; "" where rows are binary */
typedef struct PgmcDescribe
{
	int32		ncolumns;
	PgmcColumn *columns;
	const char *datestyle;
	const char *intervalstyle;
	const char *timezone;
} PgmcDescribe;

typedef struct PgmcDone
{
	int32		xact_status;	/* a PgmcXactStatus */
	int64		rows;			/* affected, or returned */
} PgmcDone;

/* an error or notice; NULL for what it doesn't have */
typedef struct PgmcFields
{
	const char *severity;
	const char *sqlstate;
	const char *message;
	const char *detail;
	const char *hint;
	const char *context;
	const char *position;
	const char *internal_position;
	const char *internal_query;
	const char *schema;
	const char *table;
	const char *column;
	const char *datatype;
	const char *constraint;
} PgmcFields;

/* transaction status of a connection; values are kept in shared memory */
typedef enum PgmcXactStatus
{
	PGMC_XACT_CLOSED = 0,		/* no connection */
	PGMC_XACT_IDLE,
	PGMC_XACT_ACTIVE,
	PGMC_XACT_INTRANS,
	PGMC_XACT_INERROR,
	PGMC_XACT_UNKNOWN
} PgmcXactStatus;

/*
 * Encoders append one whole frame to buf (raising 53200 as StringInfo does).
 * wire_begin and wire_end make a frame of whatever is appended between them.
 */
extern void pgmc_wire_header(char *dst, uint8 type, uint8 flags, uint16 seq,
							 uint32 length);
extern int	pgmc_wire_begin(StringInfo buf, uint8 type, uint8 flags, uint16 seq);
extern void pgmc_wire_end(StringInfo buf, int begin);
extern void pgmc_wire_open(StringInfo buf, uint16 seq, const PgmcOpen *open);
extern Size pgmc_wire_execute_size(const PgmcExecute *exec);
extern void pgmc_wire_execute_head(StringInfo buf, uint8 flags, uint16 seq,
								   const PgmcExecute *exec);

/* append one value of a set to a frame of sets that was begun */
extern void pgmc_wire_set_null(StringInfo buf);
extern void pgmc_wire_set_value(StringInfo buf, const char *value, int length);
extern void pgmc_wire_describe(StringInfo buf, uint8 flags, uint16 seq,
							   const PgmcDescribe *desc);
extern void pgmc_wire_fields(StringInfo buf, uint8 type, uint16 seq,
							 const PgmcFields *fields);
extern void pgmc_wire_done(StringInfo buf, uint8 flags, uint16 seq,
						   const PgmcDone *done);

/*
 * Decoders read a payload; what they return points into it, and the arrays are
 * palloc'd.  False when the payload is not what it should be: no byte outside
 * [data, data + length) is looked at, whatever it says.
 */
extern void pgmc_wire_read_header(const char *src, PgmcFrame *frame);
extern bool pgmc_wire_read_open(const char *data, Size length, PgmcOpen *open);
extern bool pgmc_wire_read_execute(const char *data, Size length,
								   PgmcExecute *exec);

/*
 * Read the set at *at, of n values, into arrays that the caller has: NULL and
 * length 0 for a NULL.  Moves *at behind it.
 */
extern bool pgmc_wire_read_set(const char **at, const char *end, int n,
							   const char **values, int *lengths);
extern bool pgmc_wire_read_describe(const char *data, Size length,
									PgmcDescribe *desc);
extern bool pgmc_wire_read_fields(const char *data, Size length,
								  PgmcFields *fields);
extern bool pgmc_wire_read_done(const char *data, Size length, PgmcDone *done);

#endif							/* PGMC_WIRE_H */
