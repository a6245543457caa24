package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/pprof"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/kafka"
	"github.com/outboxkit/outboxkit/brokers/rabbitmq"
	"github.com/outboxkit/outboxkit/relay"
)

// childEnv holds the spec of a process that is to be a relay.
const childEnv = "OUTBOXKIT_BENCH_RELAY"

// spec says what the relay of a child process does.
type spec struct {
	Database string
	Kafka    []string      // publish to these, or
	AMQP     string        // to this, or (both empty) to nobody
	Queues   int           // of a topic, RabbitMQ
	Record   bool          // remember when each event was acknowledged
	AckDelay time.Duration // added to each Publish
	InFlight int           // most events that are under way with AckDelay; 0 = no limit
	Registry string        // schemas are registered here and messages carry their ids; "" = bare bytes
	Stages   bool          // remember when each event was handed to the client and acknowledged
	Retain   time.Duration // retention; 0 = the default
	Profile  string        // file for a CPU profile
}

// reply answers one command.
type reply struct {
	Published uint64
	Seconds   float64          // since Run was called
	Acks      map[string]int64 // event id: acknowledged at, Unix nanoseconds
	Ways      ways             // of a part of the way from commit to effect
	Error     string
}

// runChild is a relay that takes one command a line: a number n waits until n
// events are published, "acks" and "ways" hand over what was recorded. It drains
// and ends with its standard input.
func runChild(ctx context.Context, text string) error {
	var s spec
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return fmt.Errorf("%s: %w", childEnv, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop, err := profile(s.Profile)
	if err != nil {
		return err
	}
	defer stop()
	pool, err := pgxpool.New(ctx, s.Database)
	if err != nil {
		return err
	}
	defer pool.Close()
	to := s.publisher()
	defer func() { _ = to.Close() }()
	wire, err := wireFormat(s.Registry, true)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	r, err := relay.New(pool, relay.Config{Logger: log, Retention: s.Retain, Pipelines: []relay.Pipeline{{Name: "bench", To: to, Wire: wire}}})
	if err != nil {
		return err
	}
	c := &child{settled: func() uint64 { return r.Stats().Pipelines[0].Published }, to: to, stages: to.stages, began: time.Now(), ended: make(chan struct{})}
	go func() {
		defer close(c.ended)
		c.err = r.Run(ctx)
	}()
	err = c.serve(os.Stdin, os.Stdout)
	cancel()
	<-c.ended
	if err == nil {
		err = c.err
	}
	return err
}

// profile writes a CPU profile to file until the function that it returns is
// called; nothing if file is empty.
func profile(file string) (stop func(), err error) {
	if file == "" {
		return func() {}, nil
	}
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		_ = f.Close()
		return nil, err
	}
	return func() {
		pprof.StopCPUProfile()
		_ = f.Close()
	}, nil
}

type child struct {
	settled func() uint64 // events published, or messages handled
	to      *target       // of a relay
	stages  *stages       // nil: not recorded
	began   time.Time
	ended   chan struct{}
	err     error // of Run, after ended
}

func (c *child) serve(in io.Reader, out io.Writer) error {
	lines, answers := bufio.NewScanner(in), json.NewEncoder(out)
	for lines.Scan() {
		var a reply
		switch line := lines.Text(); line {
		case "acks":
			a.Acks = c.to.recorded()
		case "ways":
			a.Ways = c.stages.recorded()
		default:
			var n uint64
			if _, err := fmt.Sscan(line, &n); err != nil {
				return fmt.Errorf("command %q: %w", line, err)
			}
			c.wait(n)
		}
		a.Seconds = time.Since(c.began).Seconds()
		a.Published = c.settled()
		select {
		case <-c.ended:
			a.Error = fmt.Sprint("it has ended: ", c.err)
		default:
		}
		if err := answers.Encode(a); err != nil {
			return err
		}
	}
	return lines.Err()
}

// wait returns when n events are settled or the relay or consumer has ended.
func (c *child) wait(n uint64) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for c.settled() < n {
		select {
		case <-c.ended:
			return
		case <-tick.C:
		}
	}
}

func (s spec) publisher() *target {
	t := &target{spec: s}
	if s.Stages {
		t.stages = &stages{}
	}
	switch {
	case len(s.Kafka) > 0:
		t.to = kafka.NewPublisher(kafka.Config{Brokers: s.Kafka})
	case s.AMQP != "":
		t.to = rabbitmq.NewPublisher(rabbitmq.PublisherConfig{URL: s.AMQP, Queues: s.Queues})
	}
	return t
}

// target is the publisher of the relay, with what a figure adds.
type target struct {
	spec
	to     brokers.Publisher // nil: everything is confirmed at once
	stages *stages
	turn   sync.Mutex // of a Publish with InFlight

	mu sync.Mutex
	at map[string]int64
}

func (t *target) Publish(ctx context.Context, msgs []brokers.Message) []error {
	results := make([]error, len(msgs))
	t.stages.mark(msgs, nil, handed)
	if t.to != nil {
		results = t.to.Publish(ctx, msgs)
	}
	t.stages.mark(msgs, results, acked)
	if t.AckDelay > 0 {
		n := 1
		if t.InFlight > 0 {
			n = (len(msgs) + t.InFlight - 1) / t.InFlight
			t.turn.Lock()
			defer t.turn.Unlock()
		}
		time.Sleep(time.Duration(n) * t.AckDelay)
	}
	if t.Record {
		now := time.Now().UnixNano()
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.at == nil {
			t.at = map[string]int64{}
		}
		for i, err := range results {
			if _, again := t.at[msgs[i].ID]; err == nil && !again {
				t.at[msgs[i].ID] = now
			}
		}
	}
	return results
}

func (t *target) Close() error {
	if t.to == nil {
		return nil
	}
	return t.to.Close()
}

// recorded hands over the acknowledgements so far and forgets them.
func (t *target) recorded() map[string]int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := t.at
	t.at = nil
	return at
}
