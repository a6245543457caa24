package rabbitmq

import (
	"maps"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outboxkit/outboxkit/brokers"
)

// fuzzedField is a header's value of any type that AMQP has.
func fuzzedField(kind uint8, text string, number int64) any {
	switch kind % 8 {
	case 0:
		return text
	case 1:
		return []byte(text)
	case 2:
		return number
	case 3:
		return time.Unix(number%1e11, 0)
	case 4:
		return amqp.Decimal{Scale: uint8(number), Value: int32(number >> 8)} //nolint:gosec // any bits
	case 5:
		return amqp.Table{text: []any{number, nil, amqp.Table{"x": []byte(text)}}}
	case 6:
		return float64(number) / 3
	default:
		return nil
	}
}

// FuzzHeaders: any delivery is a message, and one that is sent on is the same event.
func FuzzHeaders(f *testing.F) {
	f.Add("cloudEvents:id", "1", "ce_ID", "2", uint8(0), int64(0), "m-1", "placed", []byte("{}"))
	f.Add("cloudEvents_tombstone", "true", "id", "3", uint8(1), int64(-1), "", "", []byte(nil))
	f.Add("cloudEvents:time", "x", "n", "\xff\x00", uint8(4), int64(-1<<63), "", "", []byte{0})
	f.Add("cloudEvents:topic", "elsewhere", "t", "k", uint8(5), int64(7), "", "", []byte("x"))
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string, kind uint8, number int64, id, typ string, body []byte) {
		first := decode(&amqp.Delivery{
			Headers:   amqp.Table{name1: value1, name2: fuzzedField(kind, value2, number)},
			MessageId: id, Type: typ, RoutingKey: "q", Body: body,
		}, "q")
		if first.Topic == "" || first.Payload == nil && len(body) > 0 {
			t.Fatalf("lost something: %+v", first)
		}
		p, err := encode(&first, destination{"", "q"})
		if err != nil {
			return // a name that AMQP has no room for
		}
		second := decode(&amqp.Delivery{Headers: p.Headers, MessageId: p.MessageId, Type: p.Type, ContentType: p.ContentType, RoutingKey: "q", Body: p.Body}, "q")
		type fields [8]string
		of := func(m *brokers.Message) fields {
			return fields{m.Topic, m.Key, m.ID, m.Source, m.Type, m.ContentType, m.CorrelationID, m.CausationID}
		}
		if of(&first) != of(&second) || !maps.Equal(first.Headers, second.Headers) ||
			string(first.Payload) != string(second.Payload) || (first.Payload == nil) != (second.Payload == nil) {
			t.Fatalf("%+v became %+v", first, second)
		}
	})
}
