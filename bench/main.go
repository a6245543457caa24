package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/outboxkit/outboxkit/bench/peers"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch relay, consumer, service, forwarder := os.Getenv(childEnv), os.Getenv(consumerEnv), os.Getenv(serviceEnv), os.Getenv(peers.WatermillEnv); {
	case relay != "":
		err = runChild(ctx, relay)
	case consumer != "":
		err = runConsumer(ctx, consumer)
	case service != "":
		err = runService(ctx, service)
	case forwarder != "":
		err = peers.RunWatermill(ctx, forwarder)
	default:
		err = runFigures(ctx, os.Args[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// figure is one measurement, with all that it reports.
type figure struct {
	name string // and that of its first result
	run  func(ctx context.Context, e *env) error
}

// figures are those of the relay, of consumers, of the whole way or of peers, in
// the order in which they run.
func figures(args []string) ([]figure, error) {
	switch {
	case len(args) == 0:
		return relayFigures(), nil
	case len(args) == 1 && args[0] == "consume":
		return consumeFigures(), nil
	case len(args) == 1 && args[0] == "effect":
		return effectFigures(), nil
	case len(args) == 1 && args[0] == "peers":
		return peerFigures(), nil
	}
	return nil, fmt.Errorf("arguments %q: none measures the relay, consume measures consumers, effect the way from commit to effect, peers what others do", args)
}

func relayFigures() []figure {
	return []figure{
		{"kafka_drain_vs_client", drainFigure("kafka_drain_vs_client", kafkaTarget, thousandKeys)},
		{"kafka_zipf_vs_client", drainFigure("kafka_zipf_vs_client", kafkaTarget, zipfKeys)},
		{"kafka_single_key_vs_client", drainFigure("kafka_single_key_vs_client", kafkaTarget, oneKey)},
		{"rabbitmq_drain_vs_client", drainFigure("rabbitmq_drain_vs_client", rabbitTarget, thousandKeys)},
		{"latency_p50_ms,latency_p99_ms", latency},
		{"idle_latency_p99_ms,idle_core_share", idle},
		{"bookkeeping_writes_per_second", bookkeeping},
		{"writer_with_outbox_vs_without", writerWithOutbox},
		{"writer_relay_running_vs_not", writerBesideRelay},
		{"writer_stall_truncation_ms", writerStall},
		{"drain_rss_mib", drainMemory},
		{"open_writer_p99_ratio", openWriter},
		{"scale_two_relays", scaleTwo},
		{"backlog_cost_10m_vs_100k", backlogCost},
		{"held_snapshot_vs_free,dead_tuples_per_minute", heldSnapshot},
	}
}

// env is what figures share.
type env struct {
	postgres string
	kafka    []string
	amqp     string
	registry string
	quick    bool
	rounds   int
	out      *report
}

func newEnv() (*env, error) {
	e := &env{
		postgres: os.Getenv("OUTBOXKIT_POSTGRES_URL"),
		amqp:     os.Getenv("OUTBOXKIT_AMQP_URL"),
		registry: os.Getenv("OUTBOXKIT_REGISTRY_URL"),
		quick:    os.Getenv("BENCH_QUICK") != "",
		rounds:   3,
		out:      &report{json: os.Getenv("JSON") != ""},
	}
	if k := os.Getenv("OUTBOXKIT_KAFKA_BROKERS"); k != "" {
		e.kafka = strings.Split(k, ",")
	}
	if e.postgres == "" || e.kafka == nil || e.amqp == "" {
		return nil, errors.New("no servers: start it with `make bench-relay`, `bench-consume`, `bench-effect` or `bench-peers`, or set OUTBOXKIT_POSTGRES_URL, OUTBOXKIT_KAFKA_BROKERS and OUTBOXKIT_AMQP_URL")
	}
	if r := os.Getenv("BENCH_ROUNDS"); r != "" {
		n, err := strconv.Atoi(r)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("BENCH_ROUNDS %q is not a number of rounds (for example 3)", r)
		}
		e.rounds = n
	}
	return e, nil
}

// pick returns full, or short in a quick run.
func pick[T any](e *env, full, short T) T {
	if e.quick {
		return short
	}
	return full
}

func runFigures(ctx context.Context, args []string) error {
	all, err := figures(args)
	if err != nil {
		return err
	}
	e, err := newEnv()
	if err != nil {
		return err
	}
	defer e.out.flush()
	wanted := strings.Split(os.Getenv("BENCH"), ",")
	var errs []error
	ran := 0
	for _, f := range all {
		if !matches(f.name, wanted) {
			continue
		}
		ran++
		note("%s (load average %s)", f.name, loadAverage())
		if err := f.run(ctx, e); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f.name, err))
			note("%s failed: %v", f.name, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	if ran == 0 {
		return fmt.Errorf("BENCH=%q matches no figure", os.Getenv("BENCH"))
	}
	return errors.Join(errs...)
}

func matches(name string, wanted []string) bool {
	for _, w := range wanted {
		if strings.Contains(name, strings.TrimSpace(w)) {
			return true
		}
	}
	return false
}

// note tells on standard error what is going on.
func note(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) }
