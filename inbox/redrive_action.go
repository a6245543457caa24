package inbox

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/time/rate"

	"github.com/outboxkit/outboxkit/event"
)

// DeadAction says who changes dead letters, why and how fast. Who and why are
// recorded in the table dead_action.
type DeadAction struct {
	By     string // who; required
	Reason string // why; required
	DryRun bool   // only count
	// Rate bounds the dead letters changed a second. What waits behind a redriven
	// one is not counted: it follows as fast as the consumer handles it. Default
	// (0): no limit.
	Rate int
	// Progress is called after each step, in the caller's goroutine. Default: not.
	Progress func(DeadProgress)
}

// DeadProgress is how far a redrive or discard has come.
type DeadProgress struct {
	Action int64 // its number in the table dead_action; see [RedriveOutcome]
	Events int64 // changed so far
}

func (a DeadAction) validate() error {
	bad := func(field, value, problem, hint string) error {
		return &event.FieldError{Field: "DeadAction." + field, Value: value, Problem: problem, Hint: hint}
	}
	switch {
	case a.Rate < 0:
		return bad("Rate", fmt.Sprint(a.Rate), "is negative", "events a second, 0 for no limit")
	case a.DryRun:
		return nil
	case a.By == "":
		return bad("By", "", "is empty", "say who does this: it is recorded")
	case a.Reason == "":
		return bad("Reason", "", "is empty", "say why: it is recorded")
	}
	return nil
}

// ErrBeingHandled says that a dead letter cannot be discarded at this moment.
var ErrBeingHandled = errors.New("being handled just now: look whether that succeeds, or try again")

// Redrive has dead letters handled again, from the stored rows, by the running
// inboxes of their consumer and by nobody else: the rows become retrying, and the
// handler's effect commits together with their becoming redriven. One that fails
// again is tried as often as a new message is, then it is dead again, and its
// attempts count on. One that is behind another of its key becomes blocked, and
// follows in order with what else is blocked there.
//
// Redrive itself only marks the rows; [RedriveOutcome] tells what became of them.
// It returns their number; if it fails in between, those done so far stay so.
func Redrive(ctx context.Context, pool *pgxpool.Pool, schema string, f DeadFilter, a DeadAction) (int64, error) {
	return act(ctx, pool, schema, "redrive", f, a)
}

// Discard gives dead letters up for good: they are not handled, and what waits
// behind them is, in order. Those whose handler runs at this moment are left alone
// and counted in an error that wraps [ErrBeingHandled]; the others are discarded.
// The rows stay, as discarded. It returns their number; if it fails in between,
// those done so far stay so.
func Discard(ctx context.Context, pool *pgxpool.Pool, schema string, f DeadFilter, a DeadAction) (int64, error) {
	return act(ctx, pool, schema, "discard", f, a)
}

func act(ctx context.Context, pool *pgxpool.Pool, schema, action string, f DeadFilter, a DeadAction) (n int64, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", action, notMigrated(err))
		}
	}()
	l, err := openLetters(pool, schema)
	if err != nil {
		return 0, err
	}
	if err := a.validate(); err != nil {
		return 0, err
	}
	m := marker{letters: l, action: action, states: []string{stateDead, stateMoving, stateMoved}, change: l.in(redriveSQL)}
	if action == "discard" {
		m.states, m.change = append(m.states, stateRetrying, stateBlocked), l.in(discardSQL)
	}
	w, err := l.where(ctx, f, m.states)
	if err != nil {
		return 0, err
	}
	if a.DryRun {
		err = pool.QueryRow(ctx, l.in(`SELECT count(*) FROM {s}.dead d`+w.String()), w.args...).Scan(&n)
		return n, err
	}
	n, err = m.run(ctx, f, w, a)
	if err == nil && m.busy > 0 {
		err = fmt.Errorf("%d more match, but are %w", m.busy, ErrBeingHandled)
	}
	return n, err
}

const (
	newActionSQL   = `INSERT INTO {s}.dead_action (action, actor, reason, filter) VALUES ($1, $2, $3, $4) RETURNING n`
	countActionSQL = `UPDATE {s}.dead_action SET events = events + $2::bigint WHERE n = $1`
	lastSQL        = `SELECT coalesce(max(n), 0) FROM {s}.dead`
	keyLocksSQL    = `SELECT pg_advisory_xact_lock(k) FROM (SELECT DISTINCT k FROM unnest($1::bigint[]) k ORDER BY k) s`
	// Not those that an inbox has locked to handle them: it will want the key's lock.
	rowLocksSQL = `SELECT n FROM {s}.dead WHERE n = ANY($1::bigint[]) AND state = ANY($2::text[]) FOR UPDATE SKIP LOCKED`
	busySQL     = `SELECT count(*) FROM {s}.dead WHERE n = ANY($1::bigint[]) AND state = ANY($2::text[])`
	// The first of a key is retried, later ones of the key have their turn after it.
	redriveSQL = `UPDATE {s}.dead d SET earlier_attempts = d.attempts, next_attempt_at = clock_timestamp(), action = $2,
	state = CASE WHEN d.blocks AND EXISTS (SELECT FROM {s}.dead e WHERE e.consumer = d.consumer AND e.key_hash = d.key_hash
		AND e.topic = d.topic AND e.key = d.key AND e.blocks AND e.n < d.n AND e.` + unresolved + `) THEN 'blocked' ELSE 'retrying' END
WHERE d.n = ANY($1::bigint[])`
	discardSQL = `UPDATE {s}.dead SET state = 'discarded', action = $2 WHERE n = ANY($1::bigint[])`
	// The next of each key has its turn, if it was waiting. The key is locked, and the
	// one before it is resolved.
	promoteSQL = `UPDATE {s}.dead h SET state = 'retrying', next_attempt_at = clock_timestamp(), earlier_attempts = h.attempts,
	action = coalesce($5::bigint, h.action)
FROM unnest($1::integer[], $2::bigint[], $3::text[], $4::text[]) x(consumer, key_hash, topic, key)
WHERE h.state = 'blocked' AND h.n = (SELECT d.n FROM {s}.dead d WHERE d.consumer = x.consumer AND d.key_hash = x.key_hash
	AND d.topic = x.topic AND d.key = x.key AND d.blocks AND d.` + unresolved + ` ORDER BY d.n LIMIT 1)
RETURNING h.n`
)

// marker changes the state of dead letters.
type marker struct {
	letters
	action string
	states []string // that are concerned
	change string
	busy   int64 // dead letters that were left alone
}

// markBatch is how many are changed at once, with as many keys locked at most.
const markBatch = 100

// picked is a row that is to be changed, and where it waits.
type picked struct {
	n          int64
	consumer   int32
	hash       int64
	topic, key string
	blocks     bool
}

// run changes what is there now, in batches. A redrive begins with the oldest. A
// discard begins with the latest: what is to be discarded itself must not have its
// turn because what was before it went first.
func (m *marker) run(ctx context.Context, f DeadFilter, w *where, a DeadAction) (int64, error) {
	text, err := f.text()
	if err != nil {
		return 0, err
	}
	p := DeadProgress{}
	if err := m.pool.QueryRow(ctx, m.in(newActionSQL), m.action, a.By, a.Reason, text).Scan(&p.Action); err != nil {
		return 0, err
	}
	var last int64
	if err := m.pool.QueryRow(ctx, m.in(lastSQL)).Scan(&last); err != nil {
		return 0, err
	}
	batch, limit := markBatch, rate.NewLimiter(rate.Inf, 0)
	if a.Rate > 0 {
		batch = min(markBatch, max(1, a.Rate/4))
		limit = rate.NewLimiter(rate.Limit(a.Rate), batch)
	}
	for after := int64(0); ; {
		rows, err := m.pick(ctx, *w, after, last, batch)
		if err != nil || len(rows) == 0 {
			return p.Events, err
		}
		if m.action == "discard" {
			last = rows[len(rows)-1].n - 1
		} else {
			after = rows[len(rows)-1].n
		}
		if err := limit.WaitN(ctx, len(rows)); err != nil {
			return p.Events, err
		}
		n, err := m.mark(ctx, rows, p.Action)
		p.Events += n
		if err != nil {
			return p.Events, err
		}
		if a.Progress != nil {
			a.Progress(p)
		}
	}
}

func (m *marker) pick(ctx context.Context, w where, after, last int64, limit int) ([]picked, error) {
	w.conditions, w.args = slices.Clone(w.conditions), slices.Clone(w.args)
	w.add("d.n > $", after)
	w.add("d.n <= $", last)
	order := ""
	if m.action == "discard" {
		order = " DESC"
	}
	query := m.in(`SELECT d.n, d.consumer, d.key_hash, d.topic, d.key, d.blocks FROM {s}.dead d` +
		w.String() + ` ORDER BY d.n` + order + ` LIMIT ` + w.arg(limit))
	rows, err := m.pool.Query(ctx, query, w.args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (p picked, err error) {
		err = row.Scan(&p.n, &p.consumer, &p.hash, &p.topic, &p.key, &p.blocks)
		return p, err
	})
}

// mark locks the keys before a new statement decides: what is stored behind a dead
// letter, or resolved, at the same time comes before or after.
func (m *marker) mark(ctx context.Context, rows []picked, action int64) (n int64, err error) {
	var ns, locks []int64
	keys := lanesOf(rows)
	for _, p := range rows {
		ns = append(ns, p.n)
		if p.blocks {
			locks = append(locks, keyLock(p.consumer, p.hash))
		}
	}
	var busy int64
	err = pgx.BeginTxFunc(ctx, m.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, keyLocksSQL, locks); err != nil {
			return err
		}
		found, err := tx.Query(ctx, m.in(rowLocksSQL), ns, m.states)
		if err != nil {
			return err
		}
		ours, err := pgx.CollectRows(found, pgx.RowTo[int64])
		if err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, m.change, ours, action)
		if err != nil {
			return err
		}
		n = tag.RowsAffected()
		if m.action == "discard" {
			if err := tx.QueryRow(ctx, m.in(busySQL), ns, m.states).Scan(&busy); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, m.in(promoteSQL), append(keys, nil)...); err != nil {
				return err
			}
		}
		_, err = tx.Exec(ctx, m.in(countActionSQL), action, n)
		return err
	})
	if err != nil {
		return 0, err
	}
	m.busy += busy
	return n, nil
}

// lanesOf are the first arguments of promoteSQL.
func lanesOf(rows []picked) []any {
	var consumers []int32
	var hashes []int64
	var topics, keys []string
	seen := map[picked]bool{}
	for _, p := range rows {
		l := picked{consumer: p.consumer, hash: p.hash, topic: p.topic, key: p.key}
		if !p.blocks || seen[l] {
			continue
		}
		seen[l] = true
		consumers, hashes = append(consumers, p.consumer), append(hashes, p.hash)
		topics, keys = append(topics, p.topic), append(keys, p.key)
	}
	return []any{consumers, hashes, topics, keys}
}
