package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// page is a piece of the log on its way to the publisher: events of the shards,
// in id order, between two positions.
type page struct {
	shards []int16
	events []*item
	from   position // with the batch begun
	to     position // when all events are resolved
	idle   bool     // the log had nothing more when this was read
	behind int64    // ids between to and the end of the log
}

// after is the position when the first n events are resolved.
func (p page) after(n int) position {
	if n == len(p.events) {
		return p.to
	}
	at := p.from
	if n > 0 {
		at.c = p.events[n-1].id
	}
	return at
}

// read keeps the publisher supplied until ctx ends. Its own positions run ahead of
// the published ones by the pages that are under way.
func (s *session) read(ctx context.Context, out chan<- page) {
	groups := map[position][]int16{}
	pause := jitter(s.r.tune.retryMax)
	wait := s.r.tune.pollMin
	for ctx.Err() == nil {
		s.progress.adopt(groups) // before the probe: it begins after the load
		began := time.Now()
		s.handing = 0
		n, err := s.round(ctx, groups, out)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errIncarnation) || misuse(err):
			s.end(err)
			return
		case err != nil: // what was read has been handed over; go on from there
			s.stats.failed(err)
			s.log.Warn("relay: reading failed", "error", err)
			sleep(ctx, pause.NextBackOff())
			continue
		}
		pause.Reset()
		wait = s.r.tune.next(wait, n)
		// A full page means that there is more: no pause.
		if n < s.r.tune.pageRows && !s.progress.waiting() {
			sleep(ctx, s.r.tune.spare(wait, time.Since(began)-s.handing))
		}
	}
}

// next returns the pause after a round that found n events. Where they come so
// fast that each round finds many (4,000 a second and more), it pays to find more
// of them at once: a round costs the writers the same for one as for a hundred.
func (t tuning) next(pause time.Duration, n int) time.Duration {
	if n == 0 {
		return min(4*pause, t.pollMax)
	}
	return min(max(time.Duration(n)*time.Second/4000, t.pollMin), t.pollMany)
}

// spare lengthens the pause after a round whose statements took busy, so that
// polling takes a fifth of a connection's time at most. A database that is slow to
// answer has other work: its writers come first.
func (t tuning) spare(pause, busy time.Duration) time.Duration {
	return max(pause, min(4*busy, t.pollMax))
}

// round gives each group its turn, with one probe for all that are between
// batches. The probe began after the positions of the shards were loaded. Groups
// that end up at equal positions become one.
func (s *session) round(ctx context.Context, groups map[position][]int16, out chan<- page) (events int, err error) {
	if len(groups) == 0 {
		return 0, nil
	}
	pr, err := s.probe(ctx)
	if err != nil {
		return 0, err
	}
	turns := make([]position, 0, len(groups))
	for at := range groups {
		turns = append(turns, at)
	}
	for _, at := range turns {
		shards := groups[at]
		to, n, err := s.turn(ctx, at, shards, pr, out)
		events += n
		if to != at {
			delete(groups, at)
			groups[to] = append(groups[to], shards...)
		}
		if err != nil {
			return events, err
		}
	}
	return events, nil
}

// turn reads up to turnPages pages of one group and returns what was handed over
// last, also with an error: a shard that leaves waits until that is published.
func (s *session) turn(ctx context.Context, at position, shards []int16, pr probe, out chan<- page) (position, int, error) {
	from := at
	if at.s2 == nil {
		if pr.h <= at.h && len(at.pending(pr.s)) == 0 {
			to := pr.position()
			return s.hand(ctx, out, page{shards: shards, from: at, to: to, idle: true}, at)
		}
		from = at.begin(pr)
	}
	events := 0
	for range s.r.tune.turnPages {
		p, err := s.page(ctx, from, shards)
		if err != nil {
			return at, events, err
		}
		p.behind = max(pr.h-max(p.to.c, p.to.h), 0)
		to, n, err := s.hand(ctx, out, p, at)
		events += n
		at, from = to, to
		if err != nil || at.s2 == nil || s.progress.waiting() {
			return at, events, err
		}
	}
	return at, events, nil
}

// hand gives a page to the publisher. It returns where the reader is then.
func (s *session) hand(ctx context.Context, out chan<- page, p page, at position) (position, int, error) {
	began := time.Now()
	defer func() { s.handing += time.Since(began) }()
	select {
	case out <- p:
		return p.to, len(p.events), nil
	case <-ctx.Done():
		return at, 0, ctx.Err()
	}
}

// page reads the next page of a batch. Late rows come first: they were written
// before the new ones of the same key. One cursor serves both, because late ids
// are at or below h and new ones above.
func (s *session) page(ctx context.Context, at position, shards []int16) (page, error) {
	if at.c < at.h {
		if late := at.pending(at.s2); len(late) > 0 {
			p, full, err := s.rows(ctx, s.r.q.late, formatXids(late), at.h, at, shards)
			if err != nil || full || len(p.events) > 0 {
				if !full {
					p.to.c = at.h
				}
				return p, err
			}
		}
		at.c = at.h
	}
	bound := s.window(at, shards)
	p, full, err := s.rows(ctx, s.r.q.fresh, at.s2.text, bound, at, shards)
	if err == nil && len(p.events) == 0 && bound < at.h2 && s.Filter.all() {
		bound, err = s.skip(ctx, bound, at.h2)
	}
	switch {
	case full:
	case bound < at.h2:
		p.to.c = bound
	default:
		p.to = at.end()
	}
	return p, err
}

// rows runs one of the two page queries. A page is full, that is there may be
// more, if it has reached its bound of rows or bytes.
func (s *session) rows(ctx context.Context, query, seen string, bound int64, at position, shards []int16) (page, bool, error) {
	p := page{shards: shards, from: at, to: at}
	op, cancel := s.r.op(ctx)
	defer cancel()
	some := shards
	if len(shards) == shardCount {
		some = nil // no hash for each row
	}
	args := append([]any{pgx.QueryResultFormats{pgx.BinaryFormatCode}, seen, bound, at.c, some, s.r.tune.pageRows, s.r.tune.pageBytes}, s.Filter.args()...)
	rows, err := s.r.pool.Query(op, s.Filter.apply(query), args...)
	if err != nil {
		return p, false, fmt.Errorf("read page: %w", err)
	}
	defer rows.Close()
	scan := pageScanner{rows: rows}
	for rows.Next() {
		it, err := scan.next()
		if err != nil {
			return p, false, fmt.Errorf("read page: %w", err)
		}
		// Rows read after a recovery are not where the position thinks they are.
		if !same(scan.token, s.t.token) {
			return p, false, fmt.Errorf("read page: %w", errIncarnation)
		}
		it.msg.Topic = s.destination(it.msg.Topic)
		p.events = append(p.events, it)
	}
	if err := rows.Err(); err != nil {
		return p, false, fmt.Errorf("read page: %w", err)
	}
	full := len(p.events) >= s.r.tune.pageRows || scan.total >= s.r.tune.pageBytes
	if full {
		p.to.c = p.events[len(p.events)-1].id
	}
	return p, full, nil
}
