package kafka

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"

	"github.com/outboxkit/outboxkit/brokers"
)

// groupHandler hands the messages of one session to the receiver.
type groupHandler struct {
	subscriber *Subscriber
	handle     brokers.Handle
	restart    context.CancelFunc // ends the session
	drain      time.Duration
	progress   *progress
}

// progress is what a session has come to, for the pause before the next one.
type progress struct {
	acked   atomic.Bool
	givenUp atomic.Bool
}

func (p *progress) made() bool     { return p.acked.Load() }
func (p *progress) released() bool { return p.givenUp.Load() }

// Setup implements sarama.ConsumerGroupHandler.
func (h *groupHandler) Setup(sarama.ConsumerGroupSession) error { return nil }

// Cleanup implements sarama.ConsumerGroupHandler. The client commits what is
// marked after it.
func (h *groupHandler) Cleanup(sarama.ConsumerGroupSession) error { return nil }

// ConsumeClaim implements sarama.ConsumerGroupHandler. It only hands messages
// over: backpressure is handle blocking, upon which the client stops fetching
// this partition.
func (h *groupHandler) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	tp := topicPartition{claim.Topic(), claim.Partition()}
	w := newWindow(h.subscriber.cfg.MaxUnsettled, func(next int64) {
		h.progress.acked.Store(true)
		session.MarkOffset(tp.topic, tp.partition, next, "")
	}, func() {
		h.progress.givenUp.Store(true)
		h.restart()
	})
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(session.Context()))
	defer cancel(brokers.ErrStale)
	// From the session's end on, handle and the processing have their grace.
	defer context.AfterFunc(session.Context(), func() {
		if stillMember(session.Context()) {
			sleep(ctx, h.drain)
		}
		cancel(brokers.ErrStale)
	})()

	h.dispatch(ctx, session.Context(), claim, w)
	h.restart() // all partitions drain at the same time, not one after the other
	w.wait(ctx)
	w.close()
	return nil
}

// dispatch delivers until the session ends.
func (h *groupHandler) dispatch(ctx, session context.Context, claim sarama.ConsumerGroupClaim, w *window) {
	tp := topicPartition{claim.Topic(), claim.Partition()}
	messages := claim.Messages()
	for {
		receive(w.room(), session)
		m, ok := receive(messages, session)
		// The client hands over what it has buffered even when the session is
		// over; by then somebody else may own the partition.
		if !ok || session.Err() != nil {
			return
		}
		d := &delivery{
			Delivery: brokers.Delivery{
				Message:     toMessage(m),
				Origin:      brokers.Origin{Broker: "kafka", Topic: m.Topic, Partition: m.Partition, Offset: m.Offset},
				Redelivered: h.subscriber.redelivered(tp, m.Offset),
			},
			settler: w.add(m.Offset),
		}
		d.Settler = &d.settler
		h.handle(ctx, &d.Delivery)
	}
}

// delivery has its settler in its own allocation.
type delivery struct {
	brokers.Delivery
	settler settler
}

// receive waits for c, or until the session is over; not ok: c is closed, or that. It
// looks first: a select of two costs several times what a look does.
func receive[T any](c <-chan T, session context.Context) (v T, ok bool) {
	select {
	case v, ok = <-c:
		return v, ok
	default:
	}
	select {
	case v, ok = <-c:
		return v, ok
	case <-session.Done():
		return v, false
	}
}

// stillMember reports whether the partition is still ours although the session
// has ended: during a rebalance it is, until we rejoin or the rebalance times
// out. After the group has thrown us out it is not.
func stillMember(session context.Context) bool {
	cause := context.Cause(session)
	return !errors.Is(cause, sarama.ErrUnknownMemberId) &&
		!errors.Is(cause, sarama.ErrIllegalGeneration) &&
		!errors.Is(cause, sarama.ErrFencedInstancedId)
}
