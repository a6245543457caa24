package kafka

import (
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/IBM/sarama"

	"github.com/outboxkit/outboxkit/brokers"
)

// partition sends the messages of one partition, one batch at a time. A
// goroutine runs while there is something to send; what only it touches needs
// no lock.
type partition struct {
	topic *topic
	id    int32
	woken chan struct{} // a call with messages here is over

	mu      sync.Mutex
	queue   []item
	running bool

	// Of the running goroutine.
	producer producerID
	sequence int32
	limit    int // most records of a batch; lower after a batch was too large
}

// maxBatchRecords bounds what fails and is sent again as a whole. Larger batches
// were not faster.
const maxBatchRecords = 500

func newPartition(t *topic, id int32) *partition {
	return &partition{topic: t, id: id, woken: make(chan struct{}, 1), limit: maxBatchRecords}
}

// push adds messages and makes sure that somebody sends them.
func (pt *partition) push(items []item) {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	pt.queue = append(pt.queue, items...)
	if !pt.running {
		pt.running = pt.topic.p.spawn(pt.run)
	}
}

// wake makes the goroutine look whether its batch still has a caller.
func (pt *partition) wake() {
	select {
	case pt.woken <- struct{}{}:
	default:
	}
}

func (pt *partition) run() {
	for b := pt.next(); b != nil; b = pt.next() {
		pt.deliver(b)
	}
}

// next takes a batch from the queue; nil when nothing is left, or after Close.
func (pt *partition) next() *batch {
	maxBytes := pt.topic.batchLimit()
	pt.mu.Lock()
	defer pt.mu.Unlock()
	if pt.topic.p.ctx.Err() != nil {
		return nil // the calls end with ErrClosed by themselves
	}
	var items []item
	size, taken := batchOverhead, 0
	for taken < len(pt.queue) && len(items) < pt.limit {
		it := pt.queue[taken]
		if it.call.isOver() || it.call.held(it.index) {
			taken++
			continue
		}
		if err := pt.topic.p.cfg.fits(pt.topic.name, it.size); err != nil {
			it.call.fail(it.index, err)
			taken++
			continue
		}
		if len(items) > 0 && size+it.size > maxBytes {
			break
		}
		if items == nil {
			items = make([]item, 0, min(pt.limit, len(pt.queue)-taken))
		}
		items = append(items, it)
		size += it.size
		taken++
	}
	clear(pt.queue[:taken])
	pt.queue = pt.queue[taken:]
	if len(items) == 0 {
		pt.running, pt.queue = false, nil
		return nil
	}
	return newBatch(items, size, pt.topic.p.conf)
}

// requeue puts messages back in front.
func (pt *partition) requeue(items []item) {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	pt.queue = append(items[:len(items):len(items)], pt.queue...)
}

// deliver sends b until it is published, has failed for good or has no caller
// any more.
func (pt *partition) deliver(b *batch) {
	for wait := newBackoff(); ; {
		err := pt.try(b)
		switch v := judge(err, b.uncertain); v {
		case published:
			pt.published(b)
			return
		case abandoned:
			pt.fence()
			return
		case rejected:
			pt.fence()
			pt.split(b, err)
			return
		case badDestination:
			pt.fence()
			pt.failEverything(b, pt.topic.condemn(describe(err)))
			return
		case sequenceLost:
			// The broker has lost track of the producer: topic recreated,
			// records deleted, unclean election. It did not take the batch.
			pt.fence()
		case unavailable:
			b.uncertain = b.uncertain || maybeAppended(err)
		}
		pt.topic.note(err)
		pt.topic.refresh(pt.woken)
		if err := pt.topic.badDestination(); err != nil {
			pt.fence()
			pt.failEverything(b, err)
			return
		}
		wait.sleep(pt.topic.p.ctx, pt.woken)
		if b.withoutCaller() {
			// Rebuilt without them, if some are left: nothing of a call may be
			// published after it has returned.
			pt.fence()
			pt.requeue(b.items)
			return
		}
	}
}

var (
	errAbandoned = errors.New("no caller waits for this batch any more")
	errNoLeader  = fmt.Errorf("partition has no leader: %w", sarama.ErrLeaderNotAvailable)
)

// try sends b once and waits for the answer.
func (pt *partition) try(b *batch) error {
	p := pt.topic.p
	if !pt.producer.ok || pt.sequence > math.MaxInt32-maxBatchRecords {
		p.retireID(pt.producer.id) // of no effect unless it is used up
		pt.producer, pt.sequence = p.currentID(), 0
	}
	addr := pt.topic.leader(pt.id)
	if addr == "" || !pt.producer.ok {
		return errNoLeader
	}
	l := p.link(addr)
	if l == nil {
		return errAbandoned
	}
	a := newAttempt(pt, b)
	for in := l.in; ; {
		select {
		case in <- a:
			in = nil // handed over; now wait for the answer
		case err := <-a.done:
			return err
		case <-pt.woken:
			if b.hasCaller() {
				continue
			}
			a.abandon(l)
			return errAbandoned
		case <-p.ctx.Done():
			return errAbandoned
		}
	}
}

// fence starts a new producer epoch for the partition. As soon as a batch of it
// is in the log, the broker refuses every batch of an older epoch: whatever may
// still be under way cannot follow what is sent from now on.
func (pt *partition) fence() {
	pt.sequence = 0
	if pt.producer.epoch == math.MaxInt16 {
		pt.topic.p.retireID(pt.producer.id)
		pt.producer = producerID{}
		return
	}
	pt.producer.epoch++
}

func (pt *partition) published(b *batch) {
	pt.sequence += int32(len(b.items)) //nolint:gosec // at most maxBatchRecords
	if pt.limit < maxBatchRecords {
		pt.limit = min(maxBatchRecords, pt.limit+pt.limit/4+1)
	}
	b.eachCall(func(c *call, items []item) { c.succeed(items) })
	pt.topic.note(nil)
}

// split halves a batch that the broker refuses, until the one message is found
// that it refuses alone.
func (pt *partition) split(b *batch, cause error) {
	if len(b.items) > 1 {
		pt.limit = len(b.items) / 2
		pt.requeue(b.items)
		return
	}
	it := b.items[0]
	if isTooLarge(cause) {
		cause = fmt.Errorf("%w (about %d bytes before compression; see the topic's max.message.bytes)", cause, it.size)
	}
	it.call.fail(it.index, &brokers.Error{Class: brokers.ClassRejected, Topic: pt.topic.name, Err: cause})
}

// failEverything fails the batch and what is queued behind it: all of it has the
// same bad destination.
func (pt *partition) failEverything(b *batch, err error) {
	pt.mu.Lock()
	items := append(b.items[:len(b.items):len(b.items)], pt.queue...)
	pt.queue = nil
	pt.mu.Unlock()
	for _, it := range items {
		it.call.fail(it.index, err)
	}
}
