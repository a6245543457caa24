package e2e

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/IBM/sarama"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/kafka"
	"github.com/outboxkit/outboxkit/brokers/rabbitmq"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/internal/sqltx"
	"github.com/outboxkit/outboxkit/schema/avro"
)

// memberSpec is what a consumer process of the fault tests is told. Zero
// durations and numbers are the product's defaults.
type memberSpec struct {
	Name     string // written into each of its effects
	Database string
	Topic    string // of the event type
	From     []string
	Kafka    []string // either these
	RabbitMQ string   // or this

	Session        time.Duration // until the broker gives up a member that is silent
	DrainTimeout   time.Duration
	HandlerTimeout time.Duration
	Slow           time.Duration // how long the handler of a "slow" order takes, after its effect
	Attempts       int
	PassKey        bool   // BlockKey off
	OverSQL        bool   // the handler gets a *sql.Tx
	Cured          bool   // "poison" is an order like others
	Batch          bool   // the handler takes several orders at once
	NoBreaker      bool   // poison dies even if nothing else is handled meanwhile
	DeadLetterTo   string // topic or queue
}

// What a member's handler says to its database. The gate knows them by these.
const (
	insertEffect = `INSERT INTO effects (user_id, n, event_id, member)`
	inHandler    = `SELECT $1::text /* handler */`
)

// memberConcurrency is the number of handlers of a member.
const memberConcurrency = 8

var errPoison = errors.New("poison")

// runMember is the consumer process of the fault tests. It ends on SIGTERM, and
// prints its statistics then and on SIGUSR1.
func runMember(specJSON string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var spec memberSpec
	if err := json.Unmarshal([]byte(specJSON), &spec); err != nil {
		return err
	}
	cfg, err := pgxpool.ParseConfig(spec.Database)
	if err != nil {
		return err
	}
	cfg.MaxConns = memberConcurrency + 2
	cfg.ConnConfig.RuntimeParams["application_name"] = spec.Name
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer pool.Close()
	placed := orderPlacedType(spec.Topic)
	in, err := inbox.New(pool, spec.inbox(avro.SingleObject(placed.Codec.Schema())))
	if err != nil {
		return err
	}
	spec.register(in, placed)
	print := func() {
		stats, _ := json.Marshal(in.Stats())
		fmt.Fprintf(os.Stderr, "%s%s\n", statsPrefix, stats)
	}
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	fmt.Fprintln(os.Stderr, listening)
	go func() {
		for range asked {
			print()
		}
	}()
	defer print()
	var told atomic.Int64
	context.AfterFunc(ctx, func() { told.Store(time.Now().UnixMilli()) })
	err = in.Run(ctx)
	fmt.Fprintf(os.Stderr, "%s%d\n", returnedPrefix, time.Now().UnixMilli()-told.Load())
	return err
}

const (
	listening      = "the member listens to SIGUSR1"
	statsPrefix    = "stats of the member: "
	returnedPrefix = "milliseconds from SIGTERM to the return of Run: "
)

func (s memberSpec) register(in *inbox.Inbox, placed event.Type[orderPlaced]) {
	switch {
	case s.Batch:
		inbox.OnBatch(in, placed, func(ctx context.Context, tx pgx.Tx, events []inbox.Event[orderPlaced]) error {
			for _, e := range events {
				if err := s.handle(ctx, sqltx.Pgx(tx), e); err != nil {
					return err
				}
			}
			return nil
		})
	case s.OverSQL:
		inbox.OnSQL(in, placed, func(ctx context.Context, tx *sql.Tx, e inbox.Event[orderPlaced]) error {
			return s.handle(ctx, sqltx.SQL(tx), e)
		})
	default:
		inbox.On(in, placed, func(ctx context.Context, tx pgx.Tx, e inbox.Event[orderPlaced]) error {
			return s.handle(ctx, sqltx.Pgx(tx), e)
		})
	}
}

func (s memberSpec) handle(ctx context.Context, tx sqltx.Tx, e inbox.Event[orderPlaced]) error {
	if _, err := tx.Exec(ctx, insertEffect+` VALUES ($1, $2, $3, $4)`, e.Data.UserID, e.Data.N, e.ID, s.Name); err != nil {
		return err
	}
	if slices.Contains(e.Data.Items, "slow") {
		select {
		case <-time.After(s.Slow):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if slices.Contains(e.Data.Items, "poison") && !s.Cured {
		return errPoison
	}
	if slices.Contains(e.Data.Items, "killer") {
		return syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	_, err := tx.Exec(ctx, inHandler, e.ID)
	return err
}

func (s memberSpec) inbox(wire event.WireFormat) inbox.Config {
	cfg := inbox.Config{
		Consumer: "inventory", From: s.subscriber(), Wire: wire,
		Concurrency: memberConcurrency, BatchSize: 20, HandlerTimeout: s.HandlerTimeout, BlockKey: new(!s.PassKey), Breaker: new(!s.NoBreaker),
		Attempts: s.Attempts, RetryBase: 2 * time.Millisecond, RetryMax: 50 * time.Millisecond,
	}
	if s.DeadLetterTo != "" {
		cfg.DeadLetterTo = inbox.Route{Publisher: s.publisher(), Topic: s.DeadLetterTo}
	}
	return cfg
}

func (s memberSpec) subscriber() brokers.Subscriber {
	if s.RabbitMQ != "" {
		return rabbitmq.NewSubscriber(rabbitmq.SubscriberConfig{
			URL: s.RabbitMQ, Declare: true, DrainTimeout: s.DrainTimeout,
			Client: func(c *amqp.Config) { c.Heartbeat = max(s.Session/2, time.Second) }, // the broker waits for two
		}, s.From...)
	}
	return kafka.NewSubscriber(kafka.Config{
		Brokers: s.Kafka, Group: "inventory-" + s.Topic, DrainTimeout: s.DrainTimeout,
		Sarama: func(c *sarama.Config) {
			if s.Session > 0 {
				c.Consumer.Group.Session.Timeout = s.Session
				c.Consumer.Group.Heartbeat.Interval = s.Session / 4
			}
		},
	}, s.From...)
}

// publisher is never closed: it ends with the process.
func (s memberSpec) publisher() brokers.Publisher {
	if s.RabbitMQ != "" {
		return rabbitmq.NewPublisher(rabbitmq.PublisherConfig{URL: s.RabbitMQ, Declare: true})
	}
	return kafka.NewPublisher(kafka.Config{Brokers: s.Kafka})
}
