package faults

import (
	"context"
	"errors"
	"hash/fnv"
	"time"

	"github.com/IBM/sarama"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/kafka"
	"github.com/outboxkit/outboxkit/brokers/rabbitmq"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/outbox"
	"github.com/outboxkit/outboxkit/schema/avro"
	"github.com/outboxkit/outboxkit/schema/registry"
)

// consumerSpec is what a consumer process is told.
type consumerSpec struct {
	Name     string // written into each of its effects
	Database string
	Kafka    string
	RabbitMQ string
	Registry string
}

const (
	handlers    = 8 // of each inbox
	session     = 3 * time.Second
	drainChild  = 5 * time.Second
	handlerTime = 10 * time.Second
)

// consumer is one of the two inboxes of a consumer process.
type consumer struct {
	member string
	name   string // overKafka or overRabbitMQ
	ob     *outbox.Outbox
	typ    event.Type[handled]
}

// runConsumer returns when ctx has ended and both inboxes have drained, or when one
// gives up.
func runConsumer(ctx context.Context, spec consumerSpec) error {
	pool, err := connect(ctx, spec.Database, spec.Name, 2*handlers+4)
	if err != nil {
		return err
	}
	defer pool.Close()
	ob, err := outbox.New(ctx, pool, outbox.Config{Source: sourceWarehouse, Types: []event.Any{handledType(overKafka), handledType(overRabbitMQ)}})
	if err != nil {
		return err
	}
	client, err := registry.New(registry.Config{URL: spec.Registry})
	if err != nil {
		return err
	}
	fromKafka := inbox.Config{Consumer: overKafka, From: spec.kafka(), Wire: registry.Confluent(client)}
	fromRabbitMQ := inbox.Config{
		Consumer: overRabbitMQ, From: spec.rabbitMQ(),
		Wire: avro.SingleObject(placedType().Codec.Schema(), handledType(overRabbitMQ).Codec.Schema()),
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, cfg := range []inbox.Config{fromKafka, fromRabbitMQ} {
		c := &consumer{member: spec.Name, name: cfg.Consumer, ob: ob, typ: handledType(cfg.Consumer)}
		in, err := c.inbox(pool, cfg)
		if err != nil {
			return err
		}
		g.Go(func() error { return in.Run(ctx) })
	}
	return g.Wait()
}

func (s consumerSpec) kafka() brokers.Subscriber {
	return kafka.NewSubscriber(kafka.Config{
		Brokers: []string{s.Kafka}, Group: "warehouse", DrainTimeout: drainChild,
		Sarama: func(c *sarama.Config) {
			c.Consumer.Group.Session.Timeout = session
			c.Consumer.Group.Heartbeat.Interval = session / 4
		},
	}, topicOrders, topicReserved)
}

func (s consumerSpec) rabbitMQ() brokers.Subscriber {
	queues := append(rabbitmq.QueueNames(topicOrders, queuesPerTopic), rabbitmq.QueueNames(topicBilled, queuesPerTopic)...)
	return rabbitmq.NewSubscriber(rabbitmq.SubscriberConfig{
		URL: s.RabbitMQ, Declare: true, DrainTimeout: drainChild,
		Client: func(c *amqp.Config) { c.Heartbeat = session / 2 },
	}, queues...)
}

func (c *consumer) inbox(pool *pgxpool.Pool, cfg inbox.Config) (*inbox.Inbox, error) {
	cfg.Concurrency, cfg.HandlerTimeout = handlers, handlerTime
	in, err := inbox.New(pool, cfg)
	if err != nil {
		return nil, err
	}
	inbox.On(in, placedType(), c.order)
	inbox.On(in, c.typ, func(ctx context.Context, tx pgx.Tx, e inbox.Event[handled]) error {
		return c.effect(ctx, tx, e.ID, "derived", e.Data.User, e.Data.N)
	})
	return in, nil
}

var errPoison = errors.New("poison")

// order records the effect of an order and derives an event from it. Poison fails
// last, when all else has been done in vain, until somebody has cured it.
func (c *consumer) order(ctx context.Context, tx pgx.Tx, e inbox.Event[placed]) error {
	if err := c.effect(ctx, tx, e.ID, "order", e.Data.User, e.Data.N); err != nil {
		return err
	}
	pause(ctx, slowness(e.ID))
	d := handled{User: e.Data.User, Order: e.ID}
	if err := tx.QueryRow(ctx, `INSERT INTO derivations AS d (consumer, key, n) VALUES ($1, $2, 1)
		ON CONFLICT (consumer, key) DO UPDATE SET n = d.n + 1 RETURNING n`, c.name, d.User).Scan(&d.N); err != nil {
		return err
	}
	draft := c.typ.New(d)
	draft.ID = uuid.Must(uuid.NewV7()).String()
	if _, err := tx.Exec(ctx, `INSERT INTO derived (id, consumer, key, n, cause) VALUES ($1, $2, $3, $4, $5)`, draft.ID, c.name, d.User, d.N, e.ID); err != nil {
		return err
	}
	if err := c.ob.Write(ctx, tx, draft); err != nil {
		return err
	}
	if e.Data.Kind != kindPoison {
		return nil
	}
	var cured bool
	if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM cured WHERE id = $1)`, e.ID).Scan(&cured); err != nil {
		return err
	}
	if !cured {
		return inbox.Permanent(errPoison)
	}
	return nil
}

func (c *consumer) effect(ctx context.Context, tx pgx.Tx, id, of, key string, n int64) error {
	_, err := tx.Exec(ctx, `INSERT INTO effects (consumer, id, of, key, n, member) VALUES ($1, $2, $3, $4, $5, $6)`, c.name, id, of, key, n, c.member)
	return err
}

// slowness makes one handler in 25 take 50 to 300 ms, the same ones whenever they
// are repeated.
func slowness(id string) time.Duration {
	h := fnv.New64a()
	_, _ = h.Write([]byte(id))
	sum := h.Sum64()
	if sum%25 != 0 {
		return 0
	}
	return 50*time.Millisecond + time.Duration(sum/25%250)*time.Millisecond
}
