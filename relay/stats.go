package relay

import (
	"sync"
	"time"
)

// Stats is a moment's view of a relay.
type Stats struct {
	Pipelines []PipelineStats `json:"pipelines"`
}

// PipelineStats says how one pipeline is doing. Counters start at 0 with [New].
type PipelineStats struct {
	Name      string `json:"name"`
	Shards    int    `json:"shards"`    // held by this instance
	Published uint64 `json:"published"` // confirmed by the broker, repeats included
	Retries   uint64 `json:"retries"`   // events that an attempt left unresolved
	// CaughtUp: the last look at the log found nothing that is not published.
	CaughtUp bool `json:"caught_up"`
	// Behind is the number of log ids between what is published and the last look
	// at the end of the log: an upper bound of the backlog, rolled-back writes
	// included.
	Behind      int64     `json:"behind"`
	LastError   string    `json:"last_error,omitempty"` // "" if there was none
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
	// PublishedPerSecond is the mean of the last ten seconds.
	PublishedPerSecond float64 `json:"published_per_second"`
	// OldestUnsentSeconds is the age, by its own time, of the first event that is
	// being published now; 0 if there is none.
	OldestUnsentSeconds float64 `json:"oldest_unsent_seconds"`
	// Parked is how many events this relay has parked; [ReadStatus] knows how many
	// are parked now.
	Parked uint64 `json:"parked"`
	// RetryBudget is how many retries may go now beside one that always may: a fifth
	// of what is published, at most 500. At 0 events are retried one by one.
	RetryBudget float64 `json:"retry_budget"`
	// Circuit is the state of the broker's circuit: "closed" when all is well, "open"
	// while nothing is sent, "half-open" during a probe, "recovering" while the rate
	// grows again.
	Circuit string `json:"circuit"`
	// TopicCircuits are the states of topics, by their names at the broker, that
	// are in trouble. Nil if none is.
	TopicCircuits map[string]string `json:"topic_circuits,omitempty"`
}

// Stats returns the state of all pipelines, in the order of the configuration.
func (r *Relay) Stats() Stats {
	var s Stats
	for _, e := range r.engines {
		p := e.stats.read(time.Now())
		p.Circuit = circuitClosed.String()
		if s := e.session(); s != nil {
			p.Circuit, p.TopicCircuits = s.parking.circuits()
			p.RetryBudget = s.parking.budget.left()
		}
		s.Pipelines = append(s.Pipelines, p)
	}
	return s
}

// circuits returns the states of the broker's circuit and of the topics' that are
// not closed.
func (p *parking) circuits() (broker string, topics map[string]string) {
	state, _, _ := p.broker.look()
	p.topics.mu.Lock()
	defer p.topics.mu.Unlock()
	for topic, c := range p.topics.m {
		if state, _, _ := c.look(); state != circuitClosed {
			if topics == nil {
				topics = map[string]string{}
			}
			topics[topic] = state.String()
		}
	}
	return state.String(), topics
}

type pipelineStats struct {
	mu     sync.Mutex
	s      PipelineStats
	rate   throughput
	oldest time.Time // of the page that is being published; zero = none
	moved  time.Time // see PipelineHealth; zero = Run has not begun
}

func newPipelineStats(name string) *pipelineStats {
	return &pipelineStats{s: PipelineStats{Name: name}}
}

func (p *pipelineStats) read(now time.Time) PipelineStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.s
	s.PublishedPerSecond = p.rate.perSecond(now)
	if !p.oldest.IsZero() {
		s.OldestUnsentSeconds = max(now.Sub(p.oldest).Seconds(), 0)
	}
	return s
}

func (p *pipelineStats) change(f func(*PipelineStats)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.s)
}

func (p *pipelineStats) standBy() {
	p.change(func(s *PipelineStats) { s.Shards, s.CaughtUp, p.oldest = 0, false, time.Time{} })
}

func (p *pipelineStats) parked(events int) {
	p.change(func(s *PipelineStats) { s.Parked += uint64(events) }) //nolint:gosec // a count
}

// holds is told what a look at the leases found. Nothing is expected of who holds or
// held none and sees no error: others have them, or had until now.
func (p *pipelineStats) holds(shards int, lately time.Duration) {
	p.change(func(s *PipelineStats) {
		if now := time.Now(); (shards == 0 || s.Shards == 0) && !s.failing(now, lately) {
			p.moved = now
		}
		if shards != s.Shards {
			s.Shards, s.CaughtUp = shards, false
		}
	})
}

func (p *pipelineStats) failed(err error) {
	p.change(func(s *PipelineStats) { s.LastError, s.LastErrorAt = err.Error(), time.Now() })
}

func (p *pipelineStats) resolved(done, left int) {
	p.change(func(s *PipelineStats) {
		if done > 0 {
			p.moved = time.Now()
		}
		p.rate.add(time.Now(), done)
		s.Published += uint64(done) //nolint:gosec // counts
		s.Retries += uint64(left)   //nolint:gosec // counts
	})
}

// begin is told when Run begins, and with zero when it has ended.
func (p *pipelineStats) begin(now time.Time) {
	p.change(func(*PipelineStats) { p.moved = now })
}

// through is told when a page is resolved, an empty one too.
func (p *pipelineStats) through() {
	p.change(func(*PipelineStats) { p.moved = time.Now() })
}

func (p *pipelineStats) lastMoved() (at time.Time) {
	p.change(func(*PipelineStats) { at = p.moved })
	return at
}

// at is told of each page when its turn comes: all before it is published.
func (p *pipelineStats) at(next page) {
	p.change(func(s *PipelineStats) {
		if len(next.events) > 0 || next.idle {
			s.CaughtUp = next.idle
			p.oldest = time.Time{}
		}
		if len(next.events) > 0 {
			p.oldest = next.events[0].msg.Time
		}
		s.Behind = next.behind + int64(len(next.events))
	})
}
