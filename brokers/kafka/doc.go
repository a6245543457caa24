// Package kafka connects outboxkit to Apache Kafka: [Publisher] implements
// brokers.Publisher and [Subscriber] implements brokers.Subscriber, on the
// client github.com/IBM/sarama. Brokers from 2.8 on are supported.
//
// # Publishing
//
// The publisher builds its own record batches instead of using the client's
// producers, because these cannot hold a key back: with many messages of a key
// in flight they publish later ones after an earlier one has failed for good.
// Here at most one batch of a partition is in flight (up to 500 messages and the
// topic's max.message.bytes); nothing of that partition is sent until the batch
// is resolved, and a batch is published or fails as a whole. Batches are
// idempotent, so that sending one again after a lost answer repeats nothing, and
// acknowledged by all in-sync replicas.
//
// A batch whose fate stays unknown (no answer in time, or the caller's context
// has ended) is fenced: the partition's next batch carries a higher producer
// epoch, and once it is in the log the broker refuses whatever of the older one
// is still under way.
//
// Keys are placed as Java clients place them (murmur2). Messages without a key
// go to one partition for up to 500 messages, then to the next.
//
// # Subscribing
//
// The subscriber is a member of a consumer group with eager, sticky assignment.
// It commits the offset below which every delivery has been acknowledged. A
// topic that is unknown for 5 seconds ends Subscribe with an error; so do refused
// access, and a committed offset that Kafka no longer holds, because skipping
// events needs somebody's decision. Release restarts the member's session:
// everything that is not committed is delivered again, in order.
//
// The client unpacks snappy in less memory and time, and within a bound, when
// sarama.MaxDecompressedBatchSize is set; being process-wide, that is left to the
// program.
//
// # Security
//
// TLSFiles is TLS with certificates that may be renewed while the program runs;
// Mechanism is PLAIN, SCRAM or OAUTHBEARER. Refused credentials end a subscription, a
// certificate that is refused does not: it may be mended in its place.
//
// # On the wire
//
// CloudEvents 1.0 binary mode: attributes are headers with the prefix "ce_", the
// media type is the header "content-type", the record key is the message key, a
// NULL value is a nil payload, other headers travel under their own names.
// Attributes that brokers.Message has no field for stay in Headers under their
// wire name, for example "ce_subject". A header "id" (Debezium's outbox router)
// is taken as the id where there is no "ce_id".
package kafka
