package delivery

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/examples/delivery/events"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/outbox"
)

type translator struct{ outbox *outbox.Outbox }

// handle brings a delivery on by one report. The event names the report as its
// cause, and the customer's request as what all of them belong to: the inbox has
// put both into ctx.
func (t translator) handle(ctx context.Context, tx pgx.Tx, e inbox.Event[events.DroneStatus]) error {
	report := e.Data
	// Locks the delivery's row before its event is written: events of a delivery
	// are in the order of the commits.
	var d delivery
	err := tx.QueryRow(ctx, `SELECT state, drone_id FROM deliveries WHERE id = $1 FOR UPDATE`, report.DeliveryID).Scan(&d.state, &d.drone)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	draft, happened, err := d.apply(report)
	if err != nil {
		return inbox.Permanent(err) // it will be as wrong the next time
	}
	_, err = tx.Exec(ctx, `INSERT INTO deliveries (id, state, drone_id, reports) VALUES ($1, $2, $3, 1)
		ON CONFLICT (id) DO UPDATE SET state = $2, drone_id = $3, reports = deliveries.reports + 1`, report.DeliveryID, d.state, d.drone)
	if err != nil || !happened {
		return err
	}
	return t.outbox.Write(ctx, tx, draft)
}

// States.
const (
	none      = "" // no report before
	created   = "created"
	inTransit = "in_transit"
	waiting   = "waiting" // for another drone
	completed = "completed"
	cancelled = "cancelled"
)

type delivery struct{ state, drone string }

// apply changes d as the report says, and returns the event that follows, if any:
// most reports say nothing new about the delivery.
func (d *delivery) apply(r events.DroneStatus) (draft event.Draft, happened bool, err error) {
	switch d.state {
	case completed, cancelled:
		return draft, false, nil // what a drone does on its way home
	case none:
		if r.Status != events.Assigned {
			return draft, false, fmt.Errorf("delivery %s begins with %s by drone %s: no drone was assigned", r.DeliveryID, r.Status, r.DroneID)
		}
		d.state, d.drone = created, r.DroneID
		return events.DeliveryCreated.New(events.Created{DeliveryID: r.DeliveryID, DroneID: r.DroneID, ArrivesAt: r.ArrivesAt}), true, nil
	}
	if r.DroneID != d.drone && r.Status != events.Assigned {
		return draft, false, nil // what a drone says that no longer has the parcel
	}
	switch r.Status {
	case events.Assigned:
		d.state, d.drone = created, r.DroneID
		return d.rescheduled(r, "another drone takes over"), true, nil
	case events.Delayed:
		return d.rescheduled(r, "the drone is delayed"), true, nil
	case events.Flying:
		if d.state == inTransit {
			return draft, false, nil
		}
		d.state = inTransit
		return events.DeliveryInTransit.New(events.InTransit{DeliveryID: r.DeliveryID, DroneID: r.DroneID}), true, nil
	case events.Grounded:
		d.state = waiting
		return draft, false, nil
	case events.Recalled:
		d.state = cancelled
		return events.DeliveryCancelled.New(events.Cancelled{DeliveryID: r.DeliveryID, Reason: "the drone was recalled"}), true, nil
	case events.DroppedOff:
		d.state = completed
		return events.DeliveryCompleted.New(events.Completed{DeliveryID: r.DeliveryID, DroneID: r.DroneID}), true, nil
	}
	return draft, false, fmt.Errorf("delivery %s: unknown status %s", r.DeliveryID, r.Status)
}

func (d *delivery) rescheduled(r events.DroneStatus, reason string) event.Draft {
	return events.DeliveryRescheduled.New(events.Rescheduled{
		DeliveryID: r.DeliveryID, DroneID: r.DroneID, ArrivesAt: r.ArrivesAt, Reason: reason,
	})
}
