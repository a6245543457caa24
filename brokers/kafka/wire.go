package kafka

import (
	"errors"
	"time"
	"unsafe"

	"github.com/IBM/sarama"

	"github.com/outboxkit/outboxkit/brokers"
)

// Header names of the CloudEvents Kafka protocol binding, binary mode.
const (
	headerSpecVersion   = "ce_specversion"
	headerID            = "ce_id"
	headerSource        = "ce_source"
	headerType          = "ce_type"
	headerTime          = "ce_time"
	headerContentType   = "content-type" // the binding gives this one no prefix
	headerCorrelationID = "ce_correlationid"
	headerCausationID   = "ce_causationid"

	headerDebeziumID  = "id" // Debezium's outbox event router
	headerTraceparent = "traceparent"
	specVersion       = "1.0"
)

// The same as bytes, shared by all records: nobody changes a record's bytes.
var (
	nameSpecVersion   = []byte(headerSpecVersion)
	nameID            = []byte(headerID)
	nameSource        = []byte(headerSource)
	nameType          = []byte(headerType)
	nameTime          = []byte(headerTime)
	nameContentType   = []byte(headerContentType)
	nameCorrelationID = []byte(headerCorrelationID)
	nameCausationID   = []byte(headerCausationID)

	specVersionHeader = sarama.RecordHeader{Key: nameSpecVersion, Value: []byte(specVersion)}
)

// reserved reports whether a header is written from a field of brokers.Message.
// Headers of that name are left out: the field counts.
func reserved(name string) bool {
	switch name {
	case headerSpecVersion, headerID, headerSource, headerType, headerTime,
		headerContentType, headerCorrelationID, headerCausationID:
		return true
	}
	return false
}

// slab hands out pieces of shared allocations: the records of one call live and
// die together, and one allocation a header would cost more than encoding it.
type slab struct {
	bytes   []byte
	headers []sarama.RecordHeader
	ptrs    []*sarama.RecordHeader

	// The last header of each of these names. Most messages of a call have the same
	// few values.
	source, kind, contentType *sarama.RecordHeader
}

const (
	ownHeaders    = 4 // id, time, correlation and causation
	commonHeaders = 4 // those that records share
)

// newSlab returns a slab with room for msgs, give or take.
func newSlab(msgs []brokers.Message, idx []int32) *slab {
	var bytes, headers int
	for _, i := range idx {
		bytes += len(msgs[i].Payload) + len(time.RFC3339Nano)
		headers += ownHeaders + len(msgs[i].Headers)
	}
	return &slab{
		bytes:   make([]byte, 0, bytes),
		headers: make([]sarama.RecordHeader, 0, headers),
		ptrs:    make([]*sarama.RecordHeader, 0, headers+commonHeaders*len(idx)),
	}
}

// copyBytes returns a copy that stays valid when the slab grows.
func (s *slab) copyBytes(v []byte) []byte {
	from := len(s.bytes)
	s.bytes = append(s.bytes, v...)
	return s.bytes[from:len(s.bytes):len(s.bytes)]
}

// bytesOf returns a string's own bytes. They never change: the caller cannot
// change a string, and a record's bytes are only read.
func bytesOf(v string) []byte {
	return unsafe.Slice(unsafe.StringData(v), len(v))
}

// header adds a header unless its value is empty.
func (s *slab) header(name []byte, value string) {
	if value != "" {
		s.put(name, bytesOf(value))
	}
}

// repeated adds the last header again if it has this value.
func (s *slab) repeated(last **sarama.RecordHeader, name []byte, value string) {
	if value == "" {
		return
	}
	if *last == nil || string((*last).Value) != value {
		*last = &sarama.RecordHeader{Key: name, Value: bytesOf(value)}
	}
	s.ptrs = append(s.ptrs, *last)
}

func (s *slab) put(name, value []byte) {
	s.headers = append(s.headers, sarama.RecordHeader{Key: name, Value: value})
	s.ptrs = append(s.ptrs, &s.headers[len(s.headers)-1])
}

// Upper bounds of the varints around a record and around a header.
const (
	recordOverhead = 36
	headerOverhead = 10
	batchOverhead  = 61
)

// record fills r from m and returns the most bytes that it takes uncompressed.
// The payload is copied: a batch may still be on its way after the caller's
// context has ended and the caller has its message back.
func (s *slab) record(r *sarama.Record, m *brokers.Message) int {
	first := len(s.ptrs)
	s.ptrs = append(s.ptrs, &specVersionHeader)
	s.header(nameID, m.ID)
	s.repeated(&s.source, nameSource, m.Source)
	s.repeated(&s.kind, nameType, m.Type)
	if !m.Time.IsZero() {
		from := len(s.bytes)
		s.bytes = m.Time.UTC().AppendFormat(s.bytes, time.RFC3339Nano)
		s.put(nameTime, s.bytes[from:len(s.bytes):len(s.bytes)])
	}
	s.repeated(&s.contentType, nameContentType, m.ContentType)
	s.header(nameCorrelationID, m.CorrelationID)
	s.header(nameCausationID, m.CausationID)
	for k, v := range m.Headers {
		if !reserved(k) {
			s.put(bytesOf(k), bytesOf(v))
		}
	}
	r.Headers = s.ptrs[first:len(s.ptrs):len(s.ptrs)]
	if m.Key != "" {
		r.Key = bytesOf(m.Key)
	}
	if m.Payload != nil {
		r.Value = s.copyBytes(m.Payload)
	}
	size := recordOverhead + len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		size += headerOverhead + len(h.Key) + len(h.Value)
	}
	return size
}

// toMessage is the way back.
func toMessage(in *sarama.ConsumerMessage) brokers.Message {
	text := newTexts(in)
	m := brokers.Message{Topic: in.Topic, Key: text.of(in.Key), Payload: in.Value}
	var debeziumID string
	var haveDebeziumID bool
	for _, h := range in.Headers {
		value := text.of(h.Value)
		switch string(h.Key) {
		case headerSpecVersion:
		case headerID:
			m.ID = value
		case headerSource:
			m.Source = value
		case headerType:
			m.Type = value
		case headerContentType:
			m.ContentType = value
		case headerCorrelationID:
			m.CorrelationID = value
		case headerCausationID:
			m.CausationID = value
		case headerTime:
			t, err := time.Parse(time.RFC3339Nano, value)
			if err != nil {
				addHeader(&m, headerTime, value) // kept for whoever wants to look
				continue
			}
			m.Time = t
		case headerDebeziumID:
			debeziumID, haveDebeziumID = value, true
		case headerTraceparent: // in nearly every message: not copied
			addHeader(&m, headerTraceparent, value)
		default:
			addHeader(&m, string(h.Key), value)
		}
	}
	if haveDebeziumID {
		if m.ID == "" {
			m.ID = debeziumID
		} else {
			addHeader(&m, headerDebeziumID, debeziumID)
		}
	}
	return m
}

// texts are the key and header values of one message as strings that share their
// memory: one allocation instead of one each. They do not share the bytes that
// were received, of which a string that is kept would hold a whole fetch.
type texts struct {
	all string
	at  int
}

func newTexts(in *sarama.ConsumerMessage) texts {
	n := len(in.Key)
	for _, h := range in.Headers {
		n += len(h.Value)
	}
	b := append(make([]byte, 0, n), in.Key...)
	for _, h := range in.Headers {
		b = append(b, h.Value...)
	}
	return texts{all: unsafe.String(unsafe.SliceData(b), len(b))} // nobody has b
}

// of returns the next one, which is b's copy.
func (t *texts) of(b []byte) string {
	s := t.all[t.at : t.at+len(b)]
	t.at += len(b)
	return s
}

// addHeader keeps the last of several headers with one name, as Kafka's own
// lastHeader does.
func addHeader(m *brokers.Message, name, value string) {
	if m.Headers == nil {
		m.Headers = make(map[string]string)
	}
	m.Headers[name] = value
}

// maxTimestampAge is how far a record's timestamp may lie back.
const maxTimestampAge = time.Hour

// clampTimestamp returns the record timestamp of an event that happened at t,
// in milliseconds. Kafka refuses timestamps an hour ahead of its clock
// (message.timestamp.after.max.ms) and deletes by age: an event that waited for
// days in the outbox must not arrive expired. The exact time is in ce_time.
func clampTimestamp(t, now time.Time) int64 {
	if t.IsZero() || t.After(now) {
		t = now
	} else if oldest := now.Add(-maxTimestampAge); t.Before(oldest) {
		t = oldest
	}
	return t.UnixMilli()
}

var (
	errTopicEmpty = errors.New("is empty")
	errTopicName  = errors.New("is not a Kafka topic name (use letters, digits, '.', '_' and '-', at most 249 of them)")
)

// validTopic checks a name before a broker sees it.
func validTopic(name string) error {
	if name == "" {
		return errTopicEmpty
	}
	if len(name) > 249 || name == "." || name == ".." {
		return errTopicName
	}
	for _, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return errTopicName
		}
	}
	return nil
}
