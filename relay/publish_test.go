package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
)

var errAway = &brokers.Error{Class: brokers.ClassUnavailable, Err: errors.New("away")}

// A publisher that fails at random, keeping its contract: what is left is
// published again in order, nothing twice, nothing past a failed event of its key.
func TestRetriesKeepTheOrder(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	for i := range 300 {
		db.write(t, fmt.Sprint("key", i%7), fmt.Sprint(i/7+1))
	}
	var h history
	p := &recorder{}
	p.answer = func(_ context.Context, call int, msgs []brokers.Message) []error {
		results := make([]error, len(msgs))
		held := map[string]bool{}
		for i, m := range msgs {
			switch {
			case held[m.Key]:
				results[i] = brokers.ErrHeld
			case (call*31+i*17)%5 == 0:
				results[i], held[m.Key] = errAway, true
			default:
				h.add([]brokers.Message{m})
			}
		}
		return results
	}
	r := newRelay(t, db.relay, config(p))
	r.tune.pageRows = 50
	stop := running(t, r)
	eventually(t, r.caughtUp, "caught up")
	require.NoError(t, stop())
	want := map[string]int{}
	for i := range 300 {
		want[fmt.Sprint("key", i%7)]++
	}
	require.Empty(t, h.violations(want, true))
	s := r.Stats().Pipelines[0]
	require.EqualValues(t, 300, s.Published)
	require.Positive(t, s.Retries)
	require.Contains(t, s.LastError, "away")
}

// One pipeline's destination is bad; the other goes on, and the first one too
// once it is mended. The error is in the stats.
func TestPipelinesDoNotDisturbEachOther(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	var mended atomic.Bool
	good, bad := &recorder{}, &recorder{}
	bad.answer = func(_ context.Context, _ int, msgs []brokers.Message) []error {
		results := make([]error, len(msgs))
		if !mended.Load() {
			for i := range results {
				results[i] = &brokers.Error{Class: brokers.ClassDestination, Topic: msgs[i].Topic, Err: errors.New("no such topic")}
			}
		}
		return results
	}
	cfg := config(bad)
	cfg.Pipelines = append(cfg.Pipelines, Pipeline{Name: "good", To: good})
	r := newRelay(t, db.relay, cfg)
	stop := running(t, r)
	for i := range 5 {
		db.write(t, "k", fmt.Sprint(i))
	}
	eventually(t, func() bool { return len(good.messages()) == 5 }, "good pipeline")
	eventually(t, func() bool { return r.Stats().Pipelines[0].LastError != "" }, "error reported")
	require.Contains(t, r.Stats().Pipelines[0].LastError, "no such topic")
	require.Empty(t, bad.messages())
	mended.Store(true)
	eventually(t, func() bool { return len(bad.messages()) == 5 }, "mended")
	require.NoError(t, stop())
	require.Equal(t, good.payloads(), bad.payloads())
}

// A registry that does not answer holds the event and its key, and no other.
func TestSealFailures(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	_, err := db.writer.Exec(t.Context(), `INSERT INTO outbox.schema (fp, format, text, content_type) VALUES (7, 'json', '{}', 'application/json')`)
	require.NoError(t, err)
	_, err = db.writer.Exec(t.Context(), `INSERT INTO outbox.event (topic, key, type, source, payload, schema_fp)
SELECT 't', 'k' || g % 2, 'test', '/test', convert_to(g::text, 'UTF8'), 7 FROM generate_series(0, 5) g`)
	require.NoError(t, err)
	p := &recorder{}
	cfg := config(p)
	cfg.Pipelines[0].Wire = &wire{fails: []error{
		event.ErrSchemaUnavailable, // k0 "0": held with "2" and "4"; k1 goes on
	}}
	stop := running(t, newRelay(t, db.relay, cfg))
	eventually(t, func() bool { return len(p.messages()) == 6 }, "all")
	require.NoError(t, stop())
	require.Equal(t, []string{"1", "3", "5", "0", "2", "4"}, unsealed(p))
}

func unsealed(p *recorder) []string {
	list := p.payloads()
	for i := range list {
		list[i] = list[i][len("sealed:json:"):]
	}
	return list
}

// An event whose schema was never stored is parked as dead.
func TestUnknownSchemaIsParked(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	_, err := db.writer.Exec(t.Context(), `INSERT INTO outbox.event (topic, key, type, source, payload, schema_fp) VALUES ('t', 'k', 'x', '/s', 'p', 9)`)
	require.NoError(t, err)
	r := newRelay(t, db.relay, config(&recorder{}))
	running(t, r)
	eventually(t, func() bool { return db.parkedStates(t) == "p dead" }, "parked")
	require.Contains(t, scan[string](t, db.admin, `SELECT reason FROM outbox.parked`), "schema_fp 9 is not in outbox.schema")
	eventually(t, func() bool { return r.Stats().Pipelines[0].LastError != "" }, "reported")
}

// When Run's context ends, what is in flight resolves and is remembered; what was
// only read is not published.
func TestDrain(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	for i := range 6 {
		db.write(t, "k", fmt.Sprint(i))
	}
	entered, release := make(chan struct{}), make(chan struct{})
	p := &recorder{answer: func(ctx context.Context, call int, msgs []brokers.Message) []error {
		if call == 0 {
			close(entered)
		}
		select {
		case <-release:
		case <-ctx.Done():
		}
		results := make([]error, len(msgs))
		for i := range results {
			results[i] = ctx.Err()
		}
		return results
	}}
	r := newRelay(t, db.relay, config(p))
	r.tune.pageRows = 2
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	<-entered
	require.ErrorIs(t, r.Run(t.Context()), ErrRunning)
	cancel()
	close(release)
	require.NoError(t, <-done)
	require.Equal(t, []string{"0", "1"}, p.payloads())

	p2 := &recorder{}
	r2 := newRelay(t, db.relay, config(p2))
	stop := running(t, r2)
	eventually(t, func() bool { return len(p2.messages()) == 4 }, "the rest")
	require.NoError(t, stop())
	require.True(t, slices.Equal([]string{"2", "3", "4", "5"}, p2.payloads()))
}

// A publisher that does not resolve is given up after the drain timeout. What was
// resolved before is stored; the reader's position, which is ahead, is not.
func TestDrainTimeout(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	entered := make(chan struct{})
	p := &recorder{answer: func(ctx context.Context, call int, msgs []brokers.Message) []error {
		results := make([]error, len(msgs))
		if call > 0 {
			close(entered)
			<-ctx.Done()
			results[0] = ctx.Err()
		}
		return results
	}}
	cfg := config(p)
	cfg.DrainTimeout = 50 * time.Millisecond
	r := newRelay(t, db.relay, cfg)
	r.tune.flushEvery = time.Hour // so that the last flush has something to store
	stop := running(t, r)
	db.write(t, "k", "0")
	eventually(t, func() bool { return len(p.messages()) == 1 && r.caughtUp() }, "first")
	db.write(t, "k", "1")
	<-entered
	probes := db.relay.Stat().AcquireCount()
	eventually(t, func() bool { return db.relay.Stat().AcquireCount() > probes+1 }, "the reader has gone on")
	began := time.Now()
	require.NoError(t, stop())
	require.Less(t, time.Since(began), 5*time.Second)
	require.Equal(t, []string{"0"}, p.payloads())

	p2 := &recorder{}
	running(t, newRelay(t, db.relay, config(p2)))
	eventually(t, func() bool { return len(p2.messages()) > 0 }, "published by the next")
	require.Equal(t, []string{"1"}, p2.payloads())
}
