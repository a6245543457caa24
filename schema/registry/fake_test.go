package registry_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/schema/registry"
)

// fake is a registry in memory. instead, if set, answers in its place.
type fake struct {
	*httptest.Server
	calls   atomic.Int64
	instead atomic.Pointer[http.HandlerFunc]
	last    atomic.Pointer[http.Request]

	mu      sync.Mutex
	schemas []string // id-1 → text
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /schemas/ids/{id}", f.byID)
	mux.HandleFunc("POST /subjects/{subject}/versions", f.register)
	mux.HandleFunc("POST /subjects/{subject}", f.lookup)
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.calls.Add(1)
		f.last.Store(r)
		if h := f.instead.Load(); h != nil {
			(*h)(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(f.Close)
	return f
}

func (f *fake) answer(h http.HandlerFunc) { f.instead.Store(&h) }

func status(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		fmt.Fprint(w, body)
	}
}

func (f *fake) byID(w http.ResponseWriter, r *http.Request) {
	var id int
	_, _ = fmt.Sscan(r.PathValue("id"), &id)
	f.mu.Lock()
	defer f.mu.Unlock()
	if id < 1 || id > len(f.schemas) {
		status(404, `{"error_code":40403,"message":"Schema not found"}`)(w, r)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"schema": f.schemas[id-1]})
}

func (f *fake) register(w http.ResponseWriter, r *http.Request) { f.post(w, r, true) }
func (f *fake) lookup(w http.ResponseWriter, r *http.Request)   { f.post(w, r, false) }

func (f *fake) post(w http.ResponseWriter, r *http.Request, add bool) {
	var in struct{ Schema string }
	_ = json.NewDecoder(r.Body).Decode(&in)
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, s := range f.schemas {
		if s == in.Schema {
			_ = json.NewEncoder(w).Encode(map[string]any{"id": i + 1, "subject": r.PathValue("subject"), "version": 1, "schema": s})
			return
		}
	}
	if !add {
		status(404, `{"error_code":40403,"message":"Schema not found"}`)(w, r)
		return
	}
	f.schemas = append(f.schemas, in.Schema)
	_ = json.NewEncoder(w).Encode(map[string]any{"id": len(f.schemas)})
}

func (f *fake) client(t *testing.T, change ...func(*registry.Config)) *registry.Client {
	t.Helper()
	cfg := registry.Config{URL: f.URL, Register: true, HTTPClient: f.Client(), Attempts: 1}
	for _, c := range change {
		c(&cfg)
	}
	c, err := registry.New(cfg)
	require.NoError(t, err)
	return c
}

func withUser(url string) string { return strings.Replace(url, "://", "://user:s3cret@", 1) }
