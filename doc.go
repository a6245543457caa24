// Package outboxkit is the root of a transactional outbox and idempotent-consumer
// toolkit. It holds no code: import the packages below it.
//
//   - event: types shared by producers, consumers and tests
//   - outbox: write events in the caller's transaction
//   - relay: publish them in order per key
//   - inbox: handle each once in the consumer's database
//   - brokers/kafka, brokers/rabbitmq: adapters
//   - schema/avro, schema/json, schema/registry: codecs and wire formats
//   - migrate: the tables
//   - outbox/outboxtest, inbox/inboxtest, postgrestest: for your tests
//
// The example shows all of them; examples/demo runs them.
package outboxkit
