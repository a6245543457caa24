package outboxtest_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/outboxkit/outboxkit/migrate"
	"github.com/outboxkit/outboxkit/outbox"
	"github.com/outboxkit/outboxkit/outbox/outboxtest"
	"github.com/outboxkit/outboxkit/postgrestest"
)

// service is what is tested.
type service struct{ outbox *outbox.Outbox }

func (s *service) place(ctx context.Context, tx pgx.Tx, o order) error {
	return s.outbox.Write(ctx, tx, placed.New(o))
}

// The transaction is rolled back: such tests can share a database.
func ExampleRequireWritten() {
	test := func(t *testing.T, s *service) {
		pool := postgrestest.Pool(t, migrate.Outbox("").Up)
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback(context.Background())
		if err := s.place(t.Context(), tx, order{ID: "o-1"}); err != nil {
			t.Fatal(err)
		}
		outboxtest.RequireWritten(t, tx, placed, order{ID: "o-1"})
		outboxtest.RequireNone(t, tx, paid)
	}
	_ = test
}

// What a service writes in transactions of its own is looked at after they have
// committed.
func ExampleMark() {
	test := func(t *testing.T, place func(ctx context.Context, o order) error) {
		pool := postgrestest.Pool(t, migrate.Outbox("").Up)
		mark := outboxtest.Mark(t, pool)
		if err := place(t.Context(), order{ID: "o-1"}); err != nil {
			t.Fatal(err)
		}
		for _, e := range outboxtest.RequireWritten(t, mark, placed, order{ID: "o-1"}) {
			if e.Headers["tenant"] != "eu" {
				t.Error("the tenant is missing")
			}
		}
	}
	_ = test
}
