package outbox_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/migrate"
	"github.com/outboxkit/outboxkit/outbox"
	"github.com/outboxkit/outboxkit/schema/avro"
)

const benchAvsc = `{"type":"record","name":"shop.OrderPlaced","fields":[
	{"name":"order_id","type":"string"},{"name":"customer","type":"string"},
	{"name":"placed_at","type":{"type":"long","logicalType":"timestamp-micros"}},
	{"name":"state","type":{"type":"enum","name":"State","symbols":["NEW","PAID","SENT"]}},
	{"name":"note","type":["null","string"],"default":null},
	{"name":"items","type":{"type":"array","items":{"type":"record","name":"Item","fields":[
		{"name":"sku","type":"string"},{"name":"qty","type":"int"},{"name":"cents","type":"long"}]}}}]}`

type benchItem struct {
	SKU   string `avro:"sku"`
	Qty   int    `avro:"qty"`
	Cents int64  `avro:"cents"`
}

type benchOrder struct {
	OrderID  string      `avro:"order_id"`
	Customer string      `avro:"customer"`
	PlacedAt time.Time   `avro:"placed_at"`
	State    string      `avro:"state"`
	Note     *string     `avro:"note"`
	Items    []benchItem `avro:"items"`
}

// noDatabase is a transaction that answers at once.
type noDatabase struct{ pgx.Tx }

func (noDatabase) Exec(context.Context, string, ...any) (pgconn.CommandTag, error) {
	return pgconn.CommandTag{}, nil
}

// BenchmarkGate bounds the share of a write that is the check of its value, from
// above: "%local" is all that Write does before the database, of which the check
// is a part (the others are the encoding itself, the type's look-up, the event's id,
// the arguments). The check alone, as a difference of two timings, drowns in their
// noise. A loaded machine makes the database slower and the share look smaller.
func BenchmarkGate(b *testing.B) {
	note := "leave it with the neighbours"
	o := benchOrder{OrderID: "o-1", Customer: "c-17", PlacedAt: time.Now(), State: "PAID", Note: &note}
	for range 5 {
		o.Items = append(o.Items, benchItem{"sku-4711", 2, 1999})
	}
	typ := event.Type[benchOrder]{Name: "shop.order.placed", Topic: "orders", Key: func(o benchOrder) string { return o.OrderID }, Codec: avro.MustParse(benchAvsc)}
	pool, err := pgxpool.New(b.Context(), pgtest.URL(b))
	require.NoError(b, err)
	b.Cleanup(pool.Close)
	require.NoError(b, pool.AcquireFunc(b.Context(), func(c *pgxpool.Conn) error { return migrate.Outbox("").Up(b.Context(), c.Conn()) }))
	ob, err := outbox.New(b.Context(), pool, outbox.Config{Source: "/shop", Types: []event.Any{typ}})
	require.NoError(b, err)

	var writing, local time.Duration
	timed := func(d *time.Duration, f func() error) {
		began := time.Now()
		for range 100 {
			require.NoError(b, f())
		}
		*d += time.Since(began)
	}
	for b.Loop() {
		tx, err := pool.Begin(b.Context())
		require.NoError(b, err)
		timed(&writing, func() error { return ob.Write(b.Context(), tx, typ.New(o)) })
		require.NoError(b, tx.Commit(b.Context()))
		timed(&local, func() error { return ob.Write(b.Context(), noDatabase{}, typ.New(o)) })
	}
	n := float64(b.N) * 100
	b.ReportMetric(float64(writing.Nanoseconds())/n, "write-ns/event")
	b.ReportMetric(float64(local.Nanoseconds())/n, "local-ns/event")
	b.ReportMetric(100*float64(local)/float64(writing), "%local")
}
