package avro

import (
	"testing"
	"time"

	"github.com/outboxkit/outboxkit/event"
)

func benchOrder(b *testing.B) (*Codec, any, []byte) {
	b.Helper()
	c := MustParse(orderSchema)
	var v any = newOrder()
	data, err := c.Encode(v)
	if err != nil {
		b.Fatal(err)
	}
	return c, v, data
}

// ratio runs ours and hamba's in turns and reports the fastest batch of each: on
// a busy machine that is the one that was not interrupted.
func ratio(b *testing.B, ours, hamba func() error) {
	b.Helper()
	const batch = 200
	fastest := [2]time.Duration{time.Hour, time.Hour}
	for b.Loop() {
		for i, side := range []func() error{ours, hamba} {
			start := time.Now()
			for range batch {
				if err := side(); err != nil {
					b.Fatal(err)
				}
			}
			fastest[i] = min(fastest[i], time.Since(start))
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(fastest[0])/batch, "ours-ns/op")
	b.ReportMetric(float64(fastest[1])/batch, "hamba-ns/op")
	b.ReportMetric(float64(fastest[0])/float64(fastest[1]), "ratio")
}

func BenchmarkEncode(b *testing.B) {
	c, v, _ := benchOrder(b)
	ratio(b,
		func() error { _, err := c.Encode(v); return err },
		func() error { _, err := c.api.Marshal(c.hamba, v); return err })
}

func BenchmarkDecode(b *testing.B) {
	c, _, data := benchOrder(b)
	ratio(b,
		func() error { var o order; return c.Decode(data, event.Schema{}, &o) },
		func() error { var o order; return c.api.Unmarshal(c.hamba, data, &o) })
}

func BenchmarkDecodeOlder(b *testing.B) {
	c, _, data := benchOrder(b)
	reader := MustParse(`{"type":"record","name":"OrderPlaced","fields":[{"name":"orderId","type":["null","string"]},
	  {"name":"items","type":{"type":"array","items":{"type":"record","name":"Item","fields":[{"name":"qty","type":"long"},{"name":"sku","type":"string"}]}}}]}`)
	type small struct {
		OrderID *string `avro:"orderId"`
		Items   []struct {
			SKU string `avro:"sku"`
			Qty int64  `avro:"qty"`
		} `avro:"items"`
	}
	ratio(b,
		func() error { var o small; return reader.Decode(data, c.Schema(), &o) },
		func() error { var o order; return c.api.Unmarshal(c.hamba, data, &o) })
}

func BenchmarkGuard(b *testing.B) {
	c, _, data := benchOrder(b)
	b.ReportAllocs()
	for b.Loop() {
		if err := check(c.root, data); err != nil {
			b.Fatal(err)
		}
	}
}
