package page

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/relay"
)

// memory is a store with letters 1 to its number.
type memory struct {
	name    string
	letters int64
	largest int    // limit that was asked for
	payload string // of each
	err     error
}

func (m *memory) Name() string { return m.name }

func (m *memory) List(_ context.Context, f Filter, after int64, limit int) ([]Letter, error) {
	m.largest = max(m.largest, limit)
	var list []Letter
	for n := after + 1; n <= m.letters && len(list) < limit; n++ {
		list = append(list, Letter{N: n, Owner: "kafka", State: "dead", Key: f.Key})
	}
	return list, m.err
}

func (m *memory) Show(_ context.Context, n int64) (Letter, error) {
	return Letter{N: n, Payload: m.payload, Commands: []Command{{"Print it", fmt.Sprintf("relay dlq show %d", n)}}}, m.err
}

func (m *memory) Find(_ context.Context, id string, _ int) ([]Letter, error) {
	if id != "known" || m.err != nil {
		return nil, m.err
	}
	return []Letter{{N: 7, State: "dead", Reason: "too large"}}, nil
}

func healthy(context.Context) (relay.Status, error) {
	return relay.Status{Pipelines: []relay.PipelineStatus{{Name: "kafka", Backlog: 3, BacklogExact: true}}}, nil
}

func quiet(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

func newTestPage(t *testing.T, stores ...Store) *Page {
	return New(Config{Databases: []Database{{Store: "outbox", Status: healthy}}, Stores: stores, Logger: quiet(t)})
}

// get asks without a server, so that no address is guarded.
func get(t *testing.T, p *Page, target string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil))
	return w
}

func decode[T any](t *testing.T, w *httptest.ResponseRecorder) (v T) {
	t.Helper()
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &v))
	return v
}

var paths = []string{"/", "/assets/page.js", "/api/status", "/api/letters?store=outbox", "/api/letter?store=outbox&n=1", "/api/event?id=known"}

// The page answers who reads, and nobody else.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	p := newTestPage(t, &memory{name: "outbox", letters: 3})
	for _, path := range paths {
		require.Equal(t, http.StatusOK, get(t, p, path).Code, path)
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, "REDRIVE"} {
			w := httptest.NewRecorder()
			p.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader("{}")))
			require.Equal(t, http.StatusMethodNotAllowed, w.Code, "%s %s", method, path)
		}
	}
}

// Whatever the answer, it loads nothing from elsewhere, runs nothing inline, is in
// nobody's frame and in no cache.
func TestEveryAnswerIsGuarded(t *testing.T) {
	t.Parallel()
	p := newTestPage(t, &memory{name: "outbox", letters: 3})
	for _, path := range append([]string{"/nothing", "/assets/nothing", "/api/letters?store=none", "/api/letters?store=outbox&after=x"}, paths...) {
		h := get(t, p, path).Header()
		csp := h.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'", "trusted-types 'none'"} {
			require.Contains(t, csp, want, path)
		}
		require.NotContains(t, csp, "unsafe", path)
		require.NotContains(t, csp, "*", path)
		require.Equal(t, "no-store", h.Get("Cache-Control"), path)
		require.Equal(t, "nosniff", h.Get("X-Content-Type-Options"), path)
	}
}

// Ten thousand letters are read a page at a time, each once, in order.
func TestTenThousandLetters(t *testing.T) {
	t.Parallel()
	store := &memory{name: "outbox", letters: 10_000}
	p := newTestPage(t, store)
	read, after := int64(0), int64(0)
	for {
		list := decode[letterList](t, get(t, p, fmt.Sprintf("/api/letters?store=outbox&after=%d", after)))
		require.LessOrEqual(t, len(list.Letters), 50)
		for _, l := range list.Letters {
			read++
			require.Equal(t, read, l.N)
		}
		if after = list.Next; after == 0 {
			break
		}
	}
	require.EqualValues(t, 10_000, read)
	require.LessOrEqual(t, store.largest, 51)
	require.Equal(t, `{"letters":[],"next":0}`, get(t, p, "/api/letters?store=outbox&after=10000").Body.String())
}

func TestPayloadIsCut(t *testing.T) {
	t.Parallel()
	store := &memory{name: "outbox", letters: 1, payload: "x" + strings.Repeat("é", PayloadShown)}
	p := newTestPage(t, store)
	l := decode[Letter](t, get(t, p, "/api/letter?store=outbox&n=1"))
	require.True(t, l.Cut)
	require.Len(t, l.Payload, 256<<10-1, "not in the middle of a letter")
	require.True(t, utf8.ValidString(l.Payload))
	require.True(t, strings.HasPrefix(store.payload, l.Payload))
	store.payload = "short"
	l = decode[Letter](t, get(t, p, "/api/letter?store=outbox&n=1"))
	require.False(t, l.Cut)
	require.Equal(t, "short", l.Payload)
	require.Equal(t, "relay dlq show 1", l.Commands[0].Command)
}

func TestBadRequestsSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	p := newTestPage(t, &memory{name: "outbox"})
	for path, want := range map[string]string{
		"/api/status?database=none":               `database "none" is not served here`,
		"/api/status?after=soon":                  `after: "soon" is not a number`,
		"/api/letters":                            `store "" is not known here`,
		"/api/letters?store=none":                 `store "none" is not known here`,
		"/api/letters?store=outbox&after=-1":      `after: "-1" is not a number`,
		"/api/letter?store=outbox&n=1%3Bdrop":     `n: "1;drop" is not a number`,
		"/api/letter?store=outbox&n=9223372036e3": `n: "9223372036e3" is not a number`,
		"/api/event?id=+":                         `id is empty`,
	} {
		w := get(t, p, path)
		require.Equal(t, http.StatusBadRequest, w.Code, path)
		var answer struct{ Error string }
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &answer))
		require.Contains(t, answer.Error, want, path)
	}
}

// A database that does not answer costs neither goroutines nor connections without
// bound: who finds no place is told so.
func TestBusy(t *testing.T) {
	t.Parallel()
	p := newTestPage(t, &memory{name: "outbox", letters: 1})
	for range 4 {
		leave, err := enter(t.Context(), p.work)
		require.NoError(t, err)
		defer leave()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	w := httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/api/letters?store=outbox", nil))
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.Contains(t, w.Body.String(), "try again")
	require.Equal(t, http.StatusOK, get(t, p, "/api/status").Code, "the state is in memory")
}

// Databases that do not answer to samples keep nobody waiting who asks another one.
func TestSamplesTakeNoPlaces(t *testing.T) {
	t.Parallel()
	hanging := make(chan struct{})
	silent := Database{Status: func(ctx context.Context) (relay.Status, error) {
		select {
		case hanging <- struct{}{}:
		case <-ctx.Done():
		}
		<-ctx.Done()
		return relay.Status{}, ctx.Err()
	}}
	p := New(Config{Databases: []Database{silent, silent, silent, silent, silent}, Stores: []Store{&memory{name: "outbox", letters: 1}}, Logger: quiet(t)})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.Run(ctx)
	}()
	for range 4 {
		<-hanging
	}
	require.Equal(t, http.StatusOK, get(t, p, "/api/letters?store=outbox").Code)
	cancel()
	<-done
}

func TestStory(t *testing.T) {
	t.Parallel()
	var asked string
	p := New(Config{
		Databases: []Database{{Status: healthy}}, Logger: quiet(t),
		Stores: []Store{&memory{name: "outbox"}, &memory{name: "inbox stock", err: errors.New("no connection")}},
		Explain: func(_ context.Context, id string) (string, error) {
			asked = id
			return "it waits behind event 3", nil
		},
	})
	s := decode[story](t, get(t, p, "/api/event?id="+url.QueryEscape(" known ")))
	require.Equal(t, "known", asked)
	require.Equal(t, "it waits behind event 3", s.Explained)
	require.Equal(t, []string{"inbox stock: no connection"}, s.Problems)
	require.Len(t, s.Found, 1)
	require.Equal(t, "outbox", s.Found[0].Store)
	require.EqualValues(t, 7, s.Found[0].Letters[0].N)
	s = decode[story](t, get(t, p, "/api/event?id=other"))
	require.Empty(t, s.Found)
}

// silentStore does not answer.
type silentStore struct{ *memory }

func (silentStore) Find(ctx context.Context, _ string, _ int) ([]Letter, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// A store that does not answer hides nothing of what others know.
func TestStoryBesideASilentStore(t *testing.T) {
	t.Parallel()
	p := newTestPage(t, silentStore{&memory{name: "inbox away"}}, &memory{name: "outbox"})
	p.patience = 10 * time.Millisecond
	s := decode[story](t, get(t, p, "/api/event?id=known"))
	require.Equal(t, []string{"inbox away: context deadline exceeded"}, s.Problems)
	require.Len(t, s.Found, 1)
	require.Equal(t, "outbox", s.Found[0].Store)
}

func TestStoreErrorsAreTold(t *testing.T) {
	t.Parallel()
	p := newTestPage(t, &memory{name: "outbox", err: errors.New("relation does not exist: relay migrate up")})
	w := get(t, p, "/api/letters?store=outbox")
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.JSONEq(t, `{"error":"relation does not exist: relay migrate up"}`, w.Body.String())
}
