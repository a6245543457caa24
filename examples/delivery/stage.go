package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/outboxkit/outboxkit/examples/delivery/delivery"
	"github.com/outboxkit/outboxkit/examples/delivery/history"
	"github.com/outboxkit/outboxkit/internal/services/postgres"
	"github.com/outboxkit/outboxkit/internal/services/proc"
)

// stage is what the services run on: a Postgres with a database for each, and a
// broker.
type stage struct {
	dir      string // logs
	log      *slog.Logger
	logFile  *os.File
	postgres *postgres.Server
	kafka    *kfake.Cluster // nil if the broker is somebody else's
	broker   broker
	created  bool // topics

	delivery, history *pgxpool.Pool // to look into the databases
}

// openStage starts everything; whatever it returns must be closed.
func openStage(ctx context.Context, b broker) (s *stage, err error) {
	s = &stage{broker: b}
	if s.dir, err = proc.TempDir("delivery", nil); err != nil {
		return s, err
	}
	if s.logFile, err = os.Create(filepath.Join(s.dir, "fleet.log")); err != nil {
		return s, err
	}
	s.log = slog.New(slog.NewTextHandler(s.logFile, nil))
	if len(b.kafka) == 0 && b.amqp == "" {
		if s.kafka, err = kfake.NewCluster(kfake.NumBrokers(1)); err != nil {
			return s, fmt.Errorf("start Kafka: %w", err)
		}
		s.broker.kafka = s.kafka.ListenAddrs()
	}
	s.broker.prefix = "drone-delivery-" + strings.ToLower(rand.Text()[:6]) + "."
	if err = s.broker.create(); err != nil {
		return s, fmt.Errorf("create topics: %w", err)
	}
	s.created = true
	if s.postgres, err = postgres.Start(ctx, postgres.Config{}); err != nil {
		return s, fmt.Errorf("start Postgres: %w", err)
	}
	if s.delivery, err = s.database(ctx, "delivery", delivery.Migrate); err != nil {
		return s, err
	}
	s.history, err = s.database(ctx, "history", history.Migrate)
	return s, err
}

func (s *stage) database(ctx context.Context, name string, migrate func(context.Context, *pgx.Conn) error) (*pgxpool.Pool, error) {
	admin, err := pgx.Connect(ctx, s.postgres.URL("postgres"))
	if err != nil {
		return nil, err
	}
	defer admin.Close(ctx) //nolint:errcheck // nothing is lost
	if _, err := admin.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return nil, fmt.Errorf("create database %s: %w", name, err)
	}
	pool, err := pgxpool.New(ctx, s.postgres.URL(name))
	if err != nil {
		return nil, err
	}
	err = pool.AcquireFunc(ctx, func(c *pgxpool.Conn) error { return migrate(ctx, c.Conn()) })
	if err != nil {
		err = fmt.Errorf("migrate database %s: %w", name, err)
	}
	return pool, err
}

func (s *stage) String() string {
	if s.broker.amqp != "" {
		return fmt.Sprintf("Postgres at %s, RabbitMQ, queues %s*", s.postgres.Addr(), s.broker.prefix)
	}
	return fmt.Sprintf("Postgres at %s, Kafka at %s, topics %s*", s.postgres.Addr(), s.broker.kafka[0], s.broker.prefix)
}

// close stops everything and removes what it left, also after a failed start.
func (s *stage) close() (err error) {
	for _, pool := range []*pgxpool.Pool{s.delivery, s.history} {
		if pool != nil {
			pool.Close()
		}
	}
	if s.postgres != nil {
		err = s.postgres.Close(context.Background())
	}
	if s.created {
		err = errors.Join(err, s.broker.remove())
	}
	if s.kafka != nil {
		s.kafka.Close()
	}
	if s.logFile != nil {
		err = errors.Join(err, s.logFile.Close())
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}
