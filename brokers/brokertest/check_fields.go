package brokertest

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
)

// fieldCases holds a message for each thing that a mapping can get wrong.
func fieldCases(topic string) map[string]brokers.Message {
	full := brokers.Message{
		Topic:         topic,
		Key:           "order-1",
		ID:            "0190a5c8-7b6e-7cc3-98c4-dc0c0c07398f",
		Source:        "/shop/orders",
		Type:          "shop.order.placed",
		Time:          time.Date(2024, 2, 29, 23, 59, 58, 123456000, time.UTC),
		ContentType:   "application/avro",
		CorrelationID: "request-7",
		CausationID:   "0190a5c8-7b6e-7cc3-98c4-dc0c0c073990",
		Headers: map[string]string{
			"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
			"tracestate":  "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7",
			"tenant":      "acme",
			"x-retry.of":  "a b;c=d,e\"f",
		},
		Payload: []byte{0, 0, 0, 0, 7, 0xff, 0xfe, 'A', 0},
	}
	minimal := brokers.Message{Topic: topic, ID: "minimal", Source: "/s", Type: "t", Payload: []byte("x")}
	change := func(m brokers.Message, id string, f func(*brokers.Message)) brokers.Message {
		m.ID = id
		f(&m)
		return m
	}
	return map[string]brokers.Message{
		"every field":    full,
		"minimal":        minimal,
		"nil payload":    change(full, "nil", func(m *brokers.Message) { m.Payload = nil }),
		"empty payload":  change(full, "empty", func(m *brokers.Message) { m.Payload = []byte{} }),
		"bare tombstone": change(minimal, "tombstone", func(m *brokers.Message) { m.Key, m.Payload = "k", nil }),
		"unicode": change(full, "ünïcode-№-ид", func(m *brokers.Message) {
			m.Key, m.Source, m.CorrelationID = "schlüssel-鍵-🔑", "/läden/заказы", "запрос 7"
			m.Headers = map[string]string{"greeting": "Grüße, 世界 🌍 100% ="}
		}),
		"long key":     change(full, "long", func(m *brokers.Message) { m.Key = strings.Repeat("k", 1024) }),
		"whole second": change(full, "second", func(m *brokers.Message) { m.Time = time.Unix(1_700_000_000, 0).UTC() }),
		"other zone": change(full, "zone", func(m *brokers.Message) {
			m.Time = time.Date(2001, 9, 9, 1, 46, 40, 1000, time.FixedZone("", 5*3600+1800))
		}),
		"large payload": change(full, "large", func(m *brokers.Message) { m.Payload = []byte(strings.Repeat("\x00\xff", 7_500)) }),
	}
}

// checkFields: every field arrives as it was sent, empty ones empty, and no
// header appears that nobody set.
func checkFields(t *testing.T, h Harness) {
	topic := h.topic(t, 1, 0)
	cases := fieldCases(topic.Name)
	var msgs []brokers.Message
	for _, m := range cases {
		msgs = append(msgs, m)
	}
	mustPublishAll(t, h, h.publisher(t), msgs)
	rec := newRecord()
	read(t, h, topic, rec, rec.ack)
	rec.await(t, h, 0, msgs)

	got := map[string]*brokers.Delivery{}
	for _, d := range rec.since(0) {
		got[d.Message.ID] = d
	}
	for name, want := range cases {
		d := got[want.ID]
		m := d.Message
		require.Truef(t, want.Time.Equal(m.Time), "%s: time is %v, want %v", name, m.Time, want.Time)
		m.Time = want.Time // equal, but perhaps in another zone
		if want.Headers == nil && len(m.Headers) == 0 {
			m.Headers = nil
		}
		require.Equalf(t, want, m, "%s", name) // tells nil from empty
		require.NotEmptyf(t, d.Origin.Topic, "%s: Origin.Topic", name)
	}
}
