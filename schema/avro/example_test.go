package avro_test

import (
	"context"
	"fmt"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/schema/avro"
)

type Placed struct {
	OrderID string `avro:"orderId"`
	Items   []Item `avro:"items"`
}

type Item struct {
	SKU string `avro:"sku"`
	Qty int    `avro:"qty"`
}

const placedSchema = `{"type": "record", "name": "Placed", "namespace": "shop", "fields": [
  {"name": "orderId", "type": "string"},
  {"name": "items", "type": {"type": "array", "items": {"type": "record", "name": "Item", "fields": [
    {"name": "sku", "type": "string"},
    {"name": "qty", "type": "int"}]}}}]}`

func Example() {
	placedV1 := event.Type[Placed]{
		Name: "shop.order.placed", Topic: "orders",
		Key:   func(p Placed) string { return p.OrderID },
		Codec: avro.MustParse(placedSchema),
	}
	data, err := placedV1.Codec.Encode(Placed{OrderID: "o-1", Items: []Item{{SKU: "lamp", Qty: 2}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	var got Placed
	err = placedV1.Codec.Decode(data, placedV1.Codec.Schema(), &got)
	fmt.Println(len(data), got, err)

	_, err = placedV1.Codec.Encode(Placed{OrderID: "o-2", Items: []Item{{Qty: 1}, {Qty: 1 << 40}}})
	fmt.Println(err)
	// Output:
	// 13 {o-1 [{lamp 2}]} <nil>
	// items[1].qty "1099511627776" is out of range for int (an Avro int has 32 bits; use long for more)
}

// A consumer reads data of an older schema with its own.
func ExampleCodec_Decode() {
	v1 := avro.MustParse(`{"type":"record","name":"Stock","fields":[{"name":"sku","type":"string"},{"name":"qty","type":"int"}]}`)
	v2 := avro.MustParse(`{"type":"record","name":"Stock","fields":[{"name":"sku","type":"string"},{"name":"amount","type":"long","aliases":["qty"]},
	  {"name":"place","type":"string","default":"main"}]}`)
	data, err := v1.Encode(map[string]any{"sku": "lamp", "qty": 7})
	if err != nil {
		fmt.Println(err)
		return
	}
	var stock struct {
		SKU    string `avro:"sku"`
		Amount int64  `avro:"amount"`
		Place  string `avro:"place"`
	}
	err = v2.Decode(data, v1.Schema(), &stock)
	fmt.Println(stock, err)
	// Output: {lamp 7 main} <nil>
}

func ExampleSingleObject() {
	codec := avro.MustParse(`"string"`)
	wire := avro.SingleObject(codec.Schema()) // a consumer lists every version it may meet
	ctx := context.Background()

	data, _ := codec.Encode("hi")
	message, _ := wire.Seal(ctx, "greetings", codec.Schema(), data)
	fmt.Printf("% x\n", message)
	writer, data, err := wire.Open(ctx, "greetings", message)
	var s string
	fmt.Println(codec.Decode(data, writer, &s), s, err)
	// Output:
	// c3 01 c7 03 45 63 72 48 01 8f 04 68 69
	// <nil> hi <nil>
}
