package inboxtest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/brokertest"
	"github.com/outboxkit/outboxkit/inbox"
)

// rig is a broker in memory with inboxes that read from it. Each inbox is a
// group of its own at the broker, so each is given every message, whatever name
// it has as a consumer.
type rig struct {
	broker    *brokertest.Memory
	topics    []string
	instances []*instance
	started   int
}

type instance struct {
	group string
	inbox *inbox.Inbox
	stop  context.CancelFunc
	ended chan struct{}
	err   error // of Run; set before ended is closed
}

func newRig(msgs []brokers.Message) *rig {
	r := &rig{broker: brokertest.NewMemory(brokertest.MemoryConfig{MaxBytes: math.MaxInt})}
	known := map[string]bool{}
	for _, m := range msgs {
		if !known[m.Topic] {
			known[m.Topic] = true
			r.topics = append(r.topics, m.Topic)
			r.broker.CreateTopic(m.Topic, 4, 0)
		}
	}
	return r
}

// start runs another inbox of c.
func (r *rig) start(c Consumer, pool *pgxpool.Pool) error {
	r.started++
	i := &instance{group: fmt.Sprint("instance ", r.started), ended: make(chan struct{})}
	in, err := c.New(pool, tagging{r.broker.Subscriber(i.group, r.topics...)})
	if err != nil {
		return fmt.Errorf("make the consumer: %w", err)
	}
	if in == nil {
		return errors.New("make the consumer: Consumer.New returned nil")
	}
	ctx, cancel := context.WithCancel(context.Background())
	i.inbox, i.stop = in, cancel
	r.instances = append(r.instances, i)
	go func() {
		defer close(i.ended)
		i.err = in.Run(ctx)
	}()
	return nil
}

// deliver publishes msgs and waits until every inbox has settled them; one at a
// time, or all at once. If it cannot, it stops the inboxes.
func (r *rig) deliver(ctx context.Context, msgs []brokers.Message, oneByOne bool) error {
	size := max(len(msgs), 1)
	if oneByOne {
		size = 1
	}
	for i := 0; i < len(msgs); i += size {
		for _, err := range r.broker.Publisher().Publish(ctx, msgs[i:i+size]) {
			if err != nil {
				_, _ = r.stop()
				return fmt.Errorf("publish: %w", err)
			}
		}
		if err := r.settled(ctx); err != nil {
			_, stopErr := r.stop()
			return errors.Join(err, stopErr)
		}
	}
	return nil
}

func (r *rig) settled(ctx context.Context) error {
	poll := time.NewTicker(500 * time.Microsecond)
	defer poll.Stop()
	for {
		left := r.unsettled()
		if left == 0 {
			return nil
		}
		for _, i := range r.instances {
			select {
			case <-i.ended:
				return fmt.Errorf("the inbox ended by itself, with %d deliveries to go", left)
			default:
			}
			if err := i.paused(); err != nil {
				return fmt.Errorf("%w, with %d deliveries to go", err, left)
			}
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("%d deliveries are still not settled: does a handler hang, or wait for a connection of a pool that is used up? (Consumer.Timeout): %w",
				left, ctx.Err())
		}
	}
}

// pauseLimit is how long a type's circuit may be open: in a test nothing is mended
// meanwhile.
const pauseLimit = 2 * time.Second

// paused says that the inbox has given up trying all events of a type.
func (i *instance) paused() error {
	for _, c := range i.inbox.Stats().Circuits {
		if time.Since(c.Since) > pauseLimit {
			return fmt.Errorf("the handler of %s fails for one event after the other; the inbox waits for it to be mended (inbox.Circuit): %s", c.Type, c.Error)
		}
	}
	return nil
}

func (r *rig) unsettled() (n int) {
	for _, i := range r.instances {
		for _, topic := range r.topics {
			n += r.broker.Unacked(i.group, topic)
		}
	}
	return n
}

// stop ends the inboxes, waits for them and returns what each has counted.
func (r *rig) stop() (stats []inbox.Stats, err error) {
	for _, i := range r.instances {
		i.stop()
	}
	for _, i := range r.instances {
		<-i.ended
		if i.err != nil {
			err = errors.Join(err, fmt.Errorf("Inbox.Run: %w", i.err))
		}
		stats = append(stats, i.inbox.Stats())
	}
	r.instances = nil
	return stats, err
}

// tagging tells the statements of a delivery whose they are.
type tagging struct{ brokers.Subscriber }

type deliveryKey struct{}

func (s tagging) Subscribe(ctx context.Context, handle brokers.Handle) error {
	return s.Subscriber.Subscribe(ctx, func(ctx context.Context, d *brokers.Delivery) {
		handle(context.WithValue(ctx, deliveryKey{}, d.Message.ID), d)
	})
}
