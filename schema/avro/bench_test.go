package avro

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	twmb "github.com/twmb/avro"

	"github.com/outboxkit/outboxkit/event"
)

// The events that the libraries are compared on.
type benchEvent struct {
	codec *Codec
	twmb  *twmb.Schema
	value any
	empty func() any // to decode into
}

type payment struct {
	PaymentID string    `avro:"paymentId"`
	OrderID   string    `avro:"orderId"`
	Method    string    `avro:"method"`
	Cents     int64     `avro:"cents"`
	At        time.Time `avro:"at"`
	Captured  bool      `avro:"captured"`
	Risk      float64   `avro:"risk"`
}

const paymentSchema = `{"type":"record","name":"Paid","fields":[{"name":"paymentId","type":"string"},{"name":"orderId","type":"string"},
  {"name":"method","type":"string"},{"name":"cents","type":"long"},{"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},
  {"name":"captured","type":"boolean"},{"name":"risk","type":"double"}]}`

func benchEvents() map[string]benchEvent {
	large := newOrder()
	for i := range 100 {
		large.Items = append(large.Items, item{fmt.Sprintf("sku-%d", i), i})
	}
	paid := payment{"pay-2026-000123", "order-12345", "card", 123456, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), true, 0.25}
	newOrder4 := benchEvent{MustParse(orderSchema), twmb.MustParse(orderSchema), newOrder(), func() any { return new(order) }}
	largeOrder := newOrder4
	largeOrder.value = large
	return map[string]benchEvent{
		"flat":  {MustParse(paymentSchema), twmb.MustParse(paymentSchema), paid, func() any { return new(payment) }},
		"order": newOrder4,
		"large": largeOrder,
	}
}

// side is one of those that are compared.
type side struct {
	name string
	run  func() error
}

// compare runs the sides in turns and reports the fastest batch of each: on a busy
// machine that is the one that was not interrupted. "ratio" is the first to the
// second.
func compare(b *testing.B, sides ...side) {
	b.Helper()
	const batch = 100
	fastest := make([]time.Duration, len(sides))
	for b.Loop() {
		for i, s := range sides {
			start := time.Now()
			for range batch {
				if err := s.run(); err != nil {
					b.Fatal(err)
				}
			}
			if d := time.Since(start); fastest[i] == 0 || d < fastest[i] {
				fastest[i] = d
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	for i, s := range sides {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range batch {
			_ = s.run()
		}
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(fastest[i])/batch, s.name+"-ns/op")
		b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/batch, s.name+"-B/op")
		b.ReportMetric(float64(after.Mallocs-before.Mallocs)/batch, s.name+"-allocs/op")
	}
	b.ReportMetric(float64(fastest[0])/float64(fastest[1]), "ratio")
}

func BenchmarkEncode(b *testing.B) {
	for name, e := range benchEvents() {
		b.Run(name, func(b *testing.B) {
			compare(b,
				side{"ours", func() error { _, err := e.codec.Encode(e.value); return err }},
				side{"hamba", func() error { _, err := e.codec.api.Marshal(e.codec.hamba, e.value); return err }},
				side{"twmb", func() error { _, err := e.twmb.Encode(e.value); return err }})
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for name, e := range benchEvents() {
		data, err := e.codec.Encode(e.value)
		require.NoError(b, err)
		b.Run(name, func(b *testing.B) {
			compare(b,
				side{"ours", func() error { return e.codec.Decode(data, event.Schema{}, e.empty()) }},
				side{"hamba", func() error { return e.codec.api.Unmarshal(e.codec.hamba, data, e.empty()) }},
				side{"twmb", func() error { _, err := e.twmb.Decode(data, e.empty()); return err }})
		})
	}
}

// Data of another version: it is rewritten, then decoded.
func BenchmarkDecodeOlder(b *testing.B) {
	e := benchEvents()["order"]
	data, err := e.codec.Encode(e.value)
	require.NoError(b, err)
	const newer = `{"type":"record","name":"OrderPlaced","namespace":"shop.events","fields":[{"name":"orderId","type":["null","string"]},
	  {"name":"items","type":{"type":"array","items":{"type":"record","name":"Item","fields":[{"name":"qty","type":"long"},{"name":"sku","type":"string"}]}}}]}`
	reader := MustParse(newer)
	resolved, err := twmb.Resolve(e.twmb, twmb.MustParse(newer))
	require.NoError(b, err)
	type small struct {
		OrderID *string `avro:"orderId"`
		Items   []struct {
			SKU string `avro:"sku"`
			Qty int64  `avro:"qty"`
		} `avro:"items"`
	}
	compare(b,
		side{"ours", func() error { var o small; return reader.Decode(data, e.codec.Schema(), &o) }},
		side{"twmb", func() error { var o small; _, err := resolved.Decode(data, &o); return err }})
}

func BenchmarkGuard(b *testing.B) {
	e := benchEvents()["order"]
	data, err := e.codec.Encode(e.value)
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if err := check(e.codec.root, data); err != nil {
			b.Fatal(err)
		}
	}
}
