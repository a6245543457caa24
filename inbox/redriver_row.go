package inbox

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/internal/sqltx"
)

// redriveQueries are the redriver's statements, for one schema.
type redriveQueries struct {
	keyed, unkeyed, load, lock, done, promote, failed, later string
}

func newRedriveQueries(schema string) redriveQueries {
	in := letters{schema: schema}.in
	return redriveQueries{
		// Skips from key to key through the index, however many rows a key has. Keys
		// with one hash are taken for one here: one waits for the other.
		keyed: in(`WITH RECURSIVE k AS (
	(SELECT key_hash, n, type, next_attempt_at FROM {s}.dead WHERE consumer = $1 AND state = 'retrying' AND key_hash > $2 AND key_hash <> 0
		ORDER BY key_hash, n LIMIT 1)
	UNION ALL SELECT h.* FROM k CROSS JOIN LATERAL (SELECT d.key_hash, d.n, d.type, d.next_attempt_at FROM {s}.dead d
		WHERE d.consumer = $1 AND d.state = 'retrying' AND d.key_hash > k.key_hash AND d.key_hash <> 0 ORDER BY d.key_hash, d.n LIMIT 1) h)
SELECT key_hash, n, type, next_attempt_at <= clock_timestamp() FROM k LIMIT $3`),
		unkeyed: in(`SELECT n, type, next_attempt_at <= clock_timestamp() FROM {s}.dead
WHERE consumer = $1 AND state = 'retrying' AND key_hash = 0 AND n > $2 ORDER BY n LIMIT $3`),
		load: in(`SELECT attempts, earlier_attempts, key_hash, topic, key, blocks, id, source, type, time, content_type, correlation_id, causation_id,
	headers, payload, origin_broker, origin_topic, origin_partition, origin_offset FROM {s}.dead WHERE n = $1 AND state = 'retrying'`),
		lock: in(`SELECT ` + idleSQL + ` FROM {s}.dead
WHERE n = $2 AND state = 'retrying' AND next_attempt_at <= clock_timestamp() FOR UPDATE SKIP LOCKED`),
		done:    in(`UPDATE {s}.dead SET state = 'redriven' WHERE n = $1 RETURNING action`),
		promote: in(promoteSQL),
		failed: in(`UPDATE {s}.dead SET state = $2, reason = $3, error = $4, attempts = attempts + $5::integer,
	next_attempt_at = clock_timestamp() + $6::bigint * interval '1 ms' WHERE n = $1 AND state = 'retrying'`),
		later: in(`UPDATE {s}.dead SET next_attempt_at = clock_timestamp() + $2::bigint * interval '1 ms' WHERE n = $1 AND state = 'retrying'`),
	}
}

// redriven is a row that is being redriven.
type redriven struct {
	picked   // as stored
	d        brokers.Delivery
	attempts int    // that failed, of all rounds
	earlier  int    // of these, before it was redriven
	trial    *trial // what its circuit knows of it; nil while that is closed
}

// load reads a row; nil means that it is not retrying any more.
func (d *redriver) load(n int64) (*redriven, error) {
	ctx, cancel := context.WithTimeout(d.hard, d.patience())
	defer cancel()
	r := &redriven{picked: picked{n: n, consumer: d.store.ConsumerID()}}
	m, o := &r.d.Message, &r.d.Origin
	var at *time.Time
	err := d.pool.QueryRow(ctx, d.q.load, n).Scan(&r.attempts, &r.earlier, &r.hash, &r.topic, &r.key, &r.blocks,
		&m.ID, &m.Source, &m.Type, &at, &m.ContentType, &m.CorrelationID, &m.CausationID, &m.Headers, &m.Payload,
		&o.Broker, &o.Topic, &o.Partition, &o.Offset)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read a dead letter: %w", err)
	}
	r.d.Redelivered = true
	m.Topic, m.Key, m.Time = r.topic, r.key, timeOf(at)
	for _, text := range []*string{&m.Topic, &m.Key, &m.ID, &m.Source, &m.Type, &m.ContentType, &m.CorrelationID, &m.CausationID, &o.Topic} {
		*text = unstorable(*text)
	}
	headers := make(map[string]string, len(m.Headers))
	for name, value := range m.Headers {
		headers[unstorable(name)] = unstorable(value)
	}
	m.Headers = headers
	return r, nil
}

// unstorable is the inverse of storable.
func unstorable(s string) string {
	if digits, ok := strings.CutPrefix(s, `\x`); ok {
		if raw, err := hex.DecodeString(digits); err == nil {
			return string(raw)
		}
	}
	return s
}

// open begins a transaction that holds the row. It returns nil if another inbox
// has it, or has had it.
func (d *redriver) open(ctx context.Context, n int64, overSQL bool) (x *transaction, err error) {
	begin := d.openPgx
	if overSQL {
		begin = d.openSQL
	}
	if x, err = begin(ctx); err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	x.owner = d.hard
	err = x.QueryRow(ctx, d.q.lock, strconv.FormatInt(d.patience().Milliseconds(), 10), n).Scan(new(string))
	if err == nil {
		return x, nil
	}
	x.close()
	if errors.Is(err, pgx.ErrNoRows) || errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return nil, fmt.Errorf("lock a dead letter: %w", err)
}

func (d *redriver) openPgx(ctx context.Context) (*transaction, error) {
	tx, err := d.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return nil, err
	}
	finish := func(ctx context.Context, commit bool) error {
		if commit {
			return tx.Commit(ctx)
		}
		return tx.Rollback(ctx)
	}
	return &transaction{Tx: sqltx.Pgx(tx), pgx: &heldTx{Tx: tx}, conn: tx.Conn(), finish: finish}, nil
}

// done says in the handler's transaction that the row is redriven, and gives the
// next of its key its turn. The key is locked only now: who stores an event behind
// it need not wait for the handler.
func (d *redriver) done(tx *transaction, r *redriven) (next int64, err error) {
	ctx, cancel := context.WithTimeout(d.hard, d.patience())
	defer cancel()
	if r.blocks {
		if _, err := tx.Exec(ctx, keyLockSQL, keyLock(r.consumer, r.hash)); err != nil {
			return 0, err
		}
	}
	var action *int64
	if err := tx.QueryRow(ctx, d.q.done, r.n).Scan(&action); err != nil || !r.blocks {
		return 0, err
	}
	args := append(lanesOf([]picked{r.picked}), action)
	if err := tx.QueryRow(ctx, d.q.promote, args...).Scan(&next); err != nil && !errors.Is(err, pgx.ErrNoRows) && !errors.Is(err, sql.ErrNoRows) {
		return 0, err
	}
	return next, nil
}
