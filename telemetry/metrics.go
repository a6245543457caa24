package telemetry

import (
	"slices"
	"strings"
)

// Kind is the kind of an instrument.
type Kind string

// Kinds of instruments.
const (
	Counter   Kind = "counter"
	Gauge     Kind = "gauge"
	Histogram Kind = "histogram"
)

// Metric describes one metric.
type Metric struct {
	Name       string   // in OpenTelemetry
	Kind       Kind     // what Prometheus calls it
	Unit       string   // UCUM: s, By, or what is counted in braces
	Attributes []string // all that it may have
	Text       string   // one sentence

	bounds []float64 // of a histogram's buckets
}

// Prometheus returns the metric's name there; a histogram's series add _bucket,
// _sum and _count.
func (m Metric) Prometheus() string {
	name := strings.ReplaceAll(m.Name, ".", "_")
	switch m.Unit {
	case "s":
		name += "_seconds"
	case "By":
		name += "_bytes"
	}
	if m.Kind == Counter {
		name += "_total"
	}
	return name
}

// Attributes.
const (
	attrSystem      = "messaging.system"
	attrOperation   = "messaging.operation.name"
	attrOpType      = "messaging.operation.type"
	attrDestination = "messaging.destination.name"
	attrConsumer    = "messaging.consumer.group.name"
	attrMessageID   = "messaging.message.id"
	attrBodySize    = "messaging.message.body.size"
	attrBatchSize   = "messaging.batch.message_count"
	attrError       = "error.type"
	attrPool        = "db.client.connection.pool.name"
	attrPoolState   = "db.client.connection.state"
	attrDatabase    = "outboxkit.database"
	attrPipeline    = "outboxkit.pipeline"
	attrCause       = "outboxkit.cause"
	attrState       = "outboxkit.state"
	attrOutcome     = "outboxkit.outcome"
	attrEventType   = "outboxkit.event.type"
	attrAttempt     = "outboxkit.attempt"
)

var (
	pipelineAttrs = []string{attrDatabase, attrPipeline}
	// quickBounds are the conventions', with finer ones below: a relay's median is a
	// few milliseconds.
	quickBounds = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}
	// wayBounds go on to hours: after an outage that is how old events are.
	wayBounds = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400}
)

// What a publisher of [Telemetry.Publisher] records.
var (
	sentMessages = Metric{Name: "messaging.client.sent.messages", Kind: Counter, Unit: "{message}",
		Attributes: append([]string{attrSystem, attrOperation, attrDestination, attrError}, pipelineAttrs...),
		Text:       "Events handed to the broker, repeats included. Without `error.type` they were confirmed; otherwise it is unavailable, destination, rejected or held (behind one of its key)."}
	sentSize = Metric{Name: "outboxkit.relay.sent.size", Kind: Counter, Unit: "By",
		Attributes: append([]string{attrSystem, attrDestination}, pipelineAttrs...),
		Text:       "Bytes of payload and key that the broker has confirmed."}
	sendDuration = Metric{Name: "messaging.client.operation.duration", Kind: Histogram, Unit: "s", bounds: quickBounds,
		Attributes: append([]string{attrSystem, attrOperation, attrError}, pipelineAttrs...),
		Text:       "Duration of a call that publishes up to thousands of events. `error.type` is the first failed event's class."}
	relayLatency = Metric{Name: "outboxkit.relay.latency", Kind: Histogram, Unit: "s", bounds: wayBounds,
		Attributes: append([]string{attrSystem, attrDestination}, pipelineAttrs...),
		Text:       "From the writing of an event to the broker's confirmation, of each confirmed event. The writer's transaction is part of it. Replayed events do not count."}
)

// What [Telemetry.ObserveRelay] exports: this process's relay.
var (
	relayPublished = Metric{Name: "outboxkit.relay.published", Kind: Counter, Unit: "{event}", Attributes: pipelineAttrs,
		Text: "Events of the log that the broker has confirmed, repeats included."}
	relayRetries = Metric{Name: "outboxkit.relay.retries", Kind: Counter, Unit: "{event}", Attributes: pipelineAttrs,
		Text: "Events that an attempt left unresolved."}
	relayParked = Metric{Name: "outboxkit.relay.parked", Kind: Counter, Unit: "{event}", Attributes: pipelineAttrs,
		Text: "Events that this relay has parked."}
	relayBudget = Metric{Name: "outboxkit.relay.retry.budget", Kind: Gauge, Unit: "{event}", Attributes: pipelineAttrs,
		Text: "Retries that may go at once, 0 to 500. At 0 events are retried one by one."}
	relayShards = Metric{Name: "outboxkit.relay.shards", Kind: Gauge, Unit: "{shard}", Attributes: pipelineAttrs,
		Text: "Shards, of 64, whose leases this relay holds."}
	relayReady = Metric{Name: "outboxkit.relay.ready", Kind: Gauge, Unit: "{relay}", Attributes: []string{attrDatabase},
		Text: "1 if Postgres answers and the relay's lease is valid, else 0."}
	relayLease = Metric{Name: "outboxkit.relay.lease.remaining", Kind: Gauge, Unit: "s", Attributes: []string{attrDatabase},
		Text: "How long the relay may go on without another heartbeat."}
	relayStuck = Metric{Name: "outboxkit.relay.stuck", Kind: Gauge, Unit: "{pipeline}", Attributes: append([]string{attrCause}, pipelineAttrs...),
		Text: "1 if the pipeline has not moved for a minute though this relay should have moved it, else 0. `outboxkit.cause` says whose trouble it is: postgres, broker, topic, error, unknown; with 0 it says what is about to, or is withdrawn."}
	relayStill = Metric{Name: "outboxkit.relay.still", Kind: Gauge, Unit: "s", Attributes: pipelineAttrs,
		Text: "Time since the pipeline last moved here. Looking at the log and finding nothing is moving."}
	relayCircuit = Metric{Name: "outboxkit.relay.circuit.tripped", Kind: Gauge, Unit: "{circuit}", Attributes: append([]string{attrDestination}, pipelineAttrs...),
		Text: "1 while nothing goes to the broker but probes, else 0. With `messaging.destination.name` that of a topic, while nothing else goes there (at most 50 topics)."}
)

// What [Telemetry.WatchOutbox] exports: what the database knows, whoever publishes.
var (
	outboxBacklog = Metric{Name: "outboxkit.outbox.backlog", Kind: Gauge, Unit: "{event}", Attributes: pipelineAttrs,
		Text: "Committed events that the stored position has not passed; beyond 10,000 an estimate."}
	outboxOldest = Metric{Name: "outboxkit.outbox.oldest.age", Kind: Gauge, Unit: "s", Attributes: pipelineAttrs,
		Text: "Age of the oldest event of the backlog, 0 if there is none."}
	outboxParked = Metric{Name: "outboxkit.outbox.parked", Kind: Gauge, Unit: "{event}", Attributes: append([]string{attrState}, pipelineAttrs...),
		Text: "Events that are parked now: dead wait for a person, retrying are tried again, blocked wait behind one of their key. Up to 100,000 are counted."}
	outboxParkedAge = Metric{Name: "outboxkit.outbox.parked.age", Kind: Gauge, Unit: "s", Attributes: pipelineAttrs,
		Text: "Time since the first of them was parked, 0 if none is."}
	outboxUnowned = Metric{Name: "outboxkit.outbox.shards.unowned", Kind: Gauge, Unit: "{shard}", Attributes: pipelineAttrs,
		Text: "Shards, of 64, that no living relay publishes."}
	outboxRelays = Metric{Name: "outboxkit.outbox.relays", Kind: Gauge, Unit: "{relay}", Attributes: []string{attrDatabase},
		Text: "Living relays."}
	outboxLogSize = Metric{Name: "outboxkit.outbox.log.size", Kind: Gauge, Unit: "By", Attributes: []string{attrDatabase},
		Text: "Size of the log's tables with their indexes."}
	outboxStatusAge = Metric{Name: "outboxkit.outbox.status.age", Kind: Gauge, Unit: "s", Attributes: []string{attrDatabase},
		Text: "Time since these figures, which are read every 15 s, were last read. When it is more than a minute the others are missing."}
)

// What an inbox exports: [Telemetry.Middleware], [Telemetry.ObserveInbox],
// [Telemetry.WatchInbox].
var (
	processDuration = Metric{Name: "messaging.process.duration", Kind: Histogram, Unit: "s", bounds: quickBounds,
		Attributes: []string{attrSystem, attrOperation, attrDestination, attrConsumer, attrError},
		Text:       "Duration of a handler's attempt, without claim and commit. `error.type` is panic, timeout, a Postgres error code or _OTHER."}
	inboxLatency = Metric{Name: "outboxkit.inbox.latency", Kind: Histogram, Unit: "s", bounds: wayBounds,
		Attributes: []string{attrDestination, attrConsumer},
		Text:       "End to end: from the writing of an event to the end of the attempt that succeeded, before its commit. Replayed events do not count."}
	inboxEvents = Metric{Name: "outboxkit.inbox.events", Kind: Counter, Unit: "{event}", Attributes: []string{attrConsumer, attrOutcome},
		Text: "Messages by what became of them: handled, duplicate (a dedup hit), ignored, dead_lettered, blocked, redriven, released (given back to the broker)."}
	inboxFailures = Metric{Name: "outboxkit.inbox.failures", Kind: Counter, Unit: "{attempt}", Attributes: []string{attrConsumer},
		Text: "Failed attempts."}
	inboxBudget = Metric{Name: "outboxkit.inbox.retry.budget", Kind: Gauge, Unit: "{attempt}", Attributes: []string{attrConsumer, attrEventType},
		Text: "Retries that may run at once, of each event type, 0 to 100. At 0 messages are retried one by one."}
	inboxCircuit = Metric{Name: "outboxkit.inbox.circuit.tripped", Kind: Gauge, Unit: "{circuit}", Attributes: []string{attrConsumer, attrEventType},
		Text: "0 for the consumer; 1 for each event type whose handler is only tried with single events, while it is."}
	inboxDead = Metric{Name: "outboxkit.inbox.dead", Kind: Gauge, Unit: "{event}", Attributes: []string{attrDatabase, attrConsumer, attrState},
		Text: "Dead letters that wait now: dead for a person, blocked behind one of their key, retrying for the consumer. Up to 100,000 are counted."}
	inboxDeadAge = Metric{Name: "outboxkit.inbox.dead.age", Kind: Gauge, Unit: "s", Attributes: []string{attrDatabase, attrConsumer},
		Text: "Time since the first of them was stored, 0 if there is none."}
)

// What [Telemetry.ObservePool] exports.
var (
	poolConnections = Metric{Name: "db.client.connection.count", Kind: Gauge, Unit: "{connection}", Attributes: []string{attrPool, attrPoolState},
		Text: "Connections of the pool: idle, used."}
	poolMax = Metric{Name: "db.client.connection.max", Kind: Gauge, Unit: "{connection}", Attributes: []string{attrPool},
		Text: "Most connections that the pool may have."}
	poolWait = Metric{Name: "outboxkit.pool.wait", Kind: Counter, Unit: "s", Attributes: []string{attrPool},
		Text: "Time spent waiting for a connection while none was idle."}
	poolWaits = Metric{Name: "outboxkit.pool.waits", Kind: Counter, Unit: "{request}", Attributes: []string{attrPool},
		Text: "How often that was waited for."}
	poolTimeouts = Metric{Name: "db.client.connection.timeouts", Kind: Counter, Unit: "{timeout}", Attributes: []string{attrPool},
		Text: "How often the wait ended without a connection."}
)

// Groups of observed metrics, as their callbacks report them.
var (
	ofRelay      = []Metric{relayPublished, relayRetries, relayParked, relayBudget, relayShards, relayReady, relayLease, relayStuck, relayStill, relayCircuit}
	ofOutbox     = []Metric{outboxBacklog, outboxOldest, outboxParked, outboxParkedAge, outboxUnowned, outboxRelays, outboxLogSize, outboxStatusAge}
	ofInbox      = []Metric{inboxEvents, inboxFailures, inboxBudget, inboxCircuit}
	ofDeadLetter = []Metric{inboxDead, inboxDeadAge}
	ofPool       = []Metric{poolConnections, poolMax, poolWait, poolWaits, poolTimeouts}
)

func observed() []Metric { return slices.Concat(ofRelay, ofOutbox, ofInbox, ofDeadLetter, ofPool) }

// Metrics lists all metrics, in the order of the documentation.
func Metrics() []Metric {
	return slices.Concat(
		[]Metric{sentMessages, sentSize, sendDuration, relayLatency}, ofRelay, ofOutbox,
		[]Metric{processDuration, inboxLatency}, ofInbox, ofDeadLetter, ofPool,
	)
}
