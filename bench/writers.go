package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/internal/services/postgres"
	"github.com/outboxkit/outboxkit/outbox"
	jsoncodec "github.com/outboxkit/outboxkit/schema/json"
)

type orderPlaced struct {
	OrderID string `json:"orderId"`
	Note    string `json:"note"`
}

// writers run a service's transaction: lock a stock row, change it, insert an
// order, and with an outbox write its event.
type writers struct {
	*database

	outbox *outbox.Outbox
	placed event.Type[orderPlaced]
}

const writerCount = 8

// withWriters starts a Postgres of its own whose commits are durable, as a
// service's are: without the wait for the disk the share of the event would look
// larger than it is.
func withWriters(ctx context.Context, e *env, f func(*writers, *env) error) (err error) {
	server, err := postgres.Start(ctx, postgres.Config{Durable: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close(context.WithoutCancel(ctx))) }()
	own := *e
	own.postgres = server.URL("postgres")
	db, err := newDatabase(ctx, &own)
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.Exec(ctx, ordersTables); err != nil {
		return err
	}
	w := &writers{database: db, placed: event.Type[orderPlaced]{
		Name: "shop.order.placed", Topic: "orders", Key: func(o orderPlaced) string { return o.OrderID }, Codec: jsoncodec.New[orderPlaced](),
	}}
	if w.outbox, err = outbox.New(ctx, db.Pool, outbox.Config{Source: "/shop/orders", Types: []event.Any{w.placed}}); err != nil {
		return err
	}
	if _, err := w.rate(ctx, true, 2*time.Second); err != nil { // warm
		return err
	}
	return f(w, &own)
}

// rate is the transactions a second of all writers at full speed.
func (w *writers) rate(ctx context.Context, events bool, d time.Duration) (float64, error) {
	return fullSpeed(ctx, d, func() error { return w.transaction(ctx, events) })
}

// fullSpeed lets all writers repeat f for d and returns how often a second.
func fullSpeed(ctx context.Context, d time.Duration, f func() error) (float64, error) {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		total int
		errs  []error
	)
	began := time.Now()
	for range writerCount {
		wg.Go(func() {
			n := 0
			for time.Since(began) < d && ctx.Err() == nil {
				if err := f(); err != nil {
					mu.Lock()
					defer mu.Unlock()
					errs = append(errs, err)
					return
				}
				n++
			}
			mu.Lock()
			defer mu.Unlock()
			total += n
		})
	}
	wg.Wait()
	return float64(total) / time.Since(began).Seconds(), errors.Join(errs...)
}

const orderNote = "leave it with the neighbours if nobody is at home, please; the bell does not work, and mind the dog: it is friendly"

func (w *writers) transaction(ctx context.Context, events bool) error {
	return w.order(ctx, func(tx pgx.Tx, id string) error {
		if !events {
			return nil
		}
		return w.outbox.Write(ctx, tx, w.placed.New(orderPlaced{OrderID: id, Note: orderNote}))
	})
}

const ordersTables = `CREATE TABLE stock (sku int PRIMARY KEY, qty int NOT NULL);
CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, sku int NOT NULL, note text NOT NULL);
INSERT INTO stock SELECT g, 0 FROM generate_series(1, 10000) g`

// order is a service's transaction, with what is written beside the order.
func (d *database) order(ctx context.Context, beside func(tx pgx.Tx, id string) error) error {
	return pgx.BeginFunc(ctx, d.Pool, func(tx pgx.Tx) error {
		sku := rand.IntN(10_000) + 1 //nolint:gosec // load
		var qty int
		if err := tx.QueryRow(ctx, `SELECT qty FROM stock WHERE sku = $1 FOR UPDATE`, sku).Scan(&qty); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE stock SET qty = $2 WHERE sku = $1`, sku, qty-1); err != nil {
			return err
		}
		var id string
		if err := tx.QueryRow(ctx, `INSERT INTO orders (sku, note) VALUES ($1, $2) RETURNING id::text`, sku, orderNote).Scan(&id); err != nil {
			return err
		}
		return beside(tx, id)
	})
}

func writerWithOutbox(ctx context.Context, e *env) error {
	var with, without []float64
	err := withWriters(ctx, e, func(w *writers, _ *env) (err error) {
		with, without, err = e.amid(
			func(window time.Duration) (float64, error) { return w.rate(ctx, true, window) },
			func(window time.Duration) (float64, error) { return w.rate(ctx, false, window) },
		)
		return err
	})
	e.out.add("writer_with_outbox_vs_without", "ratio", ratios(with, without))
	e.out.add("writer_without_outbox_rate", "tx/s", without)
	return err
}

// writerBesideRelay has a relay that publishes to nobody: a real broker is on
// another machine.
func writerBesideRelay(ctx context.Context, e *env) error {
	var running, alone []float64
	err := withWriters(ctx, e, func(w *writers, _ *env) (err error) {
		running, alone, err = e.amid(
			func(window time.Duration) (float64, error) { return w.besideRelay(ctx, window) },
			func(window time.Duration) (float64, error) { return w.rate(ctx, true, window) },
		)
		return err
	})
	e.out.add("writer_relay_running_vs_not", "ratio", ratios(running, alone))
	e.out.add("writer_relay_not_running_rate", "tx/s", alone)
	return err
}

// amid measures rates for 8 seconds, each amid its reference, which is measured for
// half of that before it and after it: tables grow, and autovacuum and checkpoints
// come when they want.
func (e *env) amid(measure, reference func(window time.Duration) (float64, error)) (rates, references []float64, err error) {
	window := pick(e, 8*time.Second, 2*time.Second)
	for range e.rounds {
		before, err := reference(window / 2)
		if err != nil {
			return nil, nil, err
		}
		rate, err := measure(window)
		if err != nil {
			return nil, nil, err
		}
		after, err := reference(window / 2)
		if err != nil {
			return nil, nil, err
		}
		rates, references = append(rates, rate), append(references, (before+after)/2)
	}
	return rates, references, nil
}

// besideRelay measures with a relay that has caught up before.
func (w *writers) besideRelay(ctx context.Context, window time.Duration) (float64, error) {
	var backlog int
	if err := w.QueryRow(ctx, `SELECT count(*) FROM outbox.event`).Scan(&backlog); err != nil {
		return 0, err
	}
	if err := w.forget(ctx); err != nil {
		return 0, err
	}
	r, err := startRelay(ctx, spec{Database: w.relayURL()})
	if err != nil {
		return 0, err
	}
	defer func() { _ = r.stop() }()
	if _, err := r.published(backlog); err != nil {
		return 0, err
	}
	rate, err := w.rate(ctx, true, window)
	return rate, errors.Join(err, r.stop())
}
