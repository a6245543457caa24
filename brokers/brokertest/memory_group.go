package brokertest

import (
	"context"
	"fmt"

	"github.com/outboxkit/outboxkit/brokers"
)

type memoryGroupKey struct{ group, topic string }

// memoryGroup is one consumer group's view of one topic.
type memoryGroup struct {
	members []*memorySession // in the order of joining
	units   []*memoryUnit
}

// memoryUnit is a group's progress in one ordered unit.
type memoryUnit struct {
	acked     []bool // by offset; grows as needed
	delivered int    // offsets below this have been delivered before
	claim     *memoryClaim
}

func (u *memoryUnit) isAcked(offset int) bool { return offset < len(u.acked) && u.acked[offset] }

func (u *memoryUnit) ack(offset int) {
	if n := offset + 1 - len(u.acked); n > 0 {
		u.acked = append(u.acked, make([]bool, n)...)
	}
	u.acked[offset] = true
}

// memoryClaim is the time during which one member owns a unit. Deliveries
// belong to a claim: when it is no longer the unit's, they are stale.
type memoryClaim struct {
	unit      *memoryUnit
	unsettled int
	restart   bool // a delivery was released
	cancel    context.CancelFunc
}

// drop ends the claim. m.mu is held.
func (c *memoryClaim) drop() {
	if c.unit.claim == c {
		c.unit.claim = nil
	}
	c.cancel()
}

// Unacked returns how many messages of topic the group has not acknowledged.
func (m *Memory) Unacked(group, topic string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.topics[topic]
	if t == nil {
		return 0
	}
	n := len(t.all)
	if g := m.groups[memoryGroupKey{group, topic}]; g != nil {
		for _, u := range g.units {
			for _, done := range u.acked {
				if done {
					n--
				}
			}
		}
	}
	return n
}

// Ahead returns how many deliveries of topic to group are not settled.
func (m *Memory) Ahead(group, topic string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	if g := m.groups[memoryGroupKey{group, topic}]; g != nil {
		for _, u := range g.units {
			if u.claim != nil {
				n += u.claim.unsettled
			}
		}
	}
	return n
}

type memorySettler struct {
	m       *Memory
	claim   *memoryClaim
	offset  int
	settled bool // guarded by m.mu
}

func (d *memorySettler) Ack() error {
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	if d.claim.unit.claim != d.claim {
		return brokers.ErrStale
	}
	if d.settled {
		return fmt.Errorf("offset %d has been settled before", d.offset)
	}
	d.settle()
	d.claim.unit.ack(d.offset)
	return nil
}

func (d *memorySettler) Release() {
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	if d.claim.unit.claim != d.claim || d.settled {
		return
	}
	d.settle()
	d.claim.restart = true
}

func (d *memorySettler) settle() {
	d.settled = true
	d.claim.unsettled--
	d.m.changed.Broadcast()
}
