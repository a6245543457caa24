package kafka

import (
	"fmt"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
)

// headersOf returns what m becomes on the wire.
func headersOf(t *testing.T, m brokers.Message) (*sarama.Record, map[string]string) {
	t.Helper()
	r := new(sarama.Record)
	msgs := []brokers.Message{m}
	newSlab(msgs, []int32{0}).record(r, &msgs[0])
	out := map[string]string{}
	for _, h := range r.Headers {
		require.NotContains(t, out, string(h.Key), "a header is written twice")
		out[string(h.Key)] = string(h.Value)
	}
	return r, out
}

func TestCloudEventsBinaryMode(t *testing.T) {
	m := brokers.Message{
		Topic: "orders", Key: "order-1", ID: "id-1", Source: "/shop", Type: "shop.order.placed",
		Time:        time.Date(2026, 11, 21, 1, 2, 3, 456789000, time.FixedZone("", 3600)),
		ContentType: "application/avro", CorrelationID: "corr", CausationID: "cause",
		Headers: map[string]string{"traceparent": "00-1", "ce_subject": "s", "ce_id": "a header must not pass for the id"},
		Payload: []byte("data"),
	}
	r, headers := headersOf(t, m)
	require.Equal(t, map[string]string{
		"ce_specversion": "1.0", "ce_id": "id-1", "ce_source": "/shop", "ce_type": "shop.order.placed",
		"ce_time": "2026-11-21T00:02:03.456789Z", "content-type": "application/avro",
		"ce_correlationid": "corr", "ce_causationid": "cause", "traceparent": "00-1", "ce_subject": "s",
	}, headers)
	require.Equal(t, "order-1", string(r.Key))
	require.Equal(t, "data", string(r.Value))

	r, headers = headersOf(t, brokers.Message{Topic: "orders"})
	require.Equal(t, map[string]string{"ce_specversion": "1.0"}, headers)
	require.Nil(t, r.Key, "no key is a NULL key, which has no partition of its own")
	require.Nil(t, r.Value, "no payload is a tombstone")

	r, _ = headersOf(t, brokers.Message{Topic: "orders", Payload: []byte{}})
	require.NotNil(t, r.Value)
}

func TestRecordKeepsNothingOfTheMessage(t *testing.T) {
	payload := []byte("before")
	r, _ := headersOf(t, brokers.Message{Payload: payload})
	copy(payload, "after!")
	require.Equal(t, "before", string(r.Value))
}

func consumed(pairs ...string) *sarama.ConsumerMessage {
	m := &sarama.ConsumerMessage{Topic: "orders", Key: []byte("k"), Value: []byte("v")}
	for i := 0; i < len(pairs); i += 2 {
		m.Headers = append(m.Headers, &sarama.RecordHeader{Key: []byte(pairs[i]), Value: []byte(pairs[i+1])})
	}
	return m
}

func TestReadingForeignHeaders(t *testing.T) {
	base := brokers.Message{Topic: "orders", Key: "k", Payload: []byte("v")}
	with := func(change func(*brokers.Message)) brokers.Message {
		m := base
		change(&m)
		return m
	}
	for name, tt := range map[string]struct {
		in   *sarama.ConsumerMessage
		want brokers.Message
	}{
		"no headers":      {consumed(), base},
		"Debezium's id":   {consumed("id", "42"), with(func(m *brokers.Message) { m.ID = "42" })},
		"both ids":        {consumed("id", "42", "ce_id", "7"), with(func(m *brokers.Message) { m.ID, m.Headers = "7", map[string]string{"id": "42"} })},
		"extension":       {consumed("ce_specversion", "1.0", "ce_partitionkey", "x"), with(func(m *brokers.Message) { m.Headers = map[string]string{"ce_partitionkey": "x"} })},
		"bad time":        {consumed("ce_time", "yesterday"), with(func(m *brokers.Message) { m.Headers = map[string]string{"ce_time": "yesterday"} })},
		"repeated header": {consumed("a", "1", "a", "2"), with(func(m *brokers.Message) { m.Headers = map[string]string{"a": "2"} })},
	} {
		require.Equal(t, tt.want, toMessage(tt.in), name)
	}
}

func TestClampTimestamp(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct{ in, want time.Time }{
		"none":            {time.Time{}, now},
		"just now":        {now.Add(-time.Second), now.Add(-time.Second)},
		"clock ahead":     {now.Add(2 * time.Hour), now},
		"a week in queue": {now.Add(-7 * 24 * time.Hour), now.Add(-time.Hour)},
	} {
		require.Equal(t, tt.want.UnixMilli(), clampTimestamp(tt.in, now), name)
	}
}

// Partitions for 1, 3, 6, 12, 50, 64 and 1,000 partitions, computed with
// org.apache.kafka.common.utils.Utils (kafka-clients 4.1.0):
// Utils.toPositive(Utils.murmur2(key in UTF-8)) % partitions.
var javaPartitions = []struct {
	key  string
	want [7]int32
}{
	{"a", [...]int32{0, 1, 4, 4, 24, 60, 524}},
	{"ab", [...]int32{0, 2, 2, 2, 34, 42, 434}},
	{"abc", [...]int32{0, 0, 3, 3, 7, 27, 107}},
	{"abcd", [...]int32{0, 2, 2, 8, 0, 52, 100}},
	{"key-0", [...]int32{0, 1, 1, 1, 41, 57, 41}},
	{"key-1", [...]int32{0, 0, 0, 0, 40, 56, 640}},
	{"order-4711", [...]int32{0, 1, 1, 7, 11, 59, 611}},
	{"21", [...]int32{0, 0, 0, 0, 40, 44, 340}},
	{"foobar", [...]int32{0, 0, 0, 6, 16, 62, 166}},
	{"a-little-bit-long-string", [...]int32{0, 2, 2, 8, 12, 32, 112}},
	{"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", [...]int32{0, 2, 5, 5, 27, 13, 677}},
	{"0", [...]int32{0, 2, 2, 8, 46, 4, 396}},
	{"\u00e4\u00f6\u00fc\u00df", [...]int32{0, 2, 5, 5, 33, 25, 433}},
	{"\u65e5\u672c\u8a9e", [...]int32{0, 1, 4, 10, 20, 10, 170}},
	{"\U0001f600", [...]int32{0, 0, 3, 9, 17, 17, 617}},
	{"01935b2e-5b5c-7abc-9def-0123456789ab", [...]int32{0, 2, 5, 5, 29, 13, 429}},
	{"shop/orders/42", [...]int32{0, 2, 5, 5, 13, 17, 113}},
	{"user:1234567890", [...]int32{0, 2, 5, 5, 23, 61, 573}},
	{" ", [...]int32{0, 0, 3, 9, 21, 1, 521}},
	{"\u0000\u00ff", [...]int32{0, 2, 5, 11, 47, 47, 647}},
}

// topicOf returns a topic with n partitions that nobody serves.
func topicOf(n int) *topic {
	t := newTopic(NewPublisher(Config{Brokers: []string{"unused:1"}}), "orders")
	t.adopt(make([]string, n), 1<<20)
	return t
}

func TestKeysGoWhereJavaPutsThem(t *testing.T) {
	for i, n := range []int{1, 3, 6, 12, 50, 64, 1000} {
		topic := topicOf(n)
		for _, v := range javaPartitions {
			parts, err := topic.assign([]brokers.Message{{Topic: "orders", Key: v.key}}, []int32{0})
			require.NoError(t, err)
			require.Equal(t, v.want[i], parts[0].id, "key %q, %d partitions", v.key, n)
		}
	}
}

func TestMessagesWithoutKeyStickToOnePartitionForABatch(t *testing.T) {
	topic := topicOf(4)
	const n = 4 * maxBatchRecords
	idx := make([]int32, n)
	for i := range idx {
		idx[i] = int32(i)
	}
	parts, err := topic.assign(make([]brokers.Message, n), idx)
	require.NoError(t, err)
	count := map[int32]int{}
	for i, p := range parts {
		count[p.id]++
		require.Equal(t, parts[i/maxBatchRecords*maxBatchRecords].id, p.id, "message %d", i)
	}
	require.Equal(t, map[int32]int{0: maxBatchRecords, 1: maxBatchRecords, 2: maxBatchRecords, 3: maxBatchRecords}, count)
}

func TestTopicNames(t *testing.T) {
	for _, good := range []string{"orders", "a.B_c-9"} {
		require.NoError(t, validTopic(good), good)
	}
	for _, bad := range []string{"", ".", "..", "a b", "ä", "a/b", fmt.Sprintf("%0250d", 0)} {
		require.Error(t, validTopic(bad), bad)
	}
}
