package inbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/dedup"
	"github.com/outboxkit/outboxkit/event"
)

// Inbox handles the messages of one subscriber for one consumer. Its methods may
// be called concurrently.
type Inbox struct {
	pool  *pgxpool.Pool
	cfg   Config
	stats counters

	redrivePoll time.Duration
	followFor   time.Duration

	mu       sync.Mutex
	handlers map[string]handler
	started  bool
	cancel   context.CancelFunc // ends Run; nil before
	failure  error              // why Run ends, or has ended, by itself
}

// New returns an inbox that works on pool's database. It does no input or output.
func New(pool *pgxpool.Pool, cfg Config) (*Inbox, error) {
	if pool == nil {
		return nil, errors.New("inbox: pool is nil")
	}
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	in := &Inbox{pool: pool, cfg: cfg, handlers: map[string]handler{}, redrivePoll: redrivePoll, followFor: followFor}
	if err := in.dedupConfig().Validate(); err != nil {
		return nil, fmt.Errorf("inbox: %w", err)
	}
	return in, nil
}

func (in *Inbox) dedupConfig() dedup.Config {
	return dedup.Config{
		Consumer: in.cfg.Consumer, Schema: in.cfg.Schema,
		WindowDays: in.cfg.WindowDays, TrustedSources: in.cfg.TrustedSources,
	}
}

func (in *Inbox) add(info event.Info, h handler) {
	if err := info.Validate(); err != nil {
		in.abort(fmt.Errorf("inbox: %w", err))
		return
	}
	in.mu.Lock()
	_, taken := in.handlers[info.Name]
	if !taken && !in.started {
		h.breaker = newBreaker(info.Name, in.cfg.breakerLimits(), in.cfg.Logger.With("consumer", in.cfg.Consumer))
		if h.batch != nil {
			h.batch.breaker = h.breaker
		}
		in.handlers[info.Name] = h
	}
	started := in.started
	in.mu.Unlock()
	switch {
	case started:
		in.abort(fmt.Errorf("inbox: handler of %q registered after Run: register all before", info.Name))
	case taken:
		in.abort(fmt.Errorf("inbox: two handlers for %q: one type has one handler", info.Name))
	}
}

// Run handles messages until ctx ends; then it finishes what is running, gives
// back what has not begun, closes Config.From and returns nil once everything is
// settled. The subscriber's drain timeout bounds that: when it has passed, the
// contexts of running handlers end. Run also returns when the subscriber fails
// for good, when a handler's registration was a mistake, or, with UnknownFail,
// at a type that has no handler. An inbox runs once.
func (in *Inbox) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := in.start(cancel); err != nil {
		return err
	}
	var err error
	if in.aborted() == nil {
		err = newRunner(ctx, in).run()
	}
	return errors.Join(err, in.aborted(), in.cfg.From.Close())
}

func (in *Inbox) start(cancel context.CancelFunc) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.started {
		return errors.New("inbox: Run called twice: make a new inbox")
	}
	if len(in.handlers) == 0 && in.failure == nil {
		in.failure = errors.New("inbox: no handler: register one with inbox.On before Run")
	}
	in.started, in.cancel = true, cancel
	return nil
}

// abort makes Run give back what has not begun, finish what is running, and
// return err. The first call counts.
func (in *Inbox) abort(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.failure == nil {
		in.failure = err
	}
	if in.cancel != nil {
		in.cancel()
	}
}

func (in *Inbox) aborted() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.failure
}

// Stats counts messages since New.
type Stats struct {
	Handled      int64 // effects committed
	Duplicates   int64 // acknowledged without effect; also what was committed, but the answer was lost
	Ignored      int64 // of unknown type, acknowledged without effect
	Failures     int64 // failed attempts
	DeadLettered int64 // written to the table dead
	Blocked      int64 // stored behind a dead letter
	Redriven     int64 // dead letters handled by a redrive: effects committed
	Released     int64 // given back to the broker
	// Circuits are the types whose handlers do not work, or just work again, by
	// name; nil if all do. One that stays here needs a person.
	Circuits []Circuit
}

type counters struct {
	handled, duplicates, ignored, failures, deadLettered, blocked, redriven, released atomic.Int64
}

// Stats returns the counts so far.
func (in *Inbox) Stats() Stats {
	c := &in.stats
	return Stats{
		Handled: c.handled.Load(), Duplicates: c.duplicates.Load(), Ignored: c.ignored.Load(), Failures: c.failures.Load(),
		DeadLettered: c.deadLettered.Load(), Blocked: c.blocked.Load(),
		Redriven: c.redriven.Load(), Released: c.released.Load(),
		Circuits: in.circuits(),
	}
}
