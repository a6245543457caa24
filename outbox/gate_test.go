package outbox_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/outbox"
)

func schemas(t *testing.T, db database) (n int) {
	t.Helper()
	require.NoError(t, db.admin.QueryRow(t.Context(), `SELECT count(*) FROM outbox.schema`).Scan(&n))
	return n
}

// The gate is asked when a service starts, once for each schema that was never
// stored, and by no Write.
func TestGate(t *testing.T) {
	v2, v3 := orderPlacedV1, orderPlacedV1
	v2.Codec, v3.Codec = noteCodec{"2"}, noteCodec{"3"}
	for i, tr := range newDatabase(t).transactors() {
		t.Run(tr.name, func(t *testing.T) {
			db := newDatabase(t)
			tr := db.transactors()[i]
			asked := []string{}
			refuse := error(nil)
			cfg := config()
			cfg.Types = []event.Any{orderPlacedV1, v2}
			cfg.Gate = func(_ context.Context, i event.Info) error {
				asked = append(asked, i.Codec.Schema().Text)
				return refuse
			}

			refuse = errors.New("field `qty`: added without default breaks BACKWARD")
			_, err := tr.new(t.Context(), cfg)
			require.ErrorIs(t, err, refuse)
			require.ErrorContains(t, err, "outbox: the schema of shop.order.placed may not be written: field `qty`: added")
			require.Len(t, asked, 2)
			require.Zero(t, schemas(t, db), "nothing is stored that was refused, nor beside it")

			refuse, asked = nil, nil
			ob, err := tr.new(t.Context(), cfg)
			require.NoError(t, err)
			require.Equal(t, []string{`{"version":"1"}`, `{"version":"2"}`}, asked)
			require.Equal(t, 2, schemas(t, db))
			require.NoError(t, tr.run(t.Context(), func(write writeFunc) error {
				return write(t.Context(), ob, orderPlacedV1.New(orderPlaced{OrderID: "1"}), v2.New(orderPlaced{OrderID: "1"}))
			}))
			require.Len(t, asked, 2, "no Write asks")

			// What was stored has passed: a registry that is away stops nobody.
			refuse, asked = event.ErrSchemaUnavailable, nil
			_, err = tr.new(t.Context(), cfg)
			require.NoError(t, err)
			require.Empty(t, asked)
			cfg.Types = append(cfg.Types, v3)
			_, err = tr.new(t.Context(), cfg)
			require.ErrorIs(t, err, event.ErrSchemaUnavailable)
			require.Equal(t, []string{`{"version":"3"}`}, asked)
		})
	}
}

func TestGateBeforeMigration(t *testing.T) {
	db := newDatabase(t)
	_, err := db.admin.Exec(t.Context(), `DROP SCHEMA outbox CASCADE`)
	require.NoError(t, err)
	cfg := config()
	cfg.Gate = func(context.Context, event.Info) error { return nil }
	_, err = outbox.New(t.Context(), db.admin, cfg)
	require.ErrorIs(t, err, outbox.ErrNotMigrated)
}
