package page

import (
	"context"
	"encoding/json"
	"math"
	"sync"
	"time"

	"github.com/outboxkit/outboxkit/relay"
)

// History: a point every ten seconds at most, an hour of them.
const (
	historyStep   = 10 * time.Second
	historyPoints = 360
)

// point is a moment of a pipeline's history.
type point struct {
	At      int64 // unix time, seconds
	Backlog int64
	Rate    float64 // events a second
	Oldest  float64 // age of the oldest unsent event, seconds
}

// MarshalJSON is short: there are hundreds of points in an answer.
func (p point) MarshalJSON() ([]byte, error) {
	tenths := func(v float64) float64 { return math.Round(v*10) / 10 }
	return json.Marshal([4]float64{float64(p.At), float64(p.Backlog), tenths(p.Rate), tenths(p.Oldest)})
}

// watched is a database with what was last read of it.
type watched struct {
	Database
	wake chan struct{} // somebody looks, and the status is old

	mu      sync.Mutex
	status  *relay.Status // nil: not read yet
	err     error         // of the last attempt
	readAt  time.Time     // of status
	triedAt time.Time
	history map[string][]point // by pipeline
	sampled time.Time          // the last point
}

func newWatched(d Database) *watched {
	return &watched{Database: d, wake: make(chan struct{}, 1), history: map[string][]point{}}
}

// watch reads a database's status again and again: seldom, or as soon as somebody
// looks.
func (p *Page) watch(ctx context.Context, w *watched) {
	for ctx.Err() == nil {
		p.read(ctx, w)
		select {
		case <-ctx.Done():
		case <-w.wake:
		case <-time.After(p.background):
		}
	}
}

func (p *Page) read(ctx context.Context, w *watched) {
	leave, err := enter(ctx, p.sampling)
	if err != nil {
		return // ctx has ended
	}
	defer leave()
	limited, cancel := context.WithTimeout(ctx, sampleTimeout)
	defer cancel()
	st, err := w.Status(limited)
	if ctx.Err() != nil {
		return
	}
	if w.took(time.Now(), st, err) && err != nil {
		p.cfg.Logger.Warn("page: no status", "database", w.Name, "error", err)
	}
}

// took remembers an attempt, and reports whether there is news for the log.
func (w *watched) took(now time.Time, st relay.Status, err error) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	news := (err == nil) != (w.err == nil)
	w.err, w.triedAt = err, now
	if err != nil {
		return news
	}
	w.status, w.readAt = &st, now
	if now.Sub(w.sampled) < historyStep {
		return news
	}
	w.sampled = now
	history := make(map[string][]point, len(st.Pipelines)) // without those that were dropped
	for _, pl := range st.Pipelines {
		points := append(w.history[pl.Name], point{now.Unix(), pl.Backlog, pl.PublishedPerSecond, pl.OldestUnsentSeconds})
		if len(points) > historyPoints {
			points = points[:copy(points, points[len(points)-historyPoints:])]
		}
		history[pl.Name] = points
	}
	w.history = history
	return news
}

// look wakes the watcher if the status is older than while somebody looks.
func (w *watched) look(now time.Time, live time.Duration) {
	w.mu.Lock()
	old := now.Sub(w.triedAt) >= live
	w.mu.Unlock()
	if !old {
		return
	}
	select {
	case w.wake <- struct{}{}:
	default: // it is awake
	}
}

// since returns each pipeline's points after a unix time. The caller may keep them.
func (w *watched) since(after int64) map[string][]point {
	found := make(map[string][]point, len(w.history))
	for name, points := range w.history {
		later := []point{}
		for _, p := range points {
			if p.At > after {
				later = append(later, p)
			}
		}
		found[name] = later
	}
	return found
}
