package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/kafka"
	"github.com/outboxkit/outboxkit/brokers/rabbitmq"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/relay"
	"github.com/outboxkit/outboxkit/schema/avro"
	"github.com/outboxkit/outboxkit/schema/registry"
)

func newRun() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "run --config relay.yaml",
		Short: "Publish events until SIGTERM",
		Long: `Publish events until SIGTERM or SIGINT. The relay then stops reading, waits for
what is in flight (at most drain_timeout, 20 s unless configured), stores its
position, gives up its leases and exits with 0. A second signal ends it at once:
nothing is lost by that, but the next relay waits for the lease to expire and may
publish the last events again.

Several relays on the same database share the work: each publishes an equal part
of the keys. A leaving relay hands its part over at once; that of a dead or frozen
one is taken over when its lease has run out.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := loadConfig(path)
			if err != nil {
				return err
			}
			return run(cmd.Context(), c)
		},
	}
	cmd.Flags().StringVarP(&path, "config", "c", "relay.yaml", "configuration `file`, explained in docs/relay.yaml")
	return cmd
}

func run(ctx context.Context, c config) (err error) {
	log := c.Log.logger()
	pool, err := openPool(ctx, c)
	if err != nil {
		return err
	}
	defer pool.Close()
	cfg := relay.Config{
		Schema: c.Database.Schema, Instance: c.Instance, Logger: log,
		Lease: c.Lease.value(), Retention: c.Retention.value(), DrainTimeout: c.DrainTimeout.value(),
	}
	for _, p := range c.Pipelines {
		to := p.publisher(log)
		defer func() { err = errors.Join(err, to.Close()) }()
		wire, err := p.Wire.format()
		if err != nil {
			return fmt.Errorf("pipeline %s: %w", p.Name, err)
		}
		cfg.Pipelines = append(cfg.Pipelines, relay.Pipeline{Name: p.Name, To: to, Wire: wire})
	}
	r, err := relay.New(pool, cfg)
	if err != nil {
		return err
	}
	log.Info("relay: started", "pid", os.Getpid(), "pipelines", len(c.Pipelines))
	if err := r.Run(ctx); err != nil {
		return err
	}
	log.Info("relay: drained and stopped")
	return nil
}

func openPool(ctx context.Context, c config) (*pgxpool.Pool, error) {
	pc, err := pgxpool.ParseConfig(c.Database.URL)
	if err != nil {
		return nil, errors.New("database.url is not a Postgres URL") // its own error may repeat the password
	}
	pc.MaxConns = max(pc.MaxConns, int32(2*len(c.Pipelines))+2) //nolint:gosec // a handful
	return pgxpool.NewWithConfig(ctx, pc)
}

func (p pipelineConfig) publisher(log *slog.Logger) brokers.Publisher {
	if p.Kafka != nil {
		return kafka.NewPublisher(p.Kafka.config(log))
	}
	return rabbitmq.NewPublisher(p.RabbitMQ.config(log))
}

func (k *kafkaConfig) config(log *slog.Logger) kafka.Config {
	cfg := kafka.Config{Brokers: k.Brokers, Username: k.Username, Password: k.Password, Logger: log}
	if k.TLS {
		cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return cfg
}

func (q *rabbitmqConfig) config(log *slog.Logger) rabbitmq.PublisherConfig {
	return rabbitmq.PublisherConfig{URL: q.URL, Exchange: q.Exchange, Queues: q.Queues, Declare: q.Declare, Logger: log}
}

func (r registryConfig) config() registry.Config {
	return registry.Config{URL: r.URL, Register: r.Register, Username: r.Username, Password: r.Password}
}

// format returns nil, bare bytes, by default.
func (w wireConfig) format() (event.WireFormat, error) {
	switch w.Format {
	case wireSingleObject:
		return avro.SingleObject(), nil
	case wireConfluent:
		client, err := registry.New(w.Registry.config())
		if err != nil {
			return nil, err
		}
		return registry.Confluent(client), nil
	default:
		return nil, nil
	}
}
