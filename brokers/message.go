package brokers

import (
	"fmt"
	"time"
)

// Message is one event on its way through a broker. Adapters map the fields to
// the CloudEvents binary mode of their protocol; a field that is empty is left
// out on the wire and is empty when read.
type Message struct {
	Topic         string            // logical destination
	Key           string            // ordering key; "" = no order
	ID            string            // CloudEvents id
	Source        string            // CloudEvents source
	Type          string            // CloudEvents type
	Time          time.Time         // CloudEvents time; zero = absent
	ContentType   string            // CloudEvents datacontenttype
	CorrelationID string            // extension attribute "correlationid"
	CausationID   string            // extension attribute "causationid"
	Headers       map[string]string // everything else, by its own name (traceparent, …)
	Payload       []byte            // nil = no data (Kafka: a tombstone); empty is not nil
}

// Origin says where a delivery came from, for people and for dead letters.
type Origin struct {
	Broker    string // "kafka", "rabbitmq", "memory"
	Topic     string // Kafka topic, RabbitMQ queue
	Partition int32  // Kafka partition; 0 elsewhere
	Offset    int64  // Kafka offset; 0 where the broker has none
}

// String returns for example "kafka orders/3@42".
func (o Origin) String() string {
	return fmt.Sprintf("%s %s/%d@%d", o.Broker, o.Topic, o.Partition, o.Offset)
}
