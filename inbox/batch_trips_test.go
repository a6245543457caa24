package inbox_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/inbox"
)

// sends counts pipelines of statements that claim or look up, each of which is a
// round trip.
type sends struct{ n atomic.Int32 }

func (s *sends) TraceBatchStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	for _, q := range data.Batch.QueuedQueries {
		if strings.Contains(q.SQL, "inbox.seen_") {
			s.n.Add(1)
			break
		}
	}
	return ctx
}
func (s *sends) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (s *sends) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}
func (s *sends) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}
func (s *sends) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// The beginning of a batch, its claims and the look for blocked keys are one
// round trip.
func TestBatchBeginsInOneRoundTrip(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	count := &sends{}
	cfg := w.pool.Config().Copy()
	cfg.ConnConfig.Tracer = count
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	w.pool = pool
	b := newBatches(w)
	start := func(b *batches, cfg inbox.Config, _ ...inbox.Middleware) *running {
		in, err := inbox.New(w.pool, cfg)
		require.NoError(t, err)
		batchForms["pgx.Tx"](b, in)
		return run(t, in)
	}
	in := b.together(w.config("inventory"), start, orders(100)...)
	w.settled("inventory")
	require.NoError(t, in.end())
	require.Len(t, b.calls(), 1)
	require.EqualValues(t, 2, count.n.Load(), "the gate's and the batch's")
}

// Messages that were handled before are looked up many at once.
func TestReplayIsLookedUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	count := &sends{}
	cfg := w.pool.Config().Copy()
	cfg.ConnConfig.Tracer = count
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	w.pool = pool
	msgs := orders(300)
	for i := range msgs[:20] {
		msgs[i].Key = "same" // in one lane
	}
	fresh := message("same", 1000)
	require.Equal(t, inbox.Stats{Handled: 300}, deliver(w, msgs...))
	before := count.n.Load()
	in := w.start(w.config("inventory"), insert("inventory"))
	w.publish(msgs[:10]...)
	w.publish(fresh)
	w.publish(msgs[10:]...)
	w.settled("inventory")
	require.NoError(t, in.end())
	require.Equal(t, inbox.Stats{Handled: 1, Duplicates: 300}, in.Stats())
	require.Equal(t, 1, w.effects(fresh.ID))
	require.Less(t, count.n.Load()-before, int32(150), "round trips")
}
