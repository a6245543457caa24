package avro

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/schema"
)

func TestChanges(t *testing.T) {
	require.GreaterOrEqual(t, len(changes), 60)
	for _, c := range changes {
		t.Run(c.name, func(t *testing.T) {
			backward, err := Compare(avroSchema(c.new), avroSchema(c.old))
			require.NoError(t, err)
			require.Equal(t, c.backward, len(backward) == 0, backward)
			forward, err := Compare(avroSchema(c.old), avroSchema(c.new))
			require.NoError(t, err)
			require.Equal(t, c.forward, len(forward) == 0, forward)
		})
	}
}

// What Compare lets pass, Decode can resolve: for all data.
func TestWhatIsCompatibleCanBeResolved(t *testing.T) {
	for _, c := range changes {
		for _, p := range []struct {
			ok             bool
			writer, reader string
		}{{c.backward, c.old, c.new}, {c.forward, c.new, c.old}} {
			w, err := parseSchema(p.writer)
			require.NoError(t, err)
			r, err := parseSchema(p.reader)
			require.NoError(t, err)
			conv, err := resolve(r, w)
			if !p.ok {
				continue // it may still resolve: for some values only
			}
			require.NoError(t, err, c.name)
			for _, sample := range samples(w, 3) {
				require.NoError(t, check(w, sample), c.name)
				out, err := conv.convert(&guard{data: sample}, nil)
				require.NoError(t, err, c.name)
				require.NoError(t, check(r, out), c.name)
			}
		}
	}
}

// samples are encoded values of n that between them take every branch of a union
// and every symbol of an enum, arrays and maps nested to the depth.
func samples(n *node, depth int) [][]byte {
	switch n.kind {
	case kNull:
		return [][]byte{{}}
	case kBoolean:
		return [][]byte{{0}, {1}}
	case kFloat, kDouble, kFixed:
		return [][]byte{make([]byte, n.min)}
	case kEnum:
		var all [][]byte
		for i := range n.symbols {
			all = append(all, appendLong(nil, int64(i)))
		}
		return all
	case kUnion:
		var all [][]byte
		for i, b := range n.branches {
			for _, s := range samples(b, depth) {
				all = append(all, append(appendLong(nil, int64(i)), s...))
			}
		}
		return all
	case kArray, kMap:
		if depth == 0 {
			return [][]byte{{0}}
		}
		items := samples(n.item, depth-1)
		all := appendLong(nil, int64(len(items)))
		for _, s := range items {
			if n.kind == kMap {
				all = append(all, 2, 'k')
			}
			all = append(all, s...)
		}
		return [][]byte{{0}, append(all, 0)}
	case kRecord:
		rows := [][]byte{{}}
		for _, f := range n.fields {
			values := samples(f.typ, depth)
			for len(rows) < len(values) {
				rows = append(rows, rows[0])
			}
			for i := range rows {
				rows[i] = append(rows[i][:len(rows[i]):len(rows[i])], values[i%len(values)]...)
			}
		}
		return rows
	case kBytes, kString:
		return [][]byte{{0}, {2, 'x'}}
	default: // int, long
		return [][]byte{{0}, {1}}
	}
}

func TestMessagesNamePathAndRule(t *testing.T) {
	items := func(fields ...string) string { return rec(fld("items", listOf(inner("Item", fields...)))) }
	pay := func(fields ...string) string {
		return rec(fld("pay", `[`+inner("Card", fields...)+`,`+inner("Cash")+`]`))
	}
	sku := fld("sku", tStr)
	for _, tt := range []struct {
		mode     schema.Mode
		old, new string
		want     []string
	}{
		{schema.Backward, items(sku), items(sku, fld("qty", tInt)), []string{"field `items[].qty`: added without default breaks BACKWARD"}},
		{schema.Forward, items(sku, fld("qty", tInt)), items(sku), []string{"field `items[].qty`: removed, though it had no default, breaks FORWARD"}},
		{schema.Backward, items(sku), items(fld("sku", tInt)), []string{"field `items[].sku`: type changed from string to int breaks BACKWARD"}},
		{schema.Forward, items(fld("sku", tInt)), items(fld("sku", tLong)), []string{"field `items[].sku`: type changed from int to long breaks FORWARD"}},
		{schema.Backward, rec(fld("m", mapOf(fixedOf("F", "4")))), rec(fld("m", mapOf(fixedOf("F", "8")))), []string{"field `m[]`: size changed from 4 to 8 breaks BACKWARD"}},
		{schema.Backward, rec(fld("e", enumOf(`"A","B","C"`, ``))), rec(fld("e", enumOf(`"A"`, ``))), []string{"field `e`: symbols B, C removed from an enum without default breaks BACKWARD"}},
		{schema.Forward, rec(fld("e", enumOf(`"A"`, ``))), rec(fld("e", enumOf(`"A","B"`, ``))), []string{"field `e`: symbols B added to an enum without default breaks FORWARD"}},
		{schema.Backward, rec(fld("a", `["null","string"]`)), rec(fld("a", tStr)), []string{"field `a`: no longer takes null breaks BACKWARD"}},
		{schema.Forward, rec(fld("a", tStr)), rec(fld("a", `["null","string"]`)), []string{"field `a`: now also null, which the earlier string does not take, breaks FORWARD"}},
		{schema.Forward, rec(fld("a", `["null","string"]`)), rec(fld("a", `["null","string","int"]`)), []string{"field `a`: now also int, which the earlier [null, string] does not take, breaks FORWARD"}},
		{schema.Backward, renamed("R", ``), renamed("S", ``), []string{"the schema: renamed from record n.R to record n.S without an alias breaks BACKWARD"}},
		{schema.Forward, renamed("R", ``), renamed("S", ``), []string{"the schema: renamed from record n.R to record n.S, which earlier readers do not know, breaks FORWARD"}},
		{schema.Backward, pay(), pay(fld("no", tStr)), []string{"field `pay<Card>.no`: added without default breaks BACKWARD"}},
		{schema.Backward, rec(), rec(fld("a", tInt, `,"default":"x"`)), []string{"field `a`: default that does not fit its type (default x does not fit int) breaks BACKWARD"}},
		{schema.Backward, rec(fld("d", logical(tBytes, "decimal", `,"precision":9,"scale":2`))), rec(fld("d", logical(tBytes, "decimal", `,"precision":9,"scale":4`))), []string{"field `d`: meaning changed from decimal of scale 2 to decimal of scale 4 breaks BACKWARD"}},
		{schema.Full, rec(fld("a", tInt)), rec(fld("b", tInt)), []string{"field `b`: added without default breaks BACKWARD", "field `a`: removed, though it had no default, breaks FORWARD"}},
	} {
		v, err := schema.Local(tt.mode, avroSchema(tt.new), []schema.Version{{Number: 1, Schema: avroSchema(tt.old)}}, Compare)
		require.NoError(t, err)
		require.False(t, v.Compatible)
		require.ErrorIs(t, v.Error(), schema.ErrIncompatible)
		require.Equal(t, "incompatible schema: "+strings.Join(tt.want, "\n"), v.Error().Error())
	}
}

// What rules a pair of types out must also rule out those that were decided while
// it was still taken to fit: here X, whose a.N cannot read n.N, while the field u can
// do without a.N.
func TestCompareSettlesLatePairs(t *testing.T) {
	n := func(name, v string) string { return inner(name, fld("v", v)) }
	reader := rec(fld("u", `[`+n("a.N", tStr)+`,`+n("b.N", tInt)+`]`), fld("w", listOf(inner("X", fld("f", `"a.N"`)))))
	writer := rec(fld("u", n("n.N", tInt)), fld("w", listOf(inner("X", fld("f", `"n.N"`)))))
	problems, err := Compare(avroSchema(reader), avroSchema(writer))
	require.NoError(t, err)
	require.Equal(t, []schema.Problem{{Path: "w[].f.v", Rule: schema.TypeMismatch, Reader: "string", Writer: "int"}}, problems)
}

func TestCompareRecursionThroughUnions(t *testing.T) {
	node := func(v string) string {
		return `{"type":"record","name":"N","fields":[{"name":"next","type":["null","N"]},{"name":"v","type":` + v + `}]}`
	}
	problems, err := Compare(avroSchema(node(tStr)), avroSchema(node(tInt)))
	require.NoError(t, err)
	require.Equal(t, []schema.Problem{{Path: "v", Rule: schema.TypeMismatch, Reader: "string", Writer: "int"}}, problems)

	problems, err = Compare(avroSchema(rec(fld("x", `["null",`+node(tStr)+`]`), fld("y", `"N"`))), avroSchema(rec(fld("x", tNull), fld("y", node(tInt)))))
	require.NoError(t, err)
	require.NotEmpty(t, problems)
}

func TestCompareIsBounded(t *testing.T) {
	branches := func(field string) string { // each record of one against each of the other
		var all []string
		for i := range 1500 {
			all = append(all, inner("N"+strings.Repeat("i", i%40)+string(rune('a'+i%26))+strings.Repeat("x", i/26), fld(field, tInt)))
		}
		return `[` + strings.Join(all, ",") + `]`
	}
	start := time.Now()
	_, err := Compare(avroSchema(branches("a")), avroSchema(branches("b")))
	require.ErrorIs(t, err, ErrSchema)
	require.ErrorContains(t, err, "too large to be compared")
	require.Less(t, time.Since(start), 20*time.Second)
	_, err = Compare(event.Schema{Format: "json"}, avroSchema(tInt))
	require.ErrorContains(t, err, `format "json"`)
	_, err = Compare(avroSchema(tInt), avroSchema(`{`))
	require.ErrorIs(t, err, ErrSchema)
}
