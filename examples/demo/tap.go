package main

import (
	"context"
	"sync"

	"github.com/outboxkit/outboxkit/brokers"
)

// tap counts what a subscriber delivers, outside the code that it counts for.
type tap struct {
	brokers.Subscriber

	mu         sync.Mutex
	delivered  int
	duplicates int                     // deliveries of an event delivered before
	events     map[eventID]bool        // delivered at least once
	settled    map[brokers.Origin]bool // acknowledged
	samples    []brokers.Message       // the first few, to publish again
}

type eventID struct{ source, id string }

const maxSamples = 50

func newTap(s brokers.Subscriber) *tap {
	return &tap{Subscriber: s, events: map[eventID]bool{}, settled: map[brokers.Origin]bool{}}
}

// Subscribe implements [brokers.Subscriber].
func (t *tap) Subscribe(ctx context.Context, handle brokers.Handle) error {
	return t.Subscriber.Subscribe(ctx, func(ctx context.Context, d *brokers.Delivery) {
		t.note(d.Message)
		d.Settler = tapped{d.Settler, t, d.Origin}
		handle(ctx, d)
	})
}

func (t *tap) note(m brokers.Message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	id := eventID{m.Source, m.ID}
	t.delivered++
	if t.events[id] {
		t.duplicates++
		return
	}
	t.events[id] = true
	if len(t.samples) < maxSamples {
		t.samples = append(t.samples, m)
	}
}

type tapped struct {
	brokers.Settler
	tap    *tap
	origin brokers.Origin
}

// Ack implements [brokers.Settler].
func (s tapped) Ack() error {
	err := s.Settler.Ack()
	if err == nil {
		s.tap.mu.Lock()
		s.tap.settled[s.origin] = true
		s.tap.mu.Unlock()
	}
	return err
}

// tapCounts is a moment's view of a tap.
type tapCounts struct{ delivered, duplicates, events, settled int }

func (t *tap) counts() tapCounts {
	t.mu.Lock()
	defer t.mu.Unlock()
	return tapCounts{t.delivered, t.duplicates, len(t.events), len(t.settled)}
}

func (t *tap) sample() []brokers.Message {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.samples[:len(t.samples):len(t.samples)]
}
