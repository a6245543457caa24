package telemetry

import (
	"maps"
	"slices"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel/attribute"

	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/relay"
)

// maxTopics bounds the series of topics in trouble.
const maxTopics = 50

// ObserveRelay exports a relay's statistics and health at each collection until stop
// is called. database tells it from others in the process; it may be empty.
func (t *Telemetry) ObserveRelay(r *relay.Relay, database string) (stop func() error, err error) {
	db := attribute.String(attrDatabase, database)
	return t.observe(ofRelay, func(report report) {
		h := r.Health()
		report(relayReady, flag(h.Ready), db)
		report(relayLease, h.LeaseSeconds, db)
		for _, p := range h.Pipelines {
			name := attribute.String(attrPipeline, p.Name)
			report(relayStill, p.StillSeconds, db, name)
			if p.Cause == "" {
				report(relayStuck, flag(p.Stuck), db, name)
			} else {
				report(relayStuck, flag(p.Stuck), db, name, attribute.String(attrCause, string(p.Cause)))
			}
		}
		for _, p := range r.Stats().Pipelines {
			name := attribute.String(attrPipeline, p.Name)
			report(relayPublished, float64(p.Published), db, name)
			report(relayRetries, float64(p.Retries), db, name)
			report(relayParked, float64(p.Parked), db, name)
			report(relayBudget, p.RetryBudget, db, name)
			report(relayShards, float64(p.Shards), db, name)
			report(relayCircuit, flag(tripped(p.Circuit)), db, name)
			topics := slices.Sorted(maps.Keys(p.TopicCircuits))
			topics = slices.DeleteFunc(topics, func(topic string) bool { return !tripped(p.TopicCircuits[topic]) })
			for _, topic := range topics[:min(len(topics), maxTopics)] {
				report(relayCircuit, 1, db, name, attribute.String(attrDestination, topic))
			}
		}
	})
}

// ObserveInbox exports an inbox's statistics at each collection until stop is
// called. consumer is its Config.Consumer.
func (t *Telemetry) ObserveInbox(in *inbox.Inbox, consumer string) (stop func() error, err error) {
	name := attribute.String(attrConsumer, consumer)
	return t.observe(ofInbox, func(report report) {
		s := in.Stats()
		for _, o := range []struct {
			outcome string
			n       int64
		}{
			{"handled", s.Handled}, {"duplicate", s.Duplicates}, {"ignored", s.Ignored}, {"dead_lettered", s.DeadLettered},
			{"blocked", s.Blocked}, {"redriven", s.Redriven}, {"released", s.Released},
		} {
			report(inboxEvents, float64(o.n), name, attribute.String(attrOutcome, o.outcome))
		}
		report(inboxFailures, float64(s.Failures), name)
		for eventType, budget := range in.RetryBudgets() {
			report(inboxBudget, budget, name, attribute.String(attrEventType, eventType))
		}
		report(inboxCircuit, 0, name)
		for _, c := range s.Circuits {
			if tripped(c.State) {
				report(inboxCircuit, 1, name, attribute.String(attrEventType, c.Type))
			}
		}
	})
}

// tripped tells whether a circuit lets nothing but probes through. One that is
// recovering works: with little traffic it recovers for hours.
func tripped(state string) bool { return state == "open" || state == "half-open" }

// ObservePool exports how a pool is used at each collection until stop is called.
func (t *Telemetry) ObservePool(pool *pgxpool.Pool, name string) (stop func() error, err error) {
	of := attribute.String(attrPool, name)
	return t.observe(ofPool, func(report report) {
		s := pool.Stat()
		report(poolConnections, float64(s.IdleConns()), of, attribute.String(attrPoolState, "idle"))
		report(poolConnections, float64(s.AcquiredConns()), of, attribute.String(attrPoolState, "used"))
		report(poolMax, float64(s.MaxConns()), of)
		report(poolWait, s.EmptyAcquireWaitTime().Seconds(), of)
		report(poolWaits, float64(s.EmptyAcquireCount()), of)
		report(poolTimeouts, float64(s.CanceledAcquireCount()), of)
	})
}
