// Package fleet is the ingestion of what drones report: a ground station that
// passes it on to the broker.
//
// It has no database, and so no outbox: a drone repeats a report until it is
// confirmed, which makes every report arrive at least once, and some twice. What
// makes that harmless is the report's identity, which the drone gives it: the
// drone is the source, the number of the report the id.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/examples/delivery/events"
)

// Report is one thing that a drone has said.
type Report struct {
	ID      string // drone and number, for example "drone-7/12"
	Drone   string
	Request string      // of the customer, whose consequence all this is
	Event   event.Draft // a DroneStatus or a DronePosition
}

// Station passes reports on. It is safe for concurrent use.
type Station struct {
	to    brokers.Publisher
	wire  event.WireFormat
	topic func(string) string // the broker's name of a topic
}

// NewStation returns a station that publishes to to, which the caller closes.
func NewStation(to brokers.Publisher, topic func(string) string) *Station {
	return &Station{to: to, wire: events.Wire(), topic: topic}
}

// Send publishes reports in this order, and tries again until each is confirmed
// or ctx ends. It gives up only a report that the broker can never accept.
func (s *Station) Send(ctx context.Context, reports ...Report) error {
	msgs := make([]brokers.Message, len(reports))
	for i, r := range reports {
		m, err := s.message(ctx, r)
		if err != nil {
			return fmt.Errorf("report %s: %w", r.ID, err)
		}
		msgs[i] = m
	}
	for len(msgs) > 0 {
		var rest []brokers.Message // from the first failure of each key on: see brokers.Publisher
		results := s.to.Publish(ctx, msgs)
		for i, err := range results {
			if err != nil && brokers.ClassOf(err) == brokers.ClassRejected {
				return fmt.Errorf("report %s: %w", msgs[i].ID, err)
			}
			if err != nil {
				rest = append(rest, msgs[i])
			}
		}
		if len(rest) == len(msgs) { // nothing went out: do not ask at once
			select {
			case <-ctx.Done():
				return errors.Join(ctx.Err(), results[0])
			case <-time.After(100 * time.Millisecond):
			}
		}
		msgs = rest
	}
	return nil
}

func (s *Station) message(ctx context.Context, r Report) (brokers.Message, error) {
	typ := r.Event.Type
	data, err := typ.Codec.Encode(r.Event.Data)
	if err != nil {
		return brokers.Message{}, err
	}
	topic := s.topic(typ.Topic)
	payload, err := s.wire.Seal(ctx, topic, typ.Codec.Schema(), data)
	return brokers.Message{
		Topic: topic, Key: r.Event.Key, Type: typ.Name,
		Source: "/drones/" + r.Drone, ID: r.ID, Time: time.Now(),
		ContentType: typ.Codec.Schema().ContentType, CorrelationID: r.Request, Payload: payload,
	}, err
}
