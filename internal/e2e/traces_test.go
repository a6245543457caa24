package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/kafka"
	"github.com/outboxkit/outboxkit/brokers/rabbitmq"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/internal/svctest"
	"github.com/outboxkit/outboxkit/migrate"
	"github.com/outboxkit/outboxkit/outbox"
	"github.com/outboxkit/outboxkit/telemetry"
)

// otlpSink is an OTLP endpoint.
type otlpSink struct {
	mu     sync.Mutex
	traces []byte
}

func (c *otlpSink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.URL.Path == "/v1/traces" {
		c.traces = append(c.traces, body...)
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// has looks for bytes: protobuf holds ids and texts as they are.
func (c *otlpSink) has(parts ...[]byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !slices.ContainsFunc(parts, func(p []byte) bool { return !bytes.Contains(c.traces, p) })
}

// A request, the daemon that exports by OTLP, a real broker and a consumer: one trace.
func TestOneTraceOverKafka(t *testing.T) {
	t.Parallel()
	addresses := svctest.Kafka(t)
	topic := createTopic(t, addresses, 2)
	oneTrace(t, topic, fmt.Sprintf("    kafka: {brokers: [%q]}\n", addresses[0]),
		kafka.NewSubscriber(kafka.Config{Brokers: addresses, Group: topic}, topic))
}

func TestOneTraceOverRabbitMQ(t *testing.T) {
	t.Parallel()
	address, topic := svctest.RabbitMQ(t), svctest.Unique("orders")
	oneTrace(t, topic, fmt.Sprintf("    rabbitmq: {url: %q, declare: true}\n", address),
		rabbitmq.NewSubscriber(rabbitmq.SubscriberConfig{URL: address, Declare: true}, topic))
}

func oneTrace(t *testing.T, topic, pipeline string, from brokers.Subscriber) {
	ctx := t.Context()
	shopURL, _ := producerDatabase(t)
	mailURL, _ := database(t, migrate.Inbox(""))
	c := &otlpSink{}
	otlp := httptest.NewServer(c)
	t.Cleanup(otlp.Close)

	binary, config := buildRelay(t), filepath.Join(t.TempDir(), "relay.yaml")
	text := fmt.Sprintf("database: {url: %q}\ndrain_timeout: 2s\nadmin: {listen: 'off'}\npipelines:\n  - name: e2e\n%s", as(t, shopURL, "outbox_relay"), pipeline)
	require.NoError(t, os.WriteFile(config, []byte(text), 0o600))
	relay := start(t, "relay", func() *exec.Cmd {
		cmd := exec.Command(binary, "run", "--config", config)
		cmd.Env = append(os.Environ(), "OTEL_EXPORTER_OTLP_ENDPOINT="+otlp.URL)
		return cmd
	})

	spans := tracetest.NewSpanRecorder()
	tracers := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	tel, err := telemetry.New(telemetry.Config{Tracers: tracers})
	require.NoError(t, err)
	placed := orderPlacedType(topic)
	mail, err := pgxpool.New(ctx, as(t, mailURL, "inbox_consumer"))
	require.NoError(t, err)
	t.Cleanup(mail.Close)
	in, err := inbox.New(mail, inbox.Config{Consumer: "mail", From: from, Middleware: []inbox.Middleware{tel.Middleware("mail")}})
	require.NoError(t, err)
	inbox.On(in, placed, func(context.Context, pgx.Tx, inbox.Event[orderPlaced]) error { return nil })
	consuming, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- in.Run(consuming) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})

	writer, err := pgxpool.New(ctx, as(t, shopURL, "outbox_writer"))
	require.NoError(t, err)
	t.Cleanup(writer.Close)
	ob, err := outbox.New(ctx, writer, outbox.Config{Source: "/shop/orders", Types: []event.Any{placed}, TraceHeaders: telemetry.TraceHeaders})
	require.NoError(t, err)
	request, span := tracers.Tracer("service").Start(ctx, "POST /orders")
	require.NoError(t, pgx.BeginFunc(request, writer, func(tx pgx.Tx) error {
		return ob.Write(request, tx, placed.New(orderPlaced{OrderID: "o-1", UserID: "u-1", Items: []string{}}))
	}))
	span.End()

	trace := span.SpanContext().TraceID()
	require.Eventually(t, func() bool {
		return slices.ContainsFunc(spans.Ended(), func(s sdktrace.ReadOnlySpan) bool {
			return s.Name() == "process "+topic && s.SpanContext().TraceID() == trace && s.Parent().SpanID() == span.SpanContext().SpanID()
		})
	}, time.Minute, 50*time.Millisecond, "the consumer's")
	require.NoError(t, relay.signal(syscall.SIGTERM), "which exports what is left")
	parent := span.SpanContext().SpanID()
	require.True(t, c.has(trace[:], parent[:], []byte("send "+topic), []byte("outboxkit-relay")), "the daemon's")
}
