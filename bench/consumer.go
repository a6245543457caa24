package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"github.com/IBM/sarama"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/kafka"
	"github.com/outboxkit/outboxkit/brokers/rabbitmq"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/schema/avro"
)

// consumerEnv holds the spec of a process that is to be a consumer.
const consumerEnv = "OUTBOXKIT_BENCH_CONSUMER"

// consumerSpec says what the inbox of a child process does.
type consumerSpec struct {
	Database string
	Kafka    []string // either these
	AMQP     string   // or this: the topic is a queue
	Topic    string
	Group    string        // of Kafka
	Registry string        // messages carry its ids; "" = bare bytes
	Stages   bool          // remember when each event was received, its handler began and its effect was committed
	Defaults bool          // of client and collector
	Workers  int           // handlers at once, and connections
	Batch    int           // most events of a batch; 0 = one a transaction
	Bulk     bool          // a batch's rows by one statement, not by one each
	Slow     time.Duration // added to each handler
	Profile  string        // file for a CPU profile
}

// placed is the data of the consumers' messages: about 300 bytes with its names
// in JSON, 180 in Avro.
type placed struct {
	OrderID  string   `avro:"orderId"`
	Customer string   `avro:"customer"`
	Sum      int64    `avro:"sum"`
	Items    []string `avro:"items"`
}

const (
	correlation = "4bf92f35-77b3-4da6-a3ce-929d0e0e4736"
	traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
)

// newPlaced is the i-th order, of one of so many customers.
func newPlaced(i, keys int) placed {
	return placed{
		OrderID: fmt.Sprintf("order-%08d", i), Customer: fmt.Sprint("key-", i%keys), Sum: int64(i),
		Items: []string{"sku-1 a blue lamp with a long cable", "sku-2 a chair of beech, oiled", "sku-3 sixteen screws and a bracket for the wall, zinc-plated"},
	}
}

var placedType = event.Type[placed]{
	Name: "com.example.OrderPlaced", Topic: "orders", Key: func(p placed) string { return p.Customer },
	Codec: avro.MustParse(`{"type": "record", "name": "Placed", "fields": [
  {"name": "orderId", "type": "string"}, {"name": "customer", "type": "string"}, {"name": "sum", "type": "long"},
  {"name": "items", "type": {"type": "array", "items": "string"}}]}`),
}

// What a handler does for one event, or for all of a batch.
const (
	insertOne  = `INSERT INTO orders (order_id, customer, sum) VALUES ($1, $2, $3)`
	insertMany = `INSERT INTO orders (order_id, customer, sum) SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[])`
)

// runConsumer is a consumer that takes one command a line: a number n waits until
// n messages are settled. It drains and ends with its standard input.
func runConsumer(ctx context.Context, text string) error {
	var s consumerSpec
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return fmt.Errorf("%s: %w", consumerEnv, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !s.Defaults {
		// A process-wide setting of the client: without a limit it unpacks each fetch
		// into buffers that it throws away.
		sarama.MaxDecompressedBatchSize = 64 << 20
		// The bare loop's process has its messages in memory, and so seldom collects.
		debug.SetGCPercent(400)
	}
	stop, err := profile(s.Profile)
	if err != nil {
		return err
	}
	defer stop()
	cfg, err := pgxpool.ParseConfig(s.Database)
	if err != nil {
		return err
	}
	cfg.MaxConns = int32(s.Workers) //nolint:gosec // small
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer pool.Close()
	wire, err := wireFormat(s.Registry, false)
	if err != nil {
		return err
	}
	var record *stages
	if s.Stages {
		record = &stages{}
	}
	in, err := inbox.New(pool, inbox.Config{
		Consumer: consumerName, Concurrency: s.Workers, BatchSize: s.Batch,
		From: s.subscriber(record), Wire: wire,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		return err
	}
	s.register(in, record)
	c := &child{stages: record, settled: func() uint64 {
		st := in.Stats()
		return uint64(st.Handled + st.Duplicates) //nolint:gosec // not negative
	}, began: time.Now(), ended: make(chan struct{})}
	go func() {
		defer close(c.ended)
		c.err = in.Run(ctx)
	}()
	err = c.serve(os.Stdin, os.Stdout)
	cancel()
	<-c.ended
	if err == nil {
		err = c.err
	}
	return err
}

func (s consumerSpec) subscriber(record *stages) brokers.Subscriber {
	var from brokers.Subscriber = kafka.NewSubscriber(kafka.Config{Brokers: s.Kafka, Group: s.Group}, s.Topic)
	if s.AMQP != "" {
		from = rabbitmq.NewSubscriber(rabbitmq.SubscriberConfig{URL: s.AMQP}, s.Topic)
	}
	if record == nil {
		return from
	}
	return &watched{Subscriber: from, stages: record}
}

func (s consumerSpec) register(in *inbox.Inbox, record *stages) {
	if s.Batch == 0 {
		inbox.On(in, placedType, func(ctx context.Context, tx pgx.Tx, e inbox.Event[placed]) error {
			record.set(e.ID, begun)
			if s.Slow > 0 {
				if err := pause(ctx, s.Slow); err != nil {
					return err
				}
			}
			_, err := tx.Exec(ctx, insertOne, e.Data.OrderID, e.Data.Customer, e.Data.Sum)
			return err
		})
		return
	}
	inbox.OnBatch(in, placedType, func(ctx context.Context, tx pgx.Tx, events []inbox.Event[placed]) error {
		return insertAll(ctx, tx, s.Bulk, len(events), func(i int) *placed { return &events[i].Data })
	})
}

// insertAll writes the rows of a batch: in one round trip, by a statement for each
// or for all.
func insertAll(ctx context.Context, tx pgx.Tx, bulk bool, n int, data func(int) *placed) error {
	if bulk {
		rows := newRows(n)
		for i := range n {
			rows.add(data(i))
		}
		_, err := tx.Exec(ctx, insertMany, rows.ids, rows.customers, rows.sums)
		return err
	}
	b := &pgx.Batch{}
	for i := range n {
		p := data(i)
		b.Queue(insertOne, p.OrderID, p.Customer, p.Sum)
	}
	return tx.SendBatch(ctx, b).Close()
}

// rows are the columns of a bulk INSERT.
type rows struct {
	ids, customers []string
	sums           []int64
}

func newRows(n int) *rows {
	return &rows{make([]string, 0, n), make([]string, 0, n), make([]int64, 0, n)}
}

func (r *rows) add(p *placed) {
	r.ids, r.customers, r.sums = append(r.ids, p.OrderID), append(r.customers, p.Customer), append(r.sums, p.Sum)
}
