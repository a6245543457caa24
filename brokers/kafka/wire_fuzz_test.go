package kafka

import (
	"maps"
	"testing"

	"github.com/IBM/sarama"

	"github.com/outboxkit/outboxkit/brokers"
)

// FuzzHeaders: any record is a message, and one that is sent on is the same event.
func FuzzHeaders(f *testing.F) {
	f.Add([]byte("k"), "ce_id", []byte("1"), "ce_time", []byte("2026-01-02T03:04:05Z"), []byte("{}"))
	f.Add([]byte(nil), "id", []byte("debezium"), "ce_id", []byte(""), []byte(nil))
	f.Add([]byte("\xff"), "ce_time", []byte("yesterday"), "traceparent", []byte("\x00"), []byte(""))
	f.Add([]byte(""), "", []byte(""), "content-type", []byte("a/b"), []byte("x"))
	f.Fuzz(func(t *testing.T, key []byte, name1 string, value1 []byte, name2 string, value2, payload []byte) {
		first := toMessage(&sarama.ConsumerMessage{
			Topic: "orders", Key: key, Value: payload,
			Headers: []*sarama.RecordHeader{{Key: []byte(name1), Value: value1}, {Key: []byte(name2), Value: value2}},
		})
		var r sarama.Record
		msgs := []brokers.Message{first}
		newSlab(msgs, []int32{0}).record(&r, &msgs[0])
		second := toMessage(&sarama.ConsumerMessage{Topic: "orders", Key: r.Key, Value: r.Value, Headers: r.Headers})
		delete(first.Headers, headerTime) // a time that is none is not sent on
		delete(second.Headers, headerTime)
		type fields [7]string
		of := func(m *brokers.Message) fields {
			return fields{m.Key, m.ID, m.Source, m.Type, m.ContentType, m.CorrelationID, m.CausationID}
		}
		if of(&first) != of(&second) || !maps.Equal(first.Headers, second.Headers) ||
			string(first.Payload) != string(second.Payload) || (first.Payload == nil) != (second.Payload == nil) {
			t.Fatalf("%+v became %+v", first, second)
		}
	})
}
