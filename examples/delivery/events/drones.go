// Package events is what the services share: each kind of event, once, with its
// topic, key and schema.
//
// Drones report on the topic drones what they do. The delivery service translates
// that into what happens to a delivery, on the topic deliveries. Both are keyed by
// the delivery, not by the drone: a delivery's events stay in order even when it
// moves to another drone.
package events

import (
	"embed"
	"time"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/schema/avro"
)

// Topics.
const (
	Drones     = "drones"
	Deliveries = "deliveries"
)

// Status is what a drone does.
type Status string

// What a drone reports of itself.
const (
	Assigned   Status = "ASSIGNED"    // it has been given the delivery
	Flying     Status = "FLYING"      // on its way with the parcel, reported again and again
	Delayed    Status = "DELAYED"     // on its way, and will arrive later
	Grounded   Status = "GROUNDED"    // cannot go on: another drone will be assigned
	Recalled   Status = "RECALLED"    // brings the parcel back
	DroppedOff Status = "DROPPED_OFF" // the parcel is where it should be
)

// DroneStatus says that a drone's status has changed, or is still the same.
type DroneStatus struct {
	DroneID    string    `avro:"droneId"`
	DeliveryID string    `avro:"deliveryId"`
	Status     Status    `avro:"status"`
	ArrivesAt  time.Time `avro:"arrivesAt"` // expected
	Battery    int       `avro:"battery"`   // percent; -1: the firmware does not say
}

// DroneStatusReported is written by two firmwares at the same time: the old one
// knows no battery. One name, two schemas, one handler.
var (
	DroneStatusReported = event.Type[DroneStatus]{
		Name: "drones.status.reported", Topic: Drones,
		Key:   func(s DroneStatus) string { return s.DeliveryID },
		Codec: codec("drone_status_v2"),
	}
	DroneStatusReportedByOldFirmware = event.Type[DroneStatus]{
		Name: "drones.status.reported", Topic: Drones,
		Key:   func(s DroneStatus) string { return s.DeliveryID },
		Codec: codec("drone_status_v1"),
	}
)

// DronePosition is telemetry. The delivery service has no handler for it.
type DronePosition struct {
	DroneID    string  `avro:"droneId"`
	DeliveryID string  `avro:"deliveryId"`
	Latitude   float64 `avro:"latitude"`
	Longitude  float64 `avro:"longitude"`
}

// DronePositionReported comes often.
var DronePositionReported = event.Type[DronePosition]{
	Name: "drones.position.reported", Topic: Drones,
	Key:   func(p DronePosition) string { return p.DeliveryID },
	Codec: codec("drone_position"),
}

//go:embed *.avsc
var schemas embed.FS

func codec(name string) event.Codec {
	text, err := schemas.ReadFile(name + ".avsc")
	if err != nil {
		panic(err) // embedded: a typo
	}
	return avro.MustParse(string(text))
}

// Wire is how events travel: each message names the schema it was written with
// by a fingerprint, and consumers know all of them. With a registry it would be
// registry.Confluent.
func Wire() event.WireFormat {
	var known []event.Schema
	for _, t := range []event.Any{
		DroneStatusReported, DroneStatusReportedByOldFirmware, DronePositionReported,
		DeliveryCreated, DeliveryRescheduled, DeliveryInTransit, DeliveryCompleted, DeliveryCancelled,
	} {
		known = append(known, t.Info().Codec.Schema())
	}
	return avro.SingleObject(known...)
}
