// Package brokers is the contract between outboxkit and a message broker:
// [Publisher] and [Subscriber], the messages that cross them and the classes of
// error that decide what happens next. Package brokers/brokertest is the suite
// that every adapter passes; docs/adapters.md shows how to write one.
package brokers
