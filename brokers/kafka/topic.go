package kafka

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"github.com/outboxkit/outboxkit/brokers"
)

// topic is what the publisher knows of one topic.
type topic struct {
	p    *Publisher
	name string

	mu          sync.Mutex
	parts       []*partition // by id; never shrinks, so that a partition keeps its sequence
	count       int          // of partitions now; 0 = not known
	lastCount   int          // the last count that was known
	leaders     []string     // address by partition id; "" = none
	maxBytes    int          // of a batch
	refreshed   time.Time    // last success
	refreshing  chan struct{}
	bad         error // ClassDestination, valid until badUntil
	badUntil    time.Time
	last        error // what went wrong last; nil after a success
	partitioner sarama.Partitioner
	sticky      int // partition for messages without a key
}

const (
	// metadataAge is how old knowledge of a topic may get before it is refreshed
	// behind the scenes: new partitions, a changed size limit.
	metadataAge = time.Minute
	// badFor is how long a bad destination is believed: a burst of messages to a
	// topic that does not exist costs one look-up, and a topic that was created
	// a moment ago is found.
	badFor = time.Second
)

func newTopic(p *Publisher, name string) *topic {
	t := &topic{p: p, name: name, partitioner: p.conf.Producer.Partitioner(name)}
	if err := validTopic(name); err != nil {
		t.bad = &brokers.Error{Class: brokers.ClassDestination, Topic: name, Err: err}
		t.badUntil = time.Now().Add(100 * 365 * 24 * time.Hour)
	}
	return t
}

// ready reports whether messages can be assigned to partitions, or why they
// never will be. It does not block.
func (t *topic) ready() (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if t.bad != nil && now.Before(t.badUntil) {
		return false, t.bad
	}
	if t.count == 0 {
		return false, nil
	}
	if now.Sub(t.refreshed) > metadataAge {
		t.startRefresh()
	}
	return true, nil
}

// assign returns the partition of each message.
func (t *topic) assign(msgs []brokers.Message, idx []int32) ([]*partition, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.count == 0 {
		return nil, &brokers.Error{Class: brokers.ClassUnavailable, Topic: t.name, Err: errors.New("its partitions have just become unknown")}
	}
	out := make([]*partition, len(idx))
	unkeyed := 0
	pm := sarama.ProducerMessage{Topic: t.name} // not one for each key: it escapes
	for n, i := range idx {
		key := msgs[i].Key
		if key == "" {
			if unkeyed%maxBatchRecords == 0 {
				t.sticky = (t.sticky + 1) % t.count
			}
			unkeyed++
			out[n] = t.parts[t.sticky%t.count]
			continue
		}
		pm.Key = sarama.StringEncoder(key)
		id, err := t.partitioner.Partition(&pm, int32(t.count)) //nolint:gosec // Kafka counts partitions in 32 bits
		if err != nil || id < 0 || int(id) >= t.count {
			return nil, &brokers.Error{Class: brokers.ClassDestination, Topic: t.name, Err: fmt.Errorf("the partitioner gave partition %d of %d: %w", id, t.count, err)}
		}
		out[n] = t.parts[id]
	}
	return out, nil
}

// leader returns the address of a partition's leader, "" if there is none.
func (t *topic) leader(id int32) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if int(id) >= t.count {
		return ""
	}
	return t.leaders[id]
}

// batchLimit returns the most bytes that a batch may have.
func (t *topic) batchLimit() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.maxBytes
}

// badDestination returns the error that every message to the topic shares now.
func (t *topic) badDestination() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.bad != nil && time.Now().Before(t.badUntil) {
		return t.bad
	}
	return nil
}

// condemn marks the destination as bad for a moment.
func (t *topic) condemn(cause error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bad = &brokers.Error{Class: brokers.ClassDestination, Topic: t.name, Err: cause}
	t.badUntil = time.Now().Add(badFor)
	t.count = 0
	return t.bad
}

// note remembers what went wrong, for the error of a call that runs out of
// time; nil after a success.
func (t *topic) note(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = err
}

func (t *topic) lastError() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last
}

// refresh asks the cluster again and waits for the answer, or for stop.
func (t *topic) refresh(stop <-chan struct{}) {
	t.mu.Lock()
	running := t.startRefresh()
	t.mu.Unlock()
	select {
	case <-running:
	case <-stop:
	case <-t.p.ctx.Done():
	}
}

// startRefresh starts a refresh unless one is running, with mu held. Refreshes
// have goroutines of their own because the client's calls take no context and
// wait for connections.
func (t *topic) startRefresh() <-chan struct{} {
	if t.refreshing != nil {
		return t.refreshing
	}
	done := make(chan struct{})
	if !t.p.spawn(func() {
		defer close(done)
		err := t.load()
		t.mu.Lock()
		defer t.mu.Unlock()
		t.refreshing = nil
		if err != nil {
			t.last = err
		}
	}) {
		close(done)
		return done
	}
	t.refreshing = done
	return done
}

// load asks the cluster for everything that publishing to the topic needs.
func (t *topic) load() error {
	client, err := t.p.ensureClient()
	if err != nil {
		return err
	}
	switch err := client.RefreshMetadata(t.name); {
	case err == nil, errors.Is(err, sarama.ErrLeaderNotAvailable): // some partitions may have leaders
	case isDestination(err), errors.Is(err, sarama.ErrUnknownTopicOrPartition):
		return t.condemn(describe(err))
	default:
		return fmt.Errorf("metadata: %w", err)
	}
	if err := t.p.ensureID(client); err != nil {
		return err
	}
	all, err := client.Partitions(t.name)
	if err != nil {
		return fmt.Errorf("partitions: %w", err)
	}
	leaders := t.loadLeaders(client, len(all))
	limit := t.loadLimit(client)
	t.adopt(leaders, limit)
	return nil
}

// loadLeaders returns the leaders' addresses. The publisher has connections of
// its own to them: on the client's a produce request would wait behind every
// metadata request, because the client locks a connection while it waits.
func (t *topic) loadLeaders(client sarama.Client, count int) []string {
	leaders := make([]string, count)
	writable, err := client.WritablePartitions(t.name)
	if err != nil {
		return leaders
	}
	for _, id := range writable {
		if broker, err := client.Leader(t.name, id); err == nil && int(id) < count {
			leaders[id] = broker.Addr()
		}
	}
	return leaders
}

// loadLimit returns the topic's max.message.bytes, at most the client's own and what
// fits into a request. It needs the DescribeConfigs permission; without it, batches
// that turn out too large are halved.
func (t *topic) loadLimit(client sarama.Client) int {
	limit := t.p.conf.Producer.MaxMessageBytes
	if room, bounded := t.p.cfg.batchRoom(t.name); bounded {
		limit = min(limit, room)
	}
	broker := client.LeastLoadedBroker()
	if broker == nil {
		return limit
	}
	const name = "max.message.bytes"
	resp, err := broker.DescribeConfigs(&sarama.DescribeConfigsRequest{
		Version:   1,
		Resources: []*sarama.ConfigResource{{Type: sarama.TopicResource, Name: t.name, ConfigNames: []string{name}}},
	})
	if err != nil {
		t.p.cfg.Logger.Debug("kafka: topic configuration not available", "topic", t.name, "err", err)
		return limit
	}
	for _, r := range resp.Resources {
		for _, c := range r.Configs {
			if n, err := strconv.Atoi(c.Value); c.Name == name && err == nil && n > 0 {
				limit = min(limit, n)
			}
		}
	}
	return limit
}

// adopt takes over what load has found.
func (t *topic) adopt(leaders []string, limit int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	count := len(leaders)
	if t.lastCount != 0 && t.lastCount != count {
		t.p.cfg.Logger.Warn("kafka: the number of partitions has changed: keys move to other partitions, so the order of a key across the change is lost",
			"topic", t.name, "before", t.lastCount, "now", count)
	}
	for id := len(t.parts); id < count; id++ {
		t.parts = append(t.parts, newPartition(t, int32(id))) //nolint:gosec // Kafka counts partitions in 32 bits
	}
	t.count, t.lastCount, t.leaders, t.maxBytes = count, count, leaders, limit
	t.refreshed, t.bad = time.Now(), nil
}
