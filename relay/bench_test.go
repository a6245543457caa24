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

// BenchmarkDecode makes an item of a row in the binary format.
func BenchmarkDecode(b *testing.B) {
	const id = "\x01\x93\x5b\x2e\x5b\x5c\x7a\xbc\x9d\xef\x01\x23\x45\x67\x89\xab"
	eight := []byte{0, 0, 0, 0, 0, 0, 1, 44}
	raw := make([][]byte, pageColumns)
	for column, text := range map[int]string{
		colEventID: id, colTopic: "orders", colKey: "key-123", colType: "com.example.OrderPlaced", colSource: "/shop/orders",
		colContentType: "application/avro", colCorrelation: "01935b2e-5b5c-7abc-9def-0123456789ab",
		colHeaders: "\x01" + `{"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}`,
		colToken:   id,
	} {
		raw[column] = []byte(text)
	}
	raw[colID], raw[colTime], raw[colSize], raw[colTotal], raw[colPayload] = eight, eight, eight, eight, make([]byte, 300)
	var p pageScanner
	b.ReportAllocs()
	for b.Loop() {
		if len(p.slab) == 0 {
			p.slab = make([]item, slabItems)
		}
		it := &p.slab[0]
		p.slab = p.slab[1:]
		if err := p.decode(it, raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPlainHeaders(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := plainHeaders(`{"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tenant": "north"}`); !ok {
			b.Fatal("not plain")
		}
	}
}
