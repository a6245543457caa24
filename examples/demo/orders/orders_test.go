package orders_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/examples/demo/events"
	"github.com/outboxkit/outboxkit/examples/demo/orders"
	"github.com/outboxkit/outboxkit/outbox/outboxtest"
	"github.com/outboxkit/outboxkit/postgrestest"
)

// How a service tests that it writes its events: on a real database, without a
// broker or a relay.
func TestAnOrderAndItsEventCommitTogether(t *testing.T) {
	pool := postgrestest.Pool(t, orders.Migrate)
	service, err := orders.New(t.Context(), pool)
	require.NoError(t, err)

	mark := outboxtest.Mark(t, pool)
	charged := func() error { return nil }
	_, err = service.Place(t.Context(), "ada", []string{"tea"}, charged)
	require.NoError(t, err)
	written := outboxtest.RequireWritten(t, mark, events.OrderPlacedV1,
		events.OrderPlaced{OrderID: "1", UserID: "ada", Items: []string{"tea"}})
	require.Equal(t, "ada", written[0].Key, "a user's orders stay in order")

	mark = outboxtest.Mark(t, pool)
	declined := errors.New("the card was declined")
	_, err = service.Place(t.Context(), "bob", []string{"milk"}, func() error { return declined })
	require.ErrorIs(t, err, declined)
	outboxtest.RequireNone(t, mark)
}
