package e2e

import (
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/schema/avro"
)

// orderPlaced is the N-th order of a user; the user is the ordering key.
type orderPlaced struct {
	OrderID string   `avro:"orderId"`
	UserID  string   `avro:"userId"`
	N       int64    `avro:"n"`
	Items   []string `avro:"items"`
}

// orderPlacedType returns the event type for one run's topic.
func orderPlacedType(topic string) event.Type[orderPlaced] {
	return event.Type[orderPlaced]{
		Name:  "shop.order.placed",
		Topic: topic,
		Key:   func(o orderPlaced) string { return o.UserID },
		Codec: avro.MustParse(`{"type":"record","name":"OrderPlaced","namespace":"shop","fields":[
			{"name":"orderId","type":"string"},{"name":"userId","type":"string"},{"name":"n","type":"long"},
			{"name":"items","type":{"type":"array","items":"string"}}]}`),
	}
}
