package telemetry_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/outboxkit/outboxkit/brokers/brokertest"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/internal/otelexport"
	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/migrate"
	"github.com/outboxkit/outboxkit/outbox"
	"github.com/outboxkit/outboxkit/relay"
	"github.com/outboxkit/outboxkit/telemetry"
)

type order struct {
	ID string `json:"id"`
}

type jsonCodec struct{}

func (jsonCodec) Schema() event.Schema {
	return event.Schema{Format: "json", Text: "order", ContentType: "application/json"}
}
func (jsonCodec) Encode(v any) ([]byte, error)                    { return json.Marshal(v) }
func (jsonCodec) Decode(data []byte, _ event.Schema, v any) error { return json.Unmarshal(data, v) }

func key(o order) string { return o.ID }

var (
	placed  = event.Type[order]{Name: "shop.order.placed", Topic: "orders", Key: key, Codec: jsonCodec{}}
	shipped = event.Type[order]{Name: "shop.order.shipped", Topic: "shipments", Key: key, Codec: jsonCodec{}}
)

// world is a live relay with two consumers, the first of which writes an event for
// the second, in one process, with everything that telemetry has to offer.
type world struct {
	t      *testing.T
	pool   *pgxpool.Pool
	outbox *outbox.Outbox
	broker *brokertest.Memory
	tracer trace.Tracer
	spans  *tracetest.SpanRecorder
	log    *lines
	scrape *httptest.Server
}

// lines collects what is logged.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ctx := t.Context()
	cfg, err := pgxpool.ParseConfig(pgtest.URL(t))
	require.NoError(t, err)
	cfg.MaxConns = 20 // relay, consumers and requests have one pool here
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { go pool.Close() })
	w := &world{
		t: t, pool: pool, broker: brokertest.NewMemory(brokertest.MemoryConfig{AutoCreate: 2}),
		spans: tracetest.NewSpanRecorder(), log: &lines{},
	}
	require.NoError(t, w.pool.AcquireFunc(ctx, func(c *pgxpool.Conn) error {
		if err := migrate.Outbox("").Up(ctx, c.Conn()); err != nil {
			return err
		}
		return migrate.Inbox("").Up(ctx, c.Conn())
	}))
	w.outbox, err = outbox.New(ctx, w.pool, outbox.Config{
		Source: "/shop/orders", Types: []event.Any{placed, shipped}, TraceHeaders: telemetry.TraceHeaders,
	})
	require.NoError(t, err)

	export, err := otelexport.Start(ctx, otelexport.Config{Service: "test", Env: func(string) (string, bool) { return "", false }})
	require.NoError(t, err)
	t.Cleanup(func() { _ = export.Shutdown(context.Background()) })
	w.scrape = httptest.NewServer(export.Metrics)
	t.Cleanup(w.scrape.Close)
	tracers := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(w.spans))
	w.tracer = tracers.Tracer("service")
	tel, err := telemetry.New(telemetry.Config{Meters: export.Meters, Tracers: tracers})
	require.NoError(t, err)
	tel.WatchEvery(100 * time.Millisecond)
	w.run(tel)
	return w
}

// run starts relay and consumers; they end with the test.
func (w *world) run(tel *telemetry.Telemetry) {
	t := w.t
	quiet := slog.New(slog.NewTextHandler(t.Output(), nil))
	r, err := relay.New(w.pool, relay.Config{Logger: quiet, Pipelines: []relay.Pipeline{{
		Name: "memory", To: tel.Publisher(w.broker.Publisher(), telemetry.Pipeline{Database: "shop", Name: "memory", System: "memory"}),
	}}})
	require.NoError(t, err)
	shipping, mail := w.consumer(tel, "shipping", "orders"), w.consumer(tel, "mail", "shipments")
	log := slog.New(telemetry.LogHandler(slog.NewTextHandler(w.log, nil)))
	inbox.On(shipping, placed, func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
		log.InfoContext(ctx, "shipping it", "order", e.Data.ID)
		return w.outbox.Write(ctx, tx, shipped.New(e.Data))
	})
	inbox.On(mail, shipped, func(context.Context, pgx.Tx, inbox.Event[order]) error { return nil })

	for _, observe := range []func() (func() error, error){
		func() (func() error, error) { return tel.ObserveRelay(r, "shop") },
		func() (func() error, error) { return tel.ObserveInbox(shipping, "shipping") },
		func() (func() error, error) { return tel.ObserveInbox(mail, "mail") },
		func() (func() error, error) { return tel.ObservePool(w.pool, "shop") },
	} {
		stop, err := observe()
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, stop()) })
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{
		r.Run, shipping.Run, mail.Run,
		func(ctx context.Context) error { return tel.WatchOutbox(ctx, w.pool, "", "shop") },
		func(ctx context.Context) error { return tel.WatchInbox(ctx, w.pool, "", "shop") },
	} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

func (w *world) consumer(tel *telemetry.Telemetry, name, topic string) *inbox.Inbox {
	w.t.Helper()
	in, err := inbox.New(w.pool, inbox.Config{
		Consumer: name, From: w.broker.Subscriber(name, topic), Concurrency: 2,
		Middleware: []inbox.Middleware{tel.Middleware(name)}, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(w.t, err)
	return in
}

// place writes an order as a request of the service.
func (w *world) place(id string) trace.SpanContext {
	w.t.Helper()
	ctx, span := w.tracer.Start(w.t.Context(), "POST /orders")
	defer span.End()
	require.NoError(w.t, pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error { return w.outbox.Write(ctx, tx, placed.New(order{ID: id})) }))
	return span.SpanContext()
}

const (
	patience = 30 * time.Second
	tick     = 20 * time.Millisecond
)

// sample is a line of a scrape.
type sample struct {
	name   string
	labels map[string]string
	value  float64
}

var (
	sampleLine  = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$`)
	sampleLabel = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"`)
)

// samples scrapes as Prometheus does.
func (w *world) samples() (list []sample) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.scrape.URL, nil)
	require.NoError(w.t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(w.t, err)
	defer resp.Body.Close() //nolint:errcheck // read to the end
	require.Equal(w.t, http.StatusOK, resp.StatusCode)
	text, err := io.ReadAll(resp.Body)
	require.NoError(w.t, err)
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		m := sampleLine.FindStringSubmatch(line)
		require.NotNil(w.t, m, line)
		value, err := strconv.ParseFloat(m[3], 64)
		require.NoError(w.t, err, line)
		s := sample{name: m[1], labels: map[string]string{}, value: value}
		for _, l := range sampleLabel.FindAllStringSubmatch(m[2], -1) {
			s.labels[l[1]] = l[2]
		}
		list = append(list, s)
	}
	require.NotEmpty(w.t, list)
	return list
}

// total adds up the samples with a name whose labels are as given: "" = not there.
func total(list []sample, name string, labels map[string]string) (sum float64) {
	for _, s := range list {
		same := s.name == name
		for label, value := range labels {
			same = same && s.labels[label] == value
		}
		if same {
			sum += s.value
		}
	}
	return sum
}
