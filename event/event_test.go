package event_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/event"
)

type order struct{ ID string }

type noCodec struct{ event.Codec }

var placed = event.Type[order]{
	Name:  "shop.order.placed",
	Topic: "orders",
	Key:   func(o order) string { return o.ID },
	Codec: noCodec{},
}

func TestTypeMakesDrafts(t *testing.T) {
	t.Parallel()
	d := placed.New(order{"o-1"})
	require.Equal(t, "o-1", d.Key)
	require.Equal(t, order{"o-1"}, d.Data)
	require.Equal(t, "shop.order.placed", d.Type.Name)
	require.Equal(t, "orders", d.Type.Topic)
	require.False(t, d.Tombstone)

	d = placed.Tombstone("o-2")
	require.Equal(t, "o-2", d.Key)
	require.True(t, d.Tombstone)
	require.Nil(t, d.Data)

	unkeyed := placed
	unkeyed.Key = nil
	require.Empty(t, unkeyed.New(order{"o-3"}).Key)
}

func TestValidateNamesTheField(t *testing.T) {
	t.Parallel()
	require.NoError(t, placed.Info().Validate())
	for want, change := range map[string]func(*event.Info){
		"Type.Name is empty":                     func(i *event.Info) { i.Name = "" },
		"Type[shop.order.placed].Topic is empty": func(i *event.Info) { i.Topic = "" },
		"Type[shop.order.placed].Codec is nil":   func(i *event.Info) { i.Codec = nil },
	} {
		info := placed.Info()
		change(&info)
		err := info.Validate()
		require.ErrorContains(t, err, want)
		var field *event.FieldError
		require.ErrorAs(t, err, &field)
	}
}

// Fingerprints are stored in databases: they may never change. The numbers come
// from Python's hashlib.
func TestFingerprintIsForEver(t *testing.T) {
	t.Parallel()
	for want, s := range map[int64]event.Schema{
		-6623683697662550817: {Format: "avro", Text: `"string"`, ContentType: "application/avro"},
		-1546665225271208668: {Format: "json"},
		6955449904274530391:  {Format: "avro", ContentType: "is not part of it"},
	} {
		require.Equal(t, want, s.Fingerprint())
	}
	require.True(t, event.Schema{}.IsZero())
}

func TestCause(t *testing.T) {
	t.Parallel()
	_, ok := event.Cause(context.Background())
	require.False(t, ok)
	cause, ok := event.Cause(event.WithCause(context.Background(), event.Envelope{ID: "1"}))
	require.True(t, ok)
	require.Equal(t, "1", cause.ID)
}

func TestFieldErrorReadsAsASentence(t *testing.T) {
	t.Parallel()
	inner := errors.New("why")
	err := &event.FieldError{Field: "Draft.Key", Value: "v", Problem: "is bad", Hint: "use another", Err: inner}
	require.EqualError(t, err, `Draft.Key "v" is bad: why (use another)`)
	require.ErrorIs(t, fmt.Errorf("wrapped: %w", err), inner)
	require.EqualError(t, &event.FieldError{Field: "X", Problem: "is empty"}, "X is empty")
}
