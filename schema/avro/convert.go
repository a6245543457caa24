package avro

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// same copies: reader and writer have the same layout here.
type same struct{ writer *node }

func isSame(c conv) bool {
	_, ok := c.(same)
	return ok
}

func (c same) convert(g *guard, dst []byte) ([]byte, error) {
	start := g.pos
	if err := g.walk(c.writer); err != nil {
		return dst, err
	}
	return append(dst, g.data[start:g.pos]...), nil
}

// never refuses every value.
type never struct{ err error }

func (c never) convert(g *guard, dst []byte) ([]byte, error) { return dst, g.fail(c.err) }

// deferred stands for a record whose conv is still being built.
type deferred struct {
	conv conv
	err  error
}

func (c *deferred) convert(g *guard, dst []byte) ([]byte, error) {
	if c.conv == nil { // this way was given up: a branch of a union that does not fit
		return dst, g.fail(ErrIncompatible)
	}
	return c.conv.convert(g, dst)
}

// wrap puts a value into a branch of the reader's union.
type wrap struct {
	index int
	inner conv
}

func (c wrap) convert(g *guard, dst []byte) ([]byte, error) {
	return c.inner.convert(g, appendLong(dst, int64(c.index)))
}

// unionConv reads the writer's union.
type unionConv struct{ branches []conv }

func (c *unionConv) convert(g *guard, dst []byte) ([]byte, error) {
	i, err := g.index("union branch", len(c.branches))
	if err != nil {
		return dst, err
	}
	return c.branches[i].convert(g, dst)
}

type enumConv struct {
	writer *node
	to     []int // the reader's index, -1 if it does not know the symbol
}

func (c *enumConv) convert(g *guard, dst []byte) ([]byte, error) {
	i, err := g.index("enum symbol", len(c.to))
	if err != nil {
		return dst, err
	}
	if c.to[i] < 0 {
		return dst, g.fail(fmt.Errorf("%w: the reader's enum has no symbol %q and no default", ErrIncompatible, c.writer.symbols[i]))
	}
	return appendLong(dst, int64(c.to[i])), nil
}

type numberConv struct{ from, to kind }

func (c numberConv) convert(g *guard, dst []byte) ([]byte, error) {
	var v float64
	if c.from == kFloat {
		start := g.pos
		if err := g.skip(4); err != nil {
			return dst, err
		}
		v = float64(math.Float32frombits(binary.LittleEndian.Uint32(g.data[start:])))
	} else {
		i, err := g.long()
		if err != nil {
			return dst, err
		}
		if c.to == kFloat {
			return binary.LittleEndian.AppendUint32(dst, math.Float32bits(float32(i))), nil
		}
		v = float64(i)
	}
	return binary.LittleEndian.AppendUint64(dst, math.Float64bits(v)), nil
}

// textConv reads bytes as a string.
type textConv struct{}

func (textConv) convert(g *guard, dst []byte) ([]byte, error) {
	start := g.pos
	if err := g.str(); err != nil {
		return dst, err
	}
	return append(dst, g.data[start:g.pos]...), nil
}

// blocksConv rewrites the items of an array or map.
type blocksConv struct {
	writer *node
	item   conv
}

func (c *blocksConv) convert(g *guard, dst []byte) ([]byte, error) {
	for {
		count, _, err := g.blockHeader(c.writer)
		if err != nil {
			return dst, err
		}
		dst = appendLong(dst, int64(count)) // sizes are optional: we do not know them yet
		if count == 0 {
			return dst, nil
		}
		for i := range count {
			if c.writer.kind == kMap {
				dst, err = textConv{}.convert(g, dst)
			}
			if err == nil {
				dst, err = c.item.convert(g, dst)
			}
			if err != nil {
				return dst, within(fmt.Sprintf("[%d]", i), err)
			}
		}
	}
}

var errGrown = errors.New("data grows beyond all limits when read with the reader's schema")

type (
	// step says what becomes of one field of the writer.
	step struct {
		name string
		typ  *node
		to   int  // the reader's field, -1 if it has none
		conv conv // nil if to is -1
	}
	// source says where one field of the reader comes from.
	source struct {
		def        []byte // its encoded default, or nil
		start, end int
	}
	recordConv struct {
		steps    []step
		from     []source
		shuffled bool // the reader's order of fields is another
	}
)

func (c *recordConv) convert(g *guard, dst []byte) ([]byte, error) {
	if c.shuffled {
		return c.reorder(g, dst)
	}
	next := 0 // the reader's field that is due
	var err error
	for i := range c.steps {
		s := &c.steps[i]
		if s.to < 0 {
			err = g.walk(s.typ)
		} else {
			for ; next < s.to; next++ {
				dst = append(dst, c.from[next].def...)
			}
			next++
			dst, err = s.conv.convert(g, dst)
		}
		if err == nil && len(dst) > maxData {
			err = g.fail(errGrown)
		}
		if err != nil {
			return dst, within(s.name, err)
		}
	}
	for ; next < len(c.from); next++ {
		dst = append(dst, c.from[next].def...)
	}
	return dst, nil
}

// reorder converts in the writer's order and then puts the pieces into the
// reader's.
func (c *recordConv) reorder(g *guard, dst []byte) ([]byte, error) {
	piece := make([]source, len(c.from))
	copy(piece, c.from)
	var tmp []byte
	var err error
	for i := range c.steps {
		s := &c.steps[i]
		if s.to < 0 {
			err = g.walk(s.typ)
		} else {
			piece[s.to].start = len(tmp)
			tmp, err = s.conv.convert(g, tmp)
			piece[s.to].end = len(tmp)
		}
		if err != nil {
			return dst, within(s.name, err)
		}
	}
	for _, p := range piece {
		dst = append(dst, p.def...)
		dst = append(dst, tmp[p.start:p.end]...)
	}
	if len(dst) > maxData {
		err = g.fail(errGrown)
	}
	return dst, err
}

func appendLong(dst []byte, v int64) []byte {
	return binary.AppendUvarint(dst, uint64(v)<<1^uint64(v>>63)) //nolint:gosec // zigzag
}
