package relay

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
)

// null confirms everything at once.
type null struct{}

func (null) Publish(_ context.Context, msgs []brokers.Message) []error {
	return make([]error, len(msgs))
}
func (null) Close() error { return nil }

// BenchmarkDrain reads a backlog of 300-byte events into a publisher that takes
// no time: what the relay itself can do.
func BenchmarkDrain(b *testing.B) {
	const backlog = 300_000
	db := newDatabase(b)
	_, err := db.writer.Exec(b.Context(), `INSERT INTO outbox.event (topic, key, type, source, payload)
SELECT 't', 'key-' || g % 1000, 'test', '/test', convert_to(repeat('x', 300), 'UTF8') FROM generate_series(1, $1::int) g`, backlog)
	require.NoError(b, err)
	for b.Loop() {
		db.exec(b, `DELETE FROM outbox.pipeline; `)
		db.exec(b, `DELETE FROM outbox.position`)
		r, err := New(db.relay, Config{Pipelines: []Pipeline{{Name: "null", To: null{}}}})
		require.NoError(b, err)
		began := time.Now()
		stop := running(b, r)
		eventually(b, func() bool { return r.Stats().Pipelines[0].Published == backlog }, "drained")
		b.ReportMetric(float64(backlog)/time.Since(began).Seconds(), "events/s")
		require.NoError(b, stop())
	}
}
