package outboxtest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/outbox/outboxtest"
)

// openTx is a transaction of either kind.
type openTx struct {
	name     string
	db       any
	write    func(ctx context.Context, drafts ...event.Draft) error
	rollback func() error
	commit   func() error
}

func (s shop) transactions(t *testing.T) []openTx {
	t.Helper()
	p, err := s.pool.Begin(background)
	require.NoError(t, err)
	q, err := s.db.BeginTx(background, nil)
	require.NoError(t, err)
	txs := []openTx{
		{"pgx", p, func(ctx context.Context, d ...event.Draft) error { return s.ob.Write(ctx, p, d...) },
			func() error { return p.Rollback(background) }, func() error { return p.Commit(background) }},
		{"sql", q, func(ctx context.Context, d ...event.Draft) error { return s.ob.WriteSQL(ctx, q, d...) }, q.Rollback, q.Commit},
	}
	for _, tx := range txs {
		t.Cleanup(func() { _ = tx.rollback() })
	}
	return txs
}

func TestATransactionSeesItsOwnEventsOnly(t *testing.T) {
	t.Parallel()
	s := newShop(t, "")
	require.NoError(t, pgx.BeginFunc(t.Context(), s.pool, func(tx pgx.Tx) error {
		return s.ob.Write(t.Context(), tx, placed.New(order{ID: "committed before"}))
	}))
	for _, tx := range s.transactions(t) { // both are open at once
		outboxtest.RequireNone(t, tx.db)
		require.Empty(t, outboxtest.Written(t, tx.db, placed))
		a, b := order{ID: tx.name + "1"}, order{ID: tx.name + "2", Items: []string{"tea"}}
		require.NoError(t, tx.write(t.Context(), placed.New(a), paid.New(a), placed.New(b)))
		outboxtest.RequireWritten(t, tx.db, placed, a, b)
		outboxtest.RequireWritten(t, tx.db, paid, a)
		outboxtest.RequireNone(t, tx.db, typeOf("shop.order.cancelled", "2"))

		mark := outboxtest.Mark(t, tx.db)
		outboxtest.RequireNone(t, mark)
		require.NoError(t, tx.write(t.Context(), placed.New(b)))
		outboxtest.RequireWritten(t, mark, placed, b)
		require.Len(t, outboxtest.Written(t, tx.db, placed), 3)
	}
}

func TestSavepointsBelongToTheTransaction(t *testing.T) {
	t.Parallel()
	s := newShop(t, "")
	tx, err := s.pool.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(background) //nolint:errcheck // the test is over
	kept, undone := order{ID: "kept"}, order{ID: "undone"}
	inner, err := tx.Begin(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.ob.Write(t.Context(), inner, placed.New(kept)))
	outboxtest.RequireWritten(t, inner, placed, kept)
	require.NoError(t, inner.Commit(t.Context()))
	inner, err = tx.Begin(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.ob.Write(t.Context(), inner, placed.New(undone)))
	outboxtest.RequireWritten(t, tx, placed, kept, undone)
	require.NoError(t, inner.Rollback(t.Context()))
	outboxtest.RequireWritten(t, tx, placed, kept)
}

func TestCommittedEventsSinceAMark(t *testing.T) {
	t.Parallel()
	s := newShop(t, "")
	txs := s.transactions(t)
	before, during, after := order{ID: "before"}, order{ID: "during"}, order{ID: "after"}
	require.NoError(t, txs[0].write(t.Context(), placed.New(before)))
	require.NoError(t, txs[0].commit())
	require.NoError(t, txs[1].write(t.Context(), placed.New(during))) // commits after the mark
	conn, err := s.db.Conn(t.Context())
	require.NoError(t, err)
	defer conn.Close()
	for _, db := range []any{s.pool, s.db, conn} {
		outboxtest.RequireWritten(t, db, placed, before)
	}
	marks := []outboxtest.Log{outboxtest.Mark(t, s.pool), outboxtest.Mark(t, s.db)}
	require.NoError(t, pgx.BeginFunc(t.Context(), s.pool, func(tx pgx.Tx) error {
		return s.ob.Write(t.Context(), tx, placed.New(after))
	}))
	for _, mark := range marks {
		outboxtest.RequireWritten(t, mark, placed, after)
	}
	require.NoError(t, txs[1].commit())
	for _, mark := range marks {
		outboxtest.RequireWritten(t, mark, placed, during, after) // in the order of writing
		outboxtest.RequireNone(t, mark, paid)
	}
}

func TestEnvelopeAndDataAsAConsumerSeesThem(t *testing.T) {
	t.Parallel()
	s := newShop(t, "")
	tx, err := s.db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	defer tx.Rollback() //nolint:errcheck // the test is over
	at := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	d := placed.New(order{ID: "o-1", At: at.Add(7 * time.Nanosecond).In(time.FixedZone("", 3600))})
	d.Time, d.Headers, d.ID = at, map[string]string{"tenant": "eu"}, "0192a000-0000-7000-8000-000000000001"
	cause := event.Envelope{ID: "cause", CorrelationID: "request"}
	require.NoError(t, s.ob.WriteSQL(event.WithCause(t.Context(), cause), tx, d, placed.Tombstone("o-2")))

	got := outboxtest.Written(t, tx, placed)
	require.Len(t, got, 2)
	require.WithinDuration(t, at, got[0].Time, 0)
	got[0].Time = at
	require.Equal(t, outboxtest.Event[order]{
		Envelope: event.Envelope{
			ID: d.ID, Source: "/shop", Type: "shop.order.placed", Topic: "orders", Key: "o-1", Time: at, ContentType: "text/line",
			CausationID: "cause", CorrelationID: "request", Headers: map[string]string{"tenant": "eu"},
		},
		Data: order{ID: "o-1", At: at, Items: []string{}},
	}, got[0])
	require.True(t, got[1].Tombstone)
	require.Equal(t, "o-2", got[1].Key)
}

// Data is decoded with the schema that it was written with.
func TestEventsOfAnOlderVersion(t *testing.T) {
	t.Parallel()
	s := newShop(t, "")
	tx, err := s.pool.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(background) //nolint:errcheck // the test is over
	o := order{ID: "o-1", Items: []string{"tea"}}
	require.NoError(t, s.ob.Write(t.Context(), tx, placedV1.New(o)))
	o.At = time.Unix(0, 0)
	outboxtest.RequireWritten(t, tx, placed, o)
}

func TestAnotherSchema(t *testing.T) {
	t.Parallel()
	s := newShop(t, "events")
	tx, err := s.pool.Begin(t.Context())
	require.NoError(t, err)
	o := order{ID: "o-1"}
	mark := outboxtest.Mark(t, outboxtest.In(t, "events", s.pool))
	require.NoError(t, s.ob.Write(t.Context(), tx, placed.New(o)))
	outboxtest.RequireWritten(t, outboxtest.In(t, "events", tx), placed, o)
	require.NoError(t, tx.Commit(t.Context()))
	outboxtest.RequireWritten(t, mark, placed, o)
	require.Contains(t, failure(t, func(t testing.TB) { outboxtest.RequireNone(t, s.pool) }), "outboxtest.In")
}

func TestFailuresSayWhatWasWritten(t *testing.T) {
	t.Parallel()
	s := newShop(t, "")
	tx, err := s.db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	defer tx.Rollback() //nolint:errcheck // the test is over
	o := order{ID: "o-1", Items: []string{"tea"}}
	text := failure(t, func(t testing.TB) { outboxtest.RequireWritten(t, tx, placed, o) })
	require.Contains(t, text, "no event at all was written in this transaction to outbox.event")
	require.NoError(t, s.ob.WriteSQL(t.Context(), tx, placed.New(o), placed.New(o), paid.New(o)))

	for name, c := range map[string]struct {
		check func(t testing.TB)
		want  []string
	}{
		"written twice": {
			func(t testing.TB) { outboxtest.RequireWritten(t, tx, placed, o) },
			[]string{"Not equal", "written in this transaction to outbox.event: 1 × shop.order.paid, 2 × shop.order.placed"},
		},
		"other data": {
			func(t testing.TB) { outboxtest.RequireWritten(t, tx, paid, order{ID: "o-1", Items: []string{"milk"}}) },
			[]string{`-   (string) (len=4) "milk"`, `+   (string) (len=3) "tea"`},
		},
		"wanted none": {
			func(t testing.TB) { outboxtest.RequireNone(t, tx, paid) },
			[]string{"the first is shop.order.paid, key \"o-1\", payload \"o-1 tea @"},
		},
		"wanted none of any type": {
			func(t testing.TB) { outboxtest.RequireNone(t, tx) }, []string{"the first is shop.order.placed"},
		},
		"cannot be wanted": {
			func(t testing.TB) { outboxtest.RequireWritten(t, tx, paid, order{}) }, []string{"field ID is empty"},
		},
		"no database": {
			func(t testing.TB) { outboxtest.RequireNone(t, "orders") }, []string{"db is a string: it must be a pgx.Tx, *sql.Tx"},
		},
		"another codec": {
			func(t testing.TB) {
				wrong := paid
				wrong.Codec = failing{paid.Codec}
				outboxtest.Written(t, tx, wrong)
			},
			[]string{"of type shop.order.paid does not decode: not mine"},
		},
	} {
		text := failure(t, c.check)
		for _, want := range c.want {
			require.Contains(t, text, want, name)
		}
	}
}

type failing struct{ event.Codec }

func (failing) Decode([]byte, event.Schema, any) error { return errNotMine }

var errNotMine = errors.New("not mine")
