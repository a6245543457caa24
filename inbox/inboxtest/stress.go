package inboxtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/inbox"
)

// stress is one RequireIdempotent.
type stress struct {
	Stress
	t        testing.TB
	consumer Consumer
	msgs     []brokers.Message
}

// outcome is what a run left behind.
type outcome struct {
	before, after string
	dead          []DeadLetter
	stats         []inbox.Stats
}

// reference makes the run that others are compared with, and judges it: what
// does not work without any fault says nothing under faults.
func (x *stress) reference() (want outcome, problem string) {
	want, w, err := x.perform(reference, 0)
	if err != nil {
		return want, err.Error() + w.report()
	}
	var lines []string
	for _, d := range want.dead {
		lines = append(lines, d.String())
	}
	s := want.stats[0]
	switch {
	case len(lines) > 0:
		problem = "these were not handled:\n" + strings.Join(lines, "\n")
	case s.Ignored > 0:
		problem = fmt.Sprintf("%d events were ignored: the inbox has no handler for their type", s.Ignored)
	case s.Duplicates > 0:
		problem = fmt.Sprintf("%d events counted as handled before: their handler has committed the transaction itself (tx.Commit). The inbox does that, together with its own record", s.Duplicates)
	case want.before == want.after:
		problem = "Stress.Snapshot is the same before and after: it does not see what the handlers do. It is:\n" + want.after
	default:
		problem = strings.TrimSpace(w.report())
		if w.ended == 0 { // statements outside the transaction may be harmless
			problem = ""
		}
	}
	return want, problem
}

// compare makes run r, number n, and says what it left that want does not have.
func (x *stress) compare(r run, n int, want outcome) (problem string) {
	got, w, err := x.perform(r, n)
	if err != nil {
		return err.Error() + w.report()
	}
	problem = difference(want.after, got.after)
	for _, d := range got.dead {
		problem += "+ dead letter: " + d.String() + "\n"
	}
	if r.crashes && !w.broke() {
		problem += "no connection could be broken: Consumer.New must use the pool that it is given\n"
	}
	if problem == "" {
		return ""
	}
	return "(- is missing, + is there instead)\n" + strings.TrimRight(problem, "\n") + w.report()
}

// perform makes run r, seeded by its number n, in a new database.
func (x *stress) perform(r run, n int) (o outcome, w *watch, err error) {
	rng := rand.New(rand.NewPCG(x.Seed, uint64(n))) //nolint:gosec // repeatable, not secret
	w = newWatch(r, rng.Uint64(), x.consumer.Schema, x.msgs)
	pool := x.Database(x.t)
	watched, err := w.pool(x.t.Context(), pool)
	if err != nil {
		return o, w, err
	}
	defer func() { go watched.Close() }() // waits for connections, also for those that a handler keeps
	ctx, cancel := context.WithTimeout(x.t.Context(), x.consumer.Timeout)
	defer cancel()
	if o.before, err = x.snapshot(ctx, pool); err != nil {
		return o, w, err
	}
	if o.stats, err = x.deliver(ctx, r, rng, watched); err != nil {
		return o, w, err
	}
	if o.dead, err = deadLetters(ctx, pool, x.consumer.Schema, x.msgs); err != nil {
		return o, w, err
	}
	o.after, err = x.snapshot(ctx, pool)
	return o, w, err
}

func (x *stress) snapshot(ctx context.Context, pool *pgxpool.Pool) (string, error) {
	s, err := x.Snapshot(ctx, pool)
	if err != nil {
		return "", fmt.Errorf("Stress.Snapshot: %w", err)
	}
	return strings.TrimSpace(s), nil
}

func (x *stress) deliver(ctx context.Context, r run, rng *rand.Rand, pool *pgxpool.Pool) ([]inbox.Stats, error) {
	msgs := x.msgs
	if r.order != nil {
		msgs = r.order(msgs, rng)
	}
	instances := 1
	var last []brokers.Message // for the third instance
	if r.twice {
		held := len(msgs) - len(msgs)/3
		last = repeated(msgs[held:], rng)
		msgs, instances = repeated(msgs[:held], rng), 2
	}
	rig := newRig(x.msgs)
	for range instances {
		if err := rig.start(x.consumer, pool); err != nil {
			_, stopErr := rig.stop()
			return nil, errors.Join(err, stopErr)
		}
	}
	if err := rig.deliver(ctx, msgs, r.oneByOne); err != nil {
		return nil, err
	}
	stats, err := rig.stop()
	if err != nil || !r.twice {
		return stats, err
	}
	if err := rig.start(x.consumer, pool); err != nil {
		return nil, err
	}
	// It handles some events, and surely: which of the first two handled what is chance.
	if err := rig.deliver(ctx, last, false); err != nil {
		return nil, err
	}
	if err := rig.settled(ctx); err != nil {
		_, stopErr := rig.stop()
		return nil, errors.Join(err, stopErr)
	}
	_, err = rig.stop()
	return stats, err
}
