package avro

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"slices"
	"unicode/utf8"
	"unsafe"

	hamba "github.com/hamba/avro/v2"
	"github.com/modern-go/reflect2"
)

// A Go type is sure if hamba's encoding of its values is right whenever hamba
// gives no error, but for the few things that sureChecks looks at: then neither
// the value nor the encoded bytes have to be walked through. Types that say too
// little about their values (interfaces, other unions, text marshalers), that
// need a bound (recursive types, items of no bytes) or that hamba fills up from
// defaults are not sure: Encode checks what it got.
//
// Checks read memory at offsets, as hamba does: by way of reflect they cost as
// much as what they save.
type sureCheck struct {
	op     sureOp
	offset uintptr
	inner  []sureCheck // of what a pointer points to, of an item
	size   uintptr     // of an item
	scale  *big.Int    // of a decimal: ten to its power
}

type sureOp uint8

const (
	sureString    sureOp = iota // is UTF-8
	sureInt                     // has 32 bits
	sureDecimal                 // is not nil, and has no more digits than the scale
	sureStringMap               // keys and values are UTF-8
	surePointer                 // inner, if it is not nil
	sureSlice                   // inner, of each item
)

// hold reports whether all checks of the n values do of which the first lies at p
// and the next size bytes further. If not, they may still be fine: the slower
// checks tell.
func hold(checks []sureCheck, p unsafe.Pointer, n int, size uintptr) bool {
	for i := range checks {
		c := &checks[i]
		for j := range n {
			at := unsafe.Add(p, uintptr(j)*size+c.offset) //nolint:gosec // an index
			ok := false
			switch c.op {
			case sureString:
				ok = validText(*(*string)(at))
			case sureInt:
				v := *(*int)(at)
				ok = v <= math.MaxInt32 && v >= math.MinInt32
			default:
				ok = c.holds(at)
			}
			if !ok {
				return false
			}
		}
	}
	return true
}

// holds is hold for the checks that are rarer or take longer.
func (c *sureCheck) holds(p unsafe.Pointer) bool {
	switch c.op {
	case sureDecimal:
		r := *(**big.Rat)(p)
		return r != nil && (r.IsInt() || divides(r.Denom(), c.scale))
	case sureStringMap:
		for k, v := range *(*map[string]string)(p) {
			if !validText(k) || !validText(v) {
				return false
			}
		}
		return true
	case surePointer:
		to := *(*unsafe.Pointer)(p)
		return to == nil || hold(c.inner, to, 1, 0)
	default:
		items := *(*[]byte)(p) // its length is in items
		return hold(c.inner, unsafe.Pointer(unsafe.SliceData(items)), len(items), c.size)
	}
}

// validText is utf8.ValidString, but quicker for the commonest: short and ASCII.
func validText(s string) bool {
	b := unsafe.Slice(unsafe.StringData(s), len(s))
	switch n := len(b); {
	case n > 16:
	case n >= 8:
		if (binary.LittleEndian.Uint64(b)|binary.LittleEndian.Uint64(b[n-8:]))&0x8080808080808080 == 0 {
			return true
		}
	case n >= 4:
		if (binary.LittleEndian.Uint32(b)|binary.LittleEndian.Uint32(b[n-4:]))&0x80808080 == 0 {
			return true
		}
	case n == 0:
		return true
	default:
		if b[0]|b[n/2]|b[n-1] < utf8.RuneSelf {
			return true
		}
	}
	return utf8.ValidString(s)
}

// sureChecks returns what to look at in values of t; false if t is not sure.
func sureChecks(n *node, t reflect.Type) ([]sureCheck, bool) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	} else if t.Size() <= unsafe.Sizeof(uintptr(0)) {
		return nil, false // an interface may hold the value itself, not where it lies
	}
	if n.kind != kRecord || t.Kind() != reflect.Struct {
		return nil, false
	}
	b := sureBuilder{}
	ok := b.add(n, t, 0)
	return b.checks, ok
}

type sureBuilder struct {
	checks []sureCheck
	path   []*node // the records around, to find recursion
}

// add appends the checks of a value of t that lies at offset.
func (b *sureBuilder) add(n *node, t reflect.Type, offset uintptr) bool {
	switch {
	case n.kind == kUnion:
		return b.union(n, t, offset)
	case (n.kind == kString || n.kind == kEnum) && t.Implements(textMarshaler):
		return false
	case n.kind == kRecord && t.Kind() == reflect.Pointer:
		return b.pointer(n, t, offset)
	case n.kind == kRecord && t.Kind() == reflect.Struct:
		return b.structure(n, t, offset)
	case n.kind == kArray && t.Kind() == reflect.Slice:
		return b.slice(n, t, offset)
	case n.kind == kMap:
		return b.put(isStringMap(t) && n.item.kind == kString, sureCheck{op: sureStringMap, offset: offset})
	case n.logical == "decimal":
		return b.put(n.kind == kBytes && t == ratPtr, sureCheck{op: sureDecimal, offset: offset, scale: powerOfTen(n.scale)})
	case n.logical != "":
		return n.kind == kLong && t.Kind() == reflect.Int64 || n.kind != kFixed && t == timeType
	case n.kind == kString:
		return b.put(t.Kind() == reflect.String, sureCheck{op: sureString, offset: offset})
	case n.kind == kInt && t.Kind() == reflect.Int:
		return b.put(true, sureCheck{op: sureInt, offset: offset})
	default:
		return n.kind != kNull && slices.Contains(goKinds[n.kind], t.Kind())
	}
}

func (b *sureBuilder) union(n *node, t reflect.Type, offset uintptr) bool {
	other := n.nullable()
	switch {
	case other == nil || t.Implements(unionConverter):
		return false
	case t.Kind() == reflect.Pointer:
		return b.pointer(other, t, offset)
	default:
		return t.Kind() == reflect.Slice && b.add(other, t, offset)
	}
}

func (b *sureBuilder) put(ok bool, c sureCheck) bool {
	if ok {
		b.checks = append(b.checks, c)
	}
	return ok
}

func isStringMap(t reflect.Type) bool {
	str := reflect.TypeFor[string]()
	return t.Kind() == reflect.Map && t.Key() == str && t.Elem() == str
}

// within returns the checks of a value of t that something points to.
func (b *sureBuilder) within(n *node, t reflect.Type) ([]sureCheck, bool) {
	inner := sureBuilder{path: b.path}
	ok := inner.add(n, t, 0)
	return inner.checks, ok
}

func (b *sureBuilder) pointer(n *node, t reflect.Type, offset uintptr) bool {
	inner, ok := b.within(n, t.Elem())
	if ok && len(inner) > 0 {
		b.put(true, sureCheck{op: surePointer, offset: offset, inner: inner})
	}
	return ok
}

func (b *sureBuilder) slice(n *node, t reflect.Type, offset uintptr) bool {
	inner, ok := b.within(n.item, t.Elem())
	if ok && len(inner) > 0 {
		b.put(true, sureCheck{op: sureSlice, offset: offset, inner: inner, size: t.Elem().Size()})
	}
	return ok && n.item.min > 0
}

func (b *sureBuilder) structure(n *node, t reflect.Type, offset uintptr) bool {
	if slices.Contains(b.path, n) {
		return false
	}
	b.path = append(slices.Clone(b.path), n)
	defer func() { b.path = b.path[:len(b.path)-1] }()
	for _, f := range n.fields {
		sf, ok := goField(t, f.name)
		if !ok {
			return false
		}
		at, ok := fieldOffset(t, sf.Index)
		if !ok || !b.add(f.typ, sf.Type, offset+at) {
			return false
		}
	}
	return true
}

// fieldOffset returns where a field lies in t; false if that is behind a pointer.
func fieldOffset(t reflect.Type, index []int) (offset uintptr, ok bool) {
	for i, x := range index {
		if i > 0 && t.Kind() != reflect.Struct {
			return 0, false
		}
		f := t.Field(x)
		offset += f.Offset
		t = f.Type
	}
	return offset, true
}

// sure returns where the value of v lies if hamba's encoding of it, should there
// be one, needs no check; else nil.
func (e *encodable) sure(v any) unsafe.Pointer {
	if e.encoder == nil {
		return nil
	}
	p := (*eface)(unsafe.Pointer(&v)).data
	if p == nil || !hold(e.checks, p, 1, 0) {
		return nil
	}
	return p
}

type eface struct{ typ, data unsafe.Pointer }

// encoderOf returns hamba's encoder of values of t, or nil if making it panics:
// then Encode, which makes it again, says why.
func (c *Codec) encoderOf(t reflect.Type) (e hamba.ValEncoder) {
	defer func() {
		if recover() != nil {
			e = nil
		}
	}()
	return c.api.EncoderOf(c.hamba, reflect2.Type2(t))
}

// write encodes the value at p. hamba's Marshal would look up the encoder by a
// fingerprint of 32 bytes in each call, which takes as long as our checks.
func (c *Codec) write(encoder hamba.ValEncoder, p unsafe.Pointer) (data []byte, err error) {
	w, _ := c.buffers.Get().(*hamba.Writer)
	if w == nil {
		w = hamba.NewWriter(nil, 512, hamba.WithWriterConfig(c.api))
	}
	defer func() {
		if r := recover(); r != nil {
			data, err = nil, fmt.Errorf("avro: cannot encode: %v", r)
		}
	}()
	w.Reset(nil)
	encoder.Encode(p, w)
	if w.Error != nil {
		return nil, w.Error // and w is not used again
	}
	data = append([]byte{}, w.Buffer()...)
	c.buffers.Put(w)
	return data, nil
}
