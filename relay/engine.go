package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// engine runs one pipeline: a session, and another one when that fails.
type engine struct {
	Pipeline

	r     *Relay
	name  string
	log   *slog.Logger
	stats *pipelineStats

	health health
	sealed atomic.Bool // the wire format has framed something: it knows schemas

	mu      sync.Mutex
	current *session // nil between sessions
}

func newEngine(r *Relay, p Pipeline) *engine {
	return &engine{Pipeline: p, r: r, name: p.Name, log: r.cfg.Logger.With("pipeline", p.Name), stats: newPipelineStats(p.Name)}
}

// session is one life of an engine's goroutines and of what they remember. Which
// shards it holds changes while it lasts.
type session struct {
	*engine
	t        *tenure
	progress *progress
	parking  *parking
	flushing sync.Mutex
	handing  time.Duration // of the reader: how long the publisher let it wait in this round
	// ctx ends when publishing must stop, with the reason as its cause.
	ctx context.Context
	end context.CancelCauseFunc
}

// run returns when ctx has ended and the engine has drained, or the tenure ends.
func (e *engine) run(ctx context.Context, t *tenure) {
	pause := jitter(e.r.tune.retryMax)
	reading, stopReading := context.WithCancel(t.work)
	defer stopReading()
	defer context.AfterFunc(ctx, stopReading)()
	var watch sync.WaitGroup
	e.health.anew()
	e.health.withdrawn(false) // joined under a new name
	watch.Go(func() { e.watch(reading, t) })
	defer watch.Wait()
	defer stopReading()
	for reading.Err() == nil {
		err := e.once(reading, t)
		if err == nil {
			pause.Reset()
			continue
		}
		if reading.Err() != nil {
			return
		}
		e.stats.failed(err)
		if errors.Is(err, errIncarnation) || misuse(err) || fatal(err) {
			t.end(err)
			return
		}
		e.log.Warn("relay: session ended", "instance", t.name, "error", err)
		e.stayAway(reading, t)
		sleep(reading, pause.NextBackOff())
	}
}

// once is one session; reading ends first, what is in flight has until t.work ends.
func (e *engine) once(reading context.Context, t *tenure) error {
	if err := e.register(reading, t); err != nil {
		return fmt.Errorf("register pipeline: %w", err)
	}
	s := &session{engine: e, t: t, progress: newProgress(), parking: e.newParking()}
	s.ctx, s.end = context.WithCancelCause(t.work)
	defer s.end(nil)
	e.become(s)
	defer e.become(nil)
	reading, stopReading := context.WithCancel(reading)
	defer stopReading()
	defer context.AfterFunc(s.ctx, stopReading)()

	pages := make(chan page) // the reader holds one more
	var keeper, reader, flusher sync.WaitGroup
	keeper.Go(func() { s.keep(reading) })
	reader.Go(func() {
		defer close(pages)
		s.read(reading, pages)
	})
	flushing, stopFlushing := context.WithCancel(s.ctx)
	flusher.Go(func() { s.flushLoop(flushing) })
	flusher.Go(func() { s.retryParked(flushing) })
	s.publishAll(reading, pages)
	stopFlushing()
	keeper.Wait()
	flusher.Wait()
	reader.Wait()
	s.lastFlush()
	s.releaseAll()
	if err := context.Cause(s.ctx); err != nil && t.work.Err() == nil {
		return err
	}
	return nil
}

func (e *engine) become(s *session) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.current = s
	e.stats.standBy()
}

func (e *engine) session() *session {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.current
}

// load reads the positions in a statement begun after the takeover committed:
// the former owner's last flush waited for the leases or was refused.
func (e *engine) load(ctx context.Context, t *tenure, shards []int16) (map[int16]position, error) {
	op, cancel := e.r.op(ctx)
	defer cancel()
	rows, err := e.r.pool.Query(op, e.r.q.load, e.name, shards)
	if err != nil {
		return nil, fmt.Errorf("load positions: %w", err)
	}
	snaps := map[string]*snapshot{} // equal texts, one snapshot: groups compare addresses
	intern := func(text string) *snapshot {
		if text == "" || err != nil {
			return nil
		}
		if snaps[text] == nil {
			snaps[text], err = parseSnapshot(text)
		}
		return snaps[text]
	}
	positions := map[int16]position{}
	var shard int16
	var p position
	var snap, b, snap2, b2 string
	var tok token
	_, scanErr := pgx.ForEachRow(rows, []any{&shard, &snap, &p.h, &b, &snap2, &p.h2, &b2, &p.c, &tok}, func() error {
		if !same(tok, t.token) {
			return errIncarnation
		}
		p.s, p.s2 = intern(snap), intern(snap2)
		if err != nil {
			return err
		}
		if p.b, err = parseXid(b); err != nil {
			return err
		}
		if p.b2, err = parseXid(b2); err != nil {
			return err
		}
		positions[shard] = p
		return nil
	})
	if scanErr != nil {
		return nil, fmt.Errorf("load positions: %w", scanErr)
	}
	if len(positions) != len(shards) {
		return nil, fmt.Errorf("load positions: pipeline %q has %d of %d shards in %s.position; was a row deleted?", e.name, len(positions), len(shards), e.r.cfg.Schema)
	}
	return positions, nil
}
