package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/outboxkit/outboxkit/examples/demo/events"
	"github.com/outboxkit/outboxkit/examples/demo/inventory"
	"github.com/outboxkit/outboxkit/examples/demo/notification"
	"github.com/outboxkit/outboxkit/examples/demo/orders"
	"github.com/outboxkit/outboxkit/internal/services/postgres"
	"github.com/outboxkit/outboxkit/internal/services/proc"
)

const partitions = 4

// stage is what the services run on: a Postgres with a database for each of
// them, and a Kafka.
type stage struct {
	dir      string // logs
	log      *slog.Logger
	logFile  *os.File
	postgres *postgres.Server
	kafka    *kfake.Cluster

	orders, inventory, notification *pgxpool.Pool
}

// openStage starts everything; whatever it returns must be closed.
func openStage(ctx context.Context) (s *stage, err error) {
	s = &stage{}
	if s.dir, err = proc.TempDir("demo", nil); err != nil {
		return s, err
	}
	if s.logFile, err = os.Create(s.serviceLog()); err != nil {
		return s, err
	}
	s.log = slog.New(slog.NewTextHandler(s.logFile, nil))
	s.kafka, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, events.OrderPlacedV1.Topic))
	if err != nil {
		return s, fmt.Errorf("start Kafka: %w", err)
	}
	if s.postgres, err = postgres.Start(ctx, postgres.Config{}); err != nil {
		return s, fmt.Errorf("start Postgres: %w", err)
	}
	for _, d := range []struct {
		name    string
		pool    **pgxpool.Pool
		migrate func(context.Context, *pgx.Conn) error
	}{
		{"orders", &s.orders, orders.Migrate},
		{"inventory", &s.inventory, inventory.Migrate},
		{"notification", &s.notification, notification.Migrate},
	} {
		if *d.pool, err = s.database(ctx, d.name, d.migrate); err != nil {
			return s, fmt.Errorf("create database %s: %w", d.name, err)
		}
	}
	return s, nil
}

func (s *stage) database(ctx context.Context, name string, migrate func(context.Context, *pgx.Conn) error) (*pgxpool.Pool, error) {
	admin, err := pgx.Connect(ctx, s.postgres.URL("postgres"))
	if err != nil {
		return nil, err
	}
	defer admin.Close(ctx)
	if _, err := admin.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return nil, err
	}
	cfg, err := pgxpool.ParseConfig(s.postgres.URL(name))
	if err != nil {
		return nil, err
	}
	cfg.MaxConns = 20 // more than the handlers that an inbox runs at once
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	err = pool.AcquireFunc(ctx, func(c *pgxpool.Conn) error { return migrate(ctx, c.Conn()) })
	return pool, err
}

// serviceLog and relayLog are where the processes log.
func (s *stage) serviceLog() string { return filepath.Join(s.dir, "services.log") }
func (s *stage) relayLog() string   { return filepath.Join(s.dir, "relay.log") }

// records is how many records the topic holds.
func (s *stage) records() (n int) {
	for _, p := range s.kafka.PartitionInfos(events.OrderPlacedV1.Topic) {
		n += int(p.HighWatermark)
	}
	return n
}

// close stops everything and removes what it left, also after a failed start.
func (s *stage) close() (err error) {
	for _, pool := range []*pgxpool.Pool{s.orders, s.inventory, s.notification} {
		if pool != nil {
			pool.Close()
		}
	}
	if s.postgres != nil {
		err = s.postgres.Close(context.Background())
	}
	if s.kafka != nil {
		s.kafka.Close()
	}
	if s.logFile != nil {
		err = errors.Join(err, s.logFile.Close())
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}
