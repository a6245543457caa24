package inbox

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outboxkit/outboxkit/internal/sqltx"
)

// A message that waits while another's transaction is committed can have its own
// begun and its claim made in the same round trip: two a message instead of
// three. Each transaction still commits one message; what joins them is that
// their statements travel together.

// followFor is how long a worker may keep a connection for that. Others wait for
// connections of the same pool: the service's requests, for example. A handler
// that takes longer would not notice the round trip.
const followFor = 10 * time.Millisecond

// commit commits a's transaction. The message that is returned, if any, is the
// worker's, and its transaction has begun. The error is a's.
func (r *runner) commit(a *attempt) (*share, error) {
	next, b := r.follow(a)
	if next == nil {
		return nil, a.tx.commit(r.patience())
	}
	committed, err := r.commitAndBegin(a.tx, b)
	if err != nil {
		b.close()
		b.own = true // to see why
		r.put(next.lane)
	} else {
		next.tasks[0].begun = b
	}
	switch {
	case err == nil:
		return next, nil
	case committed:
		return nil, nil
	}
	a.plain = true // in case that what came along was at fault
	return nil, err
}

// follow takes a message whose transaction may begin with a's commit, and brings
// it to that point, without waiting for anything. It returns nil for none. Its
// decoding comes later, since it may ask a registry while a's rows are locked,
// and has little time then: it holds a connection.
func (r *runner) follow(a *attempt) (*share, *attempt) {
	if !r.followed(a) {
		return nil, nil
	}
	next, ok := r.poll(r.mayFollow)
	if !ok {
		return nil, nil
	}
	b := &attempt{task: next.tasks[0]}
	b.handler = r.handlers[b.d.Message.Type]
	res := result{what: again} // in a step of its own
	if r.crashes.tryJoin() {
		b.end = r.crashes.leave
		if res.gap = b.handler.breaker.begin(&b.trial); res.gap == nil {
			return &next, b
		}
		b.end()
	}
	r.leaveLane(next.lane, res)
	return nil, nil
}

// mayFollow reports whether t is a message like most.
func (r *runner) mayFollow(t *task) bool {
	h, ok := r.handlers[t.d.Message.Type]
	return ok && !h.overSQL && h.breaker.closed() && t.d.Message.ID != "" && !t.doubtful && !t.own &&
		t.dead == nil && !t.moving && !t.seen && t.ctx.Err() == nil && r.group(t) == nil
}

// followed reports whether something may begin with a's commit. If so, the handler
// has nothing left to work with.
func (r *runner) followed(a *attempt) bool {
	x := a.tx
	if a.doubtful { // its end needs a connection, while what followed it has one: all of a pool's could wait so
		return false
	}
	return x.pgx != nil && !x.since.IsZero() && time.Since(x.since) < r.followFor && !a.plain &&
		r.ctx.Err() == nil && x.owner.Err() == nil && x.conn.PgConn().TxStatus() == 'T' && x.pgx.handOver()
}

// commitAndBegin commits x and begins b's transaction on the same connection, in
// one round trip. If there is an error, nothing of b's has happened, and
// committed says whether x was. A claim waits for another transaction that holds
// the same, and x's result with it: it has been committed by then.
func (r *runner) commitAndBegin(x *transaction, b *attempt) (committed bool, err error) {
	limit, cancel := context.WithTimeout(context.Background(), r.patience()+frozenGrace)
	defer cancel()
	cut := func(owner context.Context) func() bool {
		return context.AfterFunc(owner, func() {
			pause(commitGrace, limit, limit)
			cancel()
		})
	}
	defer cut(x.owner)()
	if b.ctx != x.owner {
		defer cut(b.ctx)()
	}
	queries := &pgx.Batch{}
	queries.Queue("commit").Exec(func(tag pgconn.CommandTag) error {
		if tag.String() == "ROLLBACK" {
			return pgx.ErrTxCommitRollback
		}
		committed = true
		return nil
	})
	queries.Queue("begin isolation level read committed")
	r.opening(b.task, &b.opened).queue(queries)
	b.tx = x.succeed(b.ctx)
	err = b.tx.pgx.Tx.SendBatch(limit, queries).Close() // sets committed
	return committed, err
}

// succeed returns a transaction that comes after x on its connection. x is
// nobody's any more.
func (x *transaction) succeed(owner context.Context) *transaction {
	x.finished = true
	tx := x.pgx.Tx
	return &transaction{Tx: sqltx.Pgx(tx), pgx: &heldTx{Tx: tx}, conn: x.conn, owner: owner, finish: x.finish, since: x.since}
}
