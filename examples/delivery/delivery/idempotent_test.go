package delivery

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/examples/delivery/events"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/inbox/inboxtest"
	"github.com/outboxkit/outboxkit/outbox/outboxtest"
	"github.com/outboxkit/outboxkit/postgrestest"
)

var consumer = inboxtest.Consumer{
	New: func(pool *pgxpool.Pool, from brokers.Subscriber) (*inbox.Inbox, error) {
		return newInbox(context.Background(), pool, from, slog.New(slog.DiscardHandler))
	},
	Wire: events.Wire(),
}

// flight is a delivery with a grounded drone.
func flight(id string) (reports []event.Draft) {
	for i, r := range []events.DroneStatus{
		{DroneID: "a", Status: events.Assigned}, {DroneID: "a", Status: events.Flying}, {DroneID: "a", Status: events.Grounded},
		{DroneID: "b", Status: events.Assigned}, {DroneID: "b", Status: events.Flying}, {DroneID: "b", Status: events.DroppedOff},
	} {
		r.DeliveryID, r.ArrivesAt = id, time.Date(2026, 1, 1, 12, i, 0, 0, time.UTC)
		if i%2 == 0 {
			reports = append(reports, events.DroneStatusReportedByOldFirmware.New(r))
			continue
		}
		reports = append(reports, events.DroneStatusReported.New(r))
	}
	return reports
}

// What follows from a report is written in the report's transaction, and names it.
func TestReportsAreTranslated(t *testing.T) {
	pool := postgrestest.Pool(t, Migrate)
	reports := flight("d-1")
	reports[0].ID, reports[0].CorrelationID = "assigned by a", "the customer's request"
	consumer.Deliver(t, pool, reports...)
	created := outboxtest.RequireWritten(t, pool, events.DeliveryCreated,
		events.Created{DeliveryID: "d-1", DroneID: "a", ArrivesAt: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)})
	require.Equal(t, "assigned by a", created[0].CausationID)
	require.Equal(t, "the customer's request", created[0].CorrelationID)
	require.Len(t, outboxtest.Written(t, pool, events.DeliveryInTransit), 2, "once for each drone")
	outboxtest.RequireWritten(t, pool, events.DeliveryCompleted, events.Completed{DeliveryID: "d-1", DroneID: "b"})
	outboxtest.RequireNone(t, pool, events.DeliveryCancelled)
}

// However reports arrive, the deliveries and the events that follow are the same.
func TestTranslationIsIdempotent(t *testing.T) {
	var reports []event.Draft
	for n := range 4 {
		reports = append(reports, flight(fmt.Sprint("d-", n))...)
	}
	consumer.RequireIdempotent(t, inboxtest.Stress{
		Events:   reports,
		Database: func(t testing.TB) *pgxpool.Pool { return postgrestest.Pool(t, Migrate) },
		Snapshot: inboxtest.Query(`SELECT * FROM deliveries`, `SELECT key, type, payload, causation_id FROM outbox.event`),
	})
}
