package telemetry_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/migrate"
)

// gauge returns the points of a gauge, nil if it is not exported.
func (b *bench) gauge(name string) (points []metricdata.DataPoint[float64]) {
	var rm metricdata.ResourceMetrics
	if err := b.reader.Collect(context.Background(), &rm); err != nil {
		b.t.Error(err)
	}
	for _, scope := range rm.ScopeMetrics {
		for _, m := range scope.Metrics {
			if data, ok := m.Data.(metricdata.Gauge[float64]); ok && m.Name == name {
				points = append(points, data.DataPoints...)
			}
		}
	}
	return points
}

// What a database said is left out when it is old, and how old it is stays.
func TestOldFiguresAreLeftOut(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	require.NoError(t, pool.AcquireFunc(t.Context(), func(c *pgxpool.Conn) error { return migrate.Outbox("").Up(t.Context(), c.Conn()) }))
	b := newBench(t)
	b.WatchEvery(20 * time.Millisecond)
	b.StaleAfter(300 * time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.WatchOutbox(ctx, pool, "", "shop") }()
	const size, age = "outboxkit.outbox.log.size", "outboxkit.outbox.status.age"
	known := func() bool { return len(b.gauge(size)) == 1 && b.gauge(size)[0].Value > 0 }
	require.Eventually(t, known, patience, tick)

	_, err := pool.Exec(t.Context(), `ALTER SCHEMA outbox RENAME TO away`)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		ages := b.gauge(age)
		return len(b.gauge(size)) == 0 && len(ages) == 1 && ages[0].Value > 0.3
	}, patience, tick)

	_, err = pool.Exec(t.Context(), `ALTER SCHEMA away RENAME TO outbox`)
	require.NoError(t, err)
	require.Eventually(t, known, patience, tick)

	cancel()
	require.NoError(t, <-done)
	require.Empty(t, b.gauge(age), "nothing is exported of what is not watched")
}
