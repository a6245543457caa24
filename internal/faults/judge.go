package faults

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/internal/history"
)

// judge reads what was written, published and done, and lets the checker compare.
func (w *world) judge(ctx context.Context, r *Report) error {
	orders, err := w.orders(ctx, r)
	if err != nil {
		return err
	}
	onKafka, onRabbitMQ, err := w.readLogs(ctx)
	if err != nil {
		return err
	}
	for _, run := range []struct {
		over, of, topic string
		at              *cluster
		log             logs
	}{
		{overKafka, "order", topicOrders, w.shop, onKafka},
		{overRabbitMQ, "order", topicOrders, w.shop, onRabbitMQ},
		{overKafka, "derived", topicReserved, w.warehouse, onKafka},
		{overRabbitMQ, "derived", topicBilled, w.warehouse, onRabbitMQ},
	} {
		h := &history.Run{Published: run.log[run.topic], Consumers: []string{run.over}, Faults: w.faults}
		if run.of == "order" {
			h.Written = w.written(orders, run.over)
		} else if h.Written, err = w.derived(ctx, run.over); err != nil {
			return err
		}
		if h.Effects, err = w.effects(ctx, run.over, run.of); err != nil {
			return err
		}
		if h.Dead, err = w.dead(ctx, run.at, run.over); err != nil {
			return err
		}
		if run.of == "order" {
			w.garbageDied(run.over, h.Dead, r)
			if err := w.paths(ctx, run.over, h, r); err != nil {
				return err
			}
		}
		if h.Takeovers, err = w.moves(ctx, run.at, run.over); err != nil {
			return err
		}
		for _, v := range h.Judge() {
			v.Story = fmt.Sprintf("[%s over %s] ", run.of, run.over) + v.Story
			r.Violations = append(r.Violations, v)
		}
		r.count("records of "+run.topic+" over "+run.over, len(h.Published))
		r.count("effects of "+run.topic+" over "+run.over, len(h.Effects))
		r.count("dead letters of "+run.topic+" over "+run.over, len(h.Dead))
	}
	return nil
}

func (r *Report) count(what string, n int) { r.Numbers[what] += n }

// attempt is an order that was tried, as the services and the database know it.
type attempt struct {
	entry

	slot int
	fate history.Fate
}

// before an asynchronous promotion a transaction may have begun so long ago that
// was forgotten in it.
const forgettable = 25 * time.Second

// orders are all attempts. What the table has in the end was committed.
func (w *world) orders(ctx context.Context, r *Report) ([]attempt, error) {
	tried := map[string]entry{}
	ledgers, err := filepath.Glob(w.ledger("*"))
	if err != nil {
		return nil, err
	}
	for _, path := range ledgers {
		if err := readLedger(path, tried); err != nil {
			return nil, err
		}
	}
	stored := map[string]int{}
	var id string
	var slot int
	rows, err := w.shop.db().Query(ctx, `SELECT id, slot FROM orders`)
	if err != nil {
		return nil, err
	}
	if _, err := pgx.ForEachRow(rows, []any{&id, &slot}, func() error { stored[id] = slot; return nil }); err != nil {
		return nil, err
	}
	var all []attempt
	for id, e := range tried {
		a := attempt{entry: e}
		slot, ok := stored[id]
		switch {
		case ok:
			a.fate, a.slot = history.Committed, slot
			delete(stored, id)
		case e.Rollback:
			a.fate = history.RolledBack
		case w.mayBeForgotten(e.At):
			a.fate = history.Forgotten
		case e.Answer:
			r.Problems = append(r.Problems, fmt.Sprintf("order %s#%d (%s) was committed at %s, and the database has forgotten it", e.Key, e.N, id, e.At.Format(time.TimeOnly)))
			a.fate = history.Forgotten
		default:
			a.fate = history.RolledBack
		}
		r.count("orders "+string(a.fate), 1)
		all = append(all, a)
	}
	if len(stored) > 0 {
		return nil, fmt.Errorf("%d orders are in no service's ledger", len(stored))
	}
	return all, nil
}

func (w *world) mayBeForgotten(at time.Time) bool {
	for _, f := range w.forgotten {
		if at.After(f.Add(-forgettable)) && at.Before(f.Add(forgettable)) {
			return true
		}
	}
	return false
}

// written are the orders as one pipeline must deal with them.
func (w *world) written(orders []attempt, over string) []history.Written {
	var all []history.Written
	for _, a := range orders {
		all = append(all, history.Written{
			ID: a.ID, Key: a.Key, N: a.N, At: a.At, Slot: a.slot, Fate: a.fate,
			Poison: a.Kind == kindPoison || a.Kind == kindLarge && over == overKafka,
		})
	}
	for id, broker := range w.garbage {
		if broker == over {
			all = append(all, history.Written{ID: id, Key: "garbage-" + id[:13], Fate: history.Injected, Poison: true})
		}
	}
	return all
}

// derived are the events that handlers wrote. Nobody keeps a ledger of those that
// were rolled back: one that is published all the same was written by nobody.
func (w *world) derived(ctx context.Context, consumer string) ([]history.Written, error) {
	rows, err := w.warehouse.db().Query(ctx, `SELECT id, key, n, at, slot FROM derived WHERE consumer = $1`, consumer)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (history.Written, error) {
		e := history.Written{Fate: history.Committed}
		err := row.Scan(&e.ID, &e.Key, &e.N, &e.At, &e.Slot)
		return e, err
	})
}

func (w *world) effects(ctx context.Context, consumer, of string) ([]history.Effected, error) {
	rows, err := w.warehouse.db().Query(ctx, `SELECT consumer, id, seq, at FROM effects WHERE consumer = $1 AND of = $2`, consumer, of)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[history.Effected])
}

// dead are the dead letters of a stream: those of the relay's pipeline, and those
// of the consumer behind it that name its source.
func (w *world) dead(ctx context.Context, at *cluster, over string) ([]history.DeadLetter, error) {
	parked, err := deadLetters(ctx, at.db(), `SELECT '', event_id::text, state, reason, parked_at FROM outbox.parked WHERE pipeline = $1 AND state <> 'discarded'`, over)
	if err != nil {
		return nil, err
	}
	source := sourceShop
	if at == w.warehouse {
		source = sourceWarehouse
	}
	died, err := deadLetters(ctx, w.warehouse.db(), `SELECT c.name, d.id, d.state, d.reason || ': ' || d.error, d.created_at FROM inbox.dead d JOIN inbox.consumer c ON c.id = d.consumer
		WHERE c.name = $1 AND d.source = $2 AND d.state NOT IN ('redriven', 'discarded')`, over, source)
	return append(parked, died...), err
}

// garbageDied looks for injected messages that have vanished.
func (w *world) garbageDied(broker string, dead []history.DeadLetter, r *Report) {
	ids := w.sureGarbage(broker)
	r.count("garbage over "+broker, len(ids))
	for _, id := range ids {
		if !slices.ContainsFunc(dead, func(d history.DeadLetter) bool { return d.ID == id && d.Consumer == broker }) {
			r.Problems = append(r.Problems, "garbage "+id+" over "+broker+" is no dead letter")
		}
	}
}

func deadLetters(ctx context.Context, db *pgxpool.Pool, sql string, args ...any) ([]history.DeadLetter, error) {
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[history.DeadLetter])
}

// moves is how often a key can have come to another relay.
func (w *world) moves(ctx context.Context, at *cluster, pipeline string) (n int, err error) {
	err = at.db().QueryRow(ctx, `SELECT coalesce(max(epoch), 0) FROM outbox.lease WHERE pipeline = $1`, pipeline).Scan(&n)
	return n + w.takeovers, err
}
