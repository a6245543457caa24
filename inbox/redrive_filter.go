package inbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/event"
)

// States of a dead letter. Those that the outbox's parked events have too mean
// the same there.
const (
	stateDead      = "dead"      // waits for a person
	stateBlocked   = "blocked"   // waits behind an earlier event of its key
	stateRetrying  = "retrying"  // redriven; its consumer handles it as soon as it can
	stateMoving    = "moving"    // as dead; a copy is on its way to the broker
	stateMoved     = "moved"     // as dead; the broker has a copy
	stateRedriven  = "redriven"  // handled
	stateDiscarded = "discarded" // given up
)

// DeadFilter chooses dead letters: all fields that are set must match. The zero
// value matches every one that waits; what has been redriven or discarded only
// matches by its state or number. Texts are as in [DeadLetter].
type DeadFilter struct {
	N        int64  `json:"n,omitempty"` // one dead letter, by its number
	Consumer string `json:"consumer,omitempty"`
	Topic    string `json:"topic,omitempty"`
	Type     string `json:"type,omitempty"`
	Key      string `json:"key,omitempty"`
	Source   string `json:"source,omitempty"`
	ID       string `json:"id,omitempty"`     // the event's
	State    string `json:"state,omitempty"`  // dead, blocked, moving, moved, retrying, redriven, discarded
	Class    string `json:"class,omitempty"`  // attempts, permanent, undecodable, …
	Reason   string `json:"reason,omitempty"` // part of the last error's text
	// Since and Until bound the time at which it was stored: from Since on, before
	// Until.
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`
}

func (f DeadFilter) validate() error {
	switch f.State {
	case "", stateDead, stateBlocked, stateRetrying, stateMoving, stateMoved, stateRedriven, stateDiscarded:
		return nil
	}
	return &event.FieldError{
		Field: "DeadFilter.State", Value: f.State, Problem: "is not a state",
		Hint: "dead, blocked, moving, moved, retrying, redriven or discarded",
	}
}

// where collects a statement's conditions and their arguments. Only what is asked
// for gets into it, so that the planner sees which index serves.
type where struct {
	conditions []string
	args       []any
}

// add appends a condition in which $ stands for the argument.
func (w *where) add(condition string, arg any) {
	w.conditions = append(w.conditions, strings.ReplaceAll(condition, "$", w.arg(arg)))
}

// arg appends an argument and returns its place.
func (w *where) arg(arg any) string {
	w.args = append(w.args, arg)
	return fmt.Sprintf("$%d", len(w.args))
}

func (w *where) String() string {
	if len(w.conditions) == 0 {
		return " WHERE true"
	}
	return " WHERE " + strings.Join(w.conditions, " AND ")
}

// where is the filter's, on dead d; states is what it looks at unless it names
// one, nil for all.
func (f DeadFilter) where(consumer int32, states []string) *where {
	w := &where{}
	if f.N != 0 {
		w.add("d.n = $", f.N)
	}
	if f.Consumer != "" {
		w.add("d.consumer = $", consumer)
	}
	if f.Key != "" {
		w.add("hashtextextended(d.key, 0) = hashtextextended($, 0) AND d.key = $", f.Key)
	}
	texts := []struct{ column, value string }{
		{"topic", f.Topic}, {"type", f.Type}, {"source", f.Source}, {"id", f.ID}, {"state", f.State}, {"reason", f.Class},
	}
	for _, t := range texts {
		if t.value != "" {
			w.add("d."+t.column+" = $", t.value)
		}
	}
	if f.Reason != "" {
		w.add("position($ IN d.error) > 0", f.Reason)
	}
	if !f.Since.IsZero() {
		w.add("d.created_at >= $", f.Since)
	}
	if !f.Until.IsZero() {
		w.add("d.created_at < $", f.Until)
	}
	switch {
	case states != nil:
		w.add("d.state = ANY($::text[])", states)
		w.conditions = append(w.conditions, "d."+unresolved)
	case f.State == "" && f.N == 0:
		w.conditions = append(w.conditions, "d."+unresolved)
	}
	return w
}

// text is the filter as it is recorded.
func (f DeadFilter) text() (string, error) {
	data, err := json.Marshal(f)
	return string(data), err
}

// ErrNotMigrated says that the inbox schema is missing or too old.
var ErrNotMigrated = errors.New("the inbox schema is missing or too old; run: relay migrate up inbox")

// letters is a schema's table of dead letters.
type letters struct {
	pool   *pgxpool.Pool
	schema string
}

var schemaName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,39}$`)

func openLetters(pool *pgxpool.Pool, schema string) (letters, error) {
	if pool == nil {
		return letters{}, errors.New("inbox: pool is nil")
	}
	if schema == "" {
		schema = "inbox"
	}
	if !schemaName.MatchString(schema) {
		return letters{}, &event.FieldError{Field: "schema", Value: schema, Problem: "is not a schema name", Hint: "lower-case letters, digits and underscores"}
	}
	return letters{pool, schema}, nil
}

// in fills the schema's name in.
func (l letters) in(sql string) string { return strings.ReplaceAll(sql, "{s}", l.schema) }

// where checks f and finds the consumer's number.
func (l letters) where(ctx context.Context, f DeadFilter, states []string) (*where, error) {
	if err := f.validate(); err != nil {
		return nil, err
	}
	var id int32
	if f.Consumer != "" {
		err := l.pool.QueryRow(ctx, l.in(`SELECT id FROM {s}.consumer WHERE name = $1`), f.Consumer).Scan(&id)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil, l.noConsumer(ctx, f.Consumer)
		}
		if err != nil {
			return nil, notMigrated(err)
		}
	}
	return f.where(id, states), nil
}

func (l letters) noConsumer(ctx context.Context, name string) error {
	rows, err := l.pool.Query(ctx, l.in(`SELECT name FROM {s}.consumer ORDER BY name LIMIT 20`))
	if err != nil {
		return notMigrated(err)
	}
	known, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	return &event.FieldError{
		Field: "DeadFilter.Consumer", Value: name, Problem: "has never run on this database",
		Hint: fmt.Sprintf("it knows %q", known),
	}
}

// notMigrated explains a missing table, column or schema.
func notMigrated(err error) error {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		switch pgErr.Code {
		case "42P01", "42703", "3F000":
			return fmt.Errorf("%w (%w)", ErrNotMigrated, err)
		}
	}
	return err
}
