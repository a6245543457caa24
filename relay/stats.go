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
}

// Stats returns the state of all pipelines, in the order of the configuration.
func (r *Relay) Stats() Stats {
	var s Stats
	for _, e := range r.engines {
		s.Pipelines = append(s.Pipelines, e.stats.read())
	}
	return s
}

type pipelineStats struct {
	mu sync.Mutex
	s  PipelineStats
}

func newPipelineStats(name string) *pipelineStats {
	return &pipelineStats{s: PipelineStats{Name: name}}
}

func (p *pipelineStats) read() PipelineStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.s
}

func (p *pipelineStats) change(f func(*PipelineStats)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.s)
}

func (p *pipelineStats) standBy() {
	p.change(func(s *PipelineStats) { s.Shards, s.CaughtUp = 0, false })
}

func (p *pipelineStats) holds(shards int) {
	p.change(func(s *PipelineStats) {
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
		s.Published += uint64(done) //nolint:gosec // counts
		s.Retries += uint64(left)   //nolint:gosec // counts
	})
}

// at is told of each page when its turn comes: all before it is published.
func (p *pipelineStats) at(next page) {
	p.change(func(s *PipelineStats) {
		if len(next.events) > 0 || next.idle {
			s.CaughtUp = next.idle
		}
		s.Behind = next.behind + int64(len(next.events))
	})
}
