// Package peers runs what others offer for the same purpose, so that bench can
// measure it beside outboxkit: [Debezium] Server with the outbox event router,
// and [Watermill]'s SQL forwarder.
//
// Each comes in two shapes: at its defaults, and tuned as its own documentation
// recommends for throughput and latency. Settings says what was set, why, and
// where that comes from.
package peers
