package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/migrate"
)

// database is a new one with an outbox.
type database struct {
	*pgxpool.Pool

	url   string
	admin string
	name  string
}

func newDatabase(ctx context.Context, e *env) (*database, error) {
	return databaseWith(ctx, e, migrate.Outbox(""))
}

func databaseWith(ctx context.Context, e *env, m migrate.Set) (*database, error) {
	d := &database{admin: e.postgres, name: "bench_" + strings.ToLower(rand.Text())}
	u, err := url.Parse(e.postgres)
	if err != nil {
		return nil, err
	}
	if err := d.asAdmin(ctx, "CREATE DATABASE "+d.name); err != nil {
		return nil, err
	}
	u.Path = "/" + d.name
	d.url = u.String()
	cfg, err := pgxpool.ParseConfig(d.url)
	if err != nil {
		return nil, err
	}
	cfg.MaxConns = 32
	if d.Pool, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		return nil, err
	}
	err = d.AcquireFunc(ctx, func(c *pgxpool.Conn) error { return m.Up(ctx, c.Conn()) })
	if err != nil {
		d.drop()
		return nil, err
	}
	return d, nil
}

// withOrders is a new database with tables of ours and an order's.
func withOrders(ctx context.Context, e *env, m migrate.Set) (*database, error) {
	db, err := databaseWith(ctx, e, m)
	if err != nil {
		return nil, err
	}
	if _, err := db.Exec(ctx, `CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_id text, customer text, sum bigint)`); err != nil {
		db.drop()
		return nil, err
	}
	return db, nil
}

func (d *database) asAdmin(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, d.admin)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, sql)
	return err
}

// drop removes the database whatever became of the figure.
func (d *database) drop() {
	d.Close()
	if err := d.asAdmin(context.Background(), "DROP DATABASE "+d.name+" WITH (FORCE)"); err != nil {
		note("drop %s: %v", d.name, err)
	}
}

// Keys of a backlog, as SQL over g.
const (
	thousandKeys = `'key-' || g % 1000`
	zipfKeys     = `'key-' || floor(exp(random() * ln(50000)))` // rank k with probability ~ 1/k
	oneKey       = `'key'`
)

// fill writes n events of 300 bytes with a traceparent and a correlation id.
func (d *database) fill(ctx context.Context, topic, keys string, n int) error {
	const chunk = 1_000_000 // what one transaction writes
	for from := 1; from <= n; from += chunk {
		if _, err := d.Exec(ctx, `INSERT INTO outbox.event (topic, key, type, source, content_type, correlation_id, headers, payload)
SELECT $1, `+keys+`, 'com.example.OrderPlaced', '/shop/orders', 'application/avro', gen_random_uuid()::text,
  jsonb_build_object('traceparent', '00-' || md5(g::text) || '-00f067aa0ba902b7-01'),
  convert_to(rpad('{"orderId":"' || md5(g::text) || '","customer":"' || md5((-g)::text) || '","sum":' || g || ',"items":["', 300, 'sku-' || g % 97 || ' '), 'UTF8')
FROM generate_series($2::int, $3::int) g`, topic, from, min(from+chunk-1, n)); err != nil {
			return fmt.Errorf("fill: %w", err)
		}
	}
	_, err := d.Exec(ctx, `VACUUM (ANALYZE) outbox.event`)
	return err
}

// forget makes the log look unpublished again.
func (d *database) forget(ctx context.Context) error {
	_, err := d.Exec(ctx, `DELETE FROM outbox.position; DELETE FROM outbox.pipeline; DELETE FROM outbox.instance`)
	return err
}

// relayApplication marks the relay's sessions in pg_stat_activity.
const relayApplication = "bench-relay"

func (d *database) relayURL() string { return d.urlOf(relayApplication) }

// urlOf marks sessions as those of an application.
func (d *database) urlOf(application string) string {
	u, err := url.Parse(d.url)
	if err != nil {
		return d.url
	}
	q := u.Query()
	q.Set("application_name", application)
	u.RawQuery = q.Encode()
	return u.String()
}
