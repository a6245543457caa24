package outboxtest_test

import (
	"context"
	"database/sql"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/migrate"
	"github.com/outboxkit/outboxkit/outbox"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

type order struct {
	ID    string
	Items []string
	At    time.Time
}

// lineCodec writes an order as "ID item item @second": it carries no
// nanoseconds, no time zone, and no difference between nil and empty. Version 1
// had no time.
type lineCodec struct{ version string }

func (c lineCodec) Schema() event.Schema {
	return event.Schema{Format: "line", Text: c.version, ContentType: "text/line"}
}

func (c lineCodec) Encode(v any) ([]byte, error) {
	o := v.(order)
	if o.ID == "" {
		return nil, fmt.Errorf("field ID is empty")
	}
	line := strings.Join(append([]string{o.ID}, o.Items...), " ")
	if c.version != "1" {
		line += fmt.Sprintf(" @%d", o.At.Unix())
	}
	return []byte(line), nil
}

func (c lineCodec) Decode(data []byte, writer event.Schema, v any) error {
	words := strings.Fields(string(data))
	o := order{ID: words[0], At: time.Unix(0, 0).UTC()}
	if writer.Text != "1" {
		var at int64
		last := words[len(words)-1]
		if _, err := fmt.Sscanf(last, "@%d", &at); err != nil {
			return fmt.Errorf("%q is no time: %w", last, err)
		}
		words, o.At = words[:len(words)-1], time.Unix(at, 0).UTC()
	}
	o.Items = words[1:]
	*v.(*order) = o
	return nil
}

func typeOf(name, version string) event.Type[order] {
	return event.Type[order]{Name: name, Topic: "orders", Key: func(o order) string { return o.ID }, Codec: lineCodec{version}}
}

var (
	placed   = typeOf("shop.order.placed", "2")
	placedV1 = typeOf("shop.order.placed", "1") // what an older service writes
	paid     = typeOf("shop.order.paid", "2")
)

// shop is a migrated database and its outbox.
type shop struct {
	pool *pgxpool.Pool
	db   *sql.DB // the same
	ob   *outbox.Outbox
}

func newShop(t *testing.T, schema string) shop {
	t.Helper()
	pool := pgtest.Pool(t)
	require.NoError(t, pool.AcquireFunc(t.Context(), func(c *pgxpool.Conn) error {
		return migrate.Outbox(schema).Up(t.Context(), c.Conn())
	}))
	ob, err := outbox.New(t.Context(), pool, outbox.Config{
		Source: "/shop", Schema: schema, Types: []event.Any{placed, placedV1, paid},
	})
	require.NoError(t, err)
	db := stdlib.OpenDBFromPool(pool)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return shop{pool, db, ob}
}

// recorder is a testing.TB that fails alone.
type recorder struct {
	testing.TB
	text strings.Builder
}

func (r *recorder) Helper() {}
func (r *recorder) Errorf(format string, args ...any) {
	fmt.Fprintf(&r.text, format+"\n", args...)
}
func (r *recorder) FailNow() { runtime.Goexit() }
func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	r.FailNow()
}

// failure returns what a test that calls f would report; it must end there.
func failure(t *testing.T, f func(t testing.TB)) string {
	t.Helper()
	r := &recorder{TB: t}
	passed := make(chan bool, 1)
	go func() {
		ended := false
		defer func() { passed <- ended }()
		f(r)
		ended = true
	}()
	require.False(t, <-passed, "the test should have failed")
	return r.text.String()
}

var background = context.Background()
