package idempotency_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/dedup"
	"github.com/outboxkit/outboxkit/examples/idempotency"
	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/migrate"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// shop is a server with one command, which places an order.
type shop struct {
	t    *testing.T
	pool *pgxpool.Pool
	url  string
	// between is called between the order and the commit.
	between func(context.Context, pgx.Tx) error
}

func open(t *testing.T, concurrent dedup.Concurrent) *shop {
	t.Helper()
	cfg := pgtest.Pool(t).Config().Copy()
	cfg.MaxConns = 20
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	conn, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	require.NoError(t, migrate.Inbox("").Up(t.Context(), conn.Conn()))
	conn.Release()
	_, err = pool.Exec(t.Context(), `CREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY, customer text, item text)`)
	require.NoError(t, err)
	store, err := dedup.NewPostgres(t.Context(), pool, dedup.Config{Consumer: "orders api", Concurrent: concurrent})
	require.NoError(t, err)

	s := &shop{t: t, pool: pool, between: func(context.Context, pgx.Tx) error { return nil }}
	user := func(r *http.Request) string { return r.Header.Get("X-User") } // stands for authentication
	mux := http.NewServeMux()
	mux.Handle("POST /orders", &idempotency.Handler{Pool: pool, Store: store, Scope: user, Do: s.place})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// place is the command: what a service would write.
func (s *shop) place(ctx context.Context, tx pgx.Tx, r *http.Request, body []byte) (idempotency.Response, error) {
	var order struct{ Item string }
	if err := json.Unmarshal(body, &order); err != nil || order.Item == "" {
		return idempotency.Response{Status: http.StatusBadRequest, Body: []byte("which item?")}, nil
	}
	var id int
	err := tx.QueryRow(ctx, `INSERT INTO orders (customer, item) VALUES ($1, $2) RETURNING id`, r.Header.Get("X-User"), order.Item).Scan(&id)
	if err != nil {
		return idempotency.Response{}, err
	}
	if err := s.between(ctx, tx); err != nil {
		return idempotency.Response{}, err
	}
	return idempotency.Response{
		Status: http.StatusCreated, Body: fmt.Appendf(nil, `{"id":%d}`, id),
		Header: http.Header{"Content-Type": {"application/json"}, "Location": {fmt.Sprint("/orders/", id)}},
	}, nil
}

// got is what a client sees of a response.
type got struct {
	status                int
	contentType, location string
	body                  string
}

func (s *shop) post(user, key, body string) got {
	r, err := http.NewRequest(http.MethodPost, s.url+"/orders", strings.NewReader(body))
	if err != nil {
		return got{body: err.Error()}
	}
	r.Header.Set("X-User", user)
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return got{body: err.Error()}
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	assert.NoError(s.t, err)
	return got{response.StatusCode, response.Header.Get("Content-Type"), response.Header.Get("Location"), string(text)}
}

func (s *shop) orders() (n int) {
	require.NoError(s.t, s.pool.QueryRow(context.Background(), `SELECT count(*) FROM orders`).Scan(&n))
	return n
}

const tea = `{"item":"tea"}`

func TestResponseIsReplayed(t *testing.T) {
	t.Parallel()
	s := open(t, dedup.Conflict)
	first := s.post("ann", `"k1"`, tea)
	require.Equal(t, got{201, "application/json", "/orders/1", `{"id":1}`}, first)
	require.Equal(t, first, s.post("ann", `"k1"`, tea))
	require.Equal(t, first, s.post("ann", `k1`, tea), "without quotes")
	require.Equal(t, 1, s.orders())

	require.Equal(t, 201, s.post("ann", "k2", tea).status, "another key")
	require.Equal(t, 201, s.post("bob", "k1", tea).status, "another user's key")
	require.Equal(t, 3, s.orders())

	refused := s.post("ann", "k3", `{}`)
	require.Equal(t, got{status: 400, contentType: "text/plain; charset=utf-8", body: "which item?"}, refused)
	require.Equal(t, refused, s.post("ann", "k3", `{}`))
}

func TestWrongUse(t *testing.T) {
	t.Parallel()
	s := open(t, dedup.Conflict)
	require.Equal(t, 201, s.post("ann", "k1", tea).status)
	for name, tt := range map[string]struct {
		key, body, title string
		status           int
	}{
		"another body":  {"k1", `{"item":"milk"}`, "Idempotency-Key is already used", 422},
		"no key":        {"", tea, "Idempotency-Key is missing or wrong", 400},
		"no closing":    {`"k1`, tea, "Idempotency-Key is missing or wrong", 400},
		"empty":         {`""`, tea, "Idempotency-Key is missing or wrong", 400},
		"too long":      {strings.Repeat("k", 256), tea, "Idempotency-Key is missing or wrong", 400},
		"no characters": {"k\xff", tea, "Idempotency-Key is missing or wrong", 400},
		"large body":    {"k9", strings.Repeat(" ", 1<<20+1), "The body cannot be read", 413},
	} {
		answer := s.post("ann", tt.key, tt.body)
		require.Equal(t, tt.status, answer.status, name)
		require.Equal(t, "application/problem+json", answer.contentType, name)
		require.Contains(t, answer.body, tt.title, name)
	}
	require.Equal(t, 1, s.orders())
}

// Fifty at once with one key: one order, and all get its response; at once, or,
// after a conflict, when they ask again.
func TestFiftyAtOnce(t *testing.T) {
	t.Parallel()
	for _, concurrent := range []dedup.Concurrent{dedup.Wait, dedup.Conflict} {
		t.Run(concurrent.String(), func(t *testing.T) {
			t.Parallel()
			s := open(t, concurrent)
			var conflicts atomic.Int32
			held := make(chan struct{})
			s.between = func(context.Context, pgx.Tx) error { <-held; return nil }
			if concurrent == dedup.Wait {
				close(held)
			}
			var clients sync.WaitGroup
			for range 50 {
				clients.Go(func() {
					answer := s.post("ann", "k1", tea)
					for answer.status == http.StatusConflict {
						if conflicts.Add(1) == 49 {
							close(held) // all others have been refused
						}
						answer = s.post("ann", "k1", tea)
					}
					assert.Equal(t, got{201, "application/json", "/orders/1", `{"id":1}`}, answer)
				})
			}
			clients.Wait()
			require.Equal(t, 1, s.orders())
			require.Equal(t, concurrent == dedup.Conflict, conflicts.Load() >= 49)
		})
	}
}

// The process or its connection dies between the order and the commit; or the
// commit is done and its answer lost; or the command fails. The client asks again.
func TestCrashBetween(t *testing.T) {
	t.Parallel()
	for name, crash := range map[string]func(context.Context, pgx.Tx) error{
		"connection killed before the commit": func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `SELECT pg_terminate_backend(pg_backend_pid())`)
			return errors.Join(err, nil)
		},
		"server's process killed by a panic": func(context.Context, pgx.Tx) error { panic(http.ErrAbortHandler) },
		"command failed":                     func(context.Context, pgx.Tx) error { return errors.New("out of luck") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, dedup.Conflict)
			s.between = crash
			require.NotEqual(t, 201, s.post("ann", "k1", tea).status)
			require.Zero(t, s.orders(), "nothing of it is left")
			s.between = func(context.Context, pgx.Tx) error { return nil }
			var answer got
			require.Eventually(t, func() bool { // the dying session may hold the key for a moment
				answer = s.post("ann", "k1", tea)
				return answer.status != http.StatusConflict
			}, 30*time.Second, 10*time.Millisecond)
			require.Equal(t, 201, answer.status)
			require.Equal(t, 1, s.orders())
			require.Equal(t, answer, s.post("ann", "k1", tea))
			require.Equal(t, 1, s.orders())
		})
	}
}

// The commit is done, the client has gone before it read the answer.
func TestAnswerLostAfterTheCommit(t *testing.T) {
	t.Parallel()
	s := open(t, dedup.Wait)
	ctx, hangUp := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/orders", strings.NewReader(tea))
	require.NoError(t, err)
	r.Header.Set("Idempotency-Key", "k1")
	r.Header.Set("X-User", "ann")
	_, err = http.DefaultTransport.RoundTrip(r) // its body is never read
	require.NoError(t, err)
	hangUp()
	require.Equal(t, got{201, "application/json", "/orders/1", `{"id":1}`}, s.post("ann", "k1", tea))
	require.Equal(t, 1, s.orders())
}
