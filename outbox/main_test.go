package outbox_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	neturl "net/url"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq" // a second driver: WriteSQL must not depend on pgx's
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/migrate"
	"github.com/outboxkit/outboxkit/outbox"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

type orderPlaced struct {
	OrderID string `json:"orderId"`
	Note    string `json:"note,omitempty"`
}

var errDoesNotFit = errors.New("field note: must not be \"bad\"")

// noteCodec is JSON with a rule, standing in for a schema.
type noteCodec struct{ version string }

func (c noteCodec) Schema() event.Schema {
	return event.Schema{Format: "test", Text: `{"version":"` + c.version + `"}`, ContentType: "application/json"}
}

func (noteCodec) Encode(v any) ([]byte, error) {
	o, ok := v.(orderPlaced)
	if !ok {
		return nil, fmt.Errorf("want orderPlaced, got %T", v)
	}
	if o.Note == "bad" {
		return nil, errDoesNotFit
	}
	if o.Note == "empty" {
		return nil, nil
	}
	return json.Marshal(o)
}

func (noteCodec) Decode(data []byte, _ event.Schema, v any) error { return json.Unmarshal(data, v) }

var orderPlacedV1 = event.Type[orderPlaced]{
	Name:  "shop.order.placed",
	Topic: "orders",
	Key:   func(o orderPlaced) string { return o.OrderID },
	Codec: noteCodec{"1"},
}

func config() outbox.Config {
	return outbox.Config{Source: "/shop/orders", Types: []event.Any{orderPlacedV1}}
}

// database is migrated, and its pool and *sql.DBs belong to the writer's role
// with exactly the grants that "relay migrate" prints.
type database struct {
	admin  *pgxpool.Pool
	writer *pgxpool.Pool
	dbs    map[string]*sql.DB // by driver
}

func newDatabase(t *testing.T) database {
	t.Helper()
	ctx := t.Context()
	url := pgtest.URL(t)
	admin, err := pgxpool.New(ctx, url)
	require.NoError(t, err)
	t.Cleanup(admin.Close)
	set := migrate.Outbox("")
	require.NoError(t, admin.AcquireFunc(ctx, func(c *pgxpool.Conn) error { return set.Up(ctx, c.Conn()) }))
	grants, err := set.Grants(migrate.Roles{})
	require.NoError(t, err)
	// Roles belong to the server, which other tests share: the lock keeps two
	// of them from creating the role, or granting on it, at the same moment.
	_, err = admin.Exec(ctx, `SELECT pg_advisory_lock(42); DO $$ BEGIN
		IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'outbox_writer') THEN CREATE ROLE outbox_writer LOGIN; END IF;
		IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'outbox_relay') THEN CREATE ROLE outbox_relay LOGIN; END IF;
		EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
	END $$; `+grants+`; SELECT pg_advisory_unlock(42);
		CREATE TABLE orders (id text PRIMARY KEY, v bigint NOT NULL DEFAULT 0);
		GRANT SELECT, INSERT, UPDATE ON orders TO outbox_writer`)
	require.NoError(t, err)

	asWriter, err := neturl.Parse(url)
	require.NoError(t, err)
	asWriter.User = neturl.User("outbox_writer")
	writer, err := pgxpool.New(ctx, asWriter.String())
	require.NoError(t, err)
	t.Cleanup(writer.Close)
	pq, err := sql.Open("postgres", asWriter.String())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, pq.Close()) })
	pgxDB := stdlib.OpenDBFromPool(writer)
	t.Cleanup(func() { require.NoError(t, pgxDB.Close()) })
	dbs := map[string]*sql.DB{"pgx": pgxDB, "lib/pq": pq}
	for name, db := range dbs {
		var user string
		require.NoError(t, db.QueryRowContext(ctx, "SELECT current_user").Scan(&user))
		require.Equal(t, "outbox_writer", user, name)
	}
	return database{admin: admin, writer: writer, dbs: dbs}
}

// stored is one row of outbox.event, read without the package under test.
type stored struct {
	ID                                  int64
	EventID, Topic, Key, Type, Source   string
	Time                                *string
	ContentType, Correlation, Causation *string
	Headers                             map[string]string
	Payload                             []byte
	SchemaFP                            *int64
}

func (d database) events(t *testing.T) []stored {
	t.Helper()
	rows, err := d.admin.Query(context.Background(), `SELECT id, event_id::text, topic, key, type, source,
		to_char(time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'), content_type, correlation_id, causation_id, headers, payload, schema_fp
		FROM outbox.event ORDER BY id`)
	require.NoError(t, err)
	events, err := pgx.CollectRows(rows, pgx.RowToStructByPos[stored])
	require.NoError(t, err)
	return events
}

// transactor runs fn in a transaction of one driver, so that each test covers
// all ways to write.
type transactor struct {
	name string
	new  func(ctx context.Context, cfg outbox.Config) (*outbox.Outbox, error)
	run  func(ctx context.Context, fn func(w writeFunc) error) error
}

type writeFunc func(ctx context.Context, ob *outbox.Outbox, drafts ...event.Draft) error

func (d database) transactors() []transactor {
	list := []transactor{{
		name: "pgx.Tx",
		new: func(ctx context.Context, cfg outbox.Config) (*outbox.Outbox, error) {
			return outbox.New(ctx, d.writer, cfg)
		},
		run: func(ctx context.Context, fn func(writeFunc) error) error {
			return pgx.BeginFunc(ctx, d.writer, func(tx pgx.Tx) error {
				return fn(func(ctx context.Context, ob *outbox.Outbox, drafts ...event.Draft) error {
					return ob.Write(ctx, tx, drafts...)
				})
			})
		},
	}}
	for name, db := range d.dbs {
		list = append(list, transactor{
			name: "sql.Tx of " + name,
			new: func(ctx context.Context, cfg outbox.Config) (*outbox.Outbox, error) {
				return outbox.NewSQL(ctx, db, cfg)
			},
			run: func(ctx context.Context, fn func(writeFunc) error) error {
				tx, err := db.BeginTx(ctx, nil)
				if err != nil {
					return err
				}
				err = fn(func(ctx context.Context, ob *outbox.Outbox, drafts ...event.Draft) error {
					return ob.WriteSQL(ctx, tx, drafts...)
				})
				if err != nil {
					return errors.Join(err, tx.Rollback())
				}
				return tx.Commit()
			},
		})
	}
	return list
}
