package inbox

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/dedup"
	"github.com/outboxkit/outboxkit/internal/planted"
)

// task is one message in flight. It belongs to the worker that has its lane.
type task struct {
	ctx    context.Context //nolint:containedctx // the delivery's: ends when it is no longer ours
	d      *brokers.Delivery
	key    dedup.Key
	hash   int64  // of topic and key; see keyHash
	number uint64 // by which it came; see lanes.add
	size   int64
	quota  *quota // of the room, that its type has

	trial           // attempts, as the type's breaker counts them
	doubtful bool   // a run that has died may have begun it; see crashes
	lost     int    // connections lost while the handler ran
	retry    pauses // that are this message's own
	outage   pauses // while the database is away
	dead     *death // nil while it may be handled
	moving   bool   // its row is written; a copy is to be published

	batch  *batchHandler // nil unless its type's handler takes several
	fate   fate          // in the latest batch
	alone  bool          // in no batch any more: one with it has failed, or it is special
	probed bool          // looked up without a transaction; not done twice
	seen   bool          // found: a duplicate

	begun *attempt // its transaction, which another's commit has begun; see follow
	plain bool     // its commit begins nothing: that has failed
	own   bool     // it follows nobody: that has failed
}

// runner is one Run.
type runner struct {
	*lanes
	cfg      Config
	stats    *counters
	log      *slog.Logger
	quotas   map[string]*quota  // by type
	handlers map[string]handler // not written to any more
	abort    func(error)
	ctx      context.Context //nolint:containedctx // Run's: when it ends, nothing new begins

	pool *pgxpool.Pool
	// plainPool says that taking a connection from the pool does nothing else; the
	// service's own hooks may want to run for each transaction.
	plainPool bool
	db        *sql.DB // the same pool, for OnSQL
	store     *dedup.Postgres
	sql       statements
	crashSQL  crashQueries

	redrivePoll time.Duration
	followFor   time.Duration

	stubborn stubbornHandlers
	crashes  crashes
	away     atomic.Bool // the database is away, and that was logged
	repeats  atomic.Bool // the last messages were duplicates
	unknown  sync.Map    // names of unknown types that were logged
}

func newRunner(ctx context.Context, in *Inbox) *runner {
	r := &runner{
		cfg: in.cfg, stats: &in.stats, log: in.cfg.Logger.With("consumer", in.cfg.Consumer),
		handlers: in.handlers, abort: in.abort, ctx: ctx,
		pool: in.pool, db: stdlib.OpenDBFromPool(in.pool), sql: newStatements(in.cfg.Schema), crashSQL: newCrashQueries(in.cfg.Schema),
		redrivePoll: in.redrivePoll, followFor: in.followFor, quotas: newQuotas(in.handlers),
	}
	hooks := in.pool.Config()
	//lint:ignore SA1019 a service may have set BeforeAcquire
	r.plainPool = hooks.PrepareConn == nil && hooks.BeforeAcquire == nil && hooks.AfterRelease == nil &&
		hooks.ConnConfig.DefaultQueryExecMode != pgx.QueryExecModeDescribeExec // which would describe what follows in the transaction before
	batches := false
	for _, h := range in.handlers {
		batches = batches || h.batch != nil
	}
	r.lanes = newLanes(cmp.Or(in.cfg.MaxInFlight, in.cfg.defaultInFlight(batches)), in.cfg.MaxInFlightBytes, r.group)
	return r
}

func (r *runner) run() error {
	defer r.db.Close() //nolint:errcheck // closes nothing: connections are the pool's
	if err := r.register(); err != nil || r.store == nil {
		return err
	}
	var workers sync.WaitGroup
	workers.Go(r.keepWindow)
	for range r.cfg.Concurrency {
		lend(&workers, func(h *hand) { (&worker{r, h}).work() })
	}
	stopRedriver := r.startRedriver()
	r.log.Info("inbox: consuming", "types", slices.Sorted(maps.Keys(r.handlers)), "concurrency", r.cfg.Concurrency)
	err := r.cfg.From.Subscribe(r.ctx, r.take)
	if err != nil {
		err = fmt.Errorf("inbox: subscribe: %w", err)
	}
	r.abort(err) // the subscriber has ended, whether or not ctx has
	r.inFlight.Wait()
	r.timers.Wait()
	r.lanes.close()
	workers.Wait()
	stopRedriver()
	for _, h := range r.handlers {
		h.breaker.stop()
	}
	r.log.Info("inbox: stopped", "handled", r.stats.handled.Load(), "duplicates", r.stats.duplicates.Load(),
		"dead_letters", r.stats.deadLettered.Load(), "released", r.stats.released.Load())
	if err = r.stubborn.err(); err == nil {
		r.leave()
	}
	return err
}

// register waits for a database that is away; a schema that is missing or
// forbidden is an error. r.store stays nil if ctx ended first.
func (r *runner) register() error {
	pauses := r.backoff(maxOutagePause)
	cfg := dedup.Config{
		Consumer: r.cfg.Consumer, Schema: r.cfg.Schema,
		WindowDays: r.cfg.WindowDays, TrustedSources: r.cfg.TrustedSources,
	}
	for r.ctx.Err() == nil {
		store, err := dedup.NewPostgres(r.ctx, r.pool, cfg)
		if err == nil {
			r.store = store
			err = r.enlist()
		}
		if err == nil {
			r.back()
			return nil
		}
		var pgErr *pgconn.PgError
		if errors.As(err, &pgErr) && !outageCode(pgErr.Code) {
			return fmt.Errorf("inbox: %w", err)
		}
		if r.ctx.Err() == nil {
			r.gone(err)
		}
		pause(pauses.NextBackOff(), r.ctx, r.ctx)
	}
	return nil
}

// take implements brokers.Handle.
func (r *runner) take(ctx context.Context, d *brokers.Delivery) {
	t := &task{
		ctx: ctx, d: d, key: identity(d), size: size(&d.Message),
		retry: pauses{r: r, longest: r.cfg.RetryMax}, outage: pauses{r: r, longest: maxOutagePause}, quota: r.quotas[d.Message.Type],
		batch:    r.handlers[d.Message.Type].batch,
		doubtful: r.crashes.doubt(&d.Origin),
	}
	if planted.Is(planted.AckBeforeCommit) {
		_ = d.Ack()
	}
	if !r.room.take(t.size, t.quota, ctx, r.ctx) {
		r.release(t)
		return
	}
	r.add(t) // also when ctx has ended since: the worker gives it back
}

// group implements lanes.group. Claims in one statement make duplicates in a
// batch cheap; the others are looked up, many at once, where the last ones were
// duplicates or the broker says that it may have delivered this before.
func (r *runner) group(t *task) any {
	switch {
	case t.alone || t.dead != nil || t.moving || t.seen:
		return nil
	case t.batch != nil && !t.doubtful:
		return t.batch
	case !t.probed && (t.d.Redelivered || r.repeats.Load()):
		return probes{}
	}
	return nil
}

// work is one worker: it takes the head of a lane, or what can be taken with it,
// brings it one step on, and lets go of the lanes.
func (r *worker) work() {
	var taken []share
	for {
		var group any
		if taken, group = r.next(r.cfg.BatchSize, taken[:0]); taken == nil {
			return
		}
		switch batch, ok := group.(*batchHandler); {
		case !ok && group != nil:
			r.probe(taken)
		case ok && batch.breaker.closed() && (len(taken) > 1 || len(taken[0].tasks) > 1):
			r.together(batch, taken)
		default:
			for _, s := range taken[1:] {
				r.put(s.lane)
			}
			r.single(taken[0])
		}
	}
}

// single brings the head of a lane one step on, lets go of the lane, and goes on
// with what has begun by then.
func (r *worker) single(s share) {
	for next := &s; next != nil; {
		res := r.step(next.tasks[0])
		r.leaveLane(next.lane, res)
		next = res.next
	}
}

// leaveLane lets go of a lane as a step of its head left it.
func (r *runner) leaveLane(l *lane, res result) {
	switch {
	case res.what == settled:
		r.pop(l)
		r.put(l)
	case res.gap != nil:
		r.await(l, res.gap, r.ctx)
	case res.stubborn != nil:
		r.outlast(l, res.stubborn)
	default:
		r.later(l, res.wait, r.ctx)
	}
}

func (r *runner) release(t *task) {
	if t.breaker != nil {
		t.breaker.spared(&t.trial)
	}
	r.stats.released.Add(1)
	t.d.Release()
}

// maxOutagePause bounds the pauses while the database is away: every worker
// looks by itself, and none should sleep long once it is back.
const maxOutagePause = 5 * time.Second

func (r *runner) backoff(longest time.Duration) *backoff.ExponentialBackOff {
	return &backoff.ExponentialBackOff{
		InitialInterval: r.cfg.RetryBase, MaxInterval: longest, Multiplier: 2, RandomizationFactor: 0.5,
	}
}

// pauses is a backoff that costs nothing before the first pause: most messages
// need none.
type pauses struct {
	r       *runner
	longest time.Duration
	begun   *backoff.ExponentialBackOff
}

func (p *pauses) NextBackOff() time.Duration {
	if p.begun == nil {
		p.begun = p.r.backoff(p.longest)
	}
	return p.begun.NextBackOff()
}

func (p *pauses) Reset() { p.begun = nil }

// gone and back log an outage once.
func (r *runner) gone(err error) {
	if r.away.CompareAndSwap(false, true) {
		r.log.Warn("inbox: the database does not answer; consumption pauses", "error", err)
	}
}

func (r *runner) back() {
	if r.away.Load() && r.away.CompareAndSwap(true, false) {
		r.log.Info("inbox: the database answers; consumption goes on")
	}
}
