package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/time/rate"
)

// replayer is one run of a replay.
type replayer struct {
	cfg    ReplayConfig
	to     Pipeline
	relay  *Relay   // never runs: its statements, schemas and constants
	out    *session // publishes; has no lease and no position
	token  token
	runner string // of this run: whoever resumes the replay takes it over

	id        string
	scope     replayScope
	cursor    int64 // everything up to it is published
	published int64
	refused   refusals
	oldest    time.Time
	counts    []ReplayCount

	rows     int
	limit    *rate.Limiter
	saved    time.Time
	told     time.Time
	began    time.Time
	beganAt  int64 // cursor
	beganPub int64
}

func newReplayer(pool *pgxpool.Pool, cfg ReplayConfig) (*replayer, error) {
	if cfg.Rate == 0 {
		cfg.Rate = 500
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	to := cfg.Pipeline
	if cfg.To != nil {
		to = *cfg.To
	}
	to.Start = Start{}
	relay, err := New(pool, Config{Schema: cfg.Schema, Logger: cfg.Logger, Pipelines: []Pipeline{to}})
	if err != nil {
		return nil, err
	}
	cfg.Schema = relay.cfg.Schema
	r := &replayer{cfg: cfg, to: to, relay: relay, runner: uuid.NewString()}
	// Pages of a quarter of a second: an even flow, and little to repeat.
	r.rows = min(max(cfg.Rate/4, 1), relay.tune.pageRows)
	r.limit = rate.NewLimiter(rate.Limit(cfg.Rate), r.rows)
	return r, nil
}

// begin stores a new replay, or takes over a stored one.
func (r *replayer) begin(ctx context.Context) error {
	if err := r.relay.check(ctx); err != nil {
		return err
	}
	var err error
	if r.token, err = r.relay.incarnation(ctx); err != nil {
		return err
	}
	if err := r.relay.identify(ctx); err != nil {
		return err
	}
	switch {
	case r.cfg.Resume != "":
		err = r.resume(ctx)
	default:
		if err = r.plan(ctx); err == nil && !r.cfg.DryRun {
			err = r.store(ctx)
		}
	}
	r.began, r.saved, r.told = time.Now(), time.Now(), time.Now()
	r.beganAt, r.beganPub = r.cursor, r.published
	return err
}

// run publishes page after page. What only time or a person at the database or
// broker can mend is tried again.
func (r *replayer) run(ctx context.Context) error {
	r.out = &session{engine: r.relay.engines[0], ctx: ctx}
	pause := jitter(r.relay.tune.retryMax)
	for r.cursor < r.scope.last {
		err := r.page(ctx)
		var lost *TruncatedError
		switch {
		case err == nil:
			pause.Reset()
			continue
		case ctx.Err() != nil:
			return r.finish(ctx, replayStopped, fmt.Errorf("interrupted: %w", context.Cause(ctx)))
		case errors.As(err, &lost):
			return r.finish(ctx, replayTruncated, err)
		case errors.Is(err, ErrRefused), misuse(err):
			return r.finish(ctx, replayStopped, err)
		case errors.Is(err, ErrReplayTaken):
			return err
		}
		r.cfg.Logger.Warn("replay: trying again", "replay", r.id, "reason", err)
		r.tell(err, false)
		sleep(ctx, pause.NextBackOff())
		if errors.Is(err, errIncarnation) {
			// What is stored has survived, what is in memory may not have.
			err := r.reload(ctx)
			if errors.Is(err, ErrReplayTaken) || errors.Is(err, ErrNoReplay) {
				return err
			}
			if err != nil {
				r.cfg.Logger.Warn("replay: trying again", "replay", r.id, "reason", err)
			}
		}
	}
	if err := r.finish(ctx, replayDone, nil); err != nil {
		return err
	}
	r.tell(nil, true)
	return nil
}

// page publishes one page and moves the cursor.
func (r *replayer) page(ctx context.Context) error {
	items, end, err := r.read(ctx)
	if err != nil {
		return err
	}
	if len(items) > 0 {
		sleep(ctx, r.limit.ReserveN(time.Now(), len(items)).Delay())
		if err := r.publish(ctx, items); err != nil {
			return err
		}
	}
	r.cursor = end
	if time.Since(r.saved) >= r.relay.tune.flushEvery {
		if err := r.save(ctx, replayRunning, nil); err != nil {
			return err
		}
	}
	r.tell(nil, false)
	return nil
}

// read reads a page and then looks for truncated slots, in one short transaction:
// the locks of the first statement keep the slots as they are until the second.
func (r *replayer) read(ctx context.Context) (items []*item, end int64, err error) {
	end = min(r.scope.last, r.cursor+r.relay.tune.filterIDs)
	args := append([]any{pgx.QueryResultFormats{pgx.BinaryFormatCode}}, r.scope.args(r.cursor, end)...)
	err = inTx(ctx, r.relay, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, r.sql(sqlReplayPage), append(args, r.rows, r.relay.tune.pageBytes)...)
		if err != nil {
			return fmt.Errorf("read page: %w", err)
		}
		defer rows.Close()
		scan := pageScanner{rows: rows}
		for rows.Next() {
			it, err := scan.next()
			if err != nil {
				return fmt.Errorf("read page: %w", err)
			}
			items = append(items, r.mark(it))
		}
		if err := rows.Err(); err != nil {
			return fmt.Errorf("read page: %w", err)
		}
		if len(items) >= r.rows || scan.total >= r.relay.tune.pageBytes {
			end = items[len(items)-1].id
		}
		return r.gone(ctx, tx, r.cursor)
	})
	return items, end, err
}

// mark makes a message of the replay of it.
func (r *replayer) mark(it *item) *item {
	it.msg.Topic = r.to.destination(it.msg.Topic)
	if it.msg.Headers == nil {
		it.msg.Headers = map[string]string{}
	}
	it.msg.Headers[HeaderReplayID] = r.id
	return it
}

// count is the dry run.
func (r *replayer) count(ctx context.Context) error {
	found := map[ReplayCount]int64{}
	for r.cursor < r.scope.last {
		end := min(r.scope.last, r.cursor+r.relay.tune.filterIDs)
		err := inTx(ctx, r.relay, func(ctx context.Context, tx pgx.Tx) error {
			rows, err := tx.Query(ctx, r.sql(sqlReplayCount), r.scope.args(r.cursor, end)...)
			if err != nil {
				return fmt.Errorf("count: %w", err)
			}
			var c ReplayCount
			var n int64
			if _, err := pgx.ForEachRow(rows, []any{&c.Topic, &c.Type, &n}, func() error { found[c] += n; return nil }); err != nil {
				return fmt.Errorf("count: %w", err)
			}
			return r.gone(ctx, tx, r.cursor)
		})
		if err != nil {
			return err
		}
		r.cursor = end
		r.tell(nil, false)
	}
	for c, n := range found {
		c.Events = n
		r.counts = append(r.counts, c)
	}
	slices.SortFunc(r.counts, func(a, b ReplayCount) int {
		if d := strings.Compare(a.Topic, b.Topic); d != 0 {
			return d
		}
		return strings.Compare(a.Type, b.Type)
	})
	return nil
}

// tell reports progress, at most once a second unless it is the end.
func (r *replayer) tell(failed error, end bool) {
	if r.cfg.Progress == nil || !end && time.Since(r.told) < time.Second {
		return
	}
	r.told = time.Now()
	p := ReplayProgress{ID: r.id, Published: r.published, Refused: len(r.refused.list), Held: r.refused.held, Part: 1}
	took := time.Since(r.began)
	p.Rate = float64(r.published-r.beganPub) / max(took.Seconds(), 1e-3)
	if whole := r.scope.last - r.scope.first; whole > 0 {
		p.Part = float64(r.cursor-r.scope.first) / float64(whole)
	}
	if moved := r.cursor - r.beganAt; moved > 0 {
		p.Remaining = time.Duration(float64(took) * float64(r.scope.last-r.cursor) / float64(moved))
	}
	if failed != nil {
		p.Error = failed.Error()
	}
	r.cfg.Progress(p)
}

func (r *replayer) result() ReplayResult {
	return ReplayResult{ID: r.id, Published: r.published, Refused: r.refused.list, Held: r.refused.held, Oldest: r.oldest, Counts: r.counts}
}
