package page

import (
	"time"

	"github.com/outboxkit/outboxkit/relay"
)

// overview is the answer that the page polls for.
type overview struct {
	Version string `json:"version"`
	// Started is when this process began to sample, unix time in milliseconds: after
	// a restart the browser forgets the history it has.
	Started   int64          `json:"started"`
	Databases []databaseLine `json:"databases"`
	Shown     databaseView   `json:"shown"`
	Stores    []string       `json:"stores"`
	Notes     []string       `json:"notes"`
}

// databaseLine is for choosing a database.
type databaseLine struct {
	Name  string `json:"name"`
	Level string `json:"level"` // of the worst advice; "" if all is well or not known yet
}

// databaseView is the database that was chosen.
type databaseView struct {
	Name  string `json:"name"`
	Store string `json:"store"`
	// Error is why the last attempt to read it failed; Status is older then.
	Error      string                  `json:"error"`
	AgeSeconds float64                 `json:"age_seconds"` // of Status
	Status     *relay.Status           `json:"status"`      // null until it was read once
	Pipelines  map[string]pipelineView `json:"pipelines"`
	// History has for each pipeline points of unix time, backlog, events a second and
	// the age of the oldest unsent event in seconds.
	History map[string][]point `json:"history"`
}

// pipelineView is what the status does not know.
type pipelineView struct {
	Broker string   `json:"broker"` // "" = not in this daemon's configuration
	Level  string   `json:"level"`
	Advice []advice `json:"advice"`
	// LastError is this relay's, "" if it is older than errorShown.
	LastError      string  `json:"last_error"`
	LastErrorSince float64 `json:"last_error_since"` // seconds
}

// errorShown is for how long an error may explain what is seen.
const errorShown = 10 * time.Minute

// view is the state for somebody who looks at a database, "" for the first, and has
// its history up to a unix time.
func (p *Page) view(name string, after int64) (overview, bool) {
	o := overview{Version: p.cfg.Version, Started: p.started.UnixMilli(), Stores: []string{}, Notes: append([]string{}, p.cfg.Notes...)}
	for _, s := range p.cfg.Stores {
		o.Stores = append(o.Stores, s.Name())
	}
	found := false
	for i, w := range p.databases {
		o.Databases = append(o.Databases, databaseLine{w.Name, w.level()})
		if found || w.Name != name && (name != "" || i > 0) {
			continue
		}
		found = true
		w.look(time.Now(), p.live)
		o.Shown = w.view(time.Now(), after)
	}
	return o, found
}

func (w *watched) level() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return levelBad
	}
	var all []advice
	if w.status != nil {
		for _, pl := range w.status.Pipelines {
			all = append(all, adviseOn(pl, w.Command)...)
		}
	}
	return worst(all)
}

func (w *watched) view(now time.Time, after int64) databaseView {
	var failed map[string]LastError
	if w.LastErrors != nil {
		failed = w.LastErrors()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	v := databaseView{Name: w.Name, Store: w.Store, Status: w.status, Pipelines: map[string]pipelineView{}, History: w.since(after)}
	if w.err != nil {
		v.Error = w.err.Error()
	}
	if w.status == nil {
		return v
	}
	v.AgeSeconds = now.Sub(w.readAt).Seconds()
	for _, pl := range w.status.Pipelines {
		list := adviseOn(pl, w.Command)
		one := pipelineView{Broker: w.Brokers[pl.Name], Level: worst(list), Advice: list}
		if e := failed[pl.Name]; e.Text != "" && now.Sub(e.At) < errorShown {
			one.LastError, one.LastErrorSince = e.Text, now.Sub(e.At).Seconds()
		}
		v.Pipelines[pl.Name] = one
	}
	return v
}
