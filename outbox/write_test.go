package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/outbox"
)

const someID = "01935b2e-5b5c-7abc-9def-0123456789ab"

func TestWriteStoresEveryField(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	for _, tr := range d.transactors() {
		t.Run(tr.name, func(t *testing.T) {
			ctx := t.Context()
			_, err := d.admin.Exec(ctx, "TRUNCATE outbox.event")
			require.NoError(t, err)
			cfg := config()
			cfg.TraceHeaders = func(context.Context) map[string]string {
				return map[string]string{"traceparent": "00-a-b-01", "tenant": "trace"}
			}
			ob, err := tr.new(ctx, cfg)
			require.NoError(t, err)

			full := orderPlacedV1.New(orderPlaced{OrderID: "o-1", Note: `"quoted", \ {brace} ünïcode`})
			full.ID, full.Topic = someID, "orders-eu"
			full.Time = time.Date(2026, 3, 4, 5, 6, 7, 891011000, time.UTC)
			full.CorrelationID, full.CausationID = "corr", "cause"
			full.Headers = map[string]string{"tenant": "eu"}
			empty := orderPlacedV1.New(orderPlaced{OrderID: "o-2", Note: "empty"})
			require.NoError(t, tr.run(ctx, func(write writeFunc) error {
				if err := write(ctx, ob, full); err != nil { // one
					return err
				}
				return write(ctx, ob, empty, orderPlacedV1.Tombstone("o-3"), full) // many
			}))

			got := d.events(t)
			require.Len(t, got, 4)
			for _, i := range []int{0, 3} {
				e := got[i]
				require.Equal(t, []string{someID, "orders-eu", "o-1", "shop.order.placed", "/shop/orders"}, []string{e.EventID, e.Topic, e.Key, e.Type, e.Source})
				require.Equal(t, "2026-03-04T05:06:07.891011", *e.Time)
				require.Equal(t, "corr", *e.Correlation)
				require.Equal(t, "cause", *e.Causation)
				require.Equal(t, map[string]string{"traceparent": "00-a-b-01", "tenant": "eu"}, e.Headers)
				require.JSONEq(t, `{"orderId":"o-1","note":"\"quoted\", \\ {brace} ünïcode"}`, string(e.Payload))
				require.NotNil(t, e.SchemaFP)
			}
			require.Equal(t, "o-2", got[1].Key)
			require.NotNil(t, got[1].Payload, "an empty payload is not a tombstone")
			require.Empty(t, got[1].Payload)
			require.Nil(t, got[1].Time)
			require.Nil(t, got[1].Correlation)
			require.Nil(t, got[2].Payload, "a tombstone has a NULL payload")
			require.NotEqual(t, got[1].EventID, got[2].EventID)

			var format, text string
			require.NoError(t, d.admin.QueryRow(ctx, "SELECT format, text FROM outbox.schema WHERE fp = $1", *got[0].SchemaFP).Scan(&format, &text))
			require.Equal(t, []string{"test", `{"version":"1"}`}, []string{format, text})
		})
	}
}

func TestWriteKeepsTheOrderOfTheDrafts(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	for _, tr := range d.transactors() {
		for _, locked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s locked=%v", tr.name, locked), func(t *testing.T) {
				ctx := t.Context()
				_, err := d.admin.Exec(ctx, "TRUNCATE outbox.event")
				require.NoError(t, err)
				ob, err := tr.new(ctx, config())
				require.NoError(t, err)
				if locked {
					ob = ob.WithKeyLock()
				}
				drafts := make([]event.Draft, 2500) // more than one statement of a *sql.Tx
				for i := range drafts {
					drafts[i] = orderPlacedV1.New(orderPlaced{OrderID: fmt.Sprint(i * 7919 % 2503)})
				}
				require.NoError(t, tr.run(ctx, func(write writeFunc) error { return write(ctx, ob, drafts...) }))
				got := d.events(t)
				require.Len(t, got, len(drafts))
				for i := range drafts {
					require.Equal(t, drafts[i].Key, got[i].Key)
				}
			})
		}
	}
}

func TestRolledBackEventsNeverExisted(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	boom := errors.New("boom")
	for _, tr := range d.transactors() {
		t.Run(tr.name, func(t *testing.T) {
			ob, err := tr.new(t.Context(), config())
			require.NoError(t, err)
			err = tr.run(t.Context(), func(write writeFunc) error {
				require.NoError(t, write(t.Context(), ob, orderPlacedV1.New(orderPlaced{OrderID: "gone"})))
				return boom
			})
			require.ErrorIs(t, err, boom)
			require.Empty(t, d.events(t))
		})
	}
}

// A refused event must not touch the database: the transaction stays usable.
func TestWriteRefusesBadEvents(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	cfg := config()
	cfg.MaxPayload = 100
	ob, err := outbox.New(t.Context(), d.writer, cfg)
	require.NoError(t, err)
	other := orderPlacedV1
	other.Codec = noteCodec{"2"}
	long := func(n int) string { return string(make([]byte, n)) }
	for name, c := range map[string]struct {
		change func(*event.Draft)
		want   string
	}{
		"no type":           {func(e *event.Draft) { *e = event.Draft{} }, `Draft.Type is not set`},
		"unregistered":      {func(e *event.Draft) { *e = other.New(orderPlaced{}) }, `Draft.Type "shop.order.placed" is not among Config.Types`},
		"empty topic":       {func(e *event.Draft) { e.Topic, e.Type.Topic = "", "" }, `Draft.Topic is empty`},
		"long topic":        {func(e *event.Draft) { e.Topic = long(250) }, `Draft.Topic`},
		"NUL in key":        {func(e *event.Draft) { e.Key = "a\x00b" }, `Draft.Key`},
		"bad UTF-8 in key":  {func(e *event.Draft) { e.Key = "a\xff" }, `is not valid UTF-8`},
		"long key":          {func(e *event.Draft) { e.Key = long(1025) }, `has 1025 bytes`},
		"id":                {func(e *event.Draft) { e.ID = "42" }, `Draft.ID "42" is not a UUID`},
		"id version":        {func(e *event.Draft) { e.ID = "6ba7b810-9dad-41d1-80b4-00c04fd430c8" }, `is a UUID of version 4`},
		"header name":       {func(e *event.Draft) { e.Headers = map[string]string{"Bad Name": "x"} }, `Draft.Headers["Bad Name"] is not a valid name`},
		"reserved header":   {func(e *event.Draft) { e.Headers = map[string]string{"ce_id": "x"} }, `Draft.Headers["ce_id"] is reserved`},
		"reserved header 2": {func(e *event.Draft) { e.Headers = map[string]string{"content-type": "x"} }, `is reserved`},
		"header value":      {func(e *event.Draft) { e.Headers = map[string]string{"a": "\xff"} }, `Draft.Headers["a"]`},
		"headers too large": {func(e *event.Draft) {
			e.Headers = map[string]string{"a": string(make([]rune, 0)) + fmt.Sprintf("%020000d", 1)}
		}, `has 20000 bytes`},
		"payload too large": {func(e *event.Draft) { e.Data = orderPlaced{Note: fmt.Sprintf("%0200d", 1)} }, `Draft.Data has 2`},
		"does not fit":      {func(e *event.Draft) { e.Data = orderPlaced{Note: "bad"} }, `Draft.Data does not fit the schema of shop.order.placed: field note`},
		"time":              {func(e *event.Draft) { e.Time = time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC) }, `Draft.Time`},
		"correlation":       {func(e *event.Draft) { e.CorrelationID = "a\x00" }, `Draft.CorrelationID`},
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, pgx.BeginFunc(t.Context(), d.writer, func(tx pgx.Tx) error {
				draft := orderPlacedV1.New(orderPlaced{OrderID: "o"})
				c.change(&draft)
				err := ob.Write(t.Context(), tx, orderPlacedV1.New(orderPlaced{OrderID: "good"}), draft)
				require.ErrorContains(t, err, c.want)
				require.ErrorContains(t, err, "event 2 of 2")
				var field *event.FieldError
				require.ErrorAs(t, err, &field)
				var one int
				return tx.QueryRow(t.Context(), "SELECT 1").Scan(&one)
			}))
		})
	}
	require.Empty(t, d.events(t))
}

func TestNewRefusesBadConfig(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	for want, change := range map[string]func(*outbox.Config){
		"Config.Source is empty":        func(c *outbox.Config) { c.Source = "" },
		"Config.Types is empty":         func(c *outbox.Config) { c.Types = nil },
		"Config.Types contains nil":     func(c *outbox.Config) { c.Types = []event.Any{nil} },
		"Type.Name is empty":            func(c *outbox.Config) { c.Types = []event.Any{event.Type[int]{}} },
		"Type[x].Topic is empty":        func(c *outbox.Config) { c.Types = []event.Any{event.Type[int]{Name: "x"}} },
		"Type[x].Codec is nil":          func(c *outbox.Config) { c.Types = []event.Any{event.Type[int]{Name: "x", Topic: "y"}} },
		`Config.Schema "Out;box"`:       func(c *outbox.Config) { c.Schema = "Out;box" },
		"Config.MaxPayload is negative": func(c *outbox.Config) { c.MaxPayload = -1 },
	} {
		cfg := config()
		change(&cfg)
		_, err := outbox.New(t.Context(), d.writer, cfg)
		require.ErrorContains(t, err, want)
	}
	_, err := outbox.New(t.Context(), nil, config())
	require.ErrorContains(t, err, "pool is nil")

	empty := pgtest.Pool(t)
	_, err = outbox.New(t.Context(), empty, config())
	require.ErrorIs(t, err, outbox.ErrNotMigrated)
	require.ErrorContains(t, err, "relay migrate up")
}

func TestCauseIsCarriedOn(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ob, err := outbox.New(t.Context(), d.writer, config())
	require.NoError(t, err)
	write := func(ctx context.Context, draft event.Draft) {
		require.NoError(t, pgx.BeginFunc(ctx, d.writer, func(tx pgx.Tx) error { return ob.Write(ctx, tx, draft) }))
	}
	write(event.WithCause(t.Context(), event.Envelope{ID: "first"}), orderPlacedV1.New(orderPlaced{}))
	write(event.WithCause(t.Context(), event.Envelope{ID: "second", CorrelationID: "request"}), orderPlacedV1.New(orderPlaced{}))
	own := orderPlacedV1.New(orderPlaced{})
	own.CausationID, own.CorrelationID = "x", "y"
	write(event.WithCause(t.Context(), event.Envelope{ID: "third"}), own)
	var got [][2]string
	for _, e := range d.events(t) {
		got = append(got, [2]string{*e.Causation, *e.Correlation})
	}
	require.Equal(t, [][2]string{{"first", "first"}, {"second", "request"}, {"x", "y"}}, got)
}

// Any language can write events; what a writer may not do is choose their place
// in the log.
func TestPlainInsert(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := t.Context()
	_, err := d.writer.Exec(ctx, `INSERT INTO outbox.event (topic, key, type, source, payload)
		SELECT 'orders', 'k', 'shop.order.placed', '/php', '{}' FROM generate_series(1, 100)`)
	require.NoError(t, err)
	var n, versions, ordered int
	require.NoError(t, d.admin.QueryRow(ctx, `SELECT count(DISTINCT event_id), count(*) FILTER (WHERE substr(event_id::text, 15, 1) = '7'
		AND substr(event_id::text, 20, 1) IN ('8', '9', 'a', 'b')),
		count(*) FILTER (WHERE abs(extract(epoch FROM now()) * 1000 - ('x' || lpad(substr(replace(event_id::text, '-', ''), 1, 12), 16, '0'))::bit(64)::bigint) < 60000)
		FROM outbox.event`).Scan(&n, &versions, &ordered))
	require.Equal(t, []int{100, 100, 100}, []int{n, versions, ordered}, "distinct, version 7, variant and current time")

	for column, value := range map[string]string{"id": "1", "xid": "'5'", "slot": "3"} {
		_, err := d.writer.Exec(ctx, `INSERT INTO outbox.event (topic, type, source, `+column+`) VALUES ('t', 't', 's', `+value+`)`)
		require.ErrorContains(t, err, "permission denied", column)
	}
	for _, bad := range []string{
		`(topic, type, source) VALUES ('', 't', 's')`,
		`(topic, type, source) VALUES ('t', 't', NULL)`,
		`(topic, type, source, event_id) VALUES ('t', 't', 's', gen_random_uuid())`,
		`(topic, type, source, headers) VALUES ('t', 't', 's', '[]')`,
	} {
		_, err := d.writer.Exec(ctx, `INSERT INTO outbox.event `+bad)
		require.Error(t, err, bad)
	}
}

// The compiler is the test: neither a pool nor a *sql.DB has the type.
func TestOnlyATransactionCompiles(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	_, isTx := any(d.writer).(pgx.Tx)
	require.False(t, isTx, "a pool is not a transaction")
	var ob *outbox.Outbox
	var _ func(context.Context, pgx.Tx, ...event.Draft) error = ob.Write
	var _ func(context.Context, *sql.Tx, ...event.Draft) error = ob.WriteSQL
}
