package postgrestest_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/outboxkit/outboxkit/migrate"
	"github.com/outboxkit/outboxkit/postgrestest"
)

// A service's test gets a database with the service's tables and ours.
func ExamplePool() {
	migrateOrders := func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `CREATE TABLE orders (id text PRIMARY KEY)`)
		return err
	}
	test := func(t *testing.T) {
		pool := postgrestest.Pool(t, migrate.Outbox("").Up, migrateOrders)
		if _, err := pool.Exec(t.Context(), `INSERT INTO orders VALUES ('o-1')`); err != nil {
			t.Fatal(err)
		}
	}
	_ = test
}
