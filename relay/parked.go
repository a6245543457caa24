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
	Source   string `json:"source,omitempty"`
	EventID  string `json:"event_id,omitempty"`
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
	return []any{f.N, f.Pipeline, f.Topic, f.Type, f.Key, f.State, f.Class, f.Reason, at(f.Since), at(f.Until), f.Source, f.EventID}
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
	Attempts    int       `json:"attempts"`         // that failed, of all redrives
	ParkedAt    time.Time `json:"parked_at"`
	// NextAttemptAt is set while the state is retrying.
	NextAttemptAt time.Time `json:"next_attempt_at,omitzero"`
	Bytes         int64     `json:"bytes"` // of the payload
	// MayBeOut: a relay is publishing it now, or an attempt ended without an answer
	// (a timeout, a killed process), so that the broker may have the event.
	MayBeOut bool `json:"may_be_out"`

	// Only from [ShowParked] and [ExportParked].
	Time          time.Time       `json:"time,omitzero"` // when it happened
	ContentType   string          `json:"content_type,omitempty"`
	CorrelationID string          `json:"correlation_id,omitempty"`
	CausationID   string          `json:"causation_id,omitempty"`
	Headers       json.RawMessage `json:"headers,omitempty"` // a JSON object
	Payload       []byte          `json:"payload,omitempty"` // as the service wrote it, without a registry's frame
	Schema        event.Schema    `json:"-"`                 // of the payload; zero if it has none
	// The last redrive or discard.
	Action       string    `json:"action,omitempty"` // redrive, discard
	ActionAt     time.Time `json:"action_at,omitzero"`
	ActionBy     string    `json:"action_by,omitempty"`
	ActionReason string    `json:"action_reason,omitempty"`
}

const (
	parkedWhere = ` p.n > $13::bigint AND ($1::bigint = 0 OR p.n = $1) AND ($2 = '' OR p.pipeline = $2) AND ($3 = '' OR p.topic = $3)
  AND ($4 = '' OR p.type = $4) AND ($5 = '' OR hashtextextended(p.key, 0) = hashtextextended($5, 0) AND p.key = $5)
  AND CASE WHEN $6 <> '' THEN p.state = $6 ELSE $1 <> 0 OR p.state <> 'discarded' END
  AND ($7 = '' OR p.class = $7) AND ($8 = '' OR position($8 IN p.reason) > 0)
  AND ($9::timestamptz IS NULL OR p.parked_at >= $9) AND ($10::timestamptz IS NULL OR p.parked_at < $10)
  AND ($11 = '' OR p.source = $11) AND ($12 = '' OR p.event_id::text = $12) `
	parkedList = `p.n, p.pipeline, p.state, p.event_id::text, p.source, p.type, p.topic, p.destination, p.key, p.class, p.reason,
  p.attempts + p.earlier_attempts, p.parked_at, CASE WHEN p.state = 'retrying' THEN p.next_attempt_at END, coalesce(octet_length(p.payload), 0)::bigint,
  p.unanswered OR p.claim IS NOT NULL`
	sqlListParked = `SELECT ` + parkedList + ` FROM {s}.parked p WHERE` + parkedWhere + `ORDER BY p.n LIMIT $14::int`
	parkedWhole   = parkedList + `, p.time, coalesce(p.content_type, s.content_type, ''), coalesce(p.correlation_id, ''), coalesce(p.causation_id, ''),
  p.headers, p.payload, coalesce(s.format, ''), coalesce(s.text, ''), coalesce(s.content_type, ''),
  coalesce(a.action, ''), a.at, coalesce(a.actor, ''), coalesce(a.reason, '')
FROM {s}.parked p LEFT JOIN {s}.parked_action a ON a.n = p.action LEFT JOIN {s}.schema s ON s.fp = p.schema_fp `
	sqlShowParked   = `SELECT ` + parkedWhole + `WHERE p.n = $1`
	sqlExportParked = `SELECT ` + parkedWhole + `WHERE` + parkedWhere + `ORDER BY p.n LIMIT $14::int`
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
	e, err := scanParked(pool.QueryRow(ctx, inSchema(sqlShowParked, schema), n))
	if errors.Is(err, pgx.ErrNoRows) {
		return e, fmt.Errorf("parked event %d: %w", n, ErrNotParked)
	}
	if err != nil {
		return e, fmt.Errorf("parked event %d: %w", n, notMigrated(err))
	}
	return e, nil
}

// scanParked reads parkedWhole.
func scanParked(row pgx.Row) (ParkedEvent, error) {
	var e ParkedEvent
	var next, at *time.Time
	err := row.Scan(append(e.dest(&next), &e.Time, &e.ContentType, &e.CorrelationID, &e.CausationID, &e.Headers, &e.Payload,
		&e.Schema.Format, &e.Schema.Text, &e.Schema.ContentType, &e.Action, &at, &e.ActionBy, &e.ActionReason)...)
	e.NextAttemptAt, e.ActionAt = timeOf(next), timeOf(at)
	return e, err
}

// exportPage is how many rows a statement reads: short ones, because a snapshot
// that is held for the whole of an export would keep dead rows everywhere.
const exportPage = 200

// ExportParked calls each with the parked events that match and are there now,
// whole, in the order of parking. One is in memory at a time. It ends with the first
// error, each's among them.
func ExportParked(ctx context.Context, pool *pgxpool.Pool, schema string, f ParkedFilter, each func(ParkedEvent) error) error {
	schema, err := parkedSchema(schema, f)
	if err != nil {
		return err
	}
	page := func(after int64) (last int64, read int, err error) {
		rows, err := pool.Query(ctx, inSchema(sqlExportParked, schema), append(f.args(), after, exportPage)...)
		if err != nil {
			return 0, 0, err
		}
		defer rows.Close()
		for rows.Next() {
			e, err := scanParked(rows)
			if err != nil {
				return 0, 0, err
			}
			last, read = e.N, read+1
			if err := each(e); err != nil {
				return 0, 0, err
			}
		}
		return last, read, rows.Err()
	}
	for after, read := int64(0), exportPage; read == exportPage; {
		if after, read, err = page(after); err != nil {
			return fmt.Errorf("export parked events: %w", notMigrated(err))
		}
	}
	return nil
}

func parkedSchema(schema string, f ParkedFilter) (string, error) {
	cfg := Config{Schema: schema}.withDefaults()
	if err := cfg.checkSchema(); err != nil {
		return "", err
	}
	return cfg.Schema, f.validate()
}
