package json_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/schema/json"
)

type order struct {
	ID    string   `json:"id"`
	Items []string `json:"items,omitempty"`
}

func TestRoundTrip(t *testing.T) {
	c := json.New[order]()
	want := order{ID: "o-1", Items: []string{"a", "b"}}
	data, err := c.Encode(want)
	require.NoError(t, err)
	require.JSONEq(t, `{"id":"o-1","items":["a","b"]}`, string(data))
	for _, writer := range []event.Schema{{}, c.Schema()} {
		var got order
		require.NoError(t, c.Decode(data, writer, &got))
		require.Equal(t, want, got)
	}
}

func TestEncodeRefuses(t *testing.T) {
	_, err := json.New[order]().Encode("text")
	require.ErrorContains(t, err, `data "string" is not a json_test.order`)
	_, err = json.New[any]().Encode(nil)
	require.Error(t, err)
	_, err = json.New[map[string]any]().Encode(map[string]any{"f": func() {}})
	require.ErrorContains(t, err, "data cannot be encoded as JSON")
	_, err = json.New[string]().Encode(strings.Repeat("x", 17<<20))
	require.ErrorContains(t, err, "at most")
}

func TestDecodeRefuses(t *testing.T) {
	c := json.New[order]()
	var got order
	require.NoError(t, c.Decode([]byte(`{"id":"1","added":"later"}`), event.Schema{}, &got), "unknown fields are allowed")
	require.ErrorContains(t, c.Decode([]byte(`{"id":"1"} {}`), event.Schema{}, &got), "more data after the value")
	require.Error(t, c.Decode([]byte(`{"id":`), event.Schema{}, &got))
	require.Error(t, c.Decode(nil, event.Schema{}, &got))
	require.ErrorContains(t, c.Decode([]byte(`{"id":1}`), event.Schema{}, &got), "id")
	require.ErrorContains(t, c.Decode([]byte(`{}`), event.Schema{Format: "avro"}, &got), `format "avro"`)
	require.ErrorContains(t, c.Decode([]byte(`{}`), event.Schema{}, got), "*json_test.order is needed")
	require.ErrorContains(t, c.Decode(make([]byte, 17<<20), event.Schema{}, &got), "at most")
	deep := strings.Repeat("[", 1<<20)
	require.Error(t, json.New[any]().Decode([]byte(deep), event.Schema{}, new(any)))
}

func ExampleNew() {
	placed := event.Type[order]{Name: "shop.order.placed", Topic: "orders", Codec: json.New[order]()}
	data, err := placed.Codec.Encode(order{ID: "o-1"})
	fmt.Println(string(data), err)
	// Output: {"id":"o-1"} <nil>
}
