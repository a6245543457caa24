package postgrestest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/internal/services/postgres"
)

// Pool creates a database, calls up in order on a connection to it, for example
// the services' migrations, and returns a pool of superuser connections. The
// pool is closed and the database dropped at the end of the test.
func Pool(t testing.TB, up ...func(ctx context.Context, conn *pgx.Conn) error) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(context.Background(), URL(t))
	if err != nil {
		t.Fatal("postgrestest: ", err)
	}
	// Not pool.Close alone: it would wait forever for a connection that a failed
	// test has not given back.
	t.Cleanup(func() { go pool.Close() })
	err = pool.AcquireFunc(t.Context(), func(c *pgxpool.Conn) error {
		for i, f := range up {
			if err := f(t.Context(), c.Conn()); err != nil {
				return fmt.Errorf("migration %d of %d: %w", i+1, len(up), err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal("postgrestest: ", err)
	}
	return pool
}

// URL creates an empty database and returns a superuser's connection string. The
// database is dropped at the end of the test, whoever is still connected.
func URL(t testing.TB) string {
	t.Helper()
	s, err := shared()
	if err != nil {
		t.Fatal("postgrestest: ", err)
	}
	return pgtest.URLOn(t, s.admin)
}

// server is what the tests of this process share.
type server struct {
	admin string           // superuser URL
	own   *postgres.Server // nil if somebody else's
}

// shared starts the server at its first call. It is package state because a test
// process has no other place for what its tests share.
var shared = sync.OnceValues(func() (server, error) {
	if url := os.Getenv("OUTBOXKIT_POSTGRES_URL"); url != "" {
		return server{admin: url}, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	own, err := postgres.Start(ctx, postgres.Config{})
	if err == nil {
		if err = own.CloseWithProcess(); err != nil {
			err = errors.Join(err, own.Close(ctx))
		}
	}
	if err != nil {
		return server{}, fmt.Errorf("start a Postgres (or set OUTBOXKIT_POSTGRES_URL to a superuser's URL): %w", err)
	}
	return server{admin: own.URL("postgres"), own: own}, nil
})
