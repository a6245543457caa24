package inventory_test

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/examples/demo/events"
	"github.com/outboxkit/outboxkit/examples/demo/inventory"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/inbox/inboxtest"
	"github.com/outboxkit/outboxkit/postgrestest"
)

// consumer is the service as it is, without a broker.
var consumer = inboxtest.Consumer{
	New: func(pool *pgxpool.Pool, from brokers.Subscriber) (*inbox.Inbox, error) {
		return inventory.New(pool, from, slog.New(slog.DiscardHandler))
	},
	Wire: events.Wire(),
}

func placed(order int, user string) event.Draft {
	return events.OrderPlacedV1.New(events.OrderPlaced{OrderID: fmt.Sprint(order), UserID: user, Items: []string{"tea", "milk"}})
}

func TestAnOrderIsReserved(t *testing.T) {
	pool := postgrestest.Pool(t, inventory.Migrate)
	consumer.Deliver(t, pool, placed(1, "ada"))
	var items []string
	require.NoError(t, pool.QueryRow(t.Context(), `SELECT items FROM reservations WHERE order_id = 1 AND user_id = 'ada'`).Scan(&items))
	require.Equal(t, []string{"tea", "milk"}, items)
}

func TestWhatIsNoOrderBecomesADeadLetter(t *testing.T) {
	pool := postgrestest.Pool(t, inventory.Migrate)
	bad := events.OrderPlacedV1.New(events.OrderPlaced{OrderID: "no number", UserID: "ada"})
	r := consumer.Try(t, pool, bad, placed(1, "bob"))
	require.EqualValues(t, 1, r.Handled, "another user's order passes")
	require.Len(t, r.Dead, 1)
	require.Contains(t, r.Dead[0].Error, "no number")
}

// However the events arrive, what is reserved is the same.
func TestReservationsAreIdempotent(t *testing.T) {
	var orders []event.Draft
	for n := range 12 {
		orders = append(orders, placed(n, []string{"ada", "bob", "eve"}[n%3]))
	}
	consumer.RequireIdempotent(t, inboxtest.Stress{
		Events:   orders,
		Database: func(t testing.TB) *pgxpool.Pool { return postgrestest.Pool(t, inventory.Migrate) },
		Snapshot: inboxtest.Query(`SELECT order_id, user_id, items FROM reservations`),
	})
}
