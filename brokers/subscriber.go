package brokers

import "context"

// Subscriber delivers messages, at least once each.
type Subscriber interface {
	// Subscribe delivers until ctx ends, the subscriber is closed or a permanent
	// error occurs (for example: access refused, unknown topic); it reconnects by
	// itself and returns nil when ctx ended.
	//
	// Deliveries of one ordered unit (a Kafka partition, a RabbitMQ queue) arrive
	// in broker order, one call of handle after the other; different units call
	// handle concurrently. handle must not process the message, only take it: it
	// may block while the receiver has no room, which is how backpressure reaches
	// the broker, and must return when its context ends. The context passed to
	// handle also governs the processing of that delivery: it ends when the
	// delivery stops being ours (after a grace in which running work may finish).
	//
	// When a unit is taken away or ctx ends, Subscribe stops calling handle, waits
	// until every delivery of the unit is settled, up to the adapter's drain
	// timeout, then ends the deliveries' contexts and lets go.
	Subscribe(ctx context.Context, handle Handle) error

	// Close ends Subscribe as if its context had ended, and releases connections.
	// It may be called more than once and concurrently.
	Close() error
}

// Handle receives one delivery; see [Subscriber].
type Handle func(ctx context.Context, d *Delivery)

// Delivery is one message from the broker. It must be settled exactly once,
// with Ack or Release, from any goroutine, in any order.
type Delivery struct {
	Message     Message
	Origin      Origin
	Redelivered bool // the broker says that it may have delivered this before
	Settler     Settler
}

// Settler is the adapter's side of a delivery.
type Settler interface {
	// Ack says that the message has been dealt with for good. It returns ErrStale
	// when the delivery's session has ended; the message will come again.
	Ack() error
	// Release says that it was not dealt with. The adapter delivers it again,
	// with everything after it in its unit, in order: it restarts the unit's
	// consumption where it must.
	Release()
}

// Ack settles the delivery as done; see [Settler].
func (d *Delivery) Ack() error { return d.Settler.Ack() }

// Release gives the delivery back undone; see [Settler].
func (d *Delivery) Release() { d.Settler.Release() }
