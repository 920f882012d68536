/*
 * hooks.c
 *		What pgmc notices of other commands in a session that has loaded it:
 *		DISCARD ALL, and changes of servers, user mappings and roles.
 *
 * Nothing depends on these: a connection whose server was dropped in a session
 * without the library is closed when another session of the database acquires
 * one next (see acquire.c), or when it has been idle for long enough.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "commands/extension.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "compat.h"
#include "hooks.h"
#include "registry.h"
#include "session.h"

#define LOOPBACK_NAME	"pgmc_loopback"

static ProcessUtility_hook_type prev_process_utility = NULL;
static object_access_hook_type prev_object_access = NULL;

/* DISCARD ALL leaves a session as if it were new: without holds. */
static void
process_utility(PlannedStmt *pstmt, const char *query_string,
				bool read_only_tree, ProcessUtilityContext context,
				ParamListInfo params, QueryEnvironment *query_env,
				DestReceiver *dest, QueryCompletion *qc)
{
	bool		discard_all = IsA(pstmt->utilityStmt, DiscardStmt) &&
	((DiscardStmt *) pstmt->utilityStmt)->target == DISCARD_ALL;

	if (prev_process_utility)
		prev_process_utility(pstmt, query_string, read_only_tree, context,
							 params, query_env, dest, qc);
	else
		standard_ProcessUtility(pstmt, query_string, read_only_tree, context,
								params, query_env, dest, qc);
	if (discard_all)
		(void) pgmc_session_release_all();
}

/*
 * A row as the command that is running has made it, which no other snapshot
 * sees yet; a copy, or NULL.
 */
static HeapTuple
row_as_changed(Oid relid, Oid indexid, AttrNumber column, Oid oid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, column, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(oid));
	scan = systable_beginscan(rel, indexid, true, SnapshotSelf, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		tuple = heap_copytuple(tuple);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return tuple;
}

/* The server of a user mapping that this command has just made or changed. */
static Oid
server_of_mapping(Oid umid)
{
	HeapTuple	tuple = row_as_changed(UserMappingRelationId,
									   UserMappingOidIndexId,
									   Anum_pg_user_mapping_oid, umid);

	return HeapTupleIsValid(tuple) ?
		((Form_pg_user_mapping) GETSTRUCT(tuple))->umserver : InvalidOid;
}

/*
 * Does this command change the server's options?  It has not come to its end
 * yet: the cache has the server as it was before.
 */
static bool
options_changed(Oid serverid)
{
	HeapTuple	after = row_as_changed(ForeignServerRelationId,
									   ForeignServerOidIndexId,
									   Anum_pg_foreign_server_oid, serverid);
	HeapTuple	before = SearchSysCache1(FOREIGNSERVEROID,
										 ObjectIdGetDatum(serverid));
	bool		changed = false;

	if (HeapTupleIsValid(before) && HeapTupleIsValid(after))
	{
		bool		was_null;
		bool		is_null;
		Datum		was = SysCacheGetAttr(FOREIGNSERVEROID, before,
										  Anum_pg_foreign_server_srvoptions,
										  &was_null);
		Datum		is = SysCacheGetAttr(FOREIGNSERVEROID, after,
										 Anum_pg_foreign_server_srvoptions,
										 &is_null);

		changed = was_null != is_null ||
			(!was_null && !datum_image_eq(was, is, false, -1));
	}
	if (HeapTupleIsValid(before))
		ReleaseSysCache(before);
	return changed;
}

/* The server that comes with the extension isn't in dumps, nor what is set on it. */
static void
warn_about_loopback(Oid serverid, const char *what)
{
	ForeignServer *server = GetForeignServerExtended(serverid, FSV_MISSING_OK);

	if (creating_extension || server == NULL ||
		strcmp(server->servername, LOOPBACK_NAME) != 0)
		return;
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("pg_dump will not keep %s of server \"%s\"", what,
					LOOPBACK_NAME),
			 errdetail("The server belongs to the extension."),
			 errhint("Create a server of your own: CREATE SERVER ... FOREIGN DATA WRAPPER pgmc.")));
}

/* Not even a lack of shared memory shall make somebody's DROP fail. */
static bool
attach_if_possible(void)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile bool attached = false;

	PG_TRY();
	{
		attached = pgmc_registry_attach_existing();
	}
	PG_CATCH();
	{
		if (!PGMC_SHMEM_NEEDS_SPARE)
			PG_RE_THROW();
		MemoryContextSwitchTo(caller);
		FlushErrorState();
	}
	PG_END_TRY();
	return attached;
}

static void
object_dropped(Oid class_id, Oid object_id)
{
	if (class_id != ForeignServerRelationId &&
		class_id != UserMappingRelationId && class_id != AuthIdRelationId)
		return;
	if (!attach_if_possible())
		return;
	if (class_id == ForeignServerRelationId)
		pgmc_registry_close_matching(MyDatabaseId, object_id, InvalidOid, NULL);
	else if (class_id == UserMappingRelationId)
		pgmc_registry_close_matching(MyDatabaseId, InvalidOid, object_id, NULL);
	else if (class_id == AuthIdRelationId)
	{
		char	   *role = GetUserNameFromId(object_id, true);

		if (role != NULL)
			pgmc_registry_close_matching(InvalidOid, InvalidOid, InvalidOid, role);
	}
}

static void
object_access(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id,
			  void *arg)
{
	if (prev_object_access)
		prev_object_access(access, class_id, object_id, sub_id, arg);
	if (access == OAT_DROP)
		object_dropped(class_id, object_id);
	else if (access == OAT_POST_ALTER && class_id == ForeignServerRelationId)
	{
		if (options_changed(object_id))
			warn_about_loopback(object_id, "changed options");
	}
	else if ((access == OAT_POST_CREATE || access == OAT_POST_ALTER) &&
			 class_id == UserMappingRelationId)
		warn_about_loopback(server_of_mapping(object_id), "user mappings");
}

void
pgmc_hooks_init(void)
{
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	prev_object_access = object_access_hook;
	object_access_hook = object_access;
}
