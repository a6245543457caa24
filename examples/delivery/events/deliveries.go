package events

import (
	"time"

	"github.com/outboxkit/outboxkit/event"
)

// Created is a delivery's first event: a drone has been found for it.
type Created struct {
	DeliveryID string    `avro:"deliveryId"`
	DroneID    string    `avro:"droneId"`
	ArrivesAt  time.Time `avro:"arrivesAt"`
}

// Rescheduled is a delivery that will arrive at another time.
type Rescheduled struct {
	DeliveryID string    `avro:"deliveryId"`
	DroneID    string    `avro:"droneId"` // another one, if the first was grounded
	ArrivesAt  time.Time `avro:"arrivesAt"`
	Reason     string    `avro:"reason"`
}

// InTransit is a delivery whose drone has taken off.
type InTransit struct {
	DeliveryID string `avro:"deliveryId"`
	DroneID    string `avro:"droneId"`
}

// Completed is a delivery's last event, if all went well.
type Completed struct {
	DeliveryID string `avro:"deliveryId"`
	DroneID    string `avro:"droneId"`
}

// Cancelled is a delivery's last event, if it did not.
type Cancelled struct {
	DeliveryID string `avro:"deliveryId"`
	Reason     string `avro:"reason"`
}

// What happens to a delivery.
var (
	DeliveryCreated = event.Type[Created]{
		Name: "delivery.created", Topic: Deliveries,
		Key: func(e Created) string { return e.DeliveryID }, Codec: codec("delivery_created"),
	}
	DeliveryRescheduled = event.Type[Rescheduled]{
		Name: "delivery.rescheduled", Topic: Deliveries,
		Key: func(e Rescheduled) string { return e.DeliveryID }, Codec: codec("delivery_rescheduled"),
	}
	DeliveryInTransit = event.Type[InTransit]{
		Name: "delivery.in_transit", Topic: Deliveries,
		Key: func(e InTransit) string { return e.DeliveryID }, Codec: codec("delivery_in_transit"),
	}
	DeliveryCompleted = event.Type[Completed]{
		Name: "delivery.completed", Topic: Deliveries,
		Key: func(e Completed) string { return e.DeliveryID }, Codec: codec("delivery_completed"),
	}
	DeliveryCancelled = event.Type[Cancelled]{
		Name: "delivery.cancelled", Topic: Deliveries,
		Key: func(e Cancelled) string { return e.DeliveryID }, Codec: codec("delivery_cancelled"),
	}
)
