package inbox

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Reasons, as the column dead.reason has them.
const (
	reasonAttempts      = "attempts"       // the handler failed Config.Attempts times
	reasonPermanent     = "permanent"      // the handler said that trying again is no use
	reasonUndecodable   = "undecodable"    // the bytes do not fit the type
	reasonNoID          = "no_id"          // no event id: identified by its origin
	reasonNoType        = "no_type"        // no event type
	reasonUnknownType   = "unknown_type"   // no handler, under UnknownDeadLetter
	reasonOutsideWindow = "outside_window" // too old, or from the future, to tell whether it was handled
	reasonCrashed       = "crashed"        // its handler never came to an end: the process died each time
	reasonBlocked       = "blocked"        // behind a dead letter of its key
)

// death is why a message becomes a dead letter.
type death struct {
	reason string
	err    string
}

// maxErrorBytes bounds what is stored of an error; a panic's stack is in it.
const maxErrorBytes = 8 << 10

func (t *task) die(reason string, err error) { t.dead = newDeath(reason, err) }

func newDeath(reason string, err error) *death {
	text := err.Error()
	if len(text) > maxErrorBytes {
		text = text[:maxErrorBytes]
	}
	// For people: readable rather than exact.
	return &death{reason: reason, err: strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")}
}

// statements are the inbox's own, for one schema.
type statements struct {
	prelude, preludeBlocked, preludeBatch, isBlocked, insert, moving, moved string
}

const (
	unresolved  = `state IN ('dead', 'blocked', 'moving', 'moved', 'retrying')` // literally the predicate of the indexes
	keyLockSQL  = `SELECT pg_advisory_xact_lock($1)`
	idleSQL     = `set_config('idle_in_transaction_session_timeout', $1::text, true)`
	deadColumns = `consumer, event_key, state, reason, error, attempts, topic, key, key_hash, id, source, type, time,
		content_type, correlation_id, causation_id, headers, payload, origin_broker, origin_topic, origin_partition, origin_offset, blocks`
)

func newStatements(schema string) statements {
	dead := schema + ".dead"
	return statements{
		prelude: `SELECT ` + idleSQL + `, false`,
		preludeBlocked: `SELECT ` + idleSQL + `, EXISTS (SELECT FROM ` + dead + ` WHERE consumer = $2 AND key_hash = $3
			AND topic = $4 AND key = $5 AND blocks AND ` + unresolved + `)`,
		preludeBatch: `SELECT ` + idleSQL + `, coalesce((SELECT string_agg(DISTINCT key_hash::text, ' ') FROM ` + dead + `
			WHERE consumer = $2 AND key_hash = ANY($3::bigint[]) AND blocks AND ` + unresolved + `), '')`,
		isBlocked: `SELECT EXISTS (SELECT FROM ` + dead + ` WHERE consumer = $1 AND key_hash = $2
			AND topic = $3 AND key = $4 AND blocks AND ` + unresolved + `)`,
		insert: `INSERT INTO ` + dead + ` (` + deadColumns + `) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13,
			$14, $15, $16, $17, $18, $19, $20, $21, $22, $23) ON CONFLICT DO NOTHING`,
		moving: `SELECT reason, error, attempts FROM ` + dead + ` WHERE consumer = $1 AND event_key = $2 AND state = 'moving'`,
		moved:  `UPDATE ` + dead + ` SET state = $3 WHERE consumer = $1 AND event_key = $2 AND state = 'moving'`,
	}
}

// bury writes the dead letter into the transaction that holds its claim.
func (r *runner) bury(t *task, tx *transaction) (result, error) {
	state := "dead"
	if r.routed() {
		state = "moving"
	}
	ctx, cancel := context.WithTimeout(t.ctx, r.patience())
	defer cancel()
	written, err := r.insert(ctx, t, tx, state)
	if err == nil {
		err = tx.commit(r.patience())
	}
	if err != nil {
		return result{}, fmt.Errorf("write a dead letter: %w", err)
	}
	if written == 0 { // outside the window, delivered again
		return r.duplicate(t)
	}
	r.stats.deadLettered.Add(1)
	r.log.Warn("inbox: dead letter", append(t.attrs(), "reason", t.dead.reason, "attempts", t.attempts, "error", t.dead.err)...)
	if r.routed() {
		t.moving = true
		t.retry.Reset()
		return result{what: again}, nil
	}
	return r.ack(t, nil)
}

// block stores t behind the dead letter of its key and commits, if that is still
// there.
func (r *runner) block(t *task, tx *transaction) (bool, error) {
	blocked, err := r.shelve(t, tx)
	if err != nil || !blocked {
		return false, err
	}
	if err := tx.commit(r.patience()); err != nil {
		return false, fmt.Errorf("store a blocked event: %w", err)
	}
	r.blocked(t)
	return true, nil
}

func (r *runner) blocked(t *task) {
	r.stats.blocked.Add(1)
	r.log.Debug("inbox: stored behind a dead letter of its key", t.attrs()...)
}

// shelve writes t behind the dead letter of its key, if that is still there. Who
// resolves the last dead letter of a key does so under the same lock: either t
// is stored before, and seen by them, or it is handled after.
func (r *runner) shelve(t *task, tx *transaction) (bool, error) {
	ctx, cancel := context.WithTimeout(t.ctx, r.patience())
	defer cancel()
	m := &t.d.Message
	if _, err := tx.Exec(ctx, keyLockSQL, keyLock(r.store.ConsumerID(), t.hash)); err != nil {
		return false, fmt.Errorf("lock a blocked key: %w", err)
	}
	var blocked bool
	err := tx.QueryRow(ctx, r.sql.isBlocked, r.store.ConsumerID(), t.hash, storable(m.Topic), storable(m.Key)).Scan(&blocked)
	if err != nil || !blocked {
		return false, err
	}
	if _, err := r.insert(ctx, t, tx, "blocked"); err != nil {
		return false, fmt.Errorf("store a blocked event: %w", err)
	}
	return true, nil
}

func (r *runner) insert(ctx context.Context, t *task, tx *transaction, state string) (int64, error) {
	m, o, why := &t.d.Message, t.d.Origin, t.dead
	if why == nil {
		why = &death{reason: reasonBlocked}
	}
	headers := make(map[string]string, len(m.Headers))
	for name, value := range m.Headers {
		headers[storable(name)] = storable(value)
	}
	text, err := json.Marshal(headers)
	if err != nil {
		return 0, err
	}
	var at *time.Time
	if !m.Time.IsZero() {
		at = &m.Time
	}
	return tx.Exec(ctx, r.sql.insert, r.store.ConsumerID(), r.store.UUID(t.key), state, why.reason, why.err, t.attempts,
		storable(m.Topic), storable(m.Key), t.hash, storable(m.ID), storable(m.Source), storable(m.Type), at,
		storable(m.ContentType), storable(m.CorrelationID), storable(m.CausationID), string(text), m.Payload,
		o.Broker, storable(o.Topic), o.Partition, o.Offset, r.blocks(t))
}
