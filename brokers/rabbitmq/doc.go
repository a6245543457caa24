// Package rabbitmq connects outboxkit to RabbitMQ over AMQP 0-9-1: [Publisher]
// sends with publisher confirms, [Subscriber] consumes with manual
// acknowledgements.
//
// # Order and speed
//
// RabbitMQ may refuse one message (a full queue with reject-publish, a binding
// that was missing for a moment) and take the next, and nothing that has been
// sent can be called back. So the publisher keeps one message of each (Topic,
// Key) unconfirmed at a time and fills its window with other keys. A hundred keys
// together, or messages without a key, go as fast as the bare client pipelines;
// one key alone goes as fast as the broker confirms single messages. BenchmarkPublish
// compares; see docs/adapters.md for when that matters.
//
// # Queues
//
// A queue is one ordered unit and needs one active consumer: declare it with
// x-single-active-consumer, or let Declare do it. To scale, spread the keys over
// several queues with PublisherConfig.Queues and consume [QueueNames].
//
// # Message format
//
// CloudEvents 1.0, AMQP binding for 0-9-1 clients, binary mode: attributes are
// headers "cloudEvents:<name>" ("cloudEvents_" and "ce_" are understood too), the
// key is "cloudEvents:partitionkey", other headers keep their names. A message
// without data, which AMQP cannot tell from an empty one, carries
// "cloudEvents:tombstone".
package rabbitmq
