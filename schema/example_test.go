package schema_test

import (
	"context"
	"fmt"
	"testing/fstest"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/schema"
	"github.com/outboxkit/outboxkit/schema/avro"
)

// A service that would deploy an incompatible schema does not start: the error is
// what outbox.New returns.
func ExampleGate() {
	files, err := avro.Load(fstest.MapFS{ // or an embed.FS; or a registry.Client
		"order.v1.avsc": {Data: []byte(`{"type":"record","name":"Order","fields":[{"name":"items","type":{"type":"array","items":
			{"type":"record","name":"Item","fields":[{"name":"sku","type":"string"}]}}}]}`)},
		"order.avsc": {Data: []byte(`{"type":"record","name":"Order","fields":[{"name":"items","type":{"type":"array","items":
			{"type":"record","name":"Item","fields":[{"name":"sku","type":"string"},{"name":"qty","type":"int"}]}}}]}`)},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	gate := schema.Gate(files, schema.ByRecord, avro.Compare) // for outbox.Config.Gate
	fmt.Println(gate(context.Background(), event.Info{Name: "shop.order", Topic: "orders", Codec: files.MustCodec("Order")}))
	// Output: subject "Order", mode BACKWARD_TRANSITIVE: incompatible schema: field `items[].qty`: added without default breaks BACKWARD (against version 1)
}
