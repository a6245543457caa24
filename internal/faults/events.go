package faults

import (
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/schema/avro"
)

// Topics, of which RabbitMQ has queuesPerTopic queues each.
const (
	topicOrders   = "orders"
	topicReserved = "reserved" // derived by the consumer "kafka"
	topicBilled   = "billed"   // derived by the consumer "rabbitmq"

	partitions     = 6
	queuesPerTopic = 4

	sourceShop      = "/shop"
	sourceWarehouse = "/warehouse"
)

// Names of pipelines, and of the consumers behind them.
const (
	overKafka    = "kafka"
	overRabbitMQ = "rabbitmq"
)

// placed is the N-th order of a user; the user is the ordering key.
type placed struct {
	User string `avro:"user"`
	N    int64  `avro:"n"`
	Kind string `avro:"kind"` // "", kindPoison, kindLarge
	Pad  string `avro:"pad"`
}

const (
	kindPoison = "poison" // no handler can take it
	kindLarge  = "large"  // Kafka's topic does not take it
)

// handled is what a consumer derives from an order: its N-th of the user.
type handled struct {
	User  string `avro:"user"`
	N     int64  `avro:"n"`
	Order string `avro:"order"` // id of the order's event
}

func placedType() event.Type[placed] {
	return event.Type[placed]{
		Name: "shop.order.placed", Topic: topicOrders,
		Key: func(o placed) string { return o.User },
		Codec: avro.MustParse(`{"type":"record","name":"OrderPlaced","namespace":"shop","fields":[
			{"name":"user","type":"string"},{"name":"n","type":"long"},{"name":"kind","type":"string"},{"name":"pad","type":"string"}]}`),
	}
}

// handledType is the derived event's type for one consumer.
func handledType(consumer string) event.Type[handled] {
	name, record, topic := "warehouse.order.reserved", "OrderReserved", topicReserved
	if consumer == overRabbitMQ {
		name, record, topic = "warehouse.order.billed", "OrderBilled", topicBilled
	}
	return event.Type[handled]{
		Name: name, Topic: topic,
		Key: func(h handled) string { return h.User },
		Codec: avro.MustParse(`{"type":"record","name":"` + record + `","namespace":"warehouse","fields":[
			{"name":"user","type":"string"},{"name":"n","type":"long"},{"name":"order","type":"string"}]}`),
	}
}
