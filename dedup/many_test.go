package dedup_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/dedup"
)

// v7At is a UUIDv7 of a time: its first 48 bits are that, in milliseconds.
func v7At(at time.Time) string {
	id := uuid.Must(uuid.NewV7())
	ms := at.UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	return id.String()
}

// claimAll claims keys in a transaction of their own.
func claimAll(t *testing.T, pool *pgxpool.Pool, s *dedup.Postgres, keys ...dedup.Key) (results []dedup.Result) {
	require.NoError(t, pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) (err error) {
		results, err = s.Claim(t.Context(), tx, keys...)
		return err
	}))
	return results
}

// What is outside the window and remembered all the same is a duplicate.
func TestRememberedKeysOutsideTheWindow(t *testing.T) {
	t.Parallel()
	pool := database(t, "")
	established(t, pool, "inbox", "c")
	wide := store(t, pool, dedup.Config{Consumer: "c", WindowDays: 31})
	day := v7At(time.Now().Add(-20 * 24 * time.Hour))[:24] // two keys of one slot
	known, unknown := dedup.Key{Source: "/a", ID: day + v7()[24:]}, dedup.Key{Source: "/a", ID: day + v7()[24:]}
	require.Equal(t, []dedup.Result{dedup.Claimed}, claimAll(t, pool, wide, known))
	narrow := store(t, pool, dedup.Config{Consumer: "c", WindowDays: 7})
	require.Equal(t, []dedup.Result{dedup.OutsideWindow, dedup.Duplicate}, claimAll(t, pool, narrow, unknown, known))
}

// A store that has slept while the slots moved on claims each key once.
func TestManyClaimsAfterTurns(t *testing.T) {
	t.Parallel()
	pool := database(t, "")
	s := store(t, pool, dedup.Config{Consumer: "c"})
	keys := []dedup.Key{{Source: "/a", ID: "1"}, {Source: "/a", ID: v7()}, {Source: "/a", ID: "2"}}
	for _, want := range []dedup.Result{dedup.Claimed, dedup.Duplicate} {
		_, err := pool.Exec(t.Context(), `UPDATE inbox.retention SET foreign_turn = foreign_turn + 3`)
		require.NoError(t, err)
		require.Equal(t, []dedup.Result{want, want, want}, claimAll(t, pool, s, keys...))
	}
	_, err := pool.Exec(t.Context(), `UPDATE inbox.retention SET foreign_turn = foreign_turn + 3`)
	require.NoError(t, err)
	results := make([]dedup.Result, len(keys))
	for _, fails := range []bool{true, false} {
		b := &pgx.Batch{}
		s.QueueAll(b, keys, results)
		require.NoError(t, pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			require.Equal(t, fails, tx.SendBatch(t.Context(), b).Close() != nil)
			return nil
		}))
	}
	require.Equal(t, []dedup.Result{dedup.Duplicate, dedup.Duplicate, dedup.Duplicate}, results)
}

// Several days, both kinds, repeated keys and times outside the window, in one
// call and in no order.
func TestClaimsOfManyKeys(t *testing.T) {
	t.Parallel()
	pool := database(t, "")
	now := time.Now()
	today, dayBefore, older := v7At(now), v7At(now.Add(-30*time.Hour)), v7At(now.Add(-6*24*time.Hour))
	keys := []dedup.Key{
		{Source: "/a", ID: today}, {Source: "/a", ID: "order-1"}, {Source: "/a", ID: older}, {Source: "/a", ID: today},
		{Source: "/b", ID: today}, {Source: "/a", ID: v7At(now.Add(-8 * 24 * time.Hour))}, {Source: "/a", ID: dayBefore},
		{Source: "/a", ID: "order-1"}, {Source: "/a", ID: v7At(now.Add(2 * time.Hour))}, {Source: "/b", ID: "order-1"},
		{Source: "/a", ID: older},
	}
	const yes, dup, out = dedup.Claimed, dedup.Duplicate, dedup.OutsideWindow
	fresh := []dedup.Result{yes, yes, yes, dup, yes, out, yes, dup, out, yes, dup}
	again := []dedup.Result{dup, dup, dup, dup, dup, out, dup, dup, out, dup, dup}
	seen := []bool{true, true, true, true, true, false, true, true, false, true, true}
	for name, claim := range forms(pool) {
		established(t, pool, "inbox", name)
		s := store(t, pool, dedup.Config{Consumer: name})
		look := func(want []bool) {
			got, err := s.Seen(t.Context(), pool, keys...)
			require.NoError(t, err)
			require.Equal(t, want, got, name)
		}
		require.NoError(t, claim(t.Context(), s, keys, func(got []dedup.Result) error {
			require.Equal(t, fresh, got, name)
			look(make([]bool, len(keys))) // not committed
			return nil
		}))
		look(seen)
		require.NoError(t, claim(t.Context(), s, keys, func(got []dedup.Result) error {
			require.Equal(t, again, got, name)
			return nil
		}))
		got, err := s.Seen(t.Context(), pool, dedup.Key{Source: "/c", ID: today}, dedup.Key{Source: "/c", ID: "order-1"})
		require.NoError(t, err)
		require.Equal(t, []bool{false, false}, got, name)
	}
}

// trips counts what goes to the server.
type trips struct{ queries, batches int }

func (c *trips) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	c.queries++
	return ctx
}
func (c *trips) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
func (c *trips) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	c.batches++
	return ctx
}
func (c *trips) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (c *trips) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

func TestManyClaimsAreOneRoundTrip(t *testing.T) {
	t.Parallel()
	pool := database(t, "")
	s := store(t, pool, dedup.Config{Consumer: "c"})
	cfg := pool.Config().ConnConfig.Copy()
	count := &trips{}
	cfg.Tracer = count
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	require.NoError(t, err)
	defer conn.Close(t.Context()) //nolint:errcheck // the test is over
	keys := make([]dedup.Key, 100)
	for i := range keys {
		keys[i] = dedup.Key{Source: "/a", ID: v7()}
	}
	tx, err := conn.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(t.Context()) //nolint:errcheck // nothing is kept
	*count = trips{}
	_, err = s.Claim(t.Context(), tx, keys...)
	require.NoError(t, err)
	require.Equal(t, trips{batches: 1}, *count)
}
