package inbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/schema/avro"
)

// The producer's next version adds a field. The type keeps its name.
type (
	orderA struct {
		ID string `avro:"id"`
		N  int64  `avro:"n"`
	}
	orderB struct {
		ID       string `avro:"id"`
		N        int64  `avro:"n"`
		Currency string `avro:"currency"`
	}
)

const (
	schemaA = `{"type":"record","name":"Order","fields":[{"name":"id","type":"string"},{"name":"n","type":"long"}]}`
	schemaB = `{"type":"record","name":"Order","fields":[{"name":"id","type":"string"},{"name":"n","type":"long"},
		{"name":"currency","type":"string","default":"EUR"}]}`
)

var (
	placedA = event.Type[orderA]{Name: "shop.order.placed", Topic: "orders", Key: func(o orderA) string { return o.ID }, Codec: avro.MustParse(schemaA)}
	placedB = event.Type[orderB]{Name: "shop.order.placed", Topic: "orders", Key: func(o orderB) string { return o.ID }, Codec: avro.MustParse(schemaB)}
)

// While a producer is deployed, both versions come, for one key in turns; one
// handler reads both, whichever version it was compiled with.
func TestTwoSchemasOfOneType(t *testing.T) {
	t.Parallel()
	both := avro.SingleObject(placedA.Codec.Schema(), placedB.Codec.Schema())
	p := newPath(t, both)
	before, after := p.outbox(placedA), p.outbox(placedB)
	var want, wantA []string
	for n := range int64(10) {
		if n%2 == 0 {
			p.write(before, placedA.New(orderA{"o", n}))
			want = append(want, fmt.Sprint(n, " EUR")) // the default of the reader's schema
		} else {
			p.write(after, placedB.New(orderB{"o", n, "JPY"}))
			want = append(want, fmt.Sprint(n, " JPY"))
		}
		wantA = append(wantA, fmt.Sprint(n))
	}
	newer := p.consume(p.config("newer"), both, func(in *inbox.Inbox) {
		inbox.On(in, placedB, func(ctx context.Context, tx pgx.Tx, e inbox.Event[orderB]) error {
			return effect(ctx, tx, "newer", fmt.Sprint(e.Data.N, " ", e.Data.Currency))
		})
	})
	older := p.consume(p.config("older"), both, func(in *inbox.Inbox) {
		inbox.On(in, placedA, func(ctx context.Context, tx pgx.Tx, e inbox.Event[orderA]) error {
			return effect(ctx, tx, "older", fmt.Sprint(e.Data.N))
		})
	})
	// It was deployed before the second version and has no registry to ask.
	ignorant := p.consume(p.config("ignorant"), avro.SingleObject(placedA.Codec.Schema()), func(in *inbox.Inbox) {
		inbox.On(in, placedA, func(ctx context.Context, tx pgx.Tx, e inbox.Event[orderA]) error {
			return effect(ctx, tx, "ignorant", fmt.Sprint(e.Data.N))
		})
	})
	eventually(t, "all effects", func() bool {
		return len(p.keysOf("newer")) == 10 && len(p.keysOf("older")) == 10 && p.count(`SELECT count(*) FROM inbox.dead`) == 9
	})
	for _, r := range []*running{newer, older, ignorant} {
		require.NoError(t, r.end())
	}
	require.Equal(t, want, p.keysOf("newer"))
	require.Equal(t, wantA, p.keysOf("older"))
	require.Equal(t, []string{"0"}, p.keysOf("ignorant"), "nothing passes what it cannot read")
	dead := p.dead()
	require.Equal(t, "undecodable", dead[0].Reason)
	require.Contains(t, dead[0].Error, "unknown schema fingerprint")
	for i, d := range dead {
		require.Equal(t, []string{"undecodable", "blocked"}[i%2], d.Reason, "all of them are kept, in order")
	}

	// Deployed with both schemas, it goes on where it could not read.
	deployed := p.consume(p.config("ignorant"), both, func(in *inbox.Inbox) {
		inbox.On(in, placedB, func(ctx context.Context, tx pgx.Tx, e inbox.Event[orderB]) error {
			return effect(ctx, tx, "ignorant", fmt.Sprint(e.Data.N))
		})
	})
	p.redrive(inbox.DeadFilter{Consumer: "ignorant", Key: "o"})
	eventually(t, "the rest", func() bool { return len(p.keysOf("ignorant")) == 10 })
	require.NoError(t, deployed.end())
	require.Equal(t, wantA, p.keysOf("ignorant"))
}

// A change that no resolution can bridge gets a new name, and a handler beside
// the first.
type orderV2 struct {
	Order struct {
		ID string `avro:"id"`
	} `avro:"order"`
	Lines []int64 `avro:"lines"`
}

var placedV2 = event.Type[orderV2]{
	Name: "shop.order.placed.v2", Topic: "orders", Key: func(o orderV2) string { return o.Order.ID },
	Codec: avro.MustParse(`{"type":"record","name":"OrderV2","fields":[
		{"name":"order","type":{"type":"record","name":"Ref","fields":[{"name":"id","type":"string"}]}},
		{"name":"lines","type":{"type":"array","items":"long"}}]}`),
}

func newOrderV2(id string, lines ...int64) orderV2 {
	o := orderV2{Lines: lines}
	o.Order.ID = id
	return o
}

func TestTwoTypesSideBySide(t *testing.T) {
	t.Parallel()
	wire := avro.SingleObject(placedA.Codec.Schema(), placedV2.Codec.Schema())
	p := newPath(t, wire)
	ob := p.outbox(placedA, placedV2)
	in := p.consume(p.config("inventory"), wire, func(in *inbox.Inbox) {
		inbox.On(in, placedA, func(ctx context.Context, tx pgx.Tx, e inbox.Event[orderA]) error {
			return effect(ctx, tx, "inventory", fmt.Sprint("v1 ", e.Data.N))
		})
		inbox.OnSQL(in, placedV2, func(ctx context.Context, tx *sql.Tx, e inbox.Event[orderV2]) error {
			_, err := tx.ExecContext(ctx, `INSERT INTO effect (consumer, key) VALUES ('inventory', $1)`, fmt.Sprint("v2 ", e.Data.Lines))
			return err
		})
	})
	var want []string
	for n := range int64(6) {
		p.write(ob, placedA.New(orderA{"o", n}), placedV2.New(newOrderV2("o", n, n+1)))
		want = append(want, fmt.Sprint("v1 ", n), fmt.Sprintf("v2 [%d %d]", n, n+1))
	}
	eventually(t, "all effects", func() bool { return len(p.keysOf("inventory")) == len(want) })
	require.NoError(t, in.end())
	require.Equal(t, want, p.keysOf("inventory"), "both types share their key's order")
}

// A producer writes a type that the consumer does not know yet.
func TestUnknownTypesOnTheWholeWay(t *testing.T) {
	t.Parallel()
	wire := avro.SingleObject(placedA.Codec.Schema(), placedV2.Codec.Schema())
	v1 := func(in *inbox.Inbox) {
		inbox.On(in, placedA, func(ctx context.Context, tx pgx.Tx, e inbox.Event[orderA]) error {
			return effect(ctx, tx, "inventory", fmt.Sprint("v1 ", e.Data.N))
		})
	}
	v2 := func(in *inbox.Inbox) {
		inbox.On(in, placedV2, func(ctx context.Context, tx pgx.Tx, e inbox.Event[orderV2]) error {
			return effect(ctx, tx, "inventory", fmt.Sprint("v2 ", e.Data.Lines))
		})
	}
	begin := func(t *testing.T, unknown inbox.Unknown) (*path, *running) {
		t.Parallel()
		p := newPath(t, wire)
		ob := p.outbox(placedA, placedV2)
		p.write(ob, placedA.New(orderA{"o", 1}), placedV2.New(newOrderV2("o", 2)), placedA.New(orderA{"o", 3}))
		cfg := p.config("inventory")
		cfg.Unknown = unknown
		return p, p.consume(cfg, wire, v1)
	}
	t.Run("ignored", func(t *testing.T) {
		p, in := begin(t, inbox.UnknownIgnore)
		eventually(t, "the events around it", func() bool { return len(p.keysOf("inventory")) == 2 })
		p.settled("inventory")
		require.NoError(t, in.end())
		require.Equal(t, []string{"v1 1", "v1 3"}, p.keysOf("inventory"))
		require.Equal(t, inbox.Stats{Handled: 2, Ignored: 1}, in.Stats())
		require.Empty(t, p.dead())
	})
	t.Run("failed until it is known", func(t *testing.T) {
		p, in := begin(t, inbox.UnknownFail)
		require.ErrorContains(t, in.wait(), `no handler for type "shop.order.placed.v2"`)
		require.Equal(t, []string{"v1 1"}, p.keysOf("inventory"), "later ones of the key wait")
		deployed := p.consume(p.config("inventory"), wire, func(in *inbox.Inbox) { v1(in); v2(in) })
		eventually(t, "all effects", func() bool { return len(p.keysOf("inventory")) == 3 })
		require.NoError(t, deployed.end())
		require.Equal(t, []string{"v1 1", "v2 [2]", "v1 3"}, p.keysOf("inventory"))
	})
	t.Run("dead-lettered", func(t *testing.T) {
		p, in := begin(t, inbox.UnknownDeadLetter)
		eventually(t, "the dead letter and what is behind it", func() bool { return len(p.dead()) == 2 })
		require.NoError(t, in.end())
		require.Equal(t, []string{"v1 1"}, p.keysOf("inventory"))
		rows := p.dead()
		require.Equal(t, "unknown_type", rows[0].Reason)
		require.Equal(t, "shop.order.placed.v2", rows[0].Type)
		require.Equal(t, "blocked", rows[1].Reason)
	})
}

func effect(ctx context.Context, tx pgx.Tx, consumer, key string) error {
	_, err := tx.Exec(ctx, `INSERT INTO effect (consumer, key) VALUES ($1, $2)`, consumer, key)
	return err
}
