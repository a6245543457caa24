package faults

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/outbox"
)

// serviceSpec is what a service process is told.
type serviceSpec struct {
	Name     string
	Database string
	Ledger   string
	Seed     uint64
	Start    uint64 // how often it has been started: each has choices of its own
	Rate     int    // orders a second
	Ahead    time.Duration
}

const (
	serviceWriters = 6
	writeTimeout   = 15 * time.Second
)

var errRollback = errors.New("rolled back on purpose")

// service writes orders, as concurrently as a service with many requests does.
type service struct {
	spec   serviceSpec
	pool   *pgxpool.Pool
	ob     *outbox.Outbox
	ledger *ledger
}

func runService(ctx context.Context, spec serviceSpec) error {
	l, err := openLedger(spec.Ledger)
	if err != nil {
		return err
	}
	defer l.close()
	pool, err := connect(ctx, spec.Database, spec.Name, serviceWriters)
	if err != nil {
		return err
	}
	defer pool.Close()
	s := &service{spec: spec, pool: pool, ledger: l}
	if s.ob, err = outbox.New(ctx, pool, outbox.Config{Source: sourceShop, Types: []event.Any{placedType()}}); err != nil {
		return err
	}
	pace := rate.NewLimiter(rate.Limit(spec.Rate), serviceWriters)
	gate := newGate()
	defer gate.close()
	var g errgroup.Group
	for i := range uint64(serviceWriters) {
		rng := rand.New(rand.NewPCG(spec.Seed, spec.Start<<8|i))
		g.Go(func() error {
			for pace.Wait(ctx) == nil && gate.pass(ctx) {
				switch err := s.order(choose(rng)); {
				case errors.Is(err, errLedger):
					return err
				case err != nil && !errors.Is(err, errRollback):
					slog.Debug("an order failed", "error", err)
					pause(ctx, 50*time.Millisecond)
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// choice is what one transaction does.
type choice struct {
	user     string
	kind     string
	rollback bool
	nested   bool          // a second order in a savepoint that is rolled back
	twice    bool          // two orders of one user in one transaction
	open     time.Duration // how long it stays open after its insert
	pad      string
}

const users = 120

// choose draws an order: few users order much, some transactions stay open long,
// one in ten rolls back. Poison and oversized orders have users of their own, since
// all that is behind them waits.
func choose(rng *rand.Rand) choice {
	// As many draws for each order, whatever it is: a seed then says the n-th.
	user, kind, long, hot := rng.IntN(users), rng.IntN(1000), rng.IntN(100), rng.IntN(4)
	c := choice{user: fmt.Sprint("user-", user), rollback: rng.IntN(10) == 0, nested: rng.IntN(20) == 0, twice: rng.IntN(20) == 0}
	length := 500*time.Millisecond + time.Duration(rng.Int64N(int64(2500*time.Millisecond)))
	pads := [2]uint64{rng.Uint64(), rng.Uint64()}
	switch {
	case kind < 4:
		c.user, c.kind = fmt.Sprint("poison-", user%10), kindPoison
	case kind < 30:
		c.user = fmt.Sprint("poison-", user%10)
	case kind < 32:
		c.user, c.kind, c.pad = fmt.Sprint("large-", user%5), kindLarge, noise(pads, largeBytes)
	case kind < 45:
		c.user = fmt.Sprint("large-", user%5)
	case hot == 0:
		c.user = fmt.Sprint("hot-", user%3)
	case long < 3:
		c.open = length
	}
	return c
}

// largeBytes is more than topicMaxBytes however it is compressed.
const largeBytes = 3 * topicMaxBytes

func noise(seed [2]uint64, n int) string {
	rng := rand.New(rand.NewPCG(seed[0], seed[1]))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(' ' + rng.IntN(95))
	}
	return string(b)
}

// order carries one transaction out.
func (s *service) order(c choice) error {
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout+c.open)
	defer cancel()
	var ids []string
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if c.nested {
			lost := c
			lost.rollback, lost.kind, lost.pad = true, "", ""
			err := pgx.BeginFunc(ctx, tx, func(sub pgx.Tx) error {
				if _, err := s.write(ctx, sub, lost); err != nil {
					return err
				}
				return errRollback
			})
			if !errors.Is(err, errRollback) {
				return err
			}
		}
		for range 1 + one(c.twice) {
			id, err := s.write(ctx, tx, c)
			if err != nil {
				return err
			}
			ids = append(ids, id)
		}
		pause(ctx, c.open)
		if c.rollback {
			return errRollback
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := s.ledger.note(entry{ID: id, At: time.Now(), Answer: true}); err != nil {
			return fmt.Errorf("%w: %w", errLedger, err)
		}
	}
	return nil
}

var errLedger = errors.New("ledger")

// write inserts the order and its event, under the user's row lock.
func (s *service) write(ctx context.Context, tx pgx.Tx, c choice) (id string, err error) {
	o := placed{User: c.user, Kind: c.kind, Pad: c.pad}
	if err := tx.QueryRow(ctx, `INSERT INTO users AS u (id, orders) VALUES ($1, 1)
		ON CONFLICT (id) DO UPDATE SET orders = u.orders + 1 RETURNING orders`, o.User).Scan(&o.N); err != nil {
		return "", err
	}
	id = idAt(time.Now().Add(s.spec.Ahead))
	if err := s.ledger.note(entry{ID: id, Key: o.User, N: o.N, At: time.Now(), Kind: o.Kind, Rollback: c.rollback}); err != nil {
		return "", fmt.Errorf("%w: %w", errLedger, err)
	}
	if _, err := tx.Exec(ctx, `INSERT INTO orders (id, key, n, kind) VALUES ($1, $2, $3, $4)`, id, o.User, o.N, o.Kind); err != nil {
		return "", err
	}
	draft := placedType().New(o)
	draft.ID = id
	return id, s.ob.Write(ctx, tx, draft)
}

// idAt is an event id of a process whose clock shows t.
func idAt(t time.Time) string {
	id := uuid.Must(uuid.NewV7())
	ms := t.UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	return id.String()
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// connect makes a pool whose connections are named, for whoever looks at the
// server's sessions.
func connect(ctx context.Context, url, name string, conns int32) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	cfg.MaxConns = conns
	cfg.ConnConfig.ConnectTimeout = 5 * time.Second
	cfg.ConnConfig.RuntimeParams["application_name"] = name
	return pgxpool.NewWithConfig(ctx, cfg)
}
