package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// flushTimeout bounds one flush. If it strikes, the statement may still run later
// and put an older position last: events are repeated then, none is lost.
const flushTimeout = 4 * time.Second

// flushLoop stores positions a few times a second at most, whatever the rate of
// events, and nothing while there are none.
func (s *session) flushLoop(ctx context.Context) {
	tick := time.NewTicker(s.r.tune.flushEvery)
	defer tick.Stop()
	pause := jitter(s.r.tune.retryMax)
	appended := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		n, err := s.flush(ctx, false)
		if !s.flushed(ctx, err) {
			return
		}
		if err != nil {
			sleep(ctx, pause.NextBackOff())
			continue
		}
		pause.Reset()
		if appended += n; appended < s.r.tune.pruneAfter {
			continue
		}
		if err := s.prune(ctx); err == nil {
			appended = 0
		} else if ctx.Err() == nil {
			s.log.Warn("relay: pruning positions failed", "error", err)
		}
	}
}

// flushed deals with a flush's error; it returns false if the session has ended.
func (s *session) flushed(ctx context.Context, err error) bool {
	switch {
	case err == nil:
		return true
	case ctx.Err() != nil:
		return false
	case misuse(err):
		s.end(err)
		return false
	}
	s.stats.failed(err)
	s.log.Warn("relay: storing positions failed", "error", err)
	return true
}

// lastFlush stores what was published before the session ended, unless the memory
// is void. It must work after the session's context has ended.
func (s *session) lastFlush() {
	cause := context.Cause(s.ctx)
	if cause != nil && !errors.Is(cause, errDrained) && !errors.Is(cause, errStuck) && !errors.Is(cause, errUnable) {
		return
	}
	pause := jitter(s.r.tune.retryMax)
	for began := time.Now(); ; {
		_, err := s.flush(s.ctx, false)
		if err == nil {
			return
		}
		if errors.Is(err, errLeaseLost) || misuse(err) || time.Since(began) > flushTimeout {
			s.log.Warn("relay: last positions not stored; some events will be published again", "error", err)
			return
		}
		sleep(context.WithoutCancel(s.ctx), pause.NextBackOff())
	}
}

// flush appends one row for each distinct position. The database refuses shards
// whose lease has another owner or epoch, and everything after a recovery. Refused
// shards are given up, the others go on. Without force it writes only if events
// were published since the last.
func (s *session) flush(ctx context.Context, force bool) (rows int, err error) {
	s.flushing.Lock() // one after the other: the latest row must be the furthest
	defer s.flushing.Unlock()
	list := s.progress.unsaved(force)
	if len(list) == 0 {
		return 0, nil
	}
	defer func() {
		if err != nil {
			s.progress.unsaid()
		}
	}()
	// Not cancelled by a stop: the server would go on with the abandoned statement,
	// perhaps after the last flush, and the older position would be the latest.
	op, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	result, err := s.r.pool.Query(op, s.r.q.flush, flushArgs(s.name, s.t, list)...)
	if err != nil {
		return 0, fmt.Errorf("flush: %w", err)
	}
	accepted := map[int16]bool{}
	var shards []int16
	if _, err := pgx.ForEachRow(result, []any{&shards}, func() error {
		for _, shard := range shards {
			accepted[shard] = true
		}
		rows++
		return nil
	}); err != nil {
		return 0, fmt.Errorf("flush: %w", err)
	}
	if refused := s.progress.saved(list, accepted); refused > 0 {
		return rows, fmt.Errorf("flush: %d of %d shards refused: %w", refused, len(list), errLeaseLost)
	}
	return rows, nil
}

func flushArgs(pipeline string, t *tenure, list []flushed) []any {
	var (
		shards    []int16
		epochs    []int64
		group     []int32
		s, b      []string
		h, h2, c  []int64
		s2, b2    []string
		positions = map[position]int32{}
	)
	for _, f := range list {
		g, ok := positions[f.at]
		if !ok {
			g = int32(len(positions) + 1) //nolint:gosec // at most one a shard
			positions[f.at] = g
			s, h, b = append(s, f.at.s.text), append(h, f.at.h), append(b, fmt.Sprint(f.at.b))
			text := ""
			if f.at.s2 != nil {
				text = f.at.s2.text
			}
			s2, h2, b2, c = append(s2, text), append(h2, f.at.h2), append(b2, fmt.Sprint(f.at.b2)), append(c, f.at.c)
		}
		shards, epochs, group = append(shards, f.shard), append(epochs, f.epoch), append(group, g)
	}
	return []any{pipeline, t.name, shards, epochs, group, s, h, b, s2, h2, b2, c, t.token}
}

func (s *session) prune(ctx context.Context) error {
	op, cancel := s.r.op(ctx)
	defer cancel()
	_, err := s.r.pool.Exec(op, s.r.q.prune, s.name)
	return err
}
