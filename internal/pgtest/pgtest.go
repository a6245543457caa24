package pgtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/internal/services/postgres"
)

// URL creates an empty database and returns its superuser connection string.
// The database is dropped at the end of the test, whoever is still connected.
func URL(t testing.TB) string {
	t.Helper()
	admin, err := shared()
	if err != nil {
		t.Fatal("pgtest: ", err)
	}
	return URLOn(t, admin)
}

// URLOn is [URL] on the server that a superuser's connection string names.
func URLOn(t testing.TB, admin string) string {
	t.Helper()
	name := "test_" + strings.ToLower(rand.Text())
	if err := execute(admin, "CREATE DATABASE "+name+" TEMPLATE template0"); err != nil {
		t.Fatal("pgtest: create a database: ", err)
	}
	database, err := withDatabase(admin, name)
	if err != nil {
		t.Fatal("pgtest: ", err)
	}
	t.Cleanup(func() {
		if err := drop(admin, database, name); err != nil {
			t.Error("pgtest: drop the database: ", err)
		}
	})
	return database
}

// Pool returns a pool on an empty database as [URL] creates it. The pool is
// closed at the end of the test.
func Pool(t testing.TB) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(context.Background(), URL(t))
	if err != nil {
		t.Fatal("pgtest: ", err)
	}
	// Not pool.Close alone: it would wait forever for a connection that a failed
	// test has not given back.
	t.Cleanup(func() { go pool.Close() })
	return pool
}

// Own starts a server for this test alone, to crash, stop and restart. It keeps
// fsync on, and its data goes at the end of the test.
func Own(t testing.TB) *postgres.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	server, err := postgres.Start(ctx, postgres.Config{
		Durable:  true,
		Settings: map[string]string{"shared_buffers": "32MB", "max_connections": "100"},
	})
	if err != nil {
		t.Fatal("pgtest: start a server: ", err)
	}
	t.Cleanup(func() {
		if err := server.Close(context.Background()); err != nil {
			t.Error("pgtest: stop the server: ", err)
		}
	})
	return server
}

// drop also rolls back prepared transactions, which would keep the database.
func drop(admin, database, name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, database)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()")
	if err != nil {
		return err
	}
	gids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, gid := range gids {
		if _, err := conn.Exec(ctx, "ROLLBACK PREPARED '"+strings.ReplaceAll(gid, "'", "''")+"'"); err != nil {
			return err
		}
	}
	return execute(admin, "DROP DATABASE "+name+" WITH (FORCE)")
}

func execute(url, sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}

// withDatabase replaces the database in a connection URL.
func withDatabase(connection, name string) (string, error) {
	u, err := url.Parse(connection)
	if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") {
		return "", fmt.Errorf("OUTBOXKIT_POSTGRES_URL must look like postgres://user@host:port/database")
	}
	u.Path = "/" + name
	return u.String(), nil
}
