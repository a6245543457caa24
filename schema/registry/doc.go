// Package registry frames messages with the schema ids of a Confluent-compatible
// schema registry (Confluent, Apicurio, Redpanda, Karapace).
//
//	client, err := registry.New(registry.Config{URL: "https://registry:8081", Register: true})
//	wire := registry.Confluent(client) // give it to relay and inbox
//
// The relay adds the id when it publishes and the consumer takes it off, so that
// services which write events need no registry. Ids and schemas never change in a
// registry: a process asks once for each and remembers the answer.
package registry
