package avro

import (
	"fmt"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/outboxkit/outboxkit/event"
)

// goField finds the struct field for a field of the schema as hamba does: by tag
// or exact name, the shallowest first.
func goField(t reflect.Type, name string) (reflect.StructField, bool) {
	var found reflect.StructField
	ok := false
	for _, sf := range reflect.VisibleFields(t) {
		if sf.Anonymous || !sf.IsExported() {
			continue
		}
		n := sf.Name
		if tag, has := sf.Tag.Lookup("avro"); has {
			n, _, _ = strings.Cut(tag, ",")
		}
		if n == name && (!ok || len(sf.Index) < len(found.Index)) {
			found, ok = sf, true
		}
	}
	return found, ok
}

// bind refuses Go types that hamba accepts for a schema but fills or reads
// wrongly, without an error or by way of a crash.
func bind(n *node, t reflect.Type, decoding bool) *event.FieldError {
	b := binder{decoding: decoding, seen: map[fitKey]bool{}}
	return b.bind(n, t)
}

type binder struct {
	decoding bool
	seen     map[fitKey]bool
}

var (
	timeType = reflect.TypeFor[time.Time]()
	ratType  = reflect.TypeFor[big.Rat]()
)

func (b *binder) bind(n *node, t reflect.Type) *event.FieldError {
	if b.seen[fitKey{n, t}] {
		return nil
	}
	b.seen[fitKey{n, t}] = true
	if n.kind == kUnion {
		return b.union(n, t)
	}
	if n.kind != kRecord && n.kind != kEnum && n.kind != kString && t.Kind() == reflect.Pointer && t.Elem() != ratType {
		return nil // hamba refuses it
	}
	switch n.kind {
	case kRecord:
		return b.record(n, t)
	case kArray:
		if t.Kind() == reflect.Slice {
			return inside("[]", b.bind(n.item, t.Elem()))
		}
	case kMap:
		if t.Kind() == reflect.Map {
			return inside("[]", b.bind(n.item, t.Elem()))
		}
	case kInt:
		if b.decoding && slices.Contains([]reflect.Kind{reflect.Int8, reflect.Int16, reflect.Uint8, reflect.Uint16}, t.Kind()) {
			return goTypeError(n, t, "int32 or int", "cannot hold every value")
		}
	case kLong:
		if b.decoding && t.Kind() == reflect.Uint32 {
			return goTypeError(n, t, "int64", "cannot hold every value")
		}
	case kBytes, kFixed:
		if n.logical == "decimal" && t.Kind() == reflect.Struct {
			return goTypeError(n, t, "*big.Rat", "cannot be filled in place")
		}
		if t.Kind() == reflect.Uint64 {
			return goTypeError(n, t, fmt.Sprintf("[%d]byte", n.size), "is not safe for concurrent use in hamba")
		}
	}
	return nil
}

func goTypeError(n *node, t reflect.Type, want, why string) *event.FieldError {
	return &event.FieldError{
		Value: t.String(), Problem: fmt.Sprintf("is a Go type that %s of %s", why, n.describe()),
		Hint: "declare the Go field as " + want,
	}
}

func (b *binder) union(n *node, t reflect.Type) *event.FieldError {
	other := n.nullable()
	switch {
	case other == nil:
		return nil
	case t.Kind() == reflect.Slice:
		return b.bind(other, t)
	case t.Kind() == reflect.Pointer && !t.Implements(unionConverter):
		if other.logical == "decimal" && t == ratPtr {
			// hamba overwrites the Rat with a pointer to it: it reads as 0.
			return goTypeError(other, t, "**big.Rat", "cannot be filled as the nullable form")
		}
		return b.bind(other, t.Elem())
	}
	return nil
}

func (b *binder) record(n *node, t reflect.Type) *event.FieldError {
	if t.Kind() == reflect.Pointer {
		return b.bind(n, t.Elem())
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	for _, f := range n.fields {
		sf, ok := goField(t, f.name)
		for i := 0; !ok && b.decoding && i < len(f.aliases); i++ {
			sf, ok = goField(t, f.aliases[i])
		}
		if ok {
			if err := b.bind(f.typ, sf.Type); err != nil {
				return inside(f.name, err)
			}
			continue
		}
		if b.decoding && recursive(f.typ) {
			// hamba builds a skipper for it without end.
			return &event.FieldError{
				Field: f.name, Value: t.String(), Problem: "has no field for a recursive type of the schema",
				Hint: fmt.Sprintf("tag a field `avro:%q`", f.name),
			}
		}
	}
	return nil
}
