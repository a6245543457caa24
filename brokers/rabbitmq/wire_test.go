package rabbitmq

import (
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
)

func full() brokers.Message {
	return brokers.Message{
		Topic: "orders", Key: "o-1", ID: "id-1", Source: "/shop", Type: "placed",
		Time: time.Date(2026, 1, 2, 3, 4, 5, 678000, time.UTC), ContentType: "application/avro",
		CorrelationID: "corr", CausationID: "cause",
		Headers: map[string]string{"traceparent": "00-1", "id": "plain"},
		Payload: []byte{1, 2},
	}
}

func TestEncode(t *testing.T) {
	m := full()
	p, err := encode(&m, destination{"", "orders.3"})
	require.NoError(t, err)
	require.Equal(t, amqp.Table{
		"cloudEvents:specversion":   "1.0",
		"cloudEvents:id":            "id-1",
		"cloudEvents:source":        "/shop",
		"cloudEvents:type":          "placed",
		"cloudEvents:time":          "2026-01-02T03:04:05.000678Z",
		"cloudEvents:correlationid": "corr",
		"cloudEvents:causationid":   "cause",
		"cloudEvents:partitionkey":  "o-1",
		"cloudEvents:topic":         "orders",
		"traceparent":               "00-1",
		"id":                        "plain",
	}, p.Headers)
	require.Equal(t, amqp.Persistent, p.DeliveryMode)
	require.Equal(t, []string{"application/avro", "id-1", "placed"}, []string{p.ContentType, p.MessageId, p.Type})
}

func TestRoundTrip(t *testing.T) {
	change := func(f func(*brokers.Message)) brokers.Message {
		m := full()
		f(&m)
		return m
	}
	long := strings.Repeat("x", 300)
	for name, m := range map[string]brokers.Message{
		"full":          full(),
		"minimal":       {Topic: "orders", Payload: []byte{}},
		"tombstone":     change(func(m *brokers.Message) { m.Payload = nil }),
		"empty payload": change(func(m *brokers.Message) { m.Payload = []byte{} }),
		"long fields":   change(func(m *brokers.Message) { m.ID, m.Type, m.ContentType = long, long, long }),
	} {
		t.Run(name, func(t *testing.T) {
			p, err := encode(&m, destination{"", m.Topic})
			require.NoError(t, err)
			require.Equal(t, m, decode(received(p, m.Topic), "queue"))
		})
	}
}

func received(p amqp.Publishing, routingKey string) *amqp.Delivery {
	return &amqp.Delivery{
		Headers: p.Headers, ContentType: p.ContentType, MessageId: p.MessageId, Type: p.Type,
		RoutingKey: routingKey, Body: p.Body,
	}
}

// A header that looks like an attribute cannot change the message.
func TestEncodeIgnoresContradictions(t *testing.T) {
	m := full()
	m.Headers = map[string]string{"ce_id": "x", "cloudEvents_type": "x", "cloudEvents:tombstone": "true", "ce_subject": "kept"}
	p, err := encode(&m, destination{"", "orders"})
	require.NoError(t, err)
	got := decode(received(p, "orders"), "queue")
	want := full()
	want.Headers = map[string]string{"ce_subject": "kept"}
	require.Equal(t, want, got)
}

func TestDecodePrefixes(t *testing.T) {
	d := &amqp.Delivery{Headers: amqp.Table{
		"ce_id": "kafka", "cloudEvents_id": "jms", "cloudEvents:id": "amqp",
		"ce_source": "kafka", "cloudEvents_source": "jms",
		"ce_type": "kafka",
	}}
	m := decode(d, "queue")
	require.Equal(t, []string{"amqp", "jms", "kafka"}, []string{m.ID, m.Source, m.Type})
	require.Equal(t, "queue", m.Topic)
	require.Empty(t, m.Headers)
}

// What is no CloudEvent is read as far as it goes.
func TestDecodeForeign(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	d := &amqp.Delivery{
		MessageId: "m-1", Type: "T", Timestamp: at, CorrelationId: "c", ContentType: "text/plain",
		RoutingKey: "rk", Body: []byte("x"),
		Headers: amqp.Table{
			"nil": nil, "bool": true, "int": int32(-7), "long": int64(1) << 40, "float": 1.5,
			"bytes": []byte("text"), "binary": []byte{0xff}, "time": at, "decimal": amqp.Decimal{Scale: 2, Value: 1234},
			"x-death": []any{amqp.Table{"count": int64(3), "queue": "q", "time": at}},
		},
	}
	m := decode(d, "queue")
	require.Equal(t, brokers.Message{
		Topic: "rk", ID: "m-1", Type: "T", Time: at, CorrelationID: "c", ContentType: "text/plain", Payload: []byte("x"),
		Headers: map[string]string{
			"nil": "", "bool": "true", "int": "-7", "long": "1099511627776", "float": "1.5",
			"bytes": "text", "binary": "/w==", "time": "2026-01-02T03:04:05Z", "decimal": "12.34",
			"x-death": `[{"count":3,"queue":"q","time":"2026-01-02T03:04:05Z"}]`,
		},
	}, m)

	debezium := decode(&amqp.Delivery{Headers: amqp.Table{"id": "d-1"}}, "queue")
	require.Equal(t, "d-1", debezium.ID)
	badTime := decode(&amqp.Delivery{Headers: amqp.Table{"cloudEvents:time": "yesterday"}}, "queue")
	require.Zero(t, badTime.Time)
}

func TestDecimal(t *testing.T) {
	for want, d := range map[string]amqp.Decimal{
		"5": {Value: 5}, "0.05": {Scale: 2, Value: 5}, "-0.05": {Scale: 2, Value: -5}, "-12.3": {Scale: 1, Value: -123},
	} {
		require.Equal(t, want, decimal(d))
	}
}
