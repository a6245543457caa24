package inbox_test

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/outbox"
	"github.com/outboxkit/outboxkit/schema/avro"
)

// A compatible schema keeps the type's name: this is what the inbox does with a
// message of an older one, before its only handler sees it.
func ExampleConfig_wire() {
	older := avro.MustParse(`{"type":"record","name":"Order","fields":[{"name":"id","type":"string"}]}`)
	ours := avro.MustParse(`{"type":"record","name":"Order","fields":[{"name":"id","type":"string"},
		{"name":"currency","type":"string","default":"EUR"}]}`)
	wire := avro.SingleObject(ours.Schema(), older.Schema()) // Config.Wire: every version that producers write
	ctx := context.Background()

	data, _ := older.Encode(map[string]any{"id": "o-1"})
	message, _ := wire.Seal(ctx, "orders", older.Schema(), data)

	writer, data, _ := wire.Open(ctx, "orders", message)
	var order struct {
		ID       string `avro:"id"`
		Currency string `avro:"currency"`
	}
	err := ours.Decode(data, writer, &order)
	fmt.Println(order, err)
	// Output: {o-1 EUR} <nil>
}

// OrderPlacedV2 means something else than OrderPlacedV1: it has a name of its own.
var OrderPlacedV2 = event.Type[map[string]any]{Name: "shop.order.placed.v2", Topic: "orders", Codec: jsonCodec{}}

// Two types on one topic have a handler each.
func ExampleOn_versions() {
	register := func(in *inbox.Inbox) {
		inbox.On(in, OrderPlacedV1, func(context.Context, pgx.Tx, inbox.Event[OrderPlaced]) error { return nil })
		inbox.On(in, OrderPlacedV2, func(context.Context, pgx.Tx, inbox.Event[map[string]any]) error { return nil })
	}
	_ = register
}

// A handler's own events commit with its changes, and name the event they follow
// from. See examples/delivery for all of it.
func ExampleOn_derivedEvents() {
	register := func(in *inbox.Inbox, ob *outbox.Outbox, invoiceAsked event.Type[string]) {
		inbox.On(in, OrderPlacedV1, func(ctx context.Context, tx pgx.Tx, e inbox.Event[OrderPlaced]) error {
			if _, err := tx.Exec(ctx, `UPDATE stock SET qty = qty-1 WHERE sku = ANY($1)`, e.Data.Items); err != nil {
				return err
			}
			return ob.Write(ctx, tx, invoiceAsked.New(e.Data.OrderID)) // CausationID: e.ID
		})
	}
	_ = register
}
