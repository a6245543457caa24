package brokertest

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/outboxkit/outboxkit/brokers"
)

var (
	errDown       = errors.New("the in-memory broker is stopped")
	errUnknown    = errors.New("unknown topic")
	errUnroutable = errors.New("unroutable: the topic has no units")
	errTooLarge   = errors.New("message too large")
)

// MemoryConfig configures a [Memory] broker. Its zero value is usable.
type MemoryConfig struct {
	// AutoCreate is the number of ordered units that a topic gets when it is first
	// published to or subscribed to without CreateTopic. Default 0: unknown topics
	// are refused.
	AutoCreate int
	// MaxBytes is the largest message (key and payload, in bytes) that a topic
	// accepts, where CreateTopic sets no limit. Default 1 MiB.
	MaxBytes int
	// DrainTimeout is how long a unit that is taken away waits for its unsettled
	// deliveries. Default 2 s.
	DrainTimeout time.Duration
}

// Memory is a broker in this process: topics of ordered units, consumer groups
// that share them, settling in any order, stale deliveries, restarts. One mutex
// guards all of it and every change wakes everybody, because being obviously
// right matters more here than speed. All methods may be called concurrently.
type Memory struct {
	cfg MemoryConfig

	mu      sync.Mutex
	changed *sync.Cond // something below has changed
	down    bool
	topics  map[string]*memoryTopic
	groups  map[memoryGroupKey]*memoryGroup
}

type memoryTopic struct {
	name     string
	maxBytes int
	units    [][]brokers.Message
	all      []brokers.Message // of all units, in the order of publication
}

// NewMemory returns a running broker without topics.
func NewMemory(cfg MemoryConfig) *Memory {
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 1 << 20
	}
	if cfg.DrainTimeout == 0 {
		cfg.DrainTimeout = 2 * time.Second
	}
	m := &Memory{cfg: cfg, topics: map[string]*memoryTopic{}, groups: map[memoryGroupKey]*memoryGroup{}}
	m.changed = sync.NewCond(&m.mu)
	return m
}

// CreateTopic makes a topic of so many ordered units; 0 makes one that exists
// but routes nowhere. maxBytes limits key and payload; 0 means the broker's
// limit. A topic that exists is left as it is.
func (m *Memory) CreateTopic(name string, units, maxBytes int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.create(name, units, maxBytes)
}

func (m *Memory) create(name string, units, maxBytes int) {
	if m.topics[name] != nil {
		return
	}
	if maxBytes == 0 {
		maxBytes = m.cfg.MaxBytes
	}
	m.topics[name] = &memoryTopic{name: name, maxBytes: maxBytes, units: make([][]brokers.Message, units)}
	m.changed.Broadcast()
}

// topic returns nil if there is no such topic. m.mu is held.
func (m *Memory) topic(name string) *memoryTopic {
	if m.cfg.AutoCreate > 0 {
		m.create(name, m.cfg.AutoCreate, 0)
	}
	return m.topics[name]
}

// Stop breaks every connection: calls of Publish fail with ClassUnavailable,
// deliveries that are not settled become stale, nothing is delivered. Messages
// and what groups have acknowledged stay.
func (m *Memory) Stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = true
	for _, g := range m.groups {
		for _, u := range g.units {
			if u.claim != nil {
				u.claim.drop()
			}
		}
	}
	m.changed.Broadcast()
}

// Start ends what Stop began; publishers and subscribers go on by themselves.
func (m *Memory) Start() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = false
	m.changed.Broadcast()
}

// Restart is Stop and Start: it drops every connection.
func (m *Memory) Restart() {
	m.Stop()
	m.Start()
}

// Log returns every message of the topic in the order of publication.
func (m *Memory) Log(topic string) []brokers.Message {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.topics[topic]
	if t == nil {
		return nil
	}
	return slices.Clone(t.all)
}

// Publisher returns a new publisher.
func (m *Memory) Publisher() brokers.Publisher { return &memoryPublisher{m: m} }

type memoryPublisher struct {
	m      *Memory
	closed bool // guarded by m.mu
}

// Publish implements brokers.Publisher. A call is one step under the mutex: it
// never waits, so a context can only have ended before.
func (p *memoryPublisher) Publish(ctx context.Context, msgs []brokers.Message) []error {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	results := make([]error, len(msgs))
	failed := map[orderKey]bool{}
	for i, msg := range msgs {
		k := orderKey{msg.Topic, msg.Key}
		if failed[k] {
			results[i] = brokers.ErrHeld
			continue
		}
		results[i] = p.publish(ctx, msg)
		failed[k] = results[i] != nil && k.ordered()
	}
	return results
}

func (p *memoryPublisher) publish(ctx context.Context, msg brokers.Message) error {
	fail := func(c brokers.Class, err error) error {
		return &brokers.Error{Class: c, Topic: msg.Topic, Err: err}
	}
	if p.closed {
		return brokers.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return fail(brokers.ClassUnavailable, err)
	}
	if p.m.down {
		return fail(brokers.ClassUnavailable, errDown)
	}
	t := p.m.topic(msg.Topic)
	switch {
	case t == nil:
		return fail(brokers.ClassDestination, errUnknown)
	case len(t.units) == 0:
		return fail(brokers.ClassDestination, errUnroutable)
	case len(msg.Key)+len(msg.Payload) > t.maxBytes:
		return fail(brokers.ClassRejected, fmt.Errorf("%w: %d bytes, the topic takes %d",
			errTooLarge, len(msg.Key)+len(msg.Payload), t.maxBytes))
	}
	t.append(msg)
	p.m.changed.Broadcast()
	return nil
}

func (p *memoryPublisher) Close() error {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	p.closed = true
	return nil
}

func (t *memoryTopic) append(msg brokers.Message) {
	msg = cloneMessage(msg) // the caller may use its buffers again
	unit := len(t.all) % len(t.units)
	if msg.Key != "" {
		h := fnv.New32a()
		h.Write([]byte(msg.Key))
		unit = int(h.Sum32() % uint32(len(t.units))) //nolint:gosec // few units
	}
	t.units[unit] = append(t.units[unit], msg)
	t.all = append(t.all, msg)
}

// orderKey is what order is kept for.
type orderKey struct{ topic, key string }

func (k orderKey) ordered() bool { return k.key != "" }

func cloneMessage(m brokers.Message) brokers.Message {
	m.Payload = slices.Clone(m.Payload) // keeps nil and empty apart
	m.Headers = maps.Clone(m.Headers)
	return m
}
