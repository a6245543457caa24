package main

import (
	"context"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/IBM/sarama"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/outboxkit/outboxkit/brokers/kafka"
	"github.com/outboxkit/outboxkit/brokers/rabbitmq"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/schema"
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
one is taken over when its lease has run out.

On 127.0.0.1:9464 it answers /metrics, /livez, /readyz and, with what stands still
and why, /progress: see admin in docs/relay.yaml. OTEL_* variables turn OTLP on.

With a list of databases each is served on its own. One that only a person can
mend (not migrated, a missing right, restored from elsewhere) is logged as an error
and tried again, up to once a minute, while the others go on. If none can be served
the process ends with an error; if some could not be served when it is stopped, it
says so and exits with 1. An exit code of 2 means that the configuration is wrong:
starting it again does not help.

Every key can also be set in the environment, such as OUTBOXKIT_LOG_LEVEL, and those
below as flags. Flags go before the environment, and that before the file.`,
		Example: `  relay run --config relay.yaml
  relay run --log-level debug
  OUTBOXKIT_PIPELINES_0_KAFKA_BROKERS=kafka-1:9092,kafka-2:9092 relay run`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := settings{path, cmd.Flags()}.load()
			if err != nil {
				return err
			}
			return run(cmd.Context(), c, path)
		},
	}
	configFlag(cmd, &path)
	keyFlags(cmd)
	return cmd
}

func openPool(ctx context.Context, c config) (*pgxpool.Pool, error) {
	pc, err := pgxpool.ParseConfig(c.Database.URL)
	if err != nil {
		return nil, wrongUse("the database's URL %s", urlProblem(err))
	}
	if c.Database.Password != "" {
		pc.ConnConfig.Password = c.Database.Password
	}
	c.Database.renewCertificates(pc)
	// Many databases in one process: no more connections than can be busy at once,
	// and only one or two where nothing happens. The URL may ask for more.
	// One of them is for the figures of /metrics, a few queries each 15 s.
	need := int32(2*len(c.Pipelines)) + 3 //nolint:gosec // a handful
	if pc.MaxConns < need || !strings.Contains(c.Database.URL, "pool_max_conns") {
		pc.MaxConns = need
	}
	if !strings.Contains(c.Database.URL, "pool_max_conn_idle_time") {
		pc.MaxConnIdleTime = time.Minute
	}
	return pgxpool.NewWithConfig(ctx, pc)
}

func (k *kafkaConfig) config(log *slog.Logger) kafka.Config {
	return kafka.Config{
		Brokers: k.Brokers, TLSFiles: k.TLS.files(), Mechanism: kafka.Mechanism(k.Mechanism),
		Username: k.Username, Password: k.Password, Token: k.token(), Logger: log,
		MaxRequestBytes: k.MaxRequestBytes, PublishTimeout: k.PublishTimeout.value(),
		Sarama: func(sc *sarama.Config) {
			if k.Compression != "" {
				_ = sc.Producer.Compression.UnmarshalText([]byte(k.Compression)) // checked by loadConfig
			}
		},
	}
}

func (q *rabbitmqConfig) config(log *slog.Logger) rabbitmq.PublisherConfig {
	cfg := rabbitmq.PublisherConfig{URL: q.url(), TLSFiles: q.TLS.files(), Exchange: q.Exchange, Queues: q.Queues, Declare: q.Declare, Route: q.route(), Logger: log}
	if cfg.Route != nil {
		cfg.Exchange = "" // route returns it
	}
	return cfg
}

// url has the password that stands apart.
func (q *rabbitmqConfig) url() string {
	u, err := url.Parse(q.URL)
	if err != nil || q.Password == "" {
		return q.URL
	}
	u.User = url.UserPassword(u.User.Username(), q.Password)
	return u.String()
}

func (r registryConfig) config() registry.Config {
	subject, _ := schema.ParseStrategy(r.Subject) // checked by loadConfig
	return registry.Config{URL: r.URL, TLSFiles: r.TLS.files(), Register: r.Register, Username: r.Username, Password: r.Password, BearerToken: r.Token, Subject: subject}
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
