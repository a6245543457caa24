package avro

import (
	"math/big"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/event"
)

// fuzzSchemas cover every kind; each can be the writer of any message.
var fuzzSchemas = []string{
	orderSchema,
	nodeSchema,
	`{"type":"record","name":"N","fields":[{"name":"w","type":"string","default":"d"},{"name":"next","type":["null","N"],"default":null},{"name":"v","type":"double"}]}`,
	`{"type":"record","name":"T","fields":[{"name":"c","type":{"type":"array","items":"T"}},{"name":"m","type":{"type":"map","values":"T"},"default":{}}]}`,
	`{"type":"record","name":"T","fields":[{"name":"m","type":{"type":"map","values":"T"}}]}`,
	`["null","boolean","int","long","float","double","string","bytes",{"type":"array","items":"null"},{"type":"map","values":"long"},
	  {"type":"fixed","name":"F","size":3},{"type":"enum","name":"E","symbols":["A","B","C"],"default":"A"}]`,
	`["double","string",{"type":"enum","name":"E","symbols":["C","A"],"default":"A"},{"type":"map","values":"double"},"null"]`,
	`{"type":"record","name":"L","fields":[{"name":"d","type":{"type":"int","logicalType":"date"}},{"name":"t","type":{"type":"long","logicalType":"time-micros"}},
	  {"name":"ts","type":{"type":"long","logicalType":"timestamp-millis"}},{"name":"x","type":{"type":"fixed","name":"D","size":4,"logicalType":"decimal","precision":8,"scale":2}}]}`,
}

// Whatever the bytes: no panic, and an answer soon.
func FuzzDecode(f *testing.F) {
	codecs := make([]*Codec, len(fuzzSchemas))
	for i, s := range fuzzSchemas {
		codecs[i] = MustParse(s)
		r := rand.New(rand.NewPCG(uint64(i), 1))
		for range 3 {
			data, err := codecs[i].marshal(randomValue(r, codecs[i].root, 0))
			require.NoError(f, err)
			for j := range fuzzSchemas {
				f.Add(uint8(i), uint8(j), data)
			}
		}
		f.Add(uint8(i), uint8(i), encoded(1<<40, 0, 0))
	}
	f.Fuzz(func(t *testing.T, w, r uint8, data []byte) {
		writer := codecs[int(w)%len(codecs)]
		reader := codecs[int(r)%len(codecs)]
		start := time.Now()
		var v any
		err := reader.Decode(data, writer.Schema(), &v)
		if err == nil {
			// What was accepted is a value of the reader's schema.
			if _, err := reader.rewrite(data, writer.Schema()); err != nil {
				t.Error(err)
			}
		}
		if reader == codecs[0] {
			var o order
			_ = reader.Decode(data, writer.Schema(), &o)
		}
		if d := time.Since(start); d > 10*time.Second {
			t.Errorf("took %s", d)
		}
	})
}

// What hamba encodes, the guard accepts and Decode reads; and what is rewritten
// for a reader passes the guard for the reader's schema.
func FuzzGuardAcceptsValidData(f *testing.F) {
	codecs := make([]*Codec, len(fuzzSchemas))
	for i, s := range fuzzSchemas {
		codecs[i] = MustParse(s)
		f.Add(uint8(i), uint64(i))
	}
	f.Fuzz(func(t *testing.T, which uint8, seed uint64) {
		c := codecs[int(which)%len(codecs)]
		in := randomValue(rand.New(rand.NewPCG(seed, 2)), c.root, 0)
		data, err := c.marshal(in)
		require.NoError(t, err, "%v", in)
		require.NoError(t, check(c.root, data), "%v", in)
		var out any
		require.NoError(t, c.Decode(data, event.Schema{}, &out), "%v", in)
		for _, reader := range codecs {
			if converted, err := reader.rewrite(data, c.Schema()); err == nil {
				require.NoError(t, check(reader.root, converted))
				require.NoError(t, reader.Decode(data, c.Schema(), new(any)))
			}
		}
	})
}

// Any text: no panic, and what is accepted has a canonical form that says the same.
func FuzzParseSchema(f *testing.F) {
	for _, s := range fuzzSchemas {
		f.Add(s)
	}
	reader := MustParse(orderSchema)
	f.Fuzz(func(t *testing.T, text string) {
		root, err := parseSchema(text)
		if err != nil {
			require.ErrorIs(t, err, ErrSchema)
			return
		}
		form := canonical(root, false)
		again, err := parseSchema(form)
		require.NoError(t, err)
		require.Equal(t, form, canonical(again, false))
		_ = reader.Decode([]byte{2, 2, 2, 0, 0}, avroSchema(text), new(any))
		_, _ = Parse(text)
	})
}

// randomValue makes a value of n in the generic form that hamba encodes.
func randomValue(r *rand.Rand, n *node, depth int) any {
	switch n.kind {
	case kBoolean:
		return r.IntN(2) == 0
	case kInt:
		if n.logical == "date" {
			return time.Unix(int64(r.IntN(1e9)), 0)
		}
		return int(int32(r.Uint32())) //nolint:gosec // any bits will do
	case kLong:
		switch n.logical {
		case "time-micros":
			return time.Duration(r.IntN(1e9))
		case "timestamp-millis", "timestamp-micros":
			return time.UnixMilli(r.Int64N(1e13))
		}
		return int64(r.Uint64()) >> r.IntN(64) //nolint:gosec // any bits will do
	case kFloat:
		return r.Float32()
	case kDouble:
		return r.NormFloat64()
	case kString:
		return string([]rune("aé漢\U0001F600")[:r.IntN(5)])
	case kBytes, kFixed:
		return randomBytes(r, n)
	case kEnum:
		return n.symbols[r.IntN(len(n.symbols))]
	default:
		return randomNested(r, n, depth)
	}
}

func randomNested(r *rand.Rand, n *node, depth int) any {
	size := max(0, r.IntN(4)-depth/2)
	if depth == 0 && r.IntN(4) == 0 {
		size = 150 // more than one of hamba's blocks
	}
	switch n.kind {
	case kArray:
		list := make([]any, size)
		for i := range list {
			list[i] = randomValue(r, n.item, depth+1)
		}
		return list
	case kMap:
		m := map[string]any{}
		for range size {
			m[randomValue(r, &node{kind: kString}, 0).(string)] = randomValue(r, n.item, depth+1)
		}
		return m
	case kUnion:
		b := n.branches[r.IntN(len(n.branches))]
		if b.kind == kNull || depth > 8 && n.branch("null") != nil {
			return nil
		}
		name := b.kind.String()
		if b.name != "" {
			name = b.name
		}
		return map[string]any{name: randomValue(r, b, depth+1)}
	case kRecord:
		m := map[string]any{}
		for _, f := range n.fields {
			m[f.name] = randomValue(r, f.typ, depth+1)
		}
		return m
	default:
		return nil
	}
}

func randomBytes(r *rand.Rand, n *node) any {
	if n.logical == "decimal" {
		return big.NewRat(r.Int64N(1e6)-5e5, 100)
	}
	size := n.size
	if n.kind == kBytes {
		size = r.IntN(20)
	}
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(r.Uint32()) //nolint:gosec // any bits will do
	}
	switch {
	case n.kind == kBytes:
		return b
	case size == 3:
		return [3]byte(b)
	default:
		return [4]byte(b)
	}
}
