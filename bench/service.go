package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/outbox"
)

// serviceEnv holds the spec of a process that is to be a service which writes
// events.
const serviceEnv = "OUTBOXKIT_BENCH_SERVICE"

// serviceSpec says what the service of a child process writes.
type serviceSpec struct {
	Database string
	Topic    string
}

const (
	serviceConnections = 16
	fillSize           = 500 // events of a transaction of "fill"
)

// service saves an order and writes its event in one transaction.
type service struct {
	serviceSpec

	pool   *pgxpool.Pool
	outbox *outbox.Outbox
	stages stages
	next   atomic.Int64 // number of an order
}

// runService is a service that takes one command a line and answers when it is
// carried out: "write n" orders at full speed, "fill n" events without orders,
// many a transaction, "pace rate ms" so many orders a second for so long, "ways"
// hands over when the paced ones were committed.
func runService(ctx context.Context, text string) error {
	var spec serviceSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		return fmt.Errorf("%s: %w", serviceEnv, err)
	}
	cfg, err := pgxpool.ParseConfig(spec.Database)
	if err != nil {
		return err
	}
	cfg.MaxConns = serviceConnections
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer pool.Close()
	s := &service{serviceSpec: spec, pool: pool}
	if s.outbox, err = outbox.New(ctx, pool, outbox.Config{Source: "/shop/orders", Types: []event.Any{placedType}}); err != nil {
		return err
	}
	lines, answers := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	for lines.Scan() {
		began := time.Now()
		a, err := s.command(ctx, lines.Text())
		if err != nil {
			a.Error = fmt.Sprintf("service: %s: %v", lines.Text(), err)
		}
		a.Seconds = time.Since(began).Seconds()
		if err := answers.Encode(a); err != nil {
			return err
		}
	}
	return lines.Err()
}

func (s *service) command(ctx context.Context, line string) (a reply, err error) {
	var n, ms int
	switch {
	case line == "ways":
		a.Ways = s.stages.recorded()
	case scans(line, "write %d", &n):
		err = s.each(ctx, n, 0, nil)
	case scans(line, "fill %d", &n):
		err = s.fill(ctx, n)
	case scans(line, "pace %d %d", &n, &ms):
		err = s.each(ctx, n*ms/1000, time.Second/time.Duration(n), &s.stages)
	default:
		err = fmt.Errorf("unknown command")
	}
	return a, err
}

func scans(line, format string, to ...any) bool {
	n, err := fmt.Sscanf(line, format, to...)
	return err == nil && n == len(to)
}

// each saves n orders, the i-th not before its own time, whatever became of those
// before it.
func (s *service) each(ctx context.Context, n int, gap time.Duration, record *stages) error {
	var next atomic.Int64
	began := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for range serviceConnections {
		group.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return nil
				}
				if early := time.Until(began.Add(time.Duration(i) * gap)); gap > 0 && early > 0 {
					if err := pause(ctx, early); err != nil {
						return err
					}
				}
				id, err := s.save(ctx)
				if err != nil {
					return err
				}
				record.set(id, committed)
			}
		})
	}
	return group.Wait()
}

// save is the service's transaction.
func (s *service) save(ctx context.Context) (id string, err error) {
	d, err := s.draft()
	if err != nil {
		return "", err
	}
	p, _ := d.Data.(placed)
	return d.ID, pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, insertOne, p.OrderID, p.Customer, p.Sum); err != nil {
			return err
		}
		return s.outbox.Write(ctx, tx, d)
	})
}

// fill writes events for a backlog.
func (s *service) fill(ctx context.Context, n int) error {
	for n > 0 {
		drafts := make([]event.Draft, min(n, fillSize))
		for i := range drafts {
			var err error
			if drafts[i], err = s.draft(); err != nil {
				return err
			}
		}
		if err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error { return s.outbox.Write(ctx, tx, drafts...) }); err != nil {
			return err
		}
		n -= len(drafts)
	}
	return nil
}

func (s *service) draft() (event.Draft, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return event.Draft{}, err
	}
	d := placedType.New(newPlaced(int(s.next.Add(1)), 1000))
	d.ID, d.Topic, d.CorrelationID = id.String(), s.Topic, correlation
	d.Headers = map[string]string{"traceparent": traceparent}
	return d, nil
}
