package relay

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Relay publishes an outbox. Make one with [New]; its methods are safe for
// concurrent use.
type Relay struct {
	pool    *pgxpool.Pool
	cfg     Config
	tune    tuning
	q       queries
	schemas *schemaCache
	engines []*engine
	running atomic.Bool
	life    life // for Health
}

// New checks cfg; it does not touch the database. Give the relay a pool of its
// own, with at least two connections and two more per pipeline: in a pool shared
// with a service's handlers, a busy hour could keep its heartbeat waiting.
func New(pool *pgxpool.Pool, cfg Config) (*Relay, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if pool == nil {
		return nil, errors.New("relay: pool is nil")
	}
	r := &Relay{pool: pool, cfg: cfg, tune: defaultTuning(), q: newQueries(cfg.Schema)}
	r.schemas = newSchemaCache(r)
	for _, p := range cfg.Pipelines {
		r.engines = append(r.engines, newEngine(r, p))
	}
	return r, nil
}

// Run publishes until ctx ends, then stops reading, lets what is in flight
// resolve for up to Config.DrainTimeout, stores the positions, gives up the
// leases and returns nil. Several instances share the work: each holds an equal
// share of the shards of every pipeline that it runs. It outlives outages of database and brokers; it returns an error only when a person has to
// decide: [ErrNotMigrated], a [GrantError], a [FilterError], [ErrForeignCluster],
// [ErrRunning].
func (r *Relay) Run(ctx context.Context) error {
	if !r.running.CompareAndSwap(false, true) {
		return ErrRunning
	}
	defer r.running.Store(false)
	r.expect(time.Now())
	err := r.tenures(ctx)
	if err == nil {
		r.expect(time.Time{})
	}
	return err
}

// expect has Health count from now on; zero = nothing is expected to move.
func (r *Relay) expect(now time.Time) {
	for _, e := range r.engines {
		e.stats.begin(now)
	}
}

// tenures is one tenure after the other, until ctx ends or only a person can help.
func (r *Relay) tenures(ctx context.Context) error {
	pause := jitter(r.tune.retryMax)
	for ctx.Err() == nil {
		began := time.Now()
		err := r.tenure(ctx)
		r.life.left(err)
		switch {
		case err == nil:
			return nil
		case fatal(err):
			return err
		case ctx.Err() != nil: // not worth a line: the relay is stopping anyway
		default:
			r.cfg.Logger.Warn("relay: starting again", "error", err)
		}
		if time.Since(began) > time.Minute {
			pause.Reset()
		}
		sleep(ctx, pause.NextBackOff())
	}
	return nil
}

// tenure is the time from joining under a new name to leaving or being lost. A
// restarted relay never takes up its old name, so that nobody can mistake the
// old process's leases for its own.
type tenure struct {
	r     *Relay
	name  string
	token token
	// work ends when publishing must stop: lease lost, recovery, drain timeout.
	// It outlives the context of Run by up to the drain timeout.
	work context.Context
	end  context.CancelCauseFunc

	mu       sync.Mutex
	deadline time.Time // nothing is published after this
	expiry   *time.Timer
}

func (r *Relay) tenure(ctx context.Context) error {
	t, err := r.begin(ctx)
	if err != nil {
		return err
	}
	r.life.joined(t)
	defer t.end(nil)
	defer context.AfterFunc(ctx, func() {
		drain := time.AfterFunc(r.cfg.DrainTimeout, func() { t.end(errDrained) })
		context.AfterFunc(t.work, func() { drain.Stop() })
	})()

	// The heartbeat goes on while the engines drain.
	side, stopSide := context.WithCancel(t.work)
	var engines, sides sync.WaitGroup
	sides.Go(func() { t.heartbeat(side) })
	sides.Go(func() { t.retain(side) })
	sides.Go(func() {
		select {
		case <-ctx.Done():
			t.retire(side)
		case <-side.Done():
		}
	})
	for _, e := range r.engines {
		engines.Go(func() { e.run(ctx, t) })
	}
	engines.Wait()
	stopSide()
	sides.Wait()
	t.leave(ctx)
	if cause := context.Cause(t.work); cause != nil && !errors.Is(cause, errDrained) {
		return cause
	}
	return nil
}

// begin makes sure that the database is one that this relay can serve, and joins.
func (r *Relay) begin(ctx context.Context) (*tenure, error) {
	if err := r.check(ctx); err != nil {
		return nil, err
	}
	// The token comes first: whatever is read after it is dropped if a recovery
	// came in between.
	token, err := r.incarnation(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.identify(ctx); err != nil {
		return nil, err
	}
	if err := r.checkFilters(ctx); err != nil {
		return nil, err
	}
	return r.join(ctx, token)
}

// pipelines names what this instance runs.
func (r *Relay) pipelines() []string {
	var names []string
	for _, e := range r.engines {
		names = append(names, e.name)
	}
	return names
}

// op bounds one database statement, so that a connection that died silently is
// noticed.
func (r *Relay) op(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, r.tune.opTimeout)
}

// jitter is exponential backoff with full jitter: each pause is random between 0
// and the current bound, which doubles up to longest.
func jitter(longest time.Duration) *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval = min(25*time.Millisecond, longest/2)
	b.Multiplier = 2
	b.RandomizationFactor = 1 // 0 to twice the interval
	b.MaxInterval = longest / 2
	return b
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
