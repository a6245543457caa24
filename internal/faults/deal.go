package faults

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/outbox"
)

func (w *world) kill(_ context.Context, s step) error {
	w.process(s.Target).kill()
	return nil
}

func (w *world) freeze(ctx context.Context, s step) error {
	p := w.process(s.Target)
	if p.kind == "relay" {
		w.mayMove()
	}
	p.signal(syscall.SIGSTOP)
	pause(ctx, s.For)
	p.signal(syscall.SIGCONT)
	return nil
}

// mayMove counts what may have brought a key to another relay and back.
func (w *world) mayMove() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.takeovers += 2
}

func (w *world) redeploy(ctx context.Context, s step) error {
	w.process(s.Target).redeploy(ctx)
	return nil
}

func (w *world) killBehindLink(ctx context.Context, s step) error {
	relay, _, _ := strings.Cut(s.Target, ">")
	var g errgroup.Group
	g.Go(func() error { return w.links.byName[s.Target].halfOpen(ctx, s.For) })
	pause(ctx, time.Second)
	w.process(relay).kill()
	return g.Wait()
}

func (w *world) cut(ctx context.Context, s step) error {
	return w.links.byName[s.Target].cut(ctx, s.For)
}

func (w *world) delay(ctx context.Context, s step) error {
	return w.links.byName[s.Target].delay(ctx, s.For, s.Amount)
}

func (w *world) halfOpen(ctx context.Context, s step) error {
	return w.links.byName[s.Target].halfOpen(ctx, s.For)
}

func (w *world) truncate(ctx context.Context, s step) error {
	return w.links.byName[s.Target].truncate(ctx, s.For, s.Side, s.Amount)
}

func (w *world) cluster(name string) *cluster {
	if name == "shop" {
		return w.shop
	}
	return w.warehouse
}

func (w *world) crash(ctx context.Context, s step) error {
	return w.cluster(s.Target).crash(ctx, s.For)
}

func (w *world) promote(ctx context.Context, s step) error {
	return w.cluster(s.Target).promote(ctx, true, s.For)
}

func (w *world) promoteLagging(ctx context.Context, s step) error {
	w.mayMove()
	w.mu.Lock()
	w.forgotten = append(w.forgotten, time.Now())
	w.mu.Unlock()
	return w.cluster(s.Target).promote(ctx, false, s.For)
}

func (w *world) restartBroker(ctx context.Context, s step) error {
	if s.Target == overKafka {
		err := w.kafka.Stop(ctx)
		pause(ctx, s.For)
		return errors.Join(err, w.kafka.Start(context.WithoutCancel(ctx)))
	}
	err := w.rabbitMQ.Stop(ctx)
	pause(ctx, s.For)
	return errors.Join(err, w.rabbitMQ.Start(context.WithoutCancel(ctx)))
}

func (w *world) killBroker(ctx context.Context, s step) error {
	if s.Target == overKafka {
		err := w.kafka.Kill()
		pause(ctx, s.For)
		return errors.Join(err, w.kafka.Start(context.WithoutCancel(ctx)))
	}
	err := w.rabbitMQ.Kill()
	pause(ctx, s.For)
	return errors.Join(err, w.rabbitMQ.Start(context.WithoutCancel(ctx)))
}

// registryAway is meant for those who start meanwhile: the others know what they
// need.
func (w *world) registryAway(ctx context.Context, s step) error {
	var g errgroup.Group
	for _, l := range w.links.byName {
		if strings.HasSuffix(l.name, ">registry") {
			g.Go(func() error { return l.cut(ctx, s.For) })
		}
	}
	w.process(relayNames[s.For%time.Duration(len(relayNames))]).kill()
	w.process(consumerNames[s.For%time.Duration(len(consumerNames))]).kill()
	return g.Wait()
}

// clockJump sets the clock of a database, which is the clock that leases go by, and
// back again.
func (w *world) clockJump(ctx context.Context, s step) error {
	c := w.cluster(s.Target)
	if c == w.shop || c == w.warehouse {
		w.mayMove()
	}
	if err := c.setClock(time.Duration(s.Amount) * time.Second); err != nil {
		return err
	}
	pause(ctx, s.For)
	return c.setClock(0)
}

// unroutable takes away where a routing key leads.
func (w *world) unroutable(ctx context.Context, s step) error {
	q := queues()[int(s.For/time.Millisecond)%len(queues())]
	if err := w.onRabbitMQ(func(ch *amqp.Channel) error { return ch.ExchangeUnbind(fanout(q), q, exchange, false, nil) }); err != nil {
		return nil //nolint:nilerr // the broker is away: nothing to take
	}
	pause(ctx, s.For)
	return until(context.WithoutCancel(ctx), time.Minute, "bind "+q+" again", func(context.Context) (bool, error) {
		err := w.onRabbitMQ(func(ch *amqp.Channel) error { return ch.ExchangeBind(fanout(q), q, exchange, false, nil) })
		return err == nil, err
	})
}

// lateCommit is a transaction that has the last place in its slot of the log and
// commits when the slot could be truncated but for it.
func (w *world) lateCommit(ctx context.Context, s step) error {
	for _, name := range serviceNames {
		w.process(name).signal(syscall.SIGUSR1)
		defer w.process(name).signal(syscall.SIGUSR2)
	}
	db := w.shop.db()
	idle := func(ctx context.Context) (ok bool, err error) {
		err = db.QueryRow(ctx, `SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE usename = 'outbox_writer' AND xact_start IS NOT NULL)`).Scan(&ok)
		return ok, err
	}
	if until(ctx, 5*time.Second, "writers pause", idle) != nil {
		return nil // something else is going on
	}
	ob, err := outbox.New(ctx, db, outbox.Config{Source: sourceShop, Types: []event.Any{placedType()}})
	if err != nil {
		return nil //nolint:nilerr // as above
	}
	write := func(tx pgx.Tx, e entry) (slot int64, err error) {
		if err := w.late.note(e); err != nil {
			return 0, err
		}
		if err := tx.QueryRow(ctx, `INSERT INTO orders (id, key, n, kind) VALUES ($1, $2, 1, '') RETURNING slot`, e.ID, e.Key).Scan(&slot); err != nil {
			return 0, err
		}
		draft := placedType().New(placed{User: e.Key, N: 1})
		draft.ID = e.ID
		return slot, ob.Write(ctx, tx, draft)
	}
	// Nobody looks at a slot that seems empty: something stands before it.
	e := entry{ID: uuid.Must(uuid.NewV7()).String(), Key: fmt.Sprint("early-", s.At.Milliseconds()), N: 1, At: time.Now()}
	if err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error { _, err := write(tx, e); return err }); err != nil {
		return nil //nolint:nilerr // as above
	}
	e = entry{ID: uuid.Must(uuid.NewV7()).String(), Key: fmt.Sprint("late-", s.At.Milliseconds()), N: 1, At: time.Now()}
	err = pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		var now int64
		slot, err := write(tx, e)
		if err != nil {
			return err
		}
		_ = until(ctx, 2*slotTime+2*time.Second, "the next slot", func(ctx context.Context) (bool, error) {
			err := db.QueryRow(ctx, `SELECT pg_sequence_last_value('outbox.slot_seq') & 7`).Scan(&now)
			return now != slot, err
		})
		for _, name := range serviceNames {
			w.process(name).signal(syscall.SIGUSR2)
		}
		pause(ctx, s.For-time.Since(e.At))
		return nil
	})
	if err == nil {
		return w.late.note(entry{ID: e.ID, At: time.Now(), Answer: true})
	}
	return nil // the server has crashed meanwhile: then it is rolled back
}
