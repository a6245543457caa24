package inbox_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
)

func TestHandlesOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := message("a", 1)
	m.CorrelationID, m.CausationID = "cor", "cau"
	var got inbox.Event[order]
	var cause event.Envelope
	in := w.start(w.config("inventory"), func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
		got = e
		cause, _ = event.Cause(ctx)
		return insert("inventory")(ctx, tx, e)
	})
	w.publish(m, m, m)
	w.settled("inventory")
	require.NoError(t, in.end())

	require.Equal(t, 1, w.effects())
	require.Equal(t, 1, w.claims())
	require.Equal(t, inbox.Stats{Handled: 1, Duplicates: 2}, in.Stats())
	require.Equal(t, order{ID: "a", N: 1}, got.Data)
	require.False(t, got.Tombstone)
	require.Equal(t, "memory", got.Origin.Broker)
	got.Time, cause.Time = m.Time, m.Time // without monotonic clock, else equal
	want := event.Envelope{
		ID: m.ID, Source: source, Type: placed.Name, Topic: "orders", Key: "a", Time: m.Time, ContentType: "application/json",
		CorrelationID: "cor", CausationID: "cau", Headers: map[string]string{"tenant": "a"},
	}
	require.Equal(t, want, got.Envelope)
	require.Equal(t, want, cause)
}
