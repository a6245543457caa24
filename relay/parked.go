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

func parkedSchema(schema string, f ParkedFilter) (string, error) {
	cfg := Config{Schema: schema}.withDefaults()
	if err := cfg.checkSchema(); err != nil {
		return "", err
	}
	return cfg.Schema, f.validate()
}
