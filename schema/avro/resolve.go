package avro

import (
	"fmt"
	"slices"
)

// A conv rewrites one value from the writer's layout, at g, into the reader's,
// appended to dst. The bytes at g have passed the guard.
type conv interface {
	convert(g *guard, dst []byte) ([]byte, error)
}

// resolve returns what turns the writer's data into the reader's, by the rules of
// Avro's schema resolution. A pair of types that can never fit is an error here;
// what fits for some values only (a branch of a union, a symbol of an enum) is
// an error when such a value comes.
func resolve(reader, writer *node) (conv, error) {
	r := resolver{done: map[[2]*node]*deferred{}}
	return r.resolve(reader, writer)
}

type resolver struct {
	done map[[2]*node]*deferred // records, so that recursion ends
}

func (r *resolver) resolve(reader, writer *node) (conv, error) {
	if writer.kind == kUnion {
		return r.fromUnion(reader, writer)
	}
	if reader.kind == kUnion {
		return r.toUnion(reader, writer)
	}
	if reader.kind != writer.kind {
		return promote(reader, writer)
	}
	if reader.name != "" && !sameName(reader, writer) {
		return nil, incompatible(reader, writer, "the names differ and no alias helps")
	}
	if reader.logical != "" && writer.logical != "" &&
		(reader.logical != writer.logical || reader.scale != writer.scale) {
		return nil, incompatible(reader, writer, "the logical type or scale differs, so the same number means something else")
	}
	switch reader.kind {
	case kFixed:
		if reader.size != writer.size {
			return nil, incompatible(reader, writer, fmt.Sprintf("the sizes are %d and %d", reader.size, writer.size))
		}
		return same{writer}, nil
	case kEnum:
		return resolveEnum(reader, writer), nil
	case kArray, kMap:
		item, err := r.resolve(reader.item, writer.item)
		if err != nil {
			return nil, fmt.Errorf("[]: %w", err)
		}
		if isSame(item) {
			return same{writer}, nil
		}
		return &blocksConv{writer: writer, item: item}, nil
	case kRecord:
		return r.record(reader, writer)
	default:
		return same{writer}, nil
	}
}

func incompatible(reader, writer *node, why string) error {
	return fmt.Errorf("%s is not readable as %s: %s", writer.describe(), reader.describe(), why)
}

// sameName compares without namespaces, as the specification has it.
func sameName(reader, writer *node) bool {
	return baseName(reader.name) == baseName(writer.name) || slices.Contains(reader.aliases, writer.name)
}

func (r *resolver) fromUnion(reader, writer *node) (conv, error) {
	u := &unionConv{branches: make([]conv, len(writer.branches))}
	alike := reader.kind == kUnion && len(reader.branches) == len(writer.branches)
	var firstErr error
	failed := 0
	for i, b := range writer.branches {
		c, err := r.resolve(reader, b)
		if err != nil {
			c = never{fmt.Errorf("%w: %w", ErrIncompatible, err)}
			firstErr = err
			failed++
		}
		w, ok := c.(wrap)
		alike = alike && ok && w.index == i && isSame(w.inner)
		u.branches[i] = c
	}
	if failed == len(writer.branches) {
		return nil, firstErr
	}
	if alike {
		return same{writer}, nil
	}
	return u, nil
}

// toUnion takes the reader's branch of the same type and name if there is one,
// else the first that the writer's type can become.
func (r *resolver) toUnion(reader, writer *node) (conv, error) {
	try := make([]int, 0, 2*len(reader.branches))
	for i, b := range reader.branches {
		if b.kind == writer.kind && (b.name == "" || sameName(b, writer)) {
			try = append(try, i)
		}
	}
	for i := range reader.branches {
		try = append(try, i)
	}
	err := incompatible(reader, writer, "no branch fits")
	for n, i := range try {
		c, e := r.resolve(reader.branches[i], writer)
		if e == nil {
			return wrap{index: i, inner: c}, nil
		}
		if n == 0 && len(try) > len(reader.branches) {
			err = e // of the branch that was meant
		}
	}
	return nil, err
}

func (r *resolver) record(reader, writer *node) (conv, error) {
	key := [2]*node{reader, writer}
	if d, ok := r.done[key]; ok {
		return d, d.err
	}
	d := &deferred{}
	r.done[key] = d
	c, err := r.buildRecord(reader, writer)
	d.conv, d.err = c, err
	return c, err
}

func (r *resolver) buildRecord(reader, writer *node) (conv, error) {
	rc := &recordConv{from: make([]source, len(reader.fields)), steps: make([]step, len(writer.fields))}
	for i, wf := range writer.fields {
		rc.steps[i] = step{name: wf.name, typ: wf.typ, to: -1}
	}
	unchanged := len(reader.fields) == len(writer.fields)
	last := -1
	for i := range reader.fields {
		rf := &reader.fields[i]
		w := writerField(rf, writer)
		if w < 0 {
			def, err := encodeDefault(rf)
			if err != nil {
				return nil, fmt.Errorf("%s.%s: the writer's %s has no such field: %w", reader.name, rf.name, writer.describe(), err)
			}
			rc.from[i] = source{def: def}
			unchanged = false
			continue
		}
		c, err := r.resolve(rf.typ, writer.fields[w].typ)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", rf.name, err)
		}
		rc.steps[w].to, rc.steps[w].conv = i, c
		unchanged = unchanged && w == i && isSame(c)
		rc.shuffled = rc.shuffled || w < last
		last = w
	}
	if unchanged {
		return same{writer}, nil
	}
	return rc, nil
}

// writerField returns the index of the writer's field that rf reads, or -1.
func writerField(rf *field, writer *node) int {
	byName := func(name string) int {
		return slices.IndexFunc(writer.fields, func(f field) bool { return f.name == name })
	}
	if i := byName(rf.name); i >= 0 {
		return i
	}
	for _, a := range rf.aliases {
		if i := byName(a); i >= 0 {
			return i
		}
	}
	return -1
}

func resolveEnum(reader, writer *node) conv {
	if slices.Equal(reader.symbols, writer.symbols) {
		return same{writer}
	}
	e := &enumConv{writer: writer, to: make([]int, len(writer.symbols))}
	for i, s := range writer.symbols {
		e.to[i] = slices.Index(reader.symbols, s)
		if e.to[i] < 0 {
			e.to[i] = slices.Index(reader.symbols, reader.def) // -1 without a default
		}
	}
	return e
}

func promote(reader, writer *node) (conv, error) {
	if reader.logical != "" && writer.logical != "" {
		return nil, incompatible(reader, writer, "the logical types differ")
	}
	switch {
	case writer.kind == kInt && reader.kind == kLong:
		return same{writer}, nil
	case (writer.kind == kInt || writer.kind == kLong || writer.kind == kFloat) &&
		(reader.kind == kFloat || reader.kind == kDouble) && writer.kind < reader.kind:
		return numberConv{from: writer.kind, to: reader.kind}, nil
	case writer.kind == kString && reader.kind == kBytes:
		return same{writer}, nil
	case writer.kind == kBytes && reader.kind == kString:
		return textConv{}, nil
	}
	return nil, incompatible(reader, writer, "Avro has no such promotion")
}
