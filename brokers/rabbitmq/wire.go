package rabbitmq

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"
	"unicode/utf8"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outboxkit/outboxkit/brokers"
)

// attributePrefixes come before a CloudEvents attribute in a header's name, the
// one that wins first. The binding writes "cloudEvents:"; "cloudEvents_" is for
// JMS, whose names have no colon, and "ce_" is what bridges from Kafka leave.
var attributePrefixes = [...]string{"cloudEvents:", "cloudEvents_", "ce_"}

// Names of CloudEvents attributes. The last two are extensions of this package.
const (
	attrSpecVersion   = "specversion"
	attrID            = "id"
	attrSource        = "source"
	attrType          = "type"
	attrTime          = "time"
	attrContentType   = "datacontenttype"
	attrCorrelationID = "correlationid"
	attrCausationID   = "causationid"
	attrKey           = "partitionkey"
	attrTopic         = "topic"     // where the routing key is not the topic
	attrTombstone     = "tombstone" // there is no data, as opposed to empty data
)

const (
	specVersion      = "1.0"
	headerDebeziumID = "id" // of Debezium's outbox event router

	// maxShortString is AMQP's limit for header names, routing keys and the like.
	maxShortString = 255
)

// destination is where the broker is told to put a message.
type destination struct{ exchange, routingKey string }

// encode returns m as it is published to d, or why that cannot be done.
func encode(m *brokers.Message, d destination) (amqp.Publishing, error) {
	headers := make(amqp.Table, len(m.Headers)+8)
	for name, value := range m.Headers {
		if len(name) > maxShortString {
			return amqp.Publishing{}, fmt.Errorf("header name %.40q… has %d bytes (AMQP allows %d)", name, len(name), maxShortString)
		}
		if _, _, ok := attribute(name); !ok || !ownAttribute(name) {
			headers[name] = value
		}
	}
	set := func(attr, value string) {
		if value != "" {
			headers[attributePrefixes[0]+attr] = value
		}
	}
	set(attrSpecVersion, specVersion)
	set(attrID, m.ID)
	set(attrSource, m.Source)
	set(attrType, m.Type)
	set(attrCorrelationID, m.CorrelationID)
	set(attrCausationID, m.CausationID)
	set(attrKey, m.Key)
	if !m.Time.IsZero() {
		set(attrTime, m.Time.UTC().Format(time.RFC3339Nano))
	}
	if d.routingKey != m.Topic {
		set(attrTopic, m.Topic)
	}
	if m.Payload == nil {
		set(attrTombstone, "true")
	}
	p := amqp.Publishing{
		Headers:      headers,
		DeliveryMode: amqp.Persistent,
		MessageId:    property(m.ID),
		Type:         property(m.Type),
		Body:         m.Payload,
	}
	if p.ContentType = property(m.ContentType); p.ContentType == "" {
		set(attrContentType, m.ContentType)
	}
	return p, nil
}

// property returns s where a basic property can hold it. The headers hold all of
// it in any case.
func property(s string) string {
	if len(s) > maxShortString {
		return ""
	}
	return s
}

// headerBytes returns the size of the frame that carries the properties. AMQP
// cannot split it: one that is too large would end the connection.
func headerBytes(p *amqp.Publishing) int {
	const frame, fixed, deliveryMode, tableLength, fieldOverhead = 8, 14, 1, 4, 1 + 1 + 4
	n := frame + fixed + deliveryMode + tableLength + 3 + len(p.ContentType) + len(p.MessageId) + len(p.Type)
	for name, value := range p.Headers {
		n += fieldOverhead + len(name) + len(value.(string)) // encode sets only strings
	}
	return n
}

// ownAttribute reports whether the header is written from a field of the
// message; a plain header of that name would contradict it.
func ownAttribute(header string) bool {
	attr, _, _ := attribute(header)
	switch attr {
	case attrSpecVersion, attrID, attrSource, attrType, attrTime, attrContentType,
		attrCorrelationID, attrCausationID, attrKey, attrTopic, attrTombstone:
		return true
	}
	return false
}

// attribute splits a header's name into prefix and CloudEvents attribute; rank 0
// is the prefix that wins.
func attribute(header string) (attr string, rank int, ok bool) {
	for rank, prefix := range attributePrefixes {
		if attr, ok := strings.CutPrefix(header, prefix); ok {
			return strings.ToLower(attr), rank, true
		}
	}
	return "", 0, false
}

// decode returns the message in d. Anything that AMQP can carry has a meaning:
// what is no CloudEvent comes with the fields that could be found.
func decode(d *amqp.Delivery, queue string) brokers.Message {
	attrs := make(map[string]string, 8)
	ranks := make(map[string]int, 8)
	plain := make(map[string]string, len(d.Headers))
	for name, raw := range d.Headers {
		value := text(raw)
		attr, rank, ok := attribute(name)
		if !ok || !ownAttribute(name) {
			plain[name] = value
			continue
		}
		if best, seen := ranks[attr]; !seen || rank < best {
			attrs[attr], ranks[attr] = value, rank
		}
	}
	m := brokers.Message{
		Topic:         first(attrs[attrTopic], d.RoutingKey, queue),
		Key:           attrs[attrKey],
		ID:            first(attrs[attrID], d.MessageId, plain[headerDebeziumID]),
		Source:        attrs[attrSource],
		Type:          first(attrs[attrType], d.Type),
		Time:          d.Timestamp,
		ContentType:   first(d.ContentType, attrs[attrContentType]),
		CorrelationID: first(attrs[attrCorrelationID], d.CorrelationId),
		CausationID:   attrs[attrCausationID],
		Payload:       d.Body,
	}
	if len(plain) > 0 {
		m.Headers = plain
	}
	if t, err := time.Parse(time.RFC3339Nano, attrs[attrTime]); err == nil {
		m.Time = t
	}
	switch {
	case len(d.Body) > 0:
	case attrs[attrTombstone] == "true":
		m.Payload = nil
	default:
		m.Payload = []byte{}
	}
	return m
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// text returns a header's value, which other programs may have given any AMQP
// type, as a string: times as RFC 3339, bytes as they are or in base64, tables
// and arrays as JSON.
func text(value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case string:
		return v
	case []byte:
		if utf8.Valid(v) {
			return string(v)
		}
		return base64.StdEncoding.EncodeToString(v)
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	case amqp.Decimal:
		return decimal(v)
	case amqp.Table, []any:
		b, err := json.Marshal(jsonValue(v))
		if err != nil {
			return fmt.Sprint(v)
		}
		return string(b)
	default: // bool, integers and floats
		return fmt.Sprint(v)
	}
}

// jsonValue makes a nested value one that JSON knows: numbers and booleans stay,
// all else is text.
func jsonValue(value any) any {
	switch v := value.(type) {
	case amqp.Table:
		out := maps.Clone(v)
		for name, field := range out {
			out[name] = jsonValue(field)
		}
		return map[string]any(out)
	case []any:
		out := make([]any, len(v))
		for i, element := range v {
			out[i] = jsonValue(element)
		}
		return out
	case nil, bool, int, int8, int16, int32, int64, uint8, uint16, uint32, uint64:
		return v
	default:
		return text(v)
	}
}

// decimal writes Value / 10^Scale out.
func decimal(d amqp.Decimal) string {
	sign, value := "", int64(d.Value)
	if value < 0 {
		sign, value = "-", -value
	}
	digits := fmt.Sprintf("%0*d", int(d.Scale)+1, value)
	point := len(digits) - int(d.Scale)
	if d.Scale == 0 {
		return sign + digits
	}
	return sign + digits[:point] + "." + digits[point:]
}
