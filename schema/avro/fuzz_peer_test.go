package avro

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	twmb "github.com/twmb/avro"

	"github.com/outboxkit/outboxkit/event"
)

// stricter are the errors with which we refuse bytes that twmb/avro accepts, and
// why that is right. On anything else both agree; what twmb refuses, we never
// accept.
var stricter = []struct{ err, why string }{
	{"boolean is", "the specification knows 0 and 1; twmb reads any other byte as false, as Java does"},
	{errUTF8.Error(), "the specification says UTF-8; twmb hands the bytes on, and JSON or Postgres fail later"},
	{"but its size says", "a block that ends elsewhere than its size says is read one way by who decodes it and another by who skips it; twmb ignores the size"},
	{"items in", "the same, of a size that is negative or beyond the end"},
	{fmt.Sprintf("nested deeper than %d levels", maxDepth), "twmb stops at 1,000; hamba behind us recurses without a limit"},
	{"values that take no bytes", "twmb allows more of them in an array, and bounds each array by itself"},
	{fmt.Sprintf("but there is room for %d", maxEmpty), "the same, for one block"},
}

var errRest = errors.New("bytes follow the value")

// peers are codecs of one schema, without logical types: those say how a Go value
// looks, not which bytes are valid.
func peers(tb testing.TB, schema string) (*Codec, *twmb.Schema) {
	schema = strings.ReplaceAll(schema, `"logicalType"`, `"ignored"`)
	theirs, err := twmb.Parse(schema)
	require.NoError(tb, err)
	return MustParse(schema), theirs
}

// A second opinion on every message, from a library that was written by others.
func FuzzPeer(f *testing.F) {
	ours, theirs := make([]*Codec, len(fuzzSchemas)), make([]*twmb.Schema, len(fuzzSchemas))
	for i, s := range fuzzSchemas {
		ours[i], theirs[i] = peers(f, s)
		r := rand.New(rand.NewPCG(uint64(i), 3))
		for range 4 {
			data, err := ours[i].marshal(randomValue(r, ours[i].root, 0))
			require.NoError(f, err)
			f.Add(uint8(i), data)
		}
		for _, hostile := range [][]byte{encoded(1<<40, 0), encoded(math.MinInt64, 1, 0), encoded(-1, -1, 0), encoded(1 << 30), {0xff}, {}} {
			f.Add(uint8(i), hostile)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, data []byte) {
		i := int(which) % len(fuzzSchemas)
		secondOpinion(t, ours[i], theirs[i], data)
	})
}

// Valid bytes, of values that we make up: both read them, and the same.
func FuzzPeerAgrees(f *testing.F) {
	for i := range fuzzSchemas {
		f.Add(uint8(i), uint64(i))
	}
	f.Fuzz(func(t *testing.T, which uint8, seed uint64) {
		ours, theirs := peers(t, fuzzSchemas[int(which)%len(fuzzSchemas)])
		data, err := ours.marshal(randomValue(rand.New(rand.NewPCG(seed, 4)), ours.root, 0))
		require.NoError(t, err)
		require.True(t, secondOpinion(t, ours, theirs, data), "valid, but refused: %x", data)
	})
}

// secondOpinion reports whether both accept data, and fails if they disagree.
func secondOpinion(t *testing.T, ours *Codec, theirs *twmb.Schema, data []byte) bool {
	t.Helper()
	var a, b any
	ourErr := ours.Decode(data, event.Schema{}, &a)
	rest, theirErr := theirs.Decode(data, &b, twmb.TaggedUnions())
	if theirErr == nil && len(rest) > 0 {
		theirErr = errRest
	}
	switch {
	case ourErr == nil && theirErr != nil:
		t.Fatalf("%x: we read %v, twmb says: %v", data, a, theirErr)
	case ourErr != nil && theirErr == nil:
		for _, s := range stricter {
			if strings.Contains(ourErr.Error(), s.err) {
				return false
			}
		}
		t.Fatalf("%x: twmb reads %v, we say: %v", data, b, ourErr)
	case ourErr == nil && !alike(ours.root, a, b):
		t.Fatalf("%x: we read %#v, twmb %#v", data, a, b)
	}
	return ourErr == nil
}

// alike compares a value of n as hamba decodes it with one as twmb does.
func alike(n *node, a, b any) bool {
	switch n.kind {
	case kNull:
		return a == nil && b == nil
	case kInt, kLong:
		return reflect.ValueOf(a).Int() == reflect.ValueOf(b).Int()
	case kFloat:
		return math.Float32bits(a.(float32)) == math.Float32bits(b.(float32))
	case kDouble:
		return math.Float64bits(a.(float64)) == math.Float64bits(b.(float64))
	case kBytes, kFixed:
		return bytes.Equal(rawBytes(a), rawBytes(b))
	case kArray:
		x, y := a.([]any), b.([]any)
		for i := range x {
			if len(y) != len(x) || !alike(n.item, x[i], y[i]) {
				return false
			}
		}
		return len(x) == len(y)
	case kMap:
		x, y := a.(map[string]any), b.(map[string]any)
		for k := range x {
			if w, ok := y[k]; !ok || !alike(n.item, x[k], w) {
				return false
			}
		}
		return len(x) == len(y)
	case kRecord:
		x, y := a.(map[string]any), b.(map[string]any)
		for _, f := range n.fields {
			if !alike(f.typ, x[f.name], y[f.name]) {
				return false
			}
		}
		return len(x) == len(y)
	case kUnion:
		return alikeInUnion(n, a, b)
	default: // boolean, string, enum
		return a == b
	}
}

// alikeInUnion: twmb names the branch of each value, hamba of those that are not
// primitive.
func alikeInUnion(n *node, a, b any) bool {
	if b == nil {
		return a == nil
	}
	for name, value := range b.(map[string]any) {
		branch := n.branch(name)
		if branch == nil {
			return false
		}
		if branch.kind < kFixed {
			return a != nil && alike(branch, a, value)
		}
		tagged, ok := a.(map[string]any)
		return ok && len(tagged) == 1 && tagged[name] != nil && alike(branch, tagged[name], value)
	}
	return false
}

// rawBytes returns the bytes of a []byte or a [n]byte.
func rawBytes(v any) []byte {
	rv := reflect.ValueOf(v)
	if rv.Kind() == reflect.Slice {
		return rv.Bytes()
	}
	out := make([]byte, rv.Len())
	reflect.Copy(reflect.ValueOf(out), rv)
	return out
}
