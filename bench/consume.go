package main

import (
	"context"
	"crypto/rand"
	"os"
	"time"

	"github.com/google/uuid"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/migrate"
)

func consumeFigures() []figure {
	return []figure{
		{"inbox_single_vs_bare", singleVsBare},
		{"inbox_batch_vs_bare,inbox_batch_vs_single", batchVsBare},
		{"inbox_duplicates_vs_first", duplicatesVsFirst},
		{"inbox_50m_vs_empty", rememberedVsEmpty},
		{"slow_handler_share", slowHandlers},
	}
}

const (
	consumerName = "bench"
	orderSource  = "/shop/orders"
	workers      = 16  // handlers at once, and connections
	batchSize    = 100 // events of a batch
	warmPart     = 20  // of a run, the first part in this many does not count: connections, statements
)

// consumption is one comparison of an inbox with something else.
type consumption struct {
	*env

	n     int // messages of a run
	rates map[string][]float64
	cpu   map[string][]float64 // seconds per million messages
}

func newConsumption(e *env, n int) *consumption {
	return &consumption{env: e, n: n, rates: map[string][]float64{}, cpu: map[string][]float64{}}
}

// singleVsBare compares one message a transaction, from Kafka, with loops over
// messages in memory.
func singleVsBare(ctx context.Context, e *env) error {
	c := newConsumption(e, pick(e, 60_000, 15_000))
	for round := range e.rounds + 1 {
		topic, msgs, err := c.produce(ctx, partitions, 1000)
		if err != nil {
			return err
		}
		if err := c.bareRun(ctx, "bare", msgs, bareForm{size: 1}); err != nil {
			return err
		}
		if err := c.inboxRun(ctx, "single", consumerSpec{Topic: topic}); err != nil {
			return err
		}
		if err := c.bareRun(ctx, "plain", msgs, bareForm{size: 1, plain: true}); err != nil {
			return err
		}
		c.done(round)
	}
	e.out.add("inbox_single_vs_bare", "ratio", ratios(c.rates["single"], c.rates["bare"]))
	e.out.add("inbox_single_vs_plain", "ratio", ratios(c.rates["single"], c.rates["plain"]))
	c.report("inbox_", "single", "bare", "plain")
	return nil
}

// batchVsBare compares batches with a loop that makes batches, and with one
// message a transaction.
func batchVsBare(ctx context.Context, e *env) error {
	c := newConsumption(e, pick(e, 300_000, 60_000))
	for round := range e.rounds + 1 {
		topic, msgs, err := c.produce(ctx, partitions, 1000)
		if err != nil {
			return err
		}
		if err := c.bareRun(ctx, "bare_batch", msgs, bareForm{size: batchSize}); err != nil {
			return err
		}
		if err := c.inboxRun(ctx, "batch", consumerSpec{Topic: topic, Batch: batchSize}); err != nil {
			return err
		}
		if err := c.bareRun(ctx, "bare_bulk", msgs, bareForm{size: batchSize, joined: true}); err != nil {
			return err
		}
		if err := c.inboxRun(ctx, "bulk", consumerSpec{Topic: topic, Batch: batchSize, Bulk: true}); err != nil {
			return err
		}
		few := *c
		few.n = c.n / 5
		if err := few.inboxRun(ctx, "single_beside_batch", consumerSpec{Topic: topic}); err != nil {
			return err
		}
		c.done(round)
	}
	e.out.add("inbox_batch_vs_bare", "ratio", ratios(c.rates["batch"], c.rates["bare_batch"]))
	e.out.add("inbox_batch_vs_single", "ratio", ratios(c.rates["batch"], c.rates["single_beside_batch"]))
	e.out.add("inbox_bulk_vs_bare", "ratio", ratios(c.rates["bulk"], c.rates["bare_bulk"]))
	e.out.add("inbox_bulk_vs_single", "ratio", ratios(c.rates["bulk"], c.rates["single_beside_batch"]))
	c.report("inbox_", "batch", "bare_batch", "bulk", "bare_bulk", "single_beside_batch")
	return nil
}

// duplicatesVsFirst lets a second group of the same consumer read a topic that
// the first has handled, one message a transaction.
func duplicatesVsFirst(ctx context.Context, e *env) error {
	c := newConsumption(e, pick(e, 60_000, 15_000))
	for round := range e.rounds + 1 {
		topic, _, err := c.produce(ctx, partitions, 1000)
		if err != nil {
			return err
		}
		err = c.withDatabase(ctx, func(db *database) error {
			if err := c.consume(ctx, "first", db, consumerSpec{Topic: topic}); err != nil {
				return err
			}
			return c.consume(ctx, "duplicates", db, consumerSpec{Topic: topic})
		})
		if err != nil {
			return err
		}
		c.done(round)
	}
	e.out.add("inbox_duplicates_vs_first", "ratio", ratios(c.rates["duplicates"], c.rates["first"]))
	c.report("inbox_", "first", "duplicates")
	return nil
}

// slowHandlers compares the rate of handlers that take 20 ms, for 200 keys in one
// partition, with what so many handlers at once can do at best.
func slowHandlers(ctx context.Context, e *env) error {
	const (
		keys  = 200
		slow  = 20 * time.Millisecond
		conns = 32
	)
	c := newConsumption(e, pick(e, 20_000, 5_000))
	for range e.rounds {
		topic, _, err := c.produce(ctx, 1, keys)
		if err != nil {
			return err
		}
		err = c.withDatabase(ctx, func(db *database) error {
			return c.consume(ctx, "slow_handler", db, consumerSpec{Topic: topic, Slow: slow, Workers: conns})
		})
		if err != nil {
			return err
		}
	}
	best := float64(min(conns, keys)) / slow.Seconds()
	var share []float64
	for _, r := range c.rates["slow_handler"] {
		share = append(share, r/best)
	}
	e.out.add("slow_handler_share", "ratio", share)
	c.report("", "slow_handler")
	return nil
}

// produce publishes n messages, and returns them for a bare loop as well.
func (c *consumption) produce(ctx context.Context, partitions int32, keys int) (topic string, bare []bareMessage, err error) {
	kafka := &kafkaBroker{brokers: c.kafka}
	if topic, err = kafka.topicOf(partitions); err != nil {
		return "", nil, err
	}
	msgs := make([]brokers.Message, c.n)
	bare = make([]bareMessage, c.n)
	for i := range msgs {
		id, err := uuid.NewV7()
		if err != nil {
			return "", nil, err
		}
		data := newPlaced(i, keys)
		payload, err := placedType.Codec.Encode(data)
		if err != nil {
			return "", nil, err
		}
		bare[i] = bareMessage{id: id, hash: int64(i % keys), data: data}
		msgs[i] = brokers.Message{
			Topic: topic, Key: data.Customer, ID: id.String(), Source: orderSource, Type: placedType.Name, Time: time.Now(),
			ContentType: "application/avro", CorrelationID: correlation, Payload: payload,
			Headers: map[string]string{"traceparent": traceparent},
		}
	}
	_, err = kafka.client(ctx, msgs)
	return topic, bare, err
}

// withDatabase runs f with a new database of a consumer.
func (c *consumption) withDatabase(ctx context.Context, f func(*database) error) error {
	db, err := withOrders(ctx, c.env, migrate.Inbox(""))
	if err != nil {
		return err
	}
	defer db.drop()
	return f(db)
}

// inboxRun measures an inbox with a new database.
func (c *consumption) inboxRun(ctx context.Context, name string, s consumerSpec) error {
	return c.withDatabase(ctx, func(db *database) error { return c.consume(ctx, name, db, s) })
}

// consume lets a new group of an inbox in a process of its own handle n messages.
func (c *consumption) consume(ctx context.Context, name string, db *database, s consumerSpec) error {
	s.Database, s.Kafka, s.Group = db.url, c.kafka, "bench-"+rand.Text()
	if s.Workers == 0 {
		s.Workers = workers
	}
	if file := os.Getenv("BENCH_PROFILE"); file != "" {
		s.Profile = file + "." + name
	}
	postgres, kafka := listener(host(c.postgres)), listener(c.kafka[0])
	beforeP, beforeK := treeSeconds(postgres), cpuSeconds(kafka)
	p, err := startChild(ctx, consumerEnv, s)
	if err != nil {
		return err
	}
	defer func() { _ = p.stop() }()
	warm := c.n / warmPart
	first, err := p.published(warm)
	if err != nil {
		return err
	}
	last, err := p.published(c.n)
	if err != nil {
		return err
	}
	c.spent(name, cpuSeconds(p.pid()))
	c.spent(name+"_postgres", treeSeconds(postgres)-beforeP)
	c.spent(name+"_kafka", cpuSeconds(kafka)-beforeK)
	c.rate(name, float64(c.n-warm)/(last-first))
	return p.stop()
}

// bareRun measures a loop with a new database.
func (c *consumption) bareRun(ctx context.Context, name string, msgs []bareMessage, form bareForm) error {
	return c.withDatabase(ctx, func(db *database) error {
		postgres := listener(host(c.postgres))
		before, own := treeSeconds(postgres), cpuSeconds(os.Getpid())
		rate, err := db.bare(ctx, msgs, workers, form)
		if err != nil {
			return err
		}
		c.spent(name, cpuSeconds(os.Getpid())-own)
		c.spent(name+"_postgres", treeSeconds(postgres)-before)
		c.rate(name, rate)
		return nil
	})
}

func (c *consumption) rate(name string, rate float64) {
	note("%s: %.0f/s, load %s", name, rate, loadAverage())
	c.rates[name] = append(c.rates[name], rate)
}

func (c *consumption) spent(name string, seconds float64) {
	c.cpu[name] = append(c.cpu[name], seconds*1e6/float64(c.n))
}

// done ends a round: the first is to warm up and not counted.
func (c *consumption) done(round int) {
	if round == 0 {
		clear(c.rates)
		clear(c.cpu)
	}
}

// report adds rates and CPU.
func (c *consumption) report(prefix string, names ...string) {
	for _, name := range names {
		c.out.add(prefix+name+"_rate", "messages/s", c.rates[name])
	}
	for _, name := range names {
		for _, part := range []string{"", "_postgres", "_kafka"} {
			c.out.add(prefix+name+"_cpu"+part, "s/1M messages", c.cpu[name+part])
		}
	}
}
