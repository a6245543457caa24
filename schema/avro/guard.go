package avro

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"
)

const (
	maxData  = 16 << 20 // bytes of one encoded value
	maxDepth = 512      // records, arrays, maps and unions in one another
	// maxEmpty bounds the values that take no bytes (nulls, empty records): without
	// it a ten-byte array of nulls is 2^60 items long.
	maxEmpty = 1 << 16
)

var (
	errTruncated = errors.New("data ends too early")
	errVarint    = errors.New("number is longer than its type allows")
	errUTF8      = errors.New("string is not UTF-8")
)

// guard walks encoded bytes against a schema. It allocates nothing but errors,
// and every step consumes a byte, descends (at most maxDepth) or counts against
// maxEmpty, so its time is bounded by the size of the data.
type guard struct {
	data  []byte
	pos   int
	depth int
	empty int // values of no bytes so far
}

// check says whether data is exactly one value of n.
func check(n *node, data []byte) error {
	if len(data) > maxData {
		return &DataError{Err: fmt.Errorf("%d bytes long; at most %d are allowed", len(data), maxData)}
	}
	g := guard{data: data}
	if err := g.walk(n); err != nil {
		return err
	}
	if rest := len(data) - g.pos; rest > 0 {
		return g.fail(fmt.Errorf("%d bytes follow the end of the value", rest))
	}
	return nil
}

func (g *guard) fail(err error) error { return &DataError{Offset: g.pos, Err: err} }

// walk steps over one value of n.
func (g *guard) walk(n *node) error {
	if n.min == 0 {
		if g.empty++; g.empty > maxEmpty {
			return g.fail(fmt.Errorf("more than %d values that take no bytes", maxEmpty))
		}
	}
	switch n.kind {
	case kNull:
		return nil
	case kBoolean:
		return g.boolean()
	case kInt:
		if _, ok := g.short(); ok {
			return nil
		}
		_, err := g.int()
		return err
	case kLong:
		_, err := g.long()
		return err
	case kFloat:
		return g.skip(4)
	case kDouble:
		return g.skip(8)
	case kFixed:
		return g.skip(n.size)
	case kBytes:
		_, err := g.bytes()
		return err
	case kString:
		return g.str()
	case kEnum:
		_, err := g.index("enum symbol", len(n.symbols))
		return err
	default:
		return g.walkNested(n)
	}
}

func (g *guard) walkNested(n *node) error {
	if g.depth++; g.depth > maxDepth {
		return g.fail(fmt.Errorf("nested deeper than %d levels", maxDepth))
	}
	var err error
	switch n.kind {
	case kArray, kMap:
		err = g.blocks(n)
	case kUnion:
		var i int
		if i, err = g.index("union branch", len(n.branches)); err == nil {
			err = g.walk(n.branches[i])
		}
	case kRecord:
		for i, typ := range n.branches {
			if err = g.walk(typ); err != nil {
				err = within(n.fields[i].name, err)
				break
			}
		}
	}
	g.depth--
	return err
}

// blocks walks the blocks of an array or map.
func (g *guard) blocks(n *node) error {
	for i := 0; ; {
		count, end, err := g.blockHeader(n)
		if err != nil || count == 0 {
			return err
		}
		for range count {
			if n.kind == kMap {
				err = g.str()
			}
			if err == nil {
				err = g.walk(n.item)
			}
			if err != nil {
				return within("["+strconv.Itoa(i)+"]", err)
			}
			i++
		}
		if end >= 0 && g.pos != end {
			return g.fail(fmt.Errorf("block ends at byte %d, but its size says %d", g.pos, end))
		}
	}
}

// blockHeader reads a block's item count, and where the block ends if it says so
// (else -1). A count is believed only if that many items fit into what remains.
func (g *guard) blockHeader(n *node) (count, end int, err error) {
	start := g.pos
	c, err := g.long()
	if err != nil {
		return 0, 0, err
	}
	end = -1
	if c < 0 {
		size, err := g.long()
		if err != nil {
			return 0, 0, err
		}
		if c == math.MinInt64 || size < 0 || size > int64(len(g.data)-g.pos) {
			g.pos = start
			return 0, 0, g.fail(fmt.Errorf("block of %d items in %d bytes, but %d bytes remain", c, size, len(g.data)-start))
		}
		c, end = -c, g.pos+int(size)
	}
	least := n.item.min
	if n.kind == kMap {
		least++ // the key
	}
	room := int64(maxEmpty)
	if least > 0 {
		room = int64((len(g.data) - g.pos) / least)
	}
	if c > room {
		g.pos = start
		return 0, 0, g.fail(fmt.Errorf("block of %d items, but there is room for %d", c, room))
	}
	return int(c), end, nil
}

func (g *guard) skip(n int) error {
	if n > len(g.data)-g.pos {
		return g.fail(errTruncated)
	}
	g.pos += n
	return nil
}

func (g *guard) boolean() error {
	if g.pos >= len(g.data) {
		return g.fail(errTruncated)
	}
	if g.data[g.pos] > 1 {
		return g.fail(fmt.Errorf("boolean is %d", g.data[g.pos]))
	}
	g.pos++
	return nil
}

// short reads a varint of one byte, by far the commonest, or returns false and
// reads nothing.
func (g *guard) short() (byte, bool) {
	if g.pos < len(g.data) {
		if b := g.data[g.pos]; b < 0x80 {
			g.pos++
			return b, true
		}
	}
	return 0, false
}

// varint reads a number of at most size bytes, the last of which is at most last.
func (g *guard) varint(size int, last byte) (uint64, error) {
	var v uint64
	for i := range size {
		if g.pos+i >= len(g.data) {
			return 0, g.fail(errTruncated)
		}
		b := g.data[g.pos+i]
		v |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			if i == size-1 && b > last {
				break
			}
			g.pos += i + 1
			return v, nil
		}
	}
	return 0, g.fail(errVarint)
}

func (g *guard) long() (int64, error) {
	if b, ok := g.short(); ok {
		return int64(b>>1) ^ -int64(b&1), nil
	}
	v, err := g.varint(10, 0x01)
	return int64(v>>1) ^ -int64(v&1), err //nolint:gosec // zigzag
}

func (g *guard) int() (int32, error) {
	v, err := g.varint(5, 0x0f)
	return int32(v>>1) ^ -int32(v&1), err //nolint:gosec // zigzag
}

// index reads an enum or union index below n.
func (g *guard) index(what string, n int) (int, error) {
	start := g.pos
	if b, ok := g.short(); ok {
		if i := int(b >> 1); b&1 == 0 && i < n {
			return i, nil
		}
		g.pos = start
	}
	i, err := g.int()
	if err != nil {
		return 0, err
	}
	if i < 0 || int(i) >= n {
		g.pos = start
		return 0, g.fail(fmt.Errorf("%s %d of %d", what, i, n))
	}
	return int(i), nil
}

// bytes reads the length and the bytes of a bytes or string value.
func (g *guard) bytes() ([]byte, error) {
	start := g.pos
	n, err := g.long()
	if err != nil {
		return nil, err
	}
	if rest := len(g.data) - g.pos; n < 0 || n > int64(rest) {
		g.pos = start
		return nil, g.fail(fmt.Errorf("length %d, but %d bytes remain", n, rest))
	}
	b := g.data[g.pos : g.pos+int(n)]
	g.pos += int(n)
	return b, nil
}

func (g *guard) str() error {
	if p := g.pos; p < len(g.data) { // a short string, in one go
		b := g.data[p]
		end := p + 1 + int(b>>1)
		if b < 0x80 && b&1 == 0 && end <= len(g.data) && utf8.Valid(g.data[p+1:end]) {
			g.pos = end
			return nil
		}
	}
	start := g.pos
	b, err := g.bytes()
	if err != nil {
		return err
	}
	if !utf8.Valid(b) {
		g.pos = start
		return g.fail(errUTF8)
	}
	return nil
}
