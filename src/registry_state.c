/*
 * registry_state.c
 *		Pools and their queues; the states of connections.
 *
 * All changes of a connection's state are made by pgmc_conn_set_state, and
 * whose turn it is when one becomes available is decided by pgmc_conn_pass_on,
 * whoever calls it: a session or the worker.  Nothing here takes the lock: the
 * caller has it, exclusively where something changes.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "registry_int.h"

/* ---- pools ---- */

bool
pgmc_same_key(const PgmcKey *a, const PgmcKey *b)
{
	return a->serverid == b->serverid && a->dbid == b->dbid &&
		a->umid == b->umid &&
		strncmp(NameStr(a->login), NameStr(b->login), NAMEDATALEN) == 0;
}

bool
pgmc_key_matches(const PgmcKey *key, Oid dbid, Oid serverid, Oid umid,
				 const char *login)
{
	return (!OidIsValid(dbid) || key->dbid == dbid) &&
		(!OidIsValid(serverid) || key->serverid == serverid) &&
		(!OidIsValid(umid) || key->umid == umid) &&
		(login == NULL || strcmp(NameStr(key->login), login) == 0);
}

int
pgmc_pool_find(const PgmcKey *key)
{
	for (int i = 0; i < pgmc_reg->high_water; i++)
		if (pgmc_reg->pools[i].nconns > 0 &&
			pgmc_same_key(&pgmc_reg->pools[i].key, key))
			return i;
	return NOBODY;
}

void
pgmc_pool_set_options(Pool *pool, const PgmcAcquire *acquire)
{
	pool->srvname = acquire->srvname;	/* it may have been renamed */
	pool->size = acquire->pool_size;
	pool->hold_timeout = acquire->hold_timeout;
	pool->idle_hold_timeout = acquire->idle_hold_timeout;
}

int
pgmc_pool_make(const PgmcAcquire *acquire)
{
	for (int i = 0; i < PGMC_MAX_CONNECTIONS; i++)
	{
		Pool	   *pool = &pgmc_reg->pools[i];

		if (pool->nconns > 0)
			continue;
		memset(pool, 0, sizeof(*pool));
		pool->key = acquire->key;
		pool->tally = pgmc_counters_begin(&pgmc_reg->counters, &acquire->key,
										  &acquire->srvname);
		pgmc_pool_set_options(pool, acquire);
		pool->head = pool->tail = NOBODY;
		if (i >= pgmc_reg->high_water)
			pgmc_reg->high_water = i + 1;
		return i;
	}

	/* whoever needs a pool has a connection that is in none */
	Assert(false);
	pg_unreachable();
}

int
pgmc_pool_count_busy(int pool)
{
	int			busy = 0;

	for (int i = 0; i < pgmc_reg->high_water; i++)
		if (pgmc_reg->conns[i].pool == pool &&
			pgmc_reg->conns[i].state != PGMC_CONN_FREE &&
			pgmc_reg->conns[i].state != PGMC_CONN_IDLE)
			busy++;
	return busy;
}

static int
count_held(int pool)
{
	int			held = 0;

	for (int i = 0; i < pgmc_reg->high_water; i++)
		if (pgmc_reg->conns[i].pool == pool &&
			pgmc_reg->conns[i].state == PGMC_CONN_HELD)
			held++;
	return held;
}

bool
pgmc_pool_comes_back(int pool)
{
	const Pool *p = &pgmc_reg->pools[pool];

	if (p->nwaiters > 0 || count_held(pool) >= p->size)
		return false;
	for (int i = 0; i < pgmc_reg->high_water; i++)
		if (pgmc_reg->conns[i].pool == pool && pgmc_reg->conns[i].recovery != 0)
			return true;
	return false;
}

void
pgmc_pool_enqueue(Pool *pool, int procno)
{
	Session    *s = &pgmc_reg->sessions[procno];

	s->pool = pool - pgmc_reg->pools;
	s->queue_number = ++pgmc_reg->last_epoch;
	s->queued_since = GetCurrentTimestamp();
	pg_atomic_write_u64(&s->waits_since, 0);
	s->result = PGMC_QUEUED;
	s->next = NOBODY;
	s->prev = pool->tail;
	if (pool->tail == NOBODY)
		pool->head = procno;
	else
		pgmc_reg->sessions[pool->tail].next = procno;
	pool->tail = procno;
	pool->nwaiters++;
	pgmc_reg->nqueued++;
	pgmc_counters_count(&pgmc_reg->counters, pool->tally, PGMC_COUNT_WAITS);
}

void
pgmc_pool_dequeue(int procno)
{
	Session    *s = &pgmc_reg->sessions[procno];
	Pool	   *pool = &pgmc_reg->pools[s->pool];

	if (s->prev == NOBODY)
		pool->head = s->next;
	else
		pgmc_reg->sessions[s->prev].next = s->next;
	if (s->next == NOBODY)
		pool->tail = s->prev;
	else
		pgmc_reg->sessions[s->next].prev = s->prev;
	pool->nwaiters--;
	pgmc_reg->nqueued--;
	s->pool = NOBODY;
	pgmc_counters_waited(&pgmc_reg->counters, pool->tally, s->queued_since,
						 GetCurrentTimestamp());
}

static void
fail_waiter(int procno, const PgmcFailure *failure)
{
	Session    *s = &pgmc_reg->sessions[procno];

	pgmc_pool_dequeue(procno);
	s->failure = *failure;
	s->result = PGMC_FAILED;
	wake(procno);
}

void
pgmc_pool_fail_waiters(Pool *pool, const PgmcFailure *failure)
{
	while (pool->head != NOBODY)
		fail_waiter(pool->head, failure);
}

void
pgmc_pool_fail_waiters_with(Pool *pool, const PgmcFailure *failure,
							uint64 options_hash)
{
	int			next;

	for (int procno = pool->head; procno != NOBODY; procno = next)
	{
		next = pgmc_reg->sessions[procno].next;
		if (pgmc_reg->sessions[procno].options_hash == options_hash)
			fail_waiter(procno, failure);
	}
}

/* ---- states ---- */

#ifdef USE_ASSERT_CHECKING
static bool
change_allowed(PgmcConnState from, PgmcConnState to)
{
	switch (from)
	{
		case PGMC_CONN_FREE:
			return to == PGMC_CONN_HELD;
		case PGMC_CONN_HELD:
			return true;
		case PGMC_CONN_IDLE:
			return true;
		case PGMC_CONN_RECOVERING:
			return true;
		case PGMC_CONN_CLOSING:
			return to == PGMC_CONN_FREE || to == PGMC_CONN_HELD;
	}
	return false;
}
#endif

void
pgmc_conn_set_state(Conn *conn, PgmcConnState to)
{
	TimestampTz now = GetCurrentTimestamp();

	Assert(change_allowed(conn->state, to));
	if (conn->state == PGMC_CONN_HELD)
		pgmc_counters_held(&pgmc_reg->counters, tally_of(conn),
						   conn->hold_start, now);
	if (to != PGMC_CONN_HELD)
	{
		conn->epoch = 0;
		conn->holder = NOBODY;
		conn->broken = false;
		conn->opening = false;
		pgmc_channel_give(&conn->channel, 0);
	}
	conn->state = to;
	conn->state_since = now;
	if (to == PGMC_CONN_RECOVERING || to == PGMC_CONN_CLOSING)
	{
		if (conn->recovery == 0)
			conn->recovery = ++pgmc_reg->last_epoch;
		call_worker();
		return;
	}
	conn->recovery = 0;
	if (to != PGMC_CONN_HELD && pgmc_reg->worker_outdated)
		call_worker();
	else
		conn->end = PGMC_END_NONE;
}

void
pgmc_conn_close(Conn *conn, PgmcCloseReason why)
{
	conn->close_reason = why;
	pgmc_conn_set_state(conn, PGMC_CONN_CLOSING);
}

/* May this mail go out on this connection, as its sender would send it? */
static bool
suits_mail(const Conn *conn, const PgmcMail *mail)
{
	return mail->length > 0 && conn->open &&
		conn->options_hash == mail->options_hash &&
		(mail->anyhow || (mail->with_password && conn->used_password) ||
		 (mail->own_cluster && conn->same_cluster));
}

void
pgmc_conn_hold(Conn *conn, int procno)
{
	Session    *s = &pgmc_reg->sessions[procno];

	pgmc_conn_set_state(conn, PGMC_CONN_HELD);
	conn->broken = false;		/* it may come from one who has lost it */
	conn->epoch = ++pgmc_reg->last_epoch;
	conn->holder = procno;
	conn->holder_userid = s->userid;
	conn->hold_start = conn->state_since;
	conn->last_session = s->id;
	pg_atomic_write_u32(&conn->commit_xid, 0);
	conn->own_xacts = s->mode == PGMC_ACQUIRE_EXTRA;
	pgmc_counters_count(&pgmc_reg->counters, tally_of(conn),
						PGMC_COUNT_ACQUIRES);
	conn->hold_timeout = pgmc_reg->pools[conn->pool].hold_timeout;
	conn->idle_hold_timeout = pgmc_reg->pools[conn->pool].idle_hold_timeout;
	if (conn->hold_timeout > 0 || conn->idle_hold_timeout > 0)
		call_worker();
	pgmc_channel_give(&conn->channel, conn->epoch);
	s->mailed = suits_mail(conn, &s->mail) &&
		pgmc_channel_post(&conn->channel, conn - pgmc_reg->conns, conn->epoch,
						  s->mail.frame, s->mail.length);
	if (s->mailed)
		pgmc_registry_wake_worker();
}

void
pgmc_conn_leave_pool(Conn *conn)
{
	Pool	   *pool = &pgmc_reg->pools[conn->pool];

	Assert(pool->nconns > 1 || pool->nwaiters == 0);
	pool->nconns--;
	if (pool->nconns == 0)
		pgmc_counters_end(&pgmc_reg->counters, pool->tally);
	while (pgmc_reg->high_water > 0 &&
		   pgmc_reg->conns[pgmc_reg->high_water - 1].state == PGMC_CONN_FREE &&
		   pgmc_reg->pools[pgmc_reg->high_water - 1].nconns == 0)
		pgmc_reg->high_water--;
}

void
pgmc_conn_forget_backend(Conn *conn)
{
	conn->open = false;
	conn->opening = false;
	conn->backend_pid = 0;
	conn->same_cluster = false;
	conn->used_password = false;
	conn->options_hash = 0;
	conn->backend_start = 0;
	conn->expires_at = 0;
	pg_atomic_write_u32(&conn->xact_status, PGMC_XACT_CLOSED);
}

/* is any other connection of its pool of use to waiters? */
static bool
others_open(const Conn *conn)
{
	for (int i = 0; i < pgmc_reg->high_water; i++)
	{
		Conn	   *other = &pgmc_reg->conns[i];

		if (other != conn && other->state != PGMC_CONN_FREE &&
			other->pool == conn->pool && other->open)
			return true;
	}
	return false;
}

void
pgmc_conn_open_failed(Conn *conn, const PgmcFailure *failure,
					  uint64 options_hash)
{
	pgmc_counters_count(&pgmc_reg->counters, tally_of(conn), PGMC_COUNT_FAILURES);
	strlcpy(conn->last_error, failure->message, sizeof(conn->last_error));
	if (!others_open(conn))
		pgmc_pool_fail_waiters_with(&pgmc_reg->pools[conn->pool], failure,
									options_hash);
}

/* ---- whose turn, and with what ---- */

/* the idle connection of a pool that suits a session best, or NULL */
static Conn *
choose_idle(int pool, uint64 session)
{
	Conn	   *best = NULL;

	for (int i = 0; i < pgmc_reg->high_water; i++)
	{
		Conn	   *conn = &pgmc_reg->conns[i];

		if (conn->state != PGMC_CONN_IDLE || conn->pool != pool)
			continue;
		if (conn->last_session == session)
			return conn;
		if (best == NULL || conn->state_since > best->state_since)
			best = conn;
	}
	return best;
}

/* how many more connections there are than pgmc.max_connections allows */
static int
surplus(void)
{
	int			n = -pgmc_reg->max_connections;

	if (pgmc_reg->high_water <= pgmc_reg->max_connections)
		return 0;
	for (int i = 0; i < pgmc_reg->high_water; i++)
		if (pgmc_reg->conns[i].state != PGMC_CONN_FREE &&
			pgmc_reg->conns[i].state != PGMC_CONN_CLOSING)
			n++;
	return n;
}

static Conn *
longest_idle(void)
{
	Conn	   *best = NULL;

	for (int i = 0; i < pgmc_reg->high_water; i++)
	{
		Conn	   *conn = &pgmc_reg->conns[i];

		if (conn->state == PGMC_CONN_IDLE &&
			(best == NULL || conn->state_since < best->state_since))
			best = conn;
	}
	return best;
}

/*
 * A slot for one more connection: a free one, or that of the longest idle
 * connection of any other pool.  NULL when there is none.
 */
static Conn *
choose_slot(void)
{
	Conn	   *free_conn = NULL;
	int			used = 0;

	for (int i = 0; i < Min(pgmc_reg->high_water + 1, PGMC_MAX_CONNECTIONS); i++)
	{
		Conn	   *conn = &pgmc_reg->conns[i];

		if (conn->state == PGMC_CONN_FREE)
		{
			if (free_conn == NULL)
				free_conn = conn;
			continue;
		}
		used++;
	}
	if (used < pgmc_reg->max_connections && free_conn != NULL)
		return free_conn;

	/* where there are too many still, another's place is none for us */
	return used <= pgmc_reg->max_connections ? longest_idle() : NULL;
}

Conn *
pgmc_conn_make_room(void)
{
	Conn	   *conn = choose_slot();

	if (conn == NULL)
		return NULL;
	if (conn->state != PGMC_CONN_FREE)
	{
		pgmc_conn_leave_pool(conn);
		call_worker();
	}
	pgmc_conn_forget_backend(conn);
	conn->last_error[0] = '\0';
	return conn;
}

void
pgmc_conn_join_pool(Conn *conn, int pool)
{
	conn->pool = pool;
	pgmc_reg->pools[pool].nconns++;
	if (conn - pgmc_reg->conns >= pgmc_reg->high_water)
		pgmc_reg->high_water = conn - pgmc_reg->conns + 1;
}

Conn *
pgmc_pool_take(int pool, uint64 session)
{
	const Pool *p = &pgmc_reg->pools[pool];
	Conn	   *conn = choose_idle(pool, session);

	if (conn != NULL &&
		(p->nconns <= p->size || pgmc_pool_count_busy(pool) < p->size))
		return conn;
	if (p->nconns >= p->size)
		return NULL;
	conn = pgmc_conn_make_room();
	if (conn != NULL)
		pgmc_conn_join_pool(conn, pool);
	return conn;
}

/* It is the turn of the head of its pool's queue. */
static void
hand_over(Conn *conn)
{
	int			procno = pgmc_reg->pools[conn->pool].head;
	Session    *s = &pgmc_reg->sessions[procno];

	pgmc_pool_dequeue(procno);
	pgmc_conn_hold(conn, procno);
	s->slot = conn - pgmc_reg->conns;
	s->epoch = conn->epoch;
	s->result = PGMC_GRANTED;

	/* one whose command has gone out may sleep until the reply */
	if (!s->mailed)
		wake(procno);
}

void
pgmc_pool_serve(int pool)
{
	while (pgmc_reg->pools[pool].head != NOBODY)
	{
		int			head = pgmc_reg->pools[pool].head;
		Conn	   *conn = pgmc_pool_take(pool, pgmc_reg->sessions[head].id);

		if (conn == NULL)
			break;
		hand_over(conn);
	}
}

/* the pool that may grow and whose head has waited longest, or NOBODY */
static int
longest_waiting(void)
{
	int			best = NOBODY;
	uint64		number = 0;

	for (int i = 0; i < pgmc_reg->high_water; i++)
	{
		const Pool *pool = &pgmc_reg->pools[i];
		const Session *s;

		if (pool->nconns == 0 || pool->nconns >= pool->size ||
			pool->head == NOBODY)
			continue;
		s = &pgmc_reg->sessions[pool->head];
		if (best == NOBODY || s->queue_number < number)
		{
			best = i;
			number = s->queue_number;
		}
	}
	return best;
}

void
pgmc_pools_grow(void)
{
	while (pgmc_reg->nqueued > 0)
	{
		int			pool = longest_waiting();
		Conn	   *conn;

		if (pool == NOBODY)
			break;
		conn = pgmc_pool_take(pool,
							  pgmc_reg->sessions[pgmc_reg->pools[pool].head].id);
		if (conn == NULL)
			break;
		hand_over(conn);
	}
}

static void
close_surplus(void)
{
	Conn	   *idle;

	while (surplus() > 0 && (idle = longest_idle()) != NULL)
		pgmc_conn_close(idle, PGMC_CLOSE_LIMIT);
}

void
pgmc_conns_limit(int max_connections, TimestampTz as_of)
{
	if (as_of < pgmc_reg->limit_as_of)
		return;
	pgmc_reg->limit_as_of = as_of;
	if (pgmc_reg->max_connections == max_connections)
		return;
	pgmc_reg->max_connections = max_connections;
	close_surplus();
	pgmc_pools_grow();
}

/* A connection is nobody's, and nobody's turn in its pool: of use elsewhere? */
static void
offer_room(void)
{
	pgmc_pools_grow();
	if (pgmc_reg->room_wanted)
	{
		pgmc_reg->room_wanted = false;
		ConditionVariableBroadcast(&pgmc_reg->news);
	}
}

void
pgmc_conn_pass_on(Conn *conn)
{
	Pool	   *pool = &pgmc_reg->pools[conn->pool];
	bool		too_much = pool->nconns > pool->size &&
	pgmc_pool_count_busy(conn->pool) > pool->size;

	if (too_much && conn->open)
		pgmc_conn_close(conn, PGMC_CLOSE_POOL_SIZE);
	else if (!too_much && pool->head != NOBODY)
	{
		hand_over(conn);
		close_surplus();		/* it may have been on its way out */
	}
	else if (conn->open && surplus() > 0)
		pgmc_conn_close(conn, PGMC_CLOSE_LIMIT);
	else
	{
		if (conn->open)
			pgmc_conn_set_state(conn, PGMC_CONN_IDLE);
		else
		{
			pgmc_conn_set_state(conn, PGMC_CONN_FREE);
			pgmc_conn_leave_pool(conn);
		}
		offer_room();
	}
}

/* ---- ends of holds ---- */

bool
pgmc_conn_expired(const Conn *conn)
{
	return conn->open && conn->expires_at != 0 &&
		GetCurrentTimestamp() >= conn->expires_at;
}

void
pgmc_conn_close_expired(Conn *conn)
{
	pgmc_conn_close(conn, conn->expires_at == LONG_AGO ? PGMC_CLOSE_DROPPED :
					conn->expires_at <= conn->backend_start ? PGMC_CLOSE_BLOATED :
					PGMC_CLOSE_LIFETIME);
}

void
pgmc_conn_note_end(Conn *conn, PgmcEnd why, bool in_xact)
{
	in_xact = in_xact && conn->open;
	conn->end = why;
	conn->ended_pid = pgmc_reg->sessions[conn->holder].pid;
	conn->ended_in_xact = in_xact;
	if (in_xact)
		pgmc_counters_count(&pgmc_reg->counters, tally_of(conn),
							why == PGMC_END_RELEASE ? PGMC_COUNT_DIRTY_RELEASES :
							PGMC_COUNT_FORCED_ROLLBACKS);
}

void
pgmc_conn_note_end_from_outside(Conn *conn, PgmcEnd why)
{
	uint32		xact = pg_atomic_read_u32(&conn->xact_status);

	pgmc_conn_note_end(conn, why, !conn->own_xacts && xact != PGMC_XACT_IDLE);
}

bool
pgmc_pid_holds(int pid)
{
	for (int i = 0; pid != 0 && i < pgmc_reg->high_water; i++)
		if (pgmc_reg->conns[i].state == PGMC_CONN_HELD &&
			pgmc_reg->sessions[pgmc_reg->conns[i].holder].pid == pid)
			return true;
	return false;
}

/*
 * Caller has the lock.  A connection that isn't open is soon given away, but
 * not what its holder has sent and not taken: the worker, where there is one,
 * does away with that first.
 */
static void
release_closed(Conn *conn)
{
	if (!pgmc_channel_used(&conn->channel))
		pgmc_conn_pass_on(conn);
	else if (pgmc_reg->worker_state == PGMC_WORKER_RUNNING)
		pgmc_conn_set_state(conn, PGMC_CONN_RECOVERING);
	else
	{
		pgmc_channel_empty(&conn->channel);
		pgmc_conn_pass_on(conn);
	}
}

void
pgmc_conn_release(Conn *conn, PgmcRelease how)
{
	if (!conn->open && !conn->opening)
		release_closed(conn);
	else if (how == PGMC_RELEASE_CLEAN && pgmc_conn_expired(conn))
		pgmc_conn_close_expired(conn);
	else if (how == PGMC_RELEASE_CLEAN && !conn->opening &&
			 !(conn->same_cluster && pgmc_pid_holds(conn->backend_pid)))
		pgmc_conn_pass_on(conn);
	else if (how == PGMC_RELEASE_CLOSE)
		pgmc_conn_close(conn, PGMC_CLOSE_ASKED);
	else
		pgmc_conn_set_state(conn, PGMC_CONN_RECOVERING);
}
