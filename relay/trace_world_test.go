//go:build faults

package relay

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/internal/model"
)

// tracedRelay is a relay whose connections and whose broker can be frozen.
type tracedRelay struct {
	*Relay

	name string
	tr   *trace
	w    *tracedWorld

	mu     sync.Mutex
	frozen chan struct{} // closed when it thaws; nil = it runs
}

// tracedWorld is a few relays of one pipeline.
type tracedWorld struct {
	t      *testing.T
	db     *database
	tr     *trace
	relays []*tracedRelay
	calls  atomic.Int64
	mended atomic.Bool    // no event is refused any more
	late   sync.WaitGroup // messages on their way
}

func (r *tracedRelay) freeze() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.frozen = make(chan struct{})
}

func (r *tracedRelay) thaw() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.frozen)
	r.frozen = nil
}

// wait is called wherever a frozen process would stand still.
func (r *tracedRelay) wait() {
	r.mu.Lock()
	frozen := r.frozen
	r.mu.Unlock()
	if frozen != nil {
		<-frozen
	}
}

type frozenConn struct {
	net.Conn

	r *tracedRelay
}

// Write holds requests back: what the relay has begun is carried out when it thaws,
// late.
func (c frozenConn) Write(b []byte) (int, error) {
	c.r.wait()
	return c.Conn.Write(b)
}

func (w *tracedWorld) start(name string, plant func(*Relay)) *tracedRelay {
	tr := &tracedRelay{name: name, tr: w.tr, w: w}
	cfg := w.db.relay.Config()
	dial := cfg.ConnConfig.DialFunc
	cfg.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		return frozenConn{conn, tr}, err
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	require.NoError(w.t, err)
	w.t.Cleanup(func() { go pool.Close() })
	rc := config(tr)
	rc.Instance, rc.Lease, rc.Retention, rc.DrainTimeout = name, time.Second, 600*time.Millisecond, time.Second
	tr.Relay = parkingRelay(w.t, &database{relay: pool}, rc)
	tr.tune.pageRows, tr.tune.split, tr.tune.turnPages = 20, 5, 2
	tr.tune.retainTick = 30 * time.Millisecond
	plant(tr.Relay)
	w.relays = append(w.relays, tr)
	return tr
}

func (r *tracedRelay) Close() error { return nil }

var errUnanswered = &brokers.Error{Class: brokers.ClassUnavailable, Err: errors.New("no answer")}

// Publish is a broker: it takes events, refuses some, loses answers, and takes some
// only after the relay has given them up.
func (r *tracedRelay) Publish(_ context.Context, msgs []brokers.Message) []error {
	call := int(r.w.calls.Add(1))
	send := model.Send{Call: call, Pipeline: "test", Relay: r.name}
	for _, m := range msgs {
		send.Names = append(send.Names, m.ID)
	}
	r.tr.note(send)
	r.wait()
	results, late := make([]error, len(msgs)), []brokers.Message(nil)
	held := map[string]bool{}
	var arrived, answers []model.Step
	slow := rand.IntN(30) == 0
	for i, m := range msgs {
		result := model.Confirmed
		switch {
		case held[m.Key]:
			results[i], result = brokers.ErrHeld, model.Lost
		case r.w.refuses(m):
			results[i], result = errBad, model.Refused
			held[m.Key] = true
		case slow:
			results[i], result = errUnanswered, model.Lost
			late = append(late, m)
		default:
			arrived = append(arrived, model.Arrive{Call: call, Name: m.ID})
			if rand.IntN(200) == 0 {
				results[i], result = errUnanswered, model.Lost
			}
		}
		held[m.Key] = held[m.Key] || results[i] != nil && !slow
		answers = append(answers, model.Answer{Call: call, Name: m.ID, Result: result})
	}
	r.tr.note(arrived...)
	r.arriveLate(call, late)
	r.wait()
	r.tr.note(answers...)
	return results
}

func (r *tracedRelay) arriveLate(call int, msgs []brokers.Message) {
	if len(msgs) == 0 {
		return
	}
	r.w.late.Go(func() {
		<-time.After(time.Duration(rand.IntN(100)) * time.Millisecond)
		var steps []model.Step
		for _, m := range msgs {
			steps = append(steps, model.Arrive{Call: call, Name: m.ID})
		}
		r.tr.note(steps...)
	})
}

// refuses tells of one event in a hundred that it is bad.
func (w *tracedWorld) refuses(m brokers.Message) bool {
	h := fnv.New32()
	h.Write([]byte(m.ID))
	return h.Sum32()%100 == 0 && !w.mended.Load()
}

// recordTrace runs relays under load and freezes each until the others have its
// shards, and goes on with that until the trace is enough. All is at rest when it is
// read: a trace that is read in between lacks what has not been committed yet.
func recordTrace(t *testing.T, plant func(*Relay), enough func([]model.Step) bool, settled bool) []model.Step {
	db := newDatabase(t)
	db.counters(t)
	w := &tracedWorld{t: t, db: db, tr: newTrace(t, db)}
	var stops []func() error
	for i := range 3 {
		stops = append(stops, running(t, w.start(fmt.Sprintf("r%d", i), plant).Relay))
	}
	eventually(t, func() bool {
		return scan[int](t, db.admin, `SELECT count(DISTINCT owner) FROM outbox.lease WHERE owner <> ''`) == 3
	}, "all have shards")
	stop := make(chan struct{})
	var writers sync.WaitGroup
	l := &load{t: t, db: db, seed: seed(t)}
	for n := range 6 {
		writers.Go(func() { l.traced(n, stop) })
	}
	for began, i := time.Now(), 0; i < 3 || !enough(w.tr.story(t)) && time.Since(began) < patience; i++ {
		w.takeover(w.relays[i%3])
	}
	close(stop)
	writers.Wait()
	w.mended.Store(true)
	for began := time.Now(); settled && !w.quiet(); {
		require.Less(t, time.Since(began), 2*patience, "all is published")
		<-time.After(100 * time.Millisecond)
		w.redrive()
	}
	for _, stop := range stops {
		require.NoError(t, stop())
	}
	w.late.Wait()
	return w.tr.story(t)
}

// takeover freezes a relay until it has lost its leases.
func (w *tracedWorld) takeover(r *tracedRelay) {
	r.freeze()
	defer r.thaw()
	eventually(w.t, func() bool {
		return scan[int](w.t, w.db.admin, `SELECT count(*) FROM outbox.lease WHERE owner LIKE $1 || '/%'`, r.name) == 0
	}, "the others have the shards")
	_, err := Discard(w.t.Context(), w.db.relay, "", ParkedFilter{State: stateDead, Key: "key1"}, why)
	if !errors.Is(err, ErrBeingPublished) {
		require.NoError(w.t, err)
	}
	w.redrive()
}

func (w *tracedWorld) redrive() {
	_, err := Redrive(w.t.Context(), w.db.relay, "", ParkedFilter{State: stateDead}, why)
	require.NoError(w.t, err)
}

// quiet: every relay has published what is there, and nothing waits.
func (w *tracedWorld) quiet() bool {
	for _, r := range w.relays {
		if !r.caughtUp() {
			return false
		}
	}
	return scan[int](w.t, w.db.admin, `SELECT count(*) FROM outbox.parked WHERE state <> 'discarded'`) == 0
}

// traced is a writer: some transactions are long, some are rolled back.
func (l *load) traced(writer int, stop <-chan struct{}) {
	ctx := context.Background()
	r := rand.New(rand.NewPCG(l.seed, uint64(writer))) //nolint:gosec // small
	for {
		select {
		case <-stop:
			return
		default:
		}
		tx, err := l.db.writer.Begin(ctx)
		if err == nil && writer == 0 {
			err = bump(ctx, tx, "long", r.IntN(10), 2)
			pause(r, 300*time.Millisecond)
		} else if err == nil {
			err = l.ordinary(ctx, tx, r)
		}
		switch {
		case err != nil:
		case r.IntN(10) == 0:
			err = tx.Rollback(ctx)
		default:
			err = tx.Commit(ctx)
		}
		if err != nil {
			l.t.Errorf("writer %d: %v", writer, err)
			return
		}
		pause(r, 80*time.Millisecond)
	}
}
