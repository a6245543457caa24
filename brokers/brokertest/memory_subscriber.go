package brokertest

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/outboxkit/outboxkit/brokers"
)

// Subscriber returns a new member of group that reads topics from their
// beginning, or from where the group is.
func (m *Memory) Subscriber(group string, topics ...string) brokers.Subscriber {
	ctx, cancel := context.WithCancel(context.Background())
	return &memorySubscriber{m: m, group: group, topics: topics, ctx: ctx, close: cancel}
}

type memorySubscriber struct {
	m      *Memory
	group  string
	topics []string
	ctx    context.Context // ends with Close
	close  context.CancelFunc
}

func (s *memorySubscriber) Close() error {
	s.close()
	return nil
}

// Subscribe implements brokers.Subscriber: one goroutine for each unit of each
// topic, which waits until the unit is this member's.
func (s *memorySubscriber) Subscribe(ctx context.Context, handle brokers.Handle) error {
	if s.ctx.Err() != nil {
		return brokers.ErrClosed
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	defer context.AfterFunc(ctx, s.m.wake)()

	var topics []*memoryTopic
	s.m.mu.Lock()
	for _, name := range s.topics {
		t := s.m.topic(name)
		if t == nil {
			s.m.mu.Unlock()
			return &brokers.Error{Class: brokers.ClassDestination, Topic: name, Err: errUnknown}
		}
		topics = append(topics, t)
	}
	s.m.mu.Unlock()

	var running sync.WaitGroup
	for _, t := range topics {
		session := &memorySession{m: s.m, ctx: ctx, topic: t, handle: handle}
		session.join(s.group)
		defer session.expiring.Wait()
		defer session.leave()
		for unit := range t.units {
			running.Go(func() { session.serve(unit) })
		}
	}
	running.Wait()
	return nil
}

func (m *Memory) wake() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changed.Broadcast()
}

// memorySession is one running Subscribe on one topic.
type memorySession struct {
	m      *Memory
	ctx    context.Context
	topic  *memoryTopic
	group  *memoryGroup
	handle brokers.Handle

	expiring sync.WaitGroup
}

func (s *memorySession) join(group string) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	key := memoryGroupKey{group, s.topic.name}
	if s.m.groups[key] == nil {
		g := &memoryGroup{}
		for range s.topic.units {
			g.units = append(g.units, &memoryUnit{})
		}
		s.m.groups[key] = g
	}
	s.group = s.m.groups[key]
	s.group.members = append(s.group.members, s)
	s.m.changed.Broadcast()
}

func (s *memorySession) leave() {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.group.members = slices.DeleteFunc(s.group.members, func(o *memorySession) bool { return o == s })
	s.m.changed.Broadcast()
}

// mine reports whether this member should have the unit. m.mu is held.
func (s *memorySession) mine(unit int) bool {
	var staying []*memorySession // who is leaving counts for nothing, so that others take over
	for _, o := range s.group.members {
		if o.ctx.Err() == nil {
			staying = append(staying, o)
		}
	}
	return !s.m.down && len(staying) > 0 && staying[unit%len(staying)] == s
}

// lost reports whether the claim must stop delivering. m.mu is held.
func (s *memorySession) lost(unit int, c *memoryClaim) bool {
	return c.unit.claim != c || c.restart || !s.mine(unit)
}

// serve claims the unit whenever it is this member's and free, delivers while
// it stays so, and drains it before letting go.
func (s *memorySession) serve(unit int) {
	u := s.group.units[unit]
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	for s.ctx.Err() == nil {
		if u.claim != nil || !s.mine(unit) {
			s.m.changed.Wait()
			continue
		}
		ctx, cancel := context.WithCancel(context.WithoutCancel(s.ctx))
		c := &memoryClaim{unit: u, cancel: cancel}
		u.claim = c
		s.expiring.Go(func() { s.expire(ctx, unit, c) })
		s.deliver(ctx, unit, c)
		for u.claim == c && c.unsettled > 0 {
			s.m.changed.Wait() // until settled, or until expire or Stop drops the claim
		}
		c.drop()
		s.m.changed.Broadcast()
	}
}

// expire drops the claim when it has been lost for the drain timeout, whether
// handle is still blocked or deliveries are not settled.
func (s *memorySession) expire(ctx context.Context, unit int, c *memoryClaim) {
	s.m.mu.Lock()
	for !s.lost(unit, c) {
		s.m.changed.Wait()
	}
	s.m.mu.Unlock()
	select {
	case <-ctx.Done(): // dropped
	case <-time.After(s.m.cfg.DrainTimeout):
		s.m.mu.Lock()
		defer s.m.mu.Unlock()
		c.drop()
		s.m.changed.Broadcast()
	}
}

// deliver calls handle for what is not acknowledged, in order, until the claim
// is lost. m.mu is held, but not during handle.
func (s *memorySession) deliver(ctx context.Context, unit int, c *memoryClaim) {
	for offset := 0; !s.lost(unit, c); {
		switch {
		case offset == len(s.topic.units[unit]):
			s.m.changed.Wait()
		case c.unit.isAcked(offset):
			offset++
		default:
			d := s.delivery(unit, offset, c)
			s.m.mu.Unlock()
			s.handle(ctx, d)
			s.m.mu.Lock()
			offset++
		}
	}
}

func (s *memorySession) delivery(unit, offset int, c *memoryClaim) *brokers.Delivery {
	d := &brokers.Delivery{
		Message: cloneMessage(s.topic.units[unit][offset]),
		Origin: brokers.Origin{
			Broker: "memory", Topic: s.topic.name,
			Partition: int32(unit), Offset: int64(offset), //nolint:gosec // few units
		},
		Redelivered: offset < c.unit.delivered,
		Settler:     &memorySettler{m: s.m, claim: c, offset: offset},
	}
	c.unsettled++
	c.unit.delivered = max(c.unit.delivered, offset+1)
	return d
}
