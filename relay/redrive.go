package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/event"
)

// ParkedFilter chooses parked events: all fields that are set must match. The zero
// value matches every event that waits; discarded ones only match by their state
// or number.
type ParkedFilter struct {
	N        int64  `json:"n,omitempty"` // one event, by its number
	Pipeline string `json:"pipeline,omitempty"`
	Topic    string `json:"topic,omitempty"` // as written by the service
	Type     string `json:"type,omitempty"`
	Key      string `json:"key,omitempty"`
	State    string `json:"state,omitempty"`  // retrying, blocked, dead, discarded
	Class    string `json:"class,omitempty"`  // unavailable, destination, rejected
	Reason   string `json:"reason,omitempty"` // part of the last failure's text
	// Since and Until bound the time of parking: from Since on, before Until.
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`
}

func (f ParkedFilter) validate() error {
	switch f.State {
	case "", stateRetrying, stateBlocked, stateDead, stateDiscarded:
		return nil
	}
	return &event.FieldError{Field: "ParkedFilter.State", Value: f.State, Problem: "is not a state", Hint: "retrying, blocked, dead or discarded"}
}

func (f ParkedFilter) args() []any {
	at := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		return &t
	}
	return []any{f.N, f.Pipeline, f.Topic, f.Type, f.Key, f.State, f.Class, f.Reason, at(f.Since), at(f.Until)}
}

// ParkedEvent is an event that a pipeline could not publish.
type ParkedEvent struct {
	N           int64     `json:"n"` // its number; order within a key
	Pipeline    string    `json:"pipeline"`
	State       string    `json:"state"` // retrying, blocked, dead, discarded
	EventID     string    `json:"event_id"`
	Source      string    `json:"source"`
	Type        string    `json:"type"`
	Topic       string    `json:"topic"`       // as written by the service
	Destination string    `json:"destination"` // the topic at the broker
	Key         string    `json:"key"`
	Class       string    `json:"class,omitempty"`  // of the last failure; "" if it was never tried
	Reason      string    `json:"reason,omitempty"` // its text
	Attempts    int       `json:"attempts"`         // since it was parked or redriven
	ParkedAt    time.Time `json:"parked_at"`
	// NextAttemptAt is set while the state is retrying.
	NextAttemptAt time.Time `json:"next_attempt_at,omitzero"`
	Bytes         int64     `json:"bytes"` // of the payload
	// MayBeOut: a relay is publishing it now, or an attempt ended without an answer
	// (a timeout, a killed process), so that the broker may have the event.
	MayBeOut bool `json:"may_be_out"`

	// Only from [ShowParked].
	Headers json.RawMessage `json:"headers,omitempty"` // a JSON object
	Payload []byte          `json:"payload,omitempty"` // as the service wrote it, without a registry's frame
	// The last redrive or discard.
	Action       string    `json:"action,omitempty"` // redrive, discard
	ActionAt     time.Time `json:"action_at,omitzero"`
	ActionBy     string    `json:"action_by,omitempty"`
	ActionReason string    `json:"action_reason,omitempty"`
}

const (
	parkedWhere = ` p.n > $11::bigint AND ($1::bigint = 0 OR p.n = $1) AND ($2 = '' OR p.pipeline = $2) AND ($3 = '' OR p.topic = $3)
  AND ($4 = '' OR p.type = $4) AND ($5 = '' OR p.key = $5)
  AND CASE WHEN $6 <> '' THEN p.state = $6 ELSE $1 <> 0 OR p.state <> 'discarded' END
  AND ($7 = '' OR p.class = $7) AND ($8 = '' OR position($8 IN p.reason) > 0)
  AND ($9::timestamptz IS NULL OR p.parked_at >= $9) AND ($10::timestamptz IS NULL OR p.parked_at < $10) `
	parkedList = `p.n, p.pipeline, p.state, p.event_id::text, p.source, p.type, p.topic, p.destination, p.key, p.class, p.reason,
  p.attempts, p.parked_at, CASE WHEN p.state = 'retrying' THEN p.next_attempt_at END, coalesce(octet_length(p.payload), 0)::bigint,
  p.unanswered OR p.claim IS NOT NULL`
	sqlListParked = `SELECT ` + parkedList + ` FROM {s}.parked p WHERE` + parkedWhere + `ORDER BY p.n LIMIT $12::int`
	sqlShowParked = `SELECT ` + parkedList + `, p.headers, p.payload, coalesce(a.action, ''), a.at, coalesce(a.actor, ''), coalesce(a.reason, '')
FROM {s}.parked p LEFT JOIN {s}.parked_action a ON a.n = p.action WHERE p.n = $1`
	sqlPickParked = `SELECT p.n, p.pipeline, p.shard, p.destination, p.key, p.blocks FROM {s}.parked p
WHERE` + parkedWhere + `AND p.n <= $12::bigint AND p.state = ANY($13::text[]) ORDER BY p.n LIMIT $14::int`
	sqlCountParked = `SELECT count(*) FROM {s}.parked p WHERE` + parkedWhere + `AND p.state = ANY($12::text[])`
	sqlLastParked  = `SELECT coalesce(max(n), 0) FROM {s}.parked`
	sqlNewAction   = `INSERT INTO {s}.parked_action (action, actor, reason, filter) VALUES ($1, $2, $3, $4) RETURNING n`
	sqlCountAction = `UPDATE {s}.parked_action SET events = events + $2::bigint WHERE n = $1`
	// FOR UPDATE keeps the shards' owners from parking and resolving meanwhile.
	sqlLockShards = `SELECT count(*) FROM (SELECT FROM {s}.lease WHERE pipeline = $1 AND shard = ANY($2::smallint[]) ORDER BY shard FOR UPDATE) l`
	sqlRedrive    = `UPDATE {s}.parked SET state = 'retrying', attempts = 0, next_attempt_at = clock_timestamp(), retry_since = clock_timestamp(), action = $2
WHERE n = ANY($1::bigint[]) AND state IN ('dead', 'retrying')`
	// With the leases locked no claim comes or goes. One of a lease that has passed on,
	// or whose owner is silent, is void: its relay publishes nothing any more.
	beingPublished = `EXISTS (SELECT FROM {s}.lease l JOIN {s}.instance i ON i.name = l.owner AND ` + sqlLive + `
  WHERE l.pipeline = p.pipeline AND l.shard = p.shard AND l.epoch = p.claim)`
	sqlBusy    = `SELECT count(*) FROM {s}.parked p WHERE n = ANY($1::bigint[]) AND ` + beingPublished
	sqlDiscard = `UPDATE {s}.parked p SET state = 'discarded', blocks = false, action = $2, claim = NULL, unanswered = p.unanswered OR p.claim IS NOT NULL
WHERE n = ANY($1::bigint[]) AND state <> 'discarded' AND NOT ` + beingPublished + ``
)

// Parked lists up to limit parked events that match, in the order of parking, from
// the one after number after on (0: from the first). An empty schema means
// "outbox". The relay's grants are enough for this and the other functions here.
func Parked(ctx context.Context, pool *pgxpool.Pool, schema string, f ParkedFilter, after int64, limit int) ([]ParkedEvent, error) {
	schema, err := parkedSchema(schema, f)
	if err != nil {
		return nil, err
	}
	rows, err := pool.Query(ctx, inSchema(sqlListParked, schema), append(f.args(), after, limit)...)
	if err != nil {
		return nil, fmt.Errorf("list parked events: %w", notMigrated(err))
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (ParkedEvent, error) {
		var e ParkedEvent
		var next *time.Time
		err := row.Scan(e.dest(&next)...)
		e.NextAttemptAt = timeOf(next)
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("list parked events: %w", notMigrated(err))
	}
	return list, nil
}

func (e *ParkedEvent) dest(next **time.Time) []any {
	return []any{&e.N, &e.Pipeline, &e.State, &e.EventID, &e.Source, &e.Type, &e.Topic, &e.Destination, &e.Key, &e.Class, &e.Reason,
		&e.Attempts, &e.ParkedAt, next, &e.Bytes, &e.MayBeOut}
}

func timeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// ErrBeingPublished says that an event cannot be discarded at this moment.
var ErrBeingPublished = errors.New("being published just now: look whether that succeeds, or try again")

// ErrNotParked says that no parked event has the number.
var ErrNotParked = errors.New("no parked event has this number; it may have been published")

// ShowParked returns one parked event with headers, payload and the last action.
func ShowParked(ctx context.Context, pool *pgxpool.Pool, schema string, n int64) (ParkedEvent, error) {
	schema, err := parkedSchema(schema, ParkedFilter{})
	if err != nil {
		return ParkedEvent{}, err
	}
	var e ParkedEvent
	var next, at *time.Time
	err = pool.QueryRow(ctx, inSchema(sqlShowParked, schema), n).
		Scan(append(e.dest(&next), &e.Headers, &e.Payload, &e.Action, &at, &e.ActionBy, &e.ActionReason)...)
	if errors.Is(err, pgx.ErrNoRows) {
		return e, fmt.Errorf("parked event %d: %w", n, ErrNotParked)
	}
	if err != nil {
		return e, fmt.Errorf("parked event %d: %w", n, notMigrated(err))
	}
	e.NextAttemptAt, e.ActionAt = timeOf(next), timeOf(at)
	return e, nil
}

// ParkedAction says who changes parked events and why; both are recorded in the
// table parked_action.
type ParkedAction struct {
	By     string // who; required
	Reason string // why; required
	DryRun bool   // only count
}

func (a ParkedAction) validate() error {
	if a.By == "" && !a.DryRun {
		return &event.FieldError{Field: "ParkedAction.By", Problem: "is empty", Hint: "say who does this: it is recorded"}
	}
	if a.Reason == "" && !a.DryRun {
		return &event.FieldError{Field: "ParkedAction.Reason", Problem: "is empty", Hint: "say why: it is recorded"}
	}
	return nil
}

// Redrive has dead events published again by the relay, and retrying ones at once.
// What is blocked behind them follows in order. Relays may run or not. It returns
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
	r := redriver{pool: pool, schema: schema, update: sqlRedrive, states: []string{stateDead, stateRetrying}, filter: f}
	if action == "discard" {
		r.update, r.states = sqlDiscard, []string{stateDead, stateRetrying, stateBlocked}
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

func parkedSchema(schema string, f ParkedFilter) (string, error) {
	cfg := Config{Schema: schema}.withDefaults()
	if err := cfg.checkSchema(); err != nil {
		return "", err
	}
	return cfg.Schema, f.validate()
}

type redriver struct {
	pool   *pgxpool.Pool
	schema string
	update string
	states []string // that are concerned
	filter ParkedFilter
	busy   int64 // events that were left alone
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
	var done, after int64
	for {
		picked, err := r.pick(ctx, after, last)
		if err != nil || len(picked) == 0 {
			return done, err
		}
		after = picked[len(picked)-1].n
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
	}
}

type pickedEvent struct {
	n        int64
	pipeline string
	shard    int16
	lane     lane
	blocks   bool
}

func (r *redriver) pick(ctx context.Context, after, last int64) ([]pickedEvent, error) {
	rows, err := r.pool.Query(ctx, inSchema(sqlPickParked, r.schema), append(r.filter.args(), after, last, r.states, redriveBatch)...)
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
