package brokers

import "context"

// Publisher sends messages and knows the fate of each.
type Publisher interface {
	// Publish sends msgs and returns one result a message, at the same index:
	// nil means that the broker has confirmed it as durably as it can (Kafka:
	// acks=all; RabbitMQ: publisher confirm, and not returned as unroutable).
	//
	// Order: messages with equal (Topic, Key), Key not empty, are published in
	// slice order, and if one of them fails, no later one with the same key is
	// published by this call: it gets ErrHeld, or the same kind of error. Messages
	// of other keys and topics are not affected.
	//
	// A result that is not nil may still have been published when its class is
	// ClassUnavailable (the answer may have been lost): the caller sends it again.
	// Once Publish has returned, nothing of it is published later unless the
	// broker already has it; a caller that waits for Publish before it sends
	// more of a key keeps that key's order of first publications.
	//
	// When ctx ends Publish returns promptly; what has not been resolved by then
	// has class ClassUnavailable and wraps ctx.Err().
	//
	// Publish may be called from several goroutines at once; there is no order
	// between calls. It reconnects by itself: after a broker's restart the next
	// calls succeed. It does not retry for longer than its own short internal
	// budget; retrying is the caller's business.
	Publish(ctx context.Context, msgs []Message) []error

	// Close releases connections. Running and later Publish calls return
	// ErrClosed. It may be called more than once and concurrently.
	Close() error
}
