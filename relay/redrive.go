package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/time/rate"

	"github.com/outboxkit/outboxkit/event"
)

const (
	sqlPickParked = `SELECT p.n, p.pipeline, p.shard, p.destination, p.key, p.blocks FROM {s}.parked p
WHERE` + parkedWhere + `AND p.n <= $14::bigint AND p.state = ANY($15::text[]) ORDER BY p.n LIMIT $16::int`
	// The latest first: what is to be discarded itself must not have its turn
	// because what was before it went first.
	sqlPickLatest = `SELECT p.n, p.pipeline, p.shard, p.destination, p.key, p.blocks FROM {s}.parked p
WHERE` + parkedWhere + `AND p.n <= $14::bigint AND p.state = ANY($15::text[]) ORDER BY p.n DESC LIMIT $16::int`
	sqlCountParked = `SELECT count(*) FROM {s}.parked p WHERE` + parkedWhere + `AND p.state = ANY($14::text[])`
	sqlLastParked  = `SELECT coalesce(max(n), 0) FROM {s}.parked`
	sqlNewAction   = `INSERT INTO {s}.parked_action (action, actor, reason, filter) VALUES ($1, $2, $3, $4) RETURNING n`
	sqlCountAction = `UPDATE {s}.parked_action SET events = events + $2::bigint WHERE n = $1`
	// FOR UPDATE keeps the shards' owners from parking and resolving meanwhile.
	sqlLockShards = `SELECT count(*) FROM (SELECT FROM {s}.lease WHERE pipeline = $1 AND shard = ANY($2::smallint[]) ORDER BY shard FOR UPDATE) l`
	sqlRedrive    = `UPDATE {s}.parked SET state = 'retrying', earlier_attempts = earlier_attempts + attempts, attempts = 0, next_attempt_at = clock_timestamp(), retry_since = clock_timestamp(), action = $2
WHERE n = ANY($1::bigint[]) AND state IN ('dead', 'retrying')`
	// With the leases locked no claim comes or goes. One of a lease that has passed on,
	// or whose owner is silent, is void: its relay publishes nothing any more.
	beingPublished = `EXISTS (SELECT FROM {s}.lease l JOIN {s}.instance i ON i.name = l.owner AND ` + sqlLive + `
  WHERE l.pipeline = p.pipeline AND l.shard = p.shard AND l.epoch = p.claim)`
	sqlBusy    = `SELECT count(*) FROM {s}.parked p WHERE n = ANY($1::bigint[]) AND ` + beingPublished
	sqlDiscard = `UPDATE {s}.parked p SET state = 'discarded', blocks = false, action = $2, claim = NULL, unanswered = p.unanswered OR p.claim IS NOT NULL
WHERE n = ANY($1::bigint[]) AND state <> 'discarded' AND NOT ` + beingPublished + ``
)

// ErrBeingPublished says that an event cannot be discarded at this moment.
var ErrBeingPublished = errors.New("being published just now: look whether that succeeds, or try again")

// ParkedAction says who changes parked events and why; both are recorded in the
// table parked_action.
type ParkedAction struct {
	By     string // who; required
	Reason string // why; required
	DryRun bool   // only count
	// Rate bounds the events changed a second. What waits behind a redriven one is not
	// counted: it follows as fast as the relay publishes it. Default (0): no limit.
	Rate int
	// Progress is called after each step, in the caller's goroutine. Default: not.
	Progress func(ParkedProgress)
}

// ParkedProgress is how far a redrive or discard has come.
type ParkedProgress struct {
	Action int64 // its number in the table parked_action; see [RedriveOutcome]
	Events int64 // changed so far
}

func (a ParkedAction) validate() error {
	if a.Rate < 0 {
		return &event.FieldError{Field: "ParkedAction.Rate", Value: fmt.Sprint(a.Rate), Problem: "is negative", Hint: "events a second, 0 for no limit"}
	}
	if a.By == "" && !a.DryRun {
		return &event.FieldError{Field: "ParkedAction.By", Problem: "is empty", Hint: "say who does this: it is recorded"}
	}
	if a.Reason == "" && !a.DryRun {
		return &event.FieldError{Field: "ParkedAction.Reason", Problem: "is empty", Hint: "say why: it is recorded"}
	}
	return nil
}

// Redrive has dead events published again by the relay, and retrying ones at once.
// What is blocked behind them follows in order. One that fails again has as many
// attempts as a new event; they count on in [ParkedEvent]. Relays may run or not:
// Redrive only marks the events, [RedriveOutcome] tells what became of them. It returns
// the number of events; if it fails in between, those done so far stay so.
func Redrive(ctx context.Context, pool *pgxpool.Pool, schema string, f ParkedFilter, a ParkedAction) (int64, error) {
	return act(ctx, pool, schema, "redrive", f, a)
}

// Discard gives up events for good: from now on they are not published, and what
// waits behind them goes on. Events that a relay is publishing at this moment are
// left alone and counted in an error that wraps [ErrBeingPublished]; the others are
// discarded. What became of attempts before that is not known for sure where
// [ParkedEvent.MayBeOut] says so. The rows stay for the retention, as discarded. It
// returns the number of events; if it fails in between, those done so far stay so.
func Discard(ctx context.Context, pool *pgxpool.Pool, schema string, f ParkedFilter, a ParkedAction) (int64, error) {
	return act(ctx, pool, schema, "discard", f, a)
}

func act(ctx context.Context, pool *pgxpool.Pool, schema, action string, f ParkedFilter, a ParkedAction) (int64, error) {
	schema, err := parkedSchema(schema, f)
	if err == nil {
		err = a.validate()
	}
	if err != nil {
		return 0, err
	}
	r := redriver{pool: pool, schema: schema, pickFrom: sqlPickParked, update: sqlRedrive, states: []string{stateDead, stateRetrying}, filter: f}
	if action == "discard" {
		r.pickFrom, r.update, r.states = sqlPickLatest, sqlDiscard, []string{stateDead, stateRetrying, stateBlocked}
	}
	var n int64
	if a.DryRun {
		err = r.pool.QueryRow(ctx, inSchema(sqlCountParked, schema), append(f.args(), 0, r.states)...).Scan(&n)
	} else {
		n, err = r.run(ctx, action, a)
	}
	if err == nil && r.busy > 0 {
		err = fmt.Errorf("%d more events match, but are %w", r.busy, ErrBeingPublished)
	}
	if err != nil {
		return n, fmt.Errorf("%s: %w", action, notMigrated(err))
	}
	return n, nil
}

type redriver struct {
	pool             *pgxpool.Pool
	schema           string
	pickFrom, update string
	states           []string // that are concerned
	filter           ParkedFilter
	busy             int64 // events that were left alone
}

// redriveBatch is how many events are changed at once: the relay stores no
// positions of their shards meanwhile.
const redriveBatch = 1000

// run changes what is parked now, in batches.
func (r *redriver) run(ctx context.Context, action string, a ParkedAction) (int64, error) {
	var last, audit int64
	if err := r.pool.QueryRow(ctx, inSchema(sqlLastParked, r.schema)).Scan(&last); err != nil {
		return 0, err
	}
	filter, err := json.Marshal(r.filter)
	if err != nil {
		return 0, err
	}
	if err := r.pool.QueryRow(ctx, inSchema(sqlNewAction, r.schema), action, a.By, a.Reason, string(filter)).Scan(&audit); err != nil {
		return 0, err
	}
	batch, limit := redriveBatch, rate.NewLimiter(rate.Inf, 0)
	if a.Rate > 0 {
		batch = min(redriveBatch, max(1, a.Rate/4))
		limit = rate.NewLimiter(rate.Limit(a.Rate), batch)
	}
	var done, after int64
	for {
		picked, err := r.pick(ctx, after, last, batch)
		if err != nil || len(picked) == 0 {
			return done, err
		}
		if end := picked[len(picked)-1].n; r.pickFrom == sqlPickLatest {
			last = end - 1
		} else {
			after = end
		}
		if err := limit.WaitN(ctx, len(picked)); err != nil {
			return done, err
		}
		n, err := r.changeAll(ctx, picked, audit)
		done += n
		if err != nil {
			return done, err
		}
		if a.Progress != nil {
			a.Progress(ParkedProgress{Action: audit, Events: done})
		}
	}
}

// changeAll changes the events of each pipeline in a transaction.
func (r *redriver) changeAll(ctx context.Context, picked []pickedEvent, audit int64) (done int64, err error) {
	byPipeline := map[string][]pickedEvent{}
	for _, p := range picked {
		byPipeline[p.pipeline] = append(byPipeline[p.pipeline], p)
	}
	for pipeline, events := range byPipeline {
		n, err := r.change(ctx, pipeline, events, audit)
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

type pickedEvent struct {
	n        int64
	pipeline string
	shard    int16
	lane     lane
	blocks   bool
}

func (r *redriver) pick(ctx context.Context, after, last int64, limit int) ([]pickedEvent, error) {
	rows, err := r.pool.Query(ctx, inSchema(r.pickFrom, r.schema), append(r.filter.args(), after, last, r.states, limit)...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (p pickedEvent, err error) {
		err = row.Scan(&p.n, &p.pipeline, &p.shard, &p.lane.topic, &p.lane.key, &p.blocks)
		return p, err
	})
}

// change locks the leases of the events' shards before a new statement decides:
// what their owners park or resolve at the same time comes before or after.
func (r *redriver) change(ctx context.Context, pipeline string, events []pickedEvent, audit int64) (int64, error) {
	var ns []int64
	var shards []int16
	var topics, keys []string
	for _, p := range events {
		ns, shards = append(ns, p.n), append(shards, p.shard)
		if p.blocks {
			topics, keys = append(topics, p.lane.topic), append(keys, p.lane.key)
		}
	}
	var n, busy int64
	err := pgx.BeginTxFunc(ctx, r.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, inSchema(sqlLockShards, r.schema), pipeline, shards); err != nil {
			return err
		}
		if r.update == sqlDiscard {
			if err := tx.QueryRow(ctx, inSchema(sqlBusy, r.schema), ns).Scan(&busy); err != nil {
				return err
			}
		}
		tag, err := tx.Exec(ctx, inSchema(r.update, r.schema), ns, audit)
		if err != nil {
			return err
		}
		n = tag.RowsAffected()
		if _, err := tx.Exec(ctx, inSchema(sqlPromote, r.schema), pipeline, topics, keys); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, inSchema(sqlCountAction, r.schema), audit, n)
		return err
	})
	if err != nil {
		return 0, err
	}
	r.busy += busy
	return n, nil
}
