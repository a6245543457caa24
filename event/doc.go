// Package event is the vocabulary that producers, consumers and tests share:
// [Type] names a kind of event and knows its topic, key and codec; [Draft] is
// one event about to be written; [Envelope] is what travels with its data.
//
// Declare each type once, in a package that both sides import:
//
//	var OrderPlacedV1 = event.Type[OrderPlaced]{
//		Name:  "shop.order.placed",
//		Topic: "orders",
//		Key:   func(e OrderPlaced) string { return e.OrderID },
//		Codec: avro.MustParse(orderPlacedAvsc),
//	}
//
// The V1 counts names, not schemas: a compatible change of the schema changes
// this variable's codec, an incompatible one is another type beside it, with a
// name of its own (shop.order.placed.v2). See package inbox on how consumers read
// both.
//
// The package imports nothing but the standard library, so that sharing a type
// costs a service no dependency.
package event
