package outbox_test

import (
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/migrate"
	"github.com/outboxkit/outboxkit/outbox"
)

// BenchmarkWrite writes one event, 100 to a transaction.
func BenchmarkWrite(b *testing.B) {
	pool, err := pgxpool.New(b.Context(), pgtest.URL(b))
	require.NoError(b, err)
	b.Cleanup(pool.Close)
	require.NoError(b, pool.AcquireFunc(b.Context(), func(c *pgxpool.Conn) error { return migrate.Outbox("").Up(b.Context(), c.Conn()) }))
	ob, err := outbox.New(b.Context(), pool, config())
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		tx, err := pool.Begin(b.Context())
		require.NoError(b, err)
		for range 100 {
			require.NoError(b, ob.Write(b.Context(), tx, orderPlacedV1.New(orderPlaced{OrderID: "o-1", Note: "leave it with the neighbours if nobody is at home"})))
		}
		require.NoError(b, tx.Commit(b.Context()))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/event")
}
