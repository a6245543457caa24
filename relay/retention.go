package relay

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// retain moves writers from slot to slot and truncates slots that are old and
// published by every pipeline. Correctness never depends on the slot of a row,
// nor on who does this: the check that matters is made in the database.
func (t *tenure) retain(ctx context.Context) {
	every := t.r.tune.retainTick
	if every == 0 {
		every = min(max(t.r.slotTime()/10, time.Second), time.Minute)
	}
	for ctx.Err() == nil {
		sleep(ctx, every)
		if !t.r.working() {
			continue // a standby leaves it to the owner
		}
		if err := t.r.retainOnce(ctx); err != nil && ctx.Err() == nil {
			t.r.cfg.Logger.Warn("relay: retention failed", "error", err)
		}
	}
}

func (r *Relay) working() bool {
	for _, e := range r.engines {
		if s := e.session(); s != nil && s.works() {
			return true
		}
	}
	return false
}

// slotTime is how long a slot takes new events: one slot is the current one, one
// is kept empty to move on to, the others hold the retention.
func (r *Relay) slotTime() time.Duration { return r.cfg.Retention / (slots - 2) }

func (r *Relay) retainOnce(ctx context.Context) error {
	var seq int64
	op, cancel := r.op(ctx)
	defer cancel()
	if err := r.pool.QueryRow(op, `SELECT pg_sequence_last_value('`+r.cfg.Schema+`.slot_seq')`).Scan(&seq); err != nil {
		return fmt.Errorf("read slot: %w", err)
	}
	current := int(seq & (slots - 1))
	for n := range slots {
		if n == current {
			continue
		}
		if err := r.reclaim(ctx, n); err != nil {
			return fmt.Errorf("slot %d: %w", n, err)
		}
	}
	oldest, err := r.slotEnd(ctx, current, "id")
	if err != nil || oldest == nil || oldest.age < r.slotTime() {
		return err
	}
	// Only onto an empty slot; otherwise the current one grows.
	next := (current + 1) & (slots - 1)
	up, cancelUp := r.op(ctx) // the first has been running while slots were reclaimed
	defer cancelUp()
	_, err = r.pool.Exec(up, slotSQL(r.q.slotUp, next), seq)
	return err
}

// slotRow is the first or last event of a slot.
type slotRow struct {
	xid uint64
	age time.Duration
}

// slotEnd returns the first event of a slot in the given order, nil if it is empty.
func (r *Relay) slotEnd(ctx context.Context, n int, order string) (*slotRow, error) {
	op, cancel := r.op(ctx)
	defer cancel()
	var xid string
	var created, now time.Time
	query := strings.ReplaceAll(slotSQL(r.q.slotState, n), "{order}", order)
	err := r.pool.QueryRow(op, query).Scan(&xid, &created, &now)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // an empty slot is no error
	}
	if err != nil {
		return nil, err
	}
	x, err := parseXid(xid)
	return &slotRow{xid: x, age: now.Sub(created)}, err
}

// reclaim truncates a slot if its newest event is older than the retention and
// every pipeline has passed it.
func (r *Relay) reclaim(ctx context.Context, n int) error {
	newest, err := r.slotEnd(ctx, n, "xid DESC")
	if err != nil || newest == nil || newest.age < r.cfg.Retention {
		return err
	}
	// An idle relay keeps its position in memory; a slot that waits is the reason
	// to store it.
	for _, e := range r.engines {
		if s := e.session(); s != nil && s.progress.waits(newest.xid) {
			if _, err := s.flush(ctx, true); !s.flushed(ctx, err) {
				return err
			}
		}
	}
	cut := false
	err = inTx(ctx, r, func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, slotSQL(r.q.slotLock, n)); err != nil {
			return err
		}
		// Under the lock and in a new statement: a row committed until now is seen,
		// and no other can come.
		if err := tx.QueryRow(ctx, slotSQL(r.q.slotCheck, n), shardCount).Scan(&cut); err != nil || !cut {
			return err
		}
		_, err := tx.Exec(ctx, slotSQL(r.q.slotCut, n))
		return err
	})
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg) && pg.Code == "55P03": // lock not available: next time
		return nil
	case err != nil:
		return err
	case cut:
		r.cfg.Logger.Info("relay: slot truncated", "slot", n)
	}
	return nil
}

func slotSQL(query string, n int) string { return strings.ReplaceAll(query, "{n}", strconv.Itoa(n)) }
