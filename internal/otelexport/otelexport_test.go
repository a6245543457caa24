package otelexport

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// collector is an OTLP endpoint that keeps what it is sent, by path.
type collector struct {
	*httptest.Server
	mu   sync.Mutex
	sent map[string][]byte
}

func newCollector(t *testing.T) *collector {
	c := &collector{sent: map[string][]byte{}}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.sent[r.URL.Path] = append(c.sent[r.URL.Path], body...)
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *collector) has(path, text string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Contains(c.sent[path], []byte(text)) // protobuf holds texts as they are
}

// work records a span and a count.
func work(t *testing.T, e *Export) {
	t.Helper()
	_, span := e.Tracers.Tracer("test").Start(t.Context(), "send orders")
	span.End()
	c, err := e.Meters.Meter("test").Int64Counter("outboxkit.test")
	require.NoError(t, err)
	c.Add(t.Context(), 1)
}

func TestOTLPByTheStandardVariables(t *testing.T) {
	c := newCollector(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.URL)
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=night")
	e, err := Start(t.Context(), Config{Service: "outboxkit-relay", Version: "v1", Instance: "host-7"})
	require.NoError(t, err)
	work(t, e)
	require.NoError(t, e.Shutdown(context.Background()), "which hands over what there is")
	for _, path := range []string{"/v1/traces", "/v1/metrics"} {
		for _, text := range []string{"outboxkit-relay", "host-7", "night"} {
			require.True(t, c.has(path, text), "%s %s", path, text)
		}
	}
	require.True(t, c.has("/v1/traces", "send orders"))
	require.True(t, c.has("/v1/metrics", "outboxkit.test"))
}

// Nobody who has no collector should read of one in the log.
func TestNoOTLPUnlessAskedFor(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		env             map[string]string
		traces, metrics bool
	}{
		{nil, false, false},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, true, true},
		{map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318"}, true, false},
		{map[string]string{"OTEL_METRICS_EXPORTER": "otlp"}, false, true},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, false, true},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "True"}, false, false},
	} {
		c := Config{Env: func(name string) (string, bool) { v, ok := tc.env[name]; return v, ok }}
		require.Equal(t, tc.traces, c.wants("TRACES"), tc.env)
		require.Equal(t, tc.metrics, c.wants("METRICS"), tc.env)
	}
}

func TestPrometheusIsAlwaysThere(t *testing.T) {
	t.Parallel()
	e, err := Start(t.Context(), Config{Service: "outboxkit-relay", Env: func(string) (string, bool) { return "", false }})
	require.NoError(t, err)
	work(t, e)
	w := httptest.NewRecorder()
	e.Metrics.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	require.Equal(t, http.StatusOK, w.Code)
	require.Contains(t, w.Body.String(), "outboxkit_test_total 1\n")
	require.Contains(t, w.Body.String(), `service_name="outboxkit-relay"`)
	require.Contains(t, w.Body.String(), "go_goroutines")
	_, span := e.Tracers.Tracer("test").Start(t.Context(), "nothing")
	require.False(t, span.IsRecording())
	require.NoError(t, e.Shutdown(t.Context()))
}
