// Package events shows event types whose Go structs are generated from their
// schemas, and whose schemas are checked before anything is written with them.
//
//   - order_placed.avsc is the schema as it is now, order_placed.v1.avsc what was
//     in use before: `relay schema register .` has frozen it.
//   - order_placed_gen.go is generated: `go generate ./...`.
//   - ../ci.yaml checks every change in CI.
package events

import (
	"context"
	"embed"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/schema"
	"github.com/outboxkit/outboxkit/schema/avro"
)

//go:generate go run github.com/hamba/avro/v2/cmd/avrogen@v2.31.0 -pkg events -o order_placed_gen.go order_placed.avsc

//go:embed *.avsc
var files embed.FS

// Schemas are those of this folder, with their earlier versions.
var Schemas = must(avro.Load(files))

// OrderPlacedV1 is written by the shop.
var OrderPlacedV1 = event.Type[OrderPlaced]{
	Name:  "shop.order.placed",
	Topic: "orders",
	Key:   func(e OrderPlaced) string { return e.OrderID },
	Codec: Schemas.MustCodec("shop.OrderPlaced"),
}

// Gate is for outbox.Config.Gate: the service does not start with a schema that
// cannot read what earlier versions wrote. Where there is a registry, give its
// client instead of Schemas, and schema.ByTopic or how else its subjects are named.
func Gate() func(context.Context, event.Info) error {
	return schema.Gate(Schemas, schema.ByRecord, avro.Compare)
}

// Wire is for inbox.Config.Wire: it opens messages of every version.
func Wire() event.WireFormat { return Schemas.SingleObject() }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
