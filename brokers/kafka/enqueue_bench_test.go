package kafka

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/outboxkit/outboxkit/brokers"
)

// BenchmarkEnqueue makes records of 4,500 messages, half a page of the relay, and
// divides them among 12 partitions.
func BenchmarkEnqueue(b *testing.B) {
	p := NewPublisher(Config{Brokers: []string{"127.0.0.1:1"}})
	b.Cleanup(func() { _ = p.Close() })
	t := p.topic("bench")
	t.adopt(make([]string, 12), 1<<20)
	for _, part := range t.parts {
		part.running = true // nobody sends
	}
	msgs := make([]brokers.Message, 4500)
	idx := make([]int32, len(msgs))
	for i := range msgs {
		idx[i] = int32(i)
		msgs[i] = brokers.Message{
			Topic: "bench", ID: fmt.Sprintf("01935b2e-5b5c-7abc-9def-%012d", i), Source: "/shop/orders", Type: "shop.order.placed",
			Time: time.Now().Add(time.Duration(i) * time.Microsecond), ContentType: "application/avro", CorrelationID: fmt.Sprintf("01935b2e-5b5c-7abc-8def-%012d", i/3),
			Headers: map[string]string{"traceparent": fmt.Sprintf("00-4bf92f3577b34da6a3ce929d%08x-00f067aa0ba902b7-01", i)},
			Payload: make([]byte, 300), Key: "key-" + strconv.Itoa(i*7919%1000),
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		c := newCall(msgs, func(string) error { return nil })
		p.enqueue(c, t, msgs, idx)
		for _, part := range t.parts {
			part.queue = nil
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(msgs)), "ns/event")
}
