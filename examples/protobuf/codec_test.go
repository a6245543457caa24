package protobuf_test

import (
	_ "embed"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/examples/protobuf"
)

//go:embed order.proto
var orderProto string

// The codec is all that an event type needs to be one of Protobuf messages.
var OrderPlacedV1 = event.Type[*protobuf.OrderPlaced]{
	Name: "shop.order.placed", Topic: "orders",
	Key:   (*protobuf.OrderPlaced).GetOrderId,
	Codec: protobuf.New[*protobuf.OrderPlaced](orderProto),
}

func Example() {
	order := &protobuf.OrderPlaced{OrderId: "o-1", Items: []*protobuf.OrderPlaced_Item{{Sku: "a", Qty: 2}}}
	draft := OrderPlacedV1.New(order) // for outbox.Write
	data, err := OrderPlacedV1.Codec.Encode(draft.Data)
	fmt.Println(draft.Key, len(data), err)

	var got *protobuf.OrderPlaced // what a handler of the inbox gets
	err = OrderPlacedV1.Codec.Decode(data, event.Schema{}, &got)
	fmt.Println(got.GetItems()[0].GetQty(), err)
	// Output:
	// o-1 12 <nil>
	// 2 <nil>
}

func TestRefuses(t *testing.T) {
	c := OrderPlacedV1.Codec
	for name, v := range map[string]any{"nil": nil, "nil pointer": (*protobuf.OrderPlaced)(nil), "another": "text"} {
		_, err := c.Encode(v)
		require.ErrorContains(t, err, "is nil, or not a *protobuf.OrderPlaced", name)
	}
	_, err := c.Encode(&protobuf.OrderPlaced{OrderId: "\xff"})
	require.ErrorContains(t, err, "UTF-8")
	_, err = c.Encode(&protobuf.OrderPlaced{OrderId: strings.Repeat("x", 2<<20)})
	require.ErrorContains(t, err, "at most 1048576")

	var got *protobuf.OrderPlaced
	require.Error(t, c.Decode([]byte("\x0a\xff\xff\xff\xff\x07x"), event.Schema{}, &got), "a string of 2 GiB")
	require.Error(t, c.Decode([]byte("\x0a\x01\xff"), event.Schema{}, &got), "not UTF-8")
	require.ErrorContains(t, c.Decode(make([]byte, 2<<20), event.Schema{}, &got), "at most 1048576")
	require.ErrorContains(t, c.Decode(nil, event.Schema{Format: "avro"}, &got), `format "avro"`)
	require.ErrorContains(t, c.Decode(nil, event.Schema{}, got), "**protobuf.OrderPlaced is needed")
}

func TestConcurrentUse(t *testing.T) {
	want := &protobuf.OrderPlaced{OrderId: "o-1"}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				var got *protobuf.OrderPlaced
				data, err := OrderPlacedV1.Codec.Encode(want)
				if err == nil {
					err = OrderPlacedV1.Codec.Decode(data, OrderPlacedV1.Codec.Schema(), &got)
				}
				if err != nil || !proto.Equal(want, got) {
					t.Errorf("%v, %v", got, err)
				}
			}
		})
	}
	wg.Wait()
}
