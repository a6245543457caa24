// Package rabbitmq connects outboxkit to RabbitMQ over AMQP 0-9-1: [Publisher]
// sends with publisher confirms, [Subscriber] consumes with manual
// acknowledgements.
//
// # Order and speed
//
// RabbitMQ may refuse one message (a full queue with reject-publish, a binding
// that was missing for a moment) and take the next, and nothing that has been
// sent can be called back. So the publisher keeps one message of each (Topic,
// Key) unconfirmed at a time and fills its window with other keys; messages
// without a key need not wait. BenchmarkPublish, events a second to one quorum
// queue (RabbitMQ 3.10, loopback, two busy cores, three runs):
//
//	no keys, or 1,000 keys       17,000 - 26,000
//	100 keys                     19,000 - 21,000
//	10 keys                       4,000 -  7,000
//	one key                       1,300 -  1,600
//	bare client, window 500      27,000 - 30,000  without order after a refusal
//	bare client, one at a time      700 -  1,400
//
// Pipelining one key would win a factor of ten and lose the promise: in
// TestRefusalKeepsOrder it has later messages of a key confirmed behind a refused
// one.
//
// # Queues
//
// A queue is one ordered unit and needs one active consumer: declare it with
// x-single-active-consumer, or let Declare do it. To scale, spread the keys over
// several queues with PublisherConfig.Queues and consume [QueueNames]: with
// SubscriberConfig.Declare, members that come and go share them evenly within
// seconds. Make the number of queues a multiple of that of members: of 8 queues,
// 4 members have 2 each, and of 5 members one has none.
//
// # Message format
//
// CloudEvents 1.0, AMQP binding for 0-9-1 clients, binary mode: attributes are
// headers "cloudEvents:<name>" ("cloudEvents_" and "ce_" are understood too), the
// key is "cloudEvents:partitionkey", other headers keep their names. A message
// without data, which AMQP cannot tell from an empty one, carries
// "cloudEvents:tombstone".
package rabbitmq
