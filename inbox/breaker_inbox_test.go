package inbox_test

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
)

// paid is a second event type, in a topic of its own.
var paid = event.Type[order]{Name: "shop.order.paid", Topic: "payments", Key: func(o order) string { return o.ID }, Codec: jsonCodec{}}

func payment(key string, n int) brokers.Message {
	m := message(key, n)
	m.Topic, m.Type = paid.Topic, paid.Name
	return m
}

// dependency is what a handler needs, and may be away.
type dependency struct {
	away          atomic.Bool
	calls         atomic.Int64
	running, peak atomic.Int64
	together      int64 // calls that must have begun before the first one ends
	err           error
}

func (d *dependency) call(ctx context.Context) error {
	d.calls.Add(1)
	n := d.running.Add(1)
	defer d.running.Add(-1)
	for p := d.peak.Load(); n > p && !d.peak.CompareAndSwap(p, n); p = d.peak.Load() {
	}
	for d.calls.Load() < d.together && ctx.Err() == nil {
		runtime.Gosched()
	}
	if d.away.Load() {
		return d.err
	}
	return nil
}

func needs(d *dependency) func(context.Context, pgx.Tx, inbox.Event[order]) error {
	return func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
		if err := d.call(ctx); err != nil {
			return err
		}
		return insert("inventory")(ctx, tx, e)
	}
}

func circuitOpen(in *running) func() bool {
	return func() bool { return len(in.Stats().Circuits) == 1 }
}

// inOrder reports how many effects came before an earlier one of their key.
func (w *world) outOfOrder() int {
	return w.count(`SELECT count(*) FROM (SELECT n, lag(n, 1, -1) OVER (PARTITION BY key ORDER BY at) before FROM effect) o WHERE n < before`)
}

// An outage of what the handler needs pauses consumption: nothing dies, nothing
// is lost, order is kept, and afterwards everything goes on by itself. With many
// keys, with few, and where the handler says what is the matter.
func TestOutageMakesNoDeadLetters(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		keys int
		err  error
	}{
		"many keys":               {60, errBroken},
		"three keys":              {3, errBroken},
		"one key that says so":    {1, inbox.Unavailable(errBroken)},
		"many keys that say so":   {60, fmt.Errorf("stock: %w", inbox.Unavailable(errBroken))},
		"database of their own":   {60, brokerAway},
		"many keys that time out": {60, context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			d := &dependency{err: tt.err, together: int64(min(tt.keys, 3))}
			d.away.Store(true)
			const events = 180
			for n := range events {
				w.publish(message(fmt.Sprint("k", n%tt.keys), n))
			}
			cfg := w.config("inventory")
			cfg.Attempts = 2
			if tt.keys == 3 {
				cfg.Attempts = 4 // so that the third has failed once before the first has used them up
			}
			in := w.start(cfg, needs(d))
			eventually(t, "the circuit to open", circuitOpen(in))
			c := in.Stats().Circuits[0]
			require.Equal(t, placed.Name, c.Type)
			require.Contains(t, c.Error, tt.err.Error())
			require.WithinDuration(t, time.Now(), c.Since, patience)

			before := d.calls.Load()
			eventually(t, "handlers that were let through before it opened to come to their end", func() bool {
				return d.calls.Load() > before+16 && d.running.Load() == 0
			})
			before = d.calls.Load()
			d.peak.Store(0)
			eventually(t, "more probes than anybody has attempts", func() bool { return d.calls.Load() > before+10 })
			require.LessOrEqual(t, d.peak.Load(), int64(1), "single probes")
			require.Empty(t, w.dead())
			require.Zero(t, w.effects())
			d.away.Store(false)
			w.settled("inventory")
			require.NoError(t, in.end())
			require.Empty(t, w.dead())
			require.Equal(t, events, w.effects())
			require.Zero(t, w.outOfOrder())
			require.Nil(t, in.Stats().Circuits)
		})
	}
}

var brokerAway = &brokers.Error{Class: brokers.ClassUnavailable, Err: errBroken}

// Every tenth message is bad: they die, the others go on, and no circuit opens.
func TestPoisonAtTenPercentOpensNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config("inventory")
	log := &lines{}
	cfg.Logger = log.logger()
	const events = 1000
	for n := range events {
		w.publish(message(fmt.Sprint("k", n), n))
	}
	in := w.start(cfg, func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
		if e.Data.N%10 == 3 {
			return errBroken
		}
		return insert("inventory")(ctx, tx, e)
	})
	w.settled("inventory")
	require.NoError(t, in.end())
	require.Equal(t, events-events/10, w.effects())
	require.Len(t, w.dead(), events/10)
	require.False(t, log.has("circuit open"))
	require.Equal(t, inbox.Stats{Handled: events - events/10, Failures: 3 * events / 10, DeadLettered: events / 10}, in.Stats())
}

// Every message is bad: consumption of that type stays paused, with single
// probes and a line in the log that says what to do; another type goes on, also
// when the first has filled up what may be in flight.
func TestPoisonAtHundredPercentWaitsForAPerson(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.broker.CreateTopic(paid.Topic, 1, 0)
	log := &lines{}
	cfg := w.config("inventory")
	cfg.From = w.broker.Subscriber("inventory", "orders", paid.Topic)
	cfg.Logger = log.logger()
	cfg.MaxInFlight = 64
	in, err := inbox.New(w.pool, cfg)
	require.NoError(t, err)
	var mended atomic.Bool
	var running, peak, calls atomic.Int64
	inbox.On(in, placed, func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
		calls.Add(1)
		peak.Store(max(peak.Load(), running.Add(1)))
		defer running.Add(-1)
		if !mended.Load() {
			return errBroken
		}
		return insert("orders")(ctx, tx, e)
	})
	inbox.On(in, paid, insert("payments"))
	const events = 200
	for n := range events {
		w.publish(message(fmt.Sprint("k", n), n))
	}
	r := run(t, in)
	eventually(t, "the circuit to open", circuitOpen(r))
	before := calls.Load()
	peak.Store(0)
	for n := range events {
		w.publish(payment(fmt.Sprint("k", n), n))
	}
	eventually(t, "the other topic", func() bool { return w.broker.Unacked("inventory", paid.Topic) == 0 })
	eventually(t, "some probes", func() bool { return calls.Load() > before+10 })
	require.LessOrEqual(t, peak.Load(), int64(1))
	require.Equal(t, events, w.count(`SELECT count(*) FROM effect WHERE consumer = 'payments'`))
	require.Empty(t, w.dead())
	require.Equal(t, events, w.broker.Unacked("inventory", "orders"))
	require.Equal(t, 1, log.count("circuit open"), "told once, not with every probe")
	require.True(t, log.has("inbox.Permanent"), "what to do")
	require.Zero(t, log.count("circuit closed"))

	mended.Store(true)
	w.settled("inventory")
	require.NoError(t, r.end())
	require.Equal(t, 2*events, w.effects())
	require.Equal(t, 1, log.count("circuit closed"))
}

// Permanent errors and bytes that do not parse are the event's own fault: they
// die while the circuit is open, too.
func TestPermanentErrorsDieWhileTheCircuitIsOpen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := &dependency{err: inbox.Unavailable(errBroken)}
	d.away.Store(true)
	in := w.start(w.config("inventory"), func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
		if e.Data.N < 0 {
			return inbox.Permanent(errBroken)
		}
		return needs(d)(ctx, tx, e)
	})
	w.publish(message("a", 1))
	eventually(t, "the circuit to open", circuitOpen(in))
	garbage := message("b", 2)
	garbage.Payload = []byte("{")
	w.publish(garbage, message("c", -1))
	eventually(t, "both to die", func() bool { return in.Stats().DeadLettered == 2 })
	require.NotNil(t, in.Stats().Circuits)
	d.away.Store(false)
	w.settled("inventory")
	require.NoError(t, in.end())
	require.Equal(t, 1, w.effects())
}

func TestWithoutBreakerAllDie(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config("inventory")
	cfg.Breaker = new(false)
	for n := range 50 {
		w.publish(message(fmt.Sprint("k", n), n))
	}
	in := w.start(cfg, failing)
	w.settled("inventory")
	require.NoError(t, in.end())
	require.Len(t, w.dead(), 50)
}

// A stop does not wait for an open circuit.
func TestStopWhileACircuitIsOpen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config("inventory")
	cfg.RetryBase, cfg.RetryMax = time.Hour, time.Hour
	for n := range 50 {
		w.publish(message(fmt.Sprint("k", n), n))
	}
	in := w.start(cfg, func(context.Context, pgx.Tx, inbox.Event[order]) error { return inbox.Unavailable(errBroken) })
	eventually(t, "all to wait", func() bool {
		c := in.Stats().Circuits
		return len(c) == 1 && c[0].Waiting == 50
	})
	require.NoError(t, in.end())
	require.Equal(t, 50, w.broker.Unacked("inventory", "orders"))
	require.Zero(t, w.broker.Ahead("inventory", "orders"), "all given back")
	require.Empty(t, w.dead())
}

// Every eighth message fails at first. Retries run beside each other only as
// far as successes have paid for them: a fifth.
func TestRetriesAreAShareOfTheTraffic(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config("inventory")
	cfg.RetryBase, cfg.RetryMax = time.Nanosecond, time.Nanosecond
	cfg.Attempts = 6
	const events = 1600
	for n := range events {
		w.publish(message(fmt.Sprint("k", n), n))
	}
	var retrying, beside, retries, successes atomic.Int64
	seen := make([]atomic.Int64, events)
	in := w.start(cfg, func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
		attempt := seen[e.Data.N].Add(1)
		if attempt > 1 {
			retries.Add(1)
			if retrying.Add(1) > 1 {
				beside.Add(1)
			}
			defer retrying.Add(-1)
			work := time.NewTimer(3 * time.Millisecond) // as long as others need to begin
			defer work.Stop()
			<-work.C
		}
		if e.Data.N%8 == 0 && attempt < 5 {
			return errBroken
		}
		successes.Add(1)
		return insert("inventory")(ctx, tx, e)
	})
	w.settled("inventory")
	require.NoError(t, in.end())
	require.Equal(t, events, w.effects())
	require.EqualValues(t, events/8*4, retries.Load())
	require.LessOrEqual(t, beside.Load(), successes.Load()/5+10, "the first few are free")
	t.Logf("%d retries, %d of them beside another, %d successes", retries.Load(), beside.Load(), successes.Load())
}
