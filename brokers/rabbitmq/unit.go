package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outboxkit/outboxkit/brokers"
)

var (
	errReleased  = errors.New("a delivery was released")
	errCancelled = errors.New("the broker cancelled the consumer")
	errSettled   = errors.New("the delivery has been settled already")
)

// ackLinger is how long after the last ack a channel is closed.
const ackLinger = 100 * time.Millisecond

// unit is the life of one channel that consumes one queue. Delivery tags mean
// something only within it.
type unit struct {
	queue        string
	link         *link
	ch           *amqp.Channel
	closed       chan *amqp.Error
	cancelled    chan string
	drainTimeout time.Duration

	ctx    context.Context // of its deliveries
	cancel context.CancelFunc

	released chan struct{} // closed with the first Release
	settled  chan struct{} // holds a token when something was settled lately

	mu        sync.Mutex
	stopping  bool                // takes no more deliveries
	delivered bool                // something was taken
	over      bool                // deliveries are not ours any more
	acked     time.Time           // the last time, zero if never
	unsettled map[uint64]struct{} // by delivery tag
}

// run hands deliveries over until the channel is lost, a delivery is released or
// ctx has ended and the drain is over.
func (u *unit) run(ctx context.Context, deliveries <-chan amqp.Delivery, handle brokers.Handle) error {
	ended := make(chan error, 1)
	go func() { ended <- u.guard(ctx) }()
	u.dispatch(ctx, deliveries, handle)
	return <-ended
}

func (u *unit) dispatch(ctx context.Context, deliveries <-chan amqp.Delivery, handle brokers.Handle) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-u.ctx.Done():
			return
		case raw, ok := <-deliveries:
			if !ok {
				return
			}
			// Also when both are ready: what the client has buffered goes back.
			if !u.take(ctx, raw.DeliveryTag) {
				return
			}
			handle(u.ctx, u.delivery(&raw))
		}
	}
}

// take notes a delivery, unless the unit is stopping.
func (u *unit) take(ctx context.Context, tag uint64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.stopping || ctx.Err() != nil {
		return false
	}
	u.delivered = true
	u.unsettled[tag] = struct{}{}
	return true
}

func (u *unit) delivery(raw *amqp.Delivery) *brokers.Delivery {
	return &brokers.Delivery{
		Message:     decode(raw, u.queue),
		Origin:      brokers.Origin{Broker: "rabbitmq", Topic: u.queue},
		Redelivered: raw.Redelivered,
		Settler:     &settler{unit: u, tag: raw.DeliveryTag},
	}
}

// guard ends the unit, and returns why.
func (u *unit) guard(ctx context.Context) error {
	err := u.await(ctx)
	if err == nil || errors.Is(err, errReleased) {
		u.linger()
	}
	u.mu.Lock()
	u.stopping, u.over = true, true
	u.mu.Unlock()
	u.cancel()
	// Closing returns what is unsettled to the queue, at its old place. Cancelling
	// the consumer instead would give the next one later messages first.
	_ = u.link.call(closeTimeout, u.ch.Close) // it is over either way
	return err
}

// linger lets the last acks get through. A quorum queue takes 32 at once and
// keeps the others of a burst in the channel until these are committed; closing
// the channel before would lose them, and the messages would come again.
func (u *unit) linger() {
	u.mu.Lock()
	pause := time.Until(u.acked.Add(ackLinger))
	u.mu.Unlock()
	if pause <= 0 {
		return
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-u.closed:
	}
}

// await waits for a reason to end, and then, unless the channel is gone, until
// what is being handled has been settled.
func (u *unit) await(ctx context.Context) error {
	var reason error // nil: ctx has ended
	select {
	case e := <-u.closed:
		return lost(e)
	case <-u.released:
		reason = errReleased
	case _, ok := <-u.cancelled:
		if !ok { // closed with the channel
			return lost(<-u.closed)
		}
		return errCancelled
	case <-ctx.Done():
	}
	timeout := time.NewTimer(u.drainTimeout)
	defer timeout.Stop()
	for !u.drained() {
		select {
		case <-u.settled:
		case e := <-u.closed:
			return lost(e)
		case <-timeout.C:
			return reason
		}
	}
	return reason
}

func lost(e *amqp.Error) error {
	if e == nil {
		return errGone
	}
	return fmt.Errorf("the channel was lost: %w", e)
}

// drained stops the unit and reports whether everything is settled.
func (u *unit) drained() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.stopping = true
	return len(u.unsettled) == 0
}

// progress reports whether anything was acknowledged.
func (u *unit) progress() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return !u.acked.IsZero()
}

// settler settles one delivery on the channel that brought it.
type settler struct {
	unit *unit
	tag  uint64
}

// Ack implements brokers.Settler.
func (s *settler) Ack() error {
	u := s.unit
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.over {
		return brokers.ErrStale
	}
	if _, ok := u.unsettled[s.tag]; !ok {
		return errSettled // the broker would close the channel
	}
	if err := u.ch.Ack(s.tag, false); err != nil {
		return fmt.Errorf("%w: %w", brokers.ErrStale, err)
	}
	u.acked = time.Now()
	u.settle(s.tag)
	return nil
}

// Release implements brokers.Settler. It ends the unit, after what is being
// handled has been settled or the drain timeout has passed: everything that is
// unsettled then is delivered again, in order, over a new channel.
func (s *settler) Release() {
	u := s.unit
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, ok := u.unsettled[s.tag]; u.over || !ok {
		return
	}
	u.settle(s.tag)
	if !u.stopping {
		u.stopping = true
		close(u.released)
	}
}

// settle forgets a delivery.
func (u *unit) settle(tag uint64) {
	delete(u.unsettled, tag)
	select {
	case u.settled <- struct{}{}:
	default:
	}
}
