package inbox_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/inbox"
)

// Redriven too early: the handler says that it cannot work. Its circuit opens, events
// are tried one at a time, none is dead again, and all are handled when it works, with
// nothing new on the topic.
func TestRedriveWhileTheHandlerCannotWork(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var msgs []brokers.Message
	for n := range 30 {
		msgs = append(msgs, message(fmt.Sprint("k", n%15), n))
	}
	w.bury(w.config("inventory"), msgs...)
	var works atomic.Bool
	var tried atomic.Int32
	in := w.redriving(w.config("inventory"), func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
		if !works.Load() {
			tried.Add(1)
			return inbox.Unavailable(errBroken)
		}
		return insert("inventory")(ctx, tx, e)
	})
	require.EqualValues(t, 15, w.redrive(inbox.DeadFilter{}))
	eventually(t, "the circuit to open", func() bool { return len(in.Stats().Circuits) == 1 })
	eventually(t, "a probe", func() bool { return tried.Load() > 4 })
	require.Zero(t, w.count(`SELECT count(*) FROM inbox.dead WHERE state = 'dead'`))
	works.Store(true)
	eventually(t, "all", func() bool { return w.effects() == 30 })
	eventually(t, "the circuit to close", func() bool { return len(in.Stats().Circuits) == 0 })
	require.NoError(t, in.end())
	require.Zero(t, in.Stats().Failures)
}

// Bad ones that are redriven open no circuit: what arrives meanwhile is handled.
func TestRedriveOfBadOnesStopsNoOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var msgs []brokers.Message
	for n := range 100 {
		msgs = append(msgs, message(fmt.Sprint("bad", n), n))
	}
	cfg := w.config("inventory")
	cfg.Attempts, cfg.Breaker = 1, new(false)
	w.bury(cfg, msgs...)
	cfg = w.config("inventory")
	cfg.Attempts = 2
	in := w.redriving(cfg, func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
		if e.Key != "good" {
			return errBroken
		}
		return insert("inventory")(ctx, tx, e)
	})
	w.redrive(inbox.DeadFilter{})
	for n := range 20 {
		w.publish(message("good", n))
	}
	w.settled("inventory")
	eventually(t, "dead again", func() bool {
		return w.count(`SELECT count(*) FROM inbox.dead WHERE state = 'dead' AND attempts = 3`) == 100
	})
	require.Empty(t, in.Stats().Circuits)
	require.NoError(t, in.end())
	require.Equal(t, 20, w.effects())
}
