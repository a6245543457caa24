package events_test

import (
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/examples/schemas/events"
	"github.com/outboxkit/outboxkit/schema"
	"github.com/outboxkit/outboxkit/schema/avro"
)

// The generated struct fits the schema: a field that one of them lacks fails here.
func TestGeneratedTypeFitsItsSchema(t *testing.T) {
	note := "leave it with the neighbours"
	in := events.OrderPlaced{
		OrderID: "o-1", PlacedAt: time.UnixMicro(1_760_000_000_000_000).UTC(), Total: big.NewRat(1999, 100),
		Items: []events.Item{{Sku: "a", Qty: 2}}, Note: &note,
	}
	draft := events.OrderPlacedV1.New(in)
	require.Equal(t, "o-1", draft.Key)
	data, err := draft.Type.Codec.Encode(draft.Data)
	require.NoError(t, err)
	var out events.OrderPlaced
	require.NoError(t, events.OrderPlacedV1.Codec.Decode(data, event.Schema{}, &out))
	require.Zero(t, in.Total.Cmp(out.Total))
	out.Total = in.Total
	require.Equal(t, in, out)
}

// What the service wrote before is read, on the way that consumers take.
func TestEarlierVersionsAreRead(t *testing.T) {
	versions, err := events.Schemas.Versions(t.Context(), "shop.OrderPlaced")
	require.NoError(t, err)
	require.NotEmpty(t, versions)
	old := versions[0].Schema
	data, err := avro.MustParse(old.Text).EncodeJSON([]byte(`{"order_id": "o-1", "placed_at": "2026-01-02T03:04:05Z", "total": 19.99, "items": [{"sku": "a", "qty": 2}]}`))
	require.NoError(t, err)
	sealed, err := events.Wire().Seal(t.Context(), "orders", old, data)
	require.NoError(t, err)

	writer, data, err := events.Wire().Open(t.Context(), "orders", sealed)
	require.NoError(t, err)
	var got events.OrderPlaced
	require.NoError(t, events.OrderPlacedV1.Codec.Decode(data, writer, &got))
	require.Equal(t, "19.99", got.Total.FloatString(2))
	require.Nil(t, got.Note)
	require.Equal(t, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), got.PlacedAt)
}

func TestGate(t *testing.T) {
	require.NoError(t, events.Gate()(t.Context(), events.OrderPlacedV1.Info()))
	bad := events.OrderPlacedV1
	bad.Codec = avro.MustParse(`{"type":"record","name":"shop.OrderPlaced","fields":[{"name":"order_id","type":"string"},{"name":"customer","type":"string"}]}`)
	err := events.Gate()(t.Context(), bad.Info())
	require.ErrorIs(t, err, schema.ErrIncompatible)
	require.ErrorContains(t, err, "field `customer`: added without default breaks BACKWARD (against version 1)")
}
