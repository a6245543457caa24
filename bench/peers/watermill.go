package peers

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wsql "github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/components/forwarder"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/outboxkit/outboxkit/internal/services/proc"
)

// WatermillEnv holds the work of a process that is to be watermill's forwarder,
// for [RunWatermill].
const WatermillEnv = "OUTBOXKIT_BENCH_WATERMILL"

// Watermill is its forwarder: from a table of its SQL publisher to Kafka.
type Watermill struct {
	// Tuned sets what its documentation and its comments recommend; false: its
	// defaults.
	Tuned bool
}

// eventsTable is the forwarder's topic, of which the table is named.
const eventsTable = "events"

// Name implements [Peer].
func (w Watermill) Name() string {
	if w.Tuned {
		return "watermill_tuned"
	}
	return "watermill_default"
}

const (
	docOutbox = "watermill.io/advanced/forwarder"
	docSQL    = "pkg.go.dev/github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"
	docKafka  = "pkg.go.dev/github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
)

// Settings implements [Peer].
func (w Watermill) Settings() []Setting {
	all := []Setting{
		{"sql.SchemaAdapter, sql.OffsetsAdapter", "DefaultPostgreSQL", docSQL},
		{"forwarder.Config.ForwarderTopic", eventsTable, docOutbox},
	}
	if !w.Tuned {
		return append(all, Setting{"kafka.Marshaler", "DefaultMarshaler", "records have no key, so those of one have no order: " + docKafka})
	}
	return append(all,
		Setting{"kafka.Marshaler", "NewWithPartitioningMarshaler(key)", "order of a key: " + docKafka},
		Setting{"kafka RequiredAcks", "WaitForAll", "default WaitForLocal; as the others: " + docKafka},
		Setting{"sql.DefaultPostgreSQLSchema.SubscribeBatchSize", "1000", "default 100; messages that are queried at once: " + docSQL},
		Setting{"sql.SubscriberConfig.PollInterval", "5ms", "default 1s; the wait after a query that found nothing: " + docSQL},
		Setting{"sql.DefaultPostgreSQLSchema.GeneratePayloadType", "BYTEA", "default JSON; nobody parses it there: " + docSQL},
	)
}

func (w Watermill) schema() wsql.DefaultPostgreSQLSchema {
	if !w.Tuned {
		return wsql.DefaultPostgreSQLSchema{}
	}
	return wsql.DefaultPostgreSQLSchema{SubscribeBatchSize: 1000, GeneratePayloadType: func(string) string { return "BYTEA" }}
}

func (w Watermill) subscriber(db *sql.DB, log watermill.LoggerAdapter) (*wsql.Subscriber, error) {
	c := wsql.SubscriberConfig{
		SchemaAdapter: w.schema(), OffsetsAdapter: wsql.DefaultPostgreSQLOffsetsAdapter{}, InitializeSchema: true,
	}
	if w.Tuned {
		c.PollInterval = 5 * time.Millisecond
	}
	return wsql.NewSubscriber(db, c, log)
}

// Prepare implements [Peer]: the tables that the subscriber makes.
func (w Watermill) Prepare(_ context.Context, db *pgxpool.Pool, _ string) error {
	handle := stdlib.OpenDBFromPool(db)
	defer func() { _ = handle.Close() }()
	s, err := w.subscriber(handle, watermill.NopLogger{})
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	return s.SubscribeInitialize(eventsTable)
}

// Write implements [Peer]: with a publisher of the transaction's own, as its
// documentation shows.
func (w Watermill) Write(ctx context.Context, tx pgx.Tx, e Event) error {
	m := message.NewMessage(e.ID, e.Payload)
	m.Metadata = message.Metadata{
		"key": e.Key, "type": "com.example.OrderPlaced", "source": "/shop/orders", "content_type": "application/json",
		"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
	}
	return w.publish(ctx, tx, e.Topic, m)
}

func (w Watermill) publish(ctx context.Context, tx pgx.Tx, topic string, msgs ...*message.Message) error {
	p, err := wsql.NewPublisher(executor{ctx: ctx, tx: tx}, wsql.PublisherConfig{SchemaAdapter: w.schema()}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	return forwarder.NewPublisher(p, forwarder.PublisherConfig{ForwarderTopic: eventsTable}).Publish(topic, msgs...)
}

// executor lets the publisher write in a transaction of pgx, which is faster
// than one of database/sql. It calls nothing else.
type executor struct {
	wsql.ContextExecutor

	ctx context.Context //nolint:containedctx // the publisher takes none
	tx  pgx.Tx
}

func (e executor) ExecContext(_ context.Context, query string, args ...any) (sql.Result, error) {
	for i, a := range args {
		if p, ok := a.(message.Payload); ok {
			args[i] = []byte(p) // or pgx would make JSON of it
		}
	}
	tag, err := e.tx.Exec(e.ctx, query, args...)
	return driver.RowsAffected(tag.RowsAffected()), err
}

// Fill implements [Peer].
func (w Watermill) Fill(ctx context.Context, db *pgxpool.Pool, topic string, n int) error {
	const each = 1000
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		for from := 0; from < n; from += each {
			msgs := make([]*message.Message, 0, each)
			for g := from; g < min(from+each, n); g++ {
				msgs = append(msgs, backlogMessage(g))
			}
			if err := w.publish(ctx, tx, topic, msgs...); err != nil {
				return err
			}
		}
		return nil
	})
}

func backlogMessage(g int) *message.Message {
	text := fmt.Sprintf(`{"orderId":%q,"customer":%q,"sum":%d,"items":["`, uuid.NewString(), uuid.NewString(), g)
	m := message.NewMessage(uuid.NewString(), []byte((text + strings.Repeat(fmt.Sprintf("sku-%d ", g%97), 60))[:300]))
	m.Metadata = message.Metadata{
		"key": fmt.Sprint("key-", g%1000), "type": "com.example.OrderPlaced", "source": "/shop/orders", "content_type": "application/avro",
		"correlation_id": uuid.NewString(), "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
	}
	return m
}

// Forget implements [Peer].
func (Watermill) Forget(context.Context, *pgxpool.Pool) error { return nil }

// watermillWork is what a child process does.
type watermillWork struct {
	Tuned bool
	Place Place
}

// Start implements [Peer]: this program again, which has to call [RunWatermill].
func (w Watermill) Start(_ context.Context, at Place) (Process, error) {
	text, err := json.Marshal(watermillWork{Tuned: w.Tuned, Place: at})
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p, err := proc.Start(proc.Spec{
		Name: "watermill", Path: self, Env: append(os.Environ(), WatermillEnv+"="+string(text)), LogFile: at.Log(),
	})
	if err != nil {
		return nil, err
	}
	return process{p}, nil
}
