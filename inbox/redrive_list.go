package inbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/brokers"
)

// DeadLetter is an event that a consumer did not handle. Texts that Postgres
// cannot store (a NUL, invalid UTF-8) are \x and their bytes in hex.
type DeadLetter struct {
	N        int64  `json:"n"` // its number; order within a key
	Consumer string `json:"consumer"`
	State    string `json:"state"` // dead, blocked, moving, moved, retrying, redriven, discarded
	ID       string `json:"id"`    // the event's; "" if it has none
	Source   string `json:"source"`
	Type     string `json:"type"`
	Topic    string `json:"topic"`
	Key      string `json:"key"`
	// Class is why: attempts, permanent, undecodable, blocked, … (the column reason);
	// Reason the last error's text (the column error).
	Class    string    `json:"class"`
	Reason   string    `json:"reason,omitempty"`
	Attempts int       `json:"attempts"` // runs of the handler that failed, of all redrives
	StoredAt time.Time `json:"stored_at"`
	// NextAttemptAt is set while the state is retrying.
	NextAttemptAt time.Time      `json:"next_attempt_at,omitzero"`
	Bytes         int64          `json:"bytes"` // of the payload
	Origin        brokers.Origin `json:"origin"`

	// Only from [ShowDeadLetter] and [ExportDeadLetters].
	Time          time.Time       `json:"time,omitzero"` // when it happened
	ContentType   string          `json:"content_type,omitempty"`
	CorrelationID string          `json:"correlation_id,omitempty"`
	CausationID   string          `json:"causation_id,omitempty"`
	Headers       json.RawMessage `json:"headers,omitempty"` // a JSON object
	Payload       []byte          `json:"payload,omitempty"` // as received, frame included; nil is a tombstone
	// The last redrive or discard.
	Action       string    `json:"action,omitempty"` // redrive, discard
	ActionAt     time.Time `json:"action_at,omitzero"`
	ActionBy     string    `json:"action_by,omitempty"`
	ActionReason string    `json:"action_reason,omitempty"`
}

const (
	letterColumns = `d.n, c.name, d.state, d.id, d.source, d.type, d.topic, d.key, d.reason, d.error, d.attempts, d.created_at,
	CASE WHEN d.state = 'retrying' THEN d.next_attempt_at END, coalesce(octet_length(d.payload), 0)::bigint,
	d.origin_broker, d.origin_topic, d.origin_partition, d.origin_offset`
	wholeColumns = letterColumns + `, d.time, d.content_type, d.correlation_id, d.causation_id, d.headers, d.payload,
	coalesce(a.action, ''), a.at, coalesce(a.actor, ''), coalesce(a.reason, '')`
	fromDead    = ` FROM {s}.dead d JOIN {s}.consumer c ON c.id = d.consumer`
	fromActions = fromDead + ` LEFT JOIN {s}.dead_action a ON a.n = d.action`
)

// DeadLetters lists up to limit dead letters that match, in the order in which
// they were stored, from the one after number after on (0: from the first). An
// empty schema means "inbox". The consumer's grants are enough for this and the
// other functions here, and no inbox needs to run.
func DeadLetters(ctx context.Context, pool *pgxpool.Pool, schema string, f DeadFilter, after int64, limit int) ([]DeadLetter, error) {
	list := []DeadLetter{}
	err := eachLetter(ctx, pool, schema, f, letterColumns+fromDead, after, limit, func(d DeadLetter) error {
		list = append(list, d)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list dead letters: %w", err)
	}
	return list, nil
}

// ErrNoDeadLetter says that no dead letter has the number.
var ErrNoDeadLetter = errors.New("no dead letter has this number")

// ShowDeadLetter returns one dead letter with headers, payload and the last action.
func ShowDeadLetter(ctx context.Context, pool *pgxpool.Pool, schema string, n int64) (DeadLetter, error) {
	var found DeadLetter
	err := ErrNoDeadLetter
	if n != 0 {
		err = eachLetter(ctx, pool, schema, DeadFilter{N: n}, wholeColumns+fromActions, 0, 1, func(d DeadLetter) error {
			found = d
			return nil
		})
		if err == nil && found.N == 0 {
			err = ErrNoDeadLetter
		}
	}
	if err != nil {
		return found, fmt.Errorf("dead letter %d: %w", n, err)
	}
	return found, nil
}

// exportPage is how many rows a statement reads: short ones, because a snapshot
// that is held for the whole of an export would keep dead rows everywhere.
const exportPage = 200

// ExportDeadLetters calls each with the dead letters that match and are there now,
// whole, in the order in which they were stored. One is in memory at a time. It
// ends with the first error, each's among them.
func ExportDeadLetters(ctx context.Context, pool *pgxpool.Pool, schema string, f DeadFilter, each func(DeadLetter) error) error {
	after := int64(0)
	for {
		rows := 0
		err := eachLetter(ctx, pool, schema, f, wholeColumns+fromActions, after, exportPage, func(d DeadLetter) error {
			rows, after = rows+1, d.N
			return each(d)
		})
		if err != nil {
			return fmt.Errorf("export dead letters: %w", err)
		}
		if rows < exportPage {
			return nil
		}
	}
}

// eachLetter calls each with the matching rows after number after, as they arrive.
func eachLetter(
	ctx context.Context, pool *pgxpool.Pool, schema string, f DeadFilter, what string, after int64, limit int, each func(DeadLetter) error,
) error {
	l, err := openLetters(pool, schema)
	if err != nil {
		return err
	}
	w, err := l.where(ctx, f, nil)
	if err != nil {
		return err
	}
	if after != 0 {
		w.add("d.n > $", after)
	}
	query := l.in(`SELECT ` + what + w.String() + ` ORDER BY d.n LIMIT ` + w.arg(limit))
	rows, err := pool.Query(ctx, query, w.args...)
	if err != nil {
		return notMigrated(err)
	}
	defer rows.Close()
	for rows.Next() {
		d, err := scanLetter(rows)
		if err != nil {
			return err
		}
		if err := each(d); err != nil {
			return err
		}
	}
	return notMigrated(rows.Err())
}

// scanLetter reads letterColumns or wholeColumns.
func scanLetter(rows pgx.Rows) (d DeadLetter, err error) {
	var next, at, acted *time.Time
	dest := []any{
		&d.N, &d.Consumer, &d.State, &d.ID, &d.Source, &d.Type, &d.Topic, &d.Key, &d.Class, &d.Reason, &d.Attempts, &d.StoredAt,
		&next, &d.Bytes, &d.Origin.Broker, &d.Origin.Topic, &d.Origin.Partition, &d.Origin.Offset,
	}
	if len(rows.FieldDescriptions()) > len(dest) {
		dest = append(dest, &at, &d.ContentType, &d.CorrelationID, &d.CausationID, &d.Headers, &d.Payload,
			&d.Action, &acted, &d.ActionBy, &d.ActionReason)
	}
	if err := rows.Scan(dest...); err != nil {
		return d, err
	}
	d.NextAttemptAt, d.Time, d.ActionAt = timeOf(next), timeOf(at), timeOf(acted)
	return d, nil
}

func timeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}
