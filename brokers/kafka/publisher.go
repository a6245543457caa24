package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"github.com/outboxkit/outboxkit/brokers"
)

// Publisher implements brokers.Publisher for Kafka. It is safe for concurrent
// use; calls share connections and batches.
type Publisher struct {
	cfg    Config
	conf   *sarama.Config
	badCfg error // of Config.Validate

	ctx  context.Context // ends with Close
	stop context.CancelFunc
	wg   sync.WaitGroup // every goroutine of the publisher

	clientMu sync.Mutex // guards the making of client
	client   sarama.Client

	mu     sync.Mutex
	closed bool
	topics map[string]*topic
	links  map[string]*link // by broker address
	pid    producerID       // of new partitions; zero value: none yet

	closeOnce sync.Once
}

var _ brokers.Publisher = (*Publisher)(nil)

// NewPublisher returns a publisher. It does not connect: a service may start
// while Kafka is away. A mistake in cfg, see [Config.Validate], is the result of
// every Publish.
func NewPublisher(cfg Config) *Publisher {
	p := &Publisher{
		badCfg: cfg.Validate(),
		topics: make(map[string]*topic),
		links:  make(map[string]*link),
	}
	p.cfg = cfg.withDefaults()
	p.conf = p.cfg.producer()
	p.ctx, p.stop = context.WithCancel(context.Background())
	return p
}

// Publish implements brokers.Publisher. It keeps no reference to msgs.
func (p *Publisher) Publish(ctx context.Context, msgs []brokers.Message) []error {
	c := newCall(msgs, func(name string) error { return p.topic(name).lastError() })
	switch {
	case p.ctx.Err() != nil:
		return c.finish(brokers.ErrClosed)
	case p.badCfg != nil:
		return c.finish(p.badCfg)
	case ctx.Err() != nil:
		return c.finish(ctx.Err())
	case len(msgs) == 0:
		return nil
	}
	for name, idx := range byTopic(msgs) {
		t := p.topic(name)
		if ready, err := t.ready(); err != nil {
			c.failAll(idx, err)
		} else if ready {
			p.enqueue(c, t, msgs, idx)
		} else if !p.spawn(func() { p.enqueueLater(c, t, msgs, idx) }) {
			return c.finish(brokers.ErrClosed)
		}
	}
	budget := time.NewTimer(p.cfg.PublishTimeout)
	defer budget.Stop()
	select {
	case <-c.done:
		return c.results
	case <-ctx.Done():
		return c.finish(ctx.Err())
	case <-p.ctx.Done():
		return c.finish(brokers.ErrClosed)
	case <-budget.C:
		return c.finish(&timeoutError{after: p.cfg.PublishTimeout})
	}
}

// Close implements brokers.Publisher.
func (p *Publisher) Close() error {
	p.closeOnce.Do(func() {
		p.mu.Lock()
		p.closed = true
		links := p.links
		p.mu.Unlock()
		p.stop()
		for _, l := range links {
			l.kill()
		}
		p.clientMu.Lock()
		if p.client != nil {
			_ = p.client.Close() // it has nothing of ours to lose
		}
		p.clientMu.Unlock()
	})
	p.wg.Wait()
	return nil
}

// spawn runs f in a goroutine that Close waits for; false after Close.
func (p *Publisher) spawn(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.wg.Go(f)
	return true
}

// topic returns the state of a topic, new if need be.
func (p *Publisher) topic(name string) *topic {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.topics[name]
	if t == nil {
		t = newTopic(p, name)
		p.topics[name] = t
	}
	return t
}

// link returns the connection to the broker at addr; nil after Close.
func (p *Publisher) link(addr string) *link {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	l := p.links[addr]
	if l == nil {
		l = newLink(p, addr)
		p.links[addr] = l
		p.wg.Go(l.run)
	}
	return l
}

// enqueueLater waits until t is known, off the way of every other topic.
func (p *Publisher) enqueueLater(c *call, t *topic, msgs []brokers.Message, idx []int32) {
	for wait := newBackoff(); ; {
		t.refresh(c.over)
		switch ready, err := t.ready(); {
		case err != nil:
			c.failAll(idx, err)
			return
		case ready:
			c.read(func() { p.enqueue(c, t, msgs, idx) })
			return
		}
		if !wait.sleep(p.ctx, c.over) {
			return
		}
	}
}

// enqueue hands messages of one topic to their partitions, in slice order.
func (p *Publisher) enqueue(c *call, t *topic, msgs []brokers.Message, idx []int32) {
	parts, err := t.assign(msgs, idx)
	if err != nil {
		c.failAll(idx, &brokers.Error{Class: brokers.ClassDestination, Topic: t.name, Err: err})
		return
	}
	now := time.Now()
	slab := newSlab(msgs, idx)
	records := make([]sarama.Record, len(idx))
	items := roomFor(parts)
	for n, i := range idx {
		m := &msgs[i]
		size := slab.record(&records[n], m)
		list := &items[parts[n].id]
		*list = append(*list, item{
			call: c, index: i, record: &records[n], size: size,
			timestamp: clampTimestamp(m.Time, now),
		})
	}
	for n := range idx {
		if list := items[parts[n].id]; len(list) > 0 {
			c.joined(parts[n])
			parts[n].push(list)
			items[parts[n].id] = nil
		}
	}
}

// roomFor returns an empty list with just enough room for each partition, by id.
func roomFor(parts []*partition) [][]item {
	var counts []int
	for _, part := range parts {
		for int(part.id) >= len(counts) {
			counts = append(counts, 0)
		}
		counts[part.id]++
	}
	room, lists := make([]item, len(parts)), make([][]item, len(counts))
	for id, n := range counts {
		lists[id], room = room[:0:n], room[n:]
	}
	return lists
}

// byTopic returns the indices of each topic's messages, in slice order.
func byTopic(msgs []brokers.Message) map[string][]int32 {
	out := make(map[string][]int32, 1)
	for from := 0; from < len(msgs); {
		name, to := msgs[from].Topic, from+1
		for to < len(msgs) && msgs[to].Topic == name {
			to++
		}
		idx := out[name]
		if idx == nil {
			idx = make([]int32, 0, to-from)
		}
		for i := from; i < to; i++ {
			idx = append(idx, int32(i)) //nolint:gosec // an index of a slice in memory
		}
		out[name], from = idx, to
	}
	return out
}

// ensureClient returns the client for metadata. It is made on first use because
// the user's configuration may make that an act with a network.
func (p *Publisher) ensureClient() (sarama.Client, error) {
	p.clientMu.Lock()
	defer p.clientMu.Unlock()
	if p.client != nil {
		return p.client, nil
	}
	if p.ctx.Err() != nil {
		return nil, brokers.ErrClosed
	}
	conf := *p.conf
	dial(p.ctx, &conf, p.cfg.TLSFiles, nil)
	client, err := sarama.NewClient(p.cfg.Brokers, &conf)
	if err != nil {
		return nil, err
	}
	p.client = client
	return client, nil
}

// producerID identifies an idempotent producer. The zero value is none: brokers
// hand out ids from 0, so ok tells.
type producerID struct {
	id    int64
	epoch int16
	ok    bool
}

// currentID returns the producer id for partitions that need one; not ok if the
// next refresh has to fetch it.
func (p *Publisher) currentID() producerID {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pid
}

// retireID makes the next refresh fetch a new producer id if id is the current one.
func (p *Publisher) retireID(id int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pid.ok && p.pid.id == id {
		p.pid = producerID{}
	}
}

// ensureID fetches a producer id if there is none.
func (p *Publisher) ensureID(client sarama.Client) error {
	if p.currentID().ok {
		return nil
	}
	resp, err := client.InitProducerID()
	if err != nil {
		return fmt.Errorf("producer id: %w", err)
	}
	if !errors.Is(resp.Err, sarama.ErrNoError) {
		return fmt.Errorf("producer id: %w", resp.Err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.pid.ok { // another topic's refresh may have been first
		p.pid = producerID{id: resp.ProducerID, epoch: resp.ProducerEpoch, ok: true}
	}
	return nil
}
