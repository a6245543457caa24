package main

import (
	"context"
	"sync"
	"time"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/schema/registry"
)

// Stages of an event's way. Each process stamps its own, by the clock that all of
// them share: they run on one machine.
const (
	committed = iota // COMMIT has returned to the service
	handed           // the relay gives it to the broker's client
	acked            // the broker has confirmed it
	received         // the consumer's client hands it to the inbox
	begun            // the handler is called
	effected         // the effect's COMMIT has returned, and the inbox acknowledges
	stageCount
)

// way is when an event passed each stage, in Unix nanoseconds; 0 = another
// process knows.
type way [stageCount]int64

// ways are ways by event id.
type ways map[string]way

// merge adds what another process knows.
func (w ways) merge(other ways) {
	for id, o := range other {
		own := w[id]
		for s, at := range o {
			if at != 0 {
				own[s] = at
			}
		}
		w[id] = own
	}
}

// stages records ways; nil records nothing. The first time counts: what a stage
// repeats has already happened.
type stages struct {
	mu sync.Mutex
	of ways
}

func (s *stages) set(id string, stage int) {
	if s == nil {
		return
	}
	now := time.Now().UnixNano()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note(id, stage, now)
}

// mark is set for messages of one call; those with an error did not get there.
func (s *stages) mark(msgs []brokers.Message, results []error, stage int) {
	if s == nil {
		return
	}
	now := time.Now().UnixNano()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range msgs {
		if results == nil || results[i] == nil {
			s.note(msgs[i].ID, stage, now)
		}
	}
}

func (s *stages) note(id string, stage int, at int64) {
	if s.of == nil {
		s.of = ways{}
	}
	if w := s.of[id]; w[stage] == 0 {
		w[stage] = at
		s.of[id] = w
	}
}

// recorded hands over what was recorded and forgets it.
func (s *stages) recorded() ways {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.of
	s.of = nil
	return of
}

// watched records when deliveries arrive and when the inbox has done with them.
type watched struct {
	brokers.Subscriber

	stages *stages
}

func (w *watched) Subscribe(ctx context.Context, handle brokers.Handle) error {
	return w.Subscriber.Subscribe(ctx, func(ctx context.Context, d *brokers.Delivery) {
		w.stages.set(d.Message.ID, received)
		d.Settler = settled{Settler: d.Settler, stages: w.stages, id: d.Message.ID}
		handle(ctx, d)
	})
}

type settled struct {
	brokers.Settler

	stages *stages
	id     string
}

func (s settled) Ack() error {
	s.stages.set(s.id, effected)
	return s.Settler.Ack()
}

// wireFormat is that of a registry, or nil for bare bytes.
func wireFormat(url string, register bool) (event.WireFormat, error) {
	if url == "" {
		return nil, nil
	}
	client, err := registry.New(registry.Config{URL: url, Register: register})
	if err != nil {
		return nil, err
	}
	return registry.Confluent(client), nil
}
