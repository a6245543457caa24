// Package events is what the shop's services share: each kind of event, once,
// with its topic, key and schema. Producers, consumers and tests import it.
package events

import (
	_ "embed"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/schema/avro"
)

// OrderPlaced says that a user has placed an order.
type OrderPlaced struct {
	OrderID string   `avro:"orderId"`
	UserID  string   `avro:"userId"`
	Items   []string `avro:"items"` // SKUs, one entry a piece
}

//go:embed order_placed_v1.avsc
var orderPlacedV1 string

// OrderPlacedV1 is the event's first version. A user's orders stay in order.
var OrderPlacedV1 = event.Type[OrderPlaced]{
	Name:  "shop.order.placed",
	Topic: "orders",
	Key:   func(e OrderPlaced) string { return e.UserID },
	Codec: avro.MustParse(orderPlacedV1),
}

// Wire is how the shop's events travel: each message names its schema by a
// fingerprint, and consumers know the schemas of all versions. With a registry
// it would be registry.Confluent.
func Wire() event.WireFormat {
	return avro.SingleObject(OrderPlacedV1.Codec.Schema())
}
