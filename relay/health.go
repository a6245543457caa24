package relay

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// Health says whether this process can do its work, and whether it does. [Status]
// says how the outbox is, whoever publishes it.
type Health struct {
	// Instance is this process's name in the database; "" while it has none.
	Instance string `json:"instance,omitempty"`
	// Ready says that Postgres has answered and the lease that it granted is valid.
	// It says nothing about brokers: a relay whose broker is away is ready to go on.
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"` // why it is not ready
	// LeaseSeconds is how long it may go on without another heartbeat.
	LeaseSeconds float64          `json:"lease_seconds"`
	Pipelines    []PipelineHealth `json:"pipelines"` // in the order of the configuration
}

// PipelineHealth says whether a pipeline moves. It moves when something is
// published or parked, and when a look at the log finds nothing to publish.
type PipelineHealth struct {
	Name   string `json:"name"`
	Shards int    `json:"shards"` // held by this instance; others may hold the rest
	// Stuck says that it has not moved for a minute though this instance should
	// have moved it.
	Stuck bool `json:"stuck"`
	// StillSeconds is the time since it last moved here, in this process.
	StillSeconds float64 `json:"still_seconds"`
	// Cause is whose trouble keeps it, and Reason the latest error or what else is
	// known, for people. They are set while there is trouble, before it is stuck too.
	Cause  Cause  `json:"cause,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// Cause is where to look when a pipeline does not move.
type Cause string

// Causes.
const (
	CausePostgres  Cause = "postgres"  // no valid lease: the database does not answer, or refuses
	CauseBroker    Cause = "broker"    // the broker does not answer: nothing goes but probes
	CauseTopic     Cause = "topic"     // a topic does not take events; others go on
	CauseWithdrawn Cause = "withdrawn" // shards did not move here: another instance has them
	CauseError     Cause = "error"     // anything else that failed
	CauseUnknown   Cause = "unknown"   // nothing has failed, and nothing comes back
)

// life is what a relay remembers for Health.
type life struct {
	mu     sync.Mutex
	tenure *tenure // nil between tenures
	err    error   // why there is none; nil = Run has not come so far
}

func (l *life) joined(t *tenure) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tenure, l.err = t, nil
}

// left notes that there is no tenure any more; nil is a good end.
func (l *life) left(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tenure = nil
	if err != nil {
		l.err = err
	}
}

func (l *life) look() (*tenure, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tenure, l.err
}

// Health returns the state of this process. It asks nobody and does not block, so
// it answers when Postgres does not.
func (r *Relay) Health() Health {
	var h Health
	t, err := r.life.look()
	switch {
	case t == nil && err == nil:
		h.Reason = "not running: it has not joined yet, or has been stopped"
	case t == nil:
		h.Reason = err.Error()
	default:
		h.Instance = t.name
		h.LeaseSeconds = max(t.left().Seconds(), 0)
		h.Ready = h.LeaseSeconds > 0 && t.work.Err() == nil
		if cause := context.Cause(t.work); cause != nil {
			h.Reason = cause.Error()
		} else if !h.Ready {
			h.Reason = "Postgres has not answered heartbeats for as long as the lease lasts"
		}
	}
	now := time.Now()
	for _, e := range r.engines {
		h.Pipelines = append(h.Pipelines, e.condition(now, h))
	}
	return h
}

// left is how long the lease lasts without another heartbeat.
func (t *tenure) left() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.deadline.Sub(t.r.tune.now())
}

// condition says how the pipeline is; h is the instance's part.
func (e *engine) condition(now time.Time, h Health) PipelineHealth {
	stats, moved := e.stats.read(now), e.stats.lastMoved()
	p := PipelineHealth{Name: e.name, Shards: stats.Shards}
	if moved.IsZero() { // Run has not begun
		return p
	}
	still := now.Sub(moved)
	p.StillSeconds = max(still.Seconds(), 0)
	limit := e.r.tune.stuck
	failing := stats.failing(now, limit)
	trouble, why := e.trouble()
	switch {
	case !h.Ready:
		p.Cause, p.Reason = CausePostgres, h.Reason
	case e.health.isOut():
		p.Cause, p.Reason = CauseWithdrawn, "shards did not move here, another instance has them; last error: "+stats.LastError
	case trouble != "":
		p.Cause, p.Reason = trouble, why
	case failing:
		p.Cause, p.Reason = CauseError, stats.LastError
	case stats.Shards > 0 && still > limit:
		p.Cause, p.Reason = CauseUnknown, "nothing has failed, but neither broker nor database has given an answer that would move it"
	}
	// Who holds no shard, has a lease and sees no error waits for others to leave.
	idle := stats.Shards == 0 && h.Ready && (!failing || p.Cause == CauseWithdrawn)
	p.Stuck = still > limit && !idle
	return p
}

// failing tells whether there was an error lately.
func (s PipelineStats) failing(now time.Time, lately time.Duration) bool {
	return s.LastError != "" && now.Sub(s.LastErrorAt) < lately
}

// trouble says which circuits let nothing but probes through, "" if none.
func (e *engine) trouble() (Cause, string) {
	s := e.session()
	if s == nil {
		return "", ""
	}
	if state, _, err := s.parking.broker.look(); state.tripped() {
		return CauseBroker, fmt.Sprintf("the broker's circuit is %s: %v", state, err)
	}
	topics := s.parking.topics.failing()
	if len(topics) == 0 {
		return "", ""
	}
	first := slices.Sorted(maps.Keys(topics))[0]
	return CauseTopic, fmt.Sprintf("%d topics in trouble, the first is %q: %v", len(topics), first, topics[first])
}

// failing returns the topics to which nothing but probes goes, with their last errors.
func (t *topicCircuits) failing() map[string]error {
	t.mu.Lock()
	defer t.mu.Unlock()
	topics := map[string]error{}
	for topic, c := range t.m {
		if state, _, err := c.look(); state.tripped() {
			topics[topic] = err
		}
	}
	return topics
}
