// Package faults runs the whole system on real servers while faults of a seeded
// plan happen to it, and lets internal/history judge what came of it.
//
// The world: services write orders into the database "shop"; three relay daemons
// publish them over Kafka and over RabbitMQ; three consumer processes, an inbox for
// each broker, record effects in the database "warehouse" and write derived events,
// which the same relays publish and the same consumers take. Every process is a
// child with proxies of its own between it and each server.
//
// A seed repeats the plan (which fault, to whom, when, how long) and what the
// services choose to write. It does not repeat how the kernel schedules processes,
// nor what a fault meets.
package faults
