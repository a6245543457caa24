package avro

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/schema"
)

// maxPairs bounds the pairs of types that a comparison looks at. Real schemas have
// some hundreds; only somebody who makes them up reaches it.
const maxPairs = 1 << 18

// Compare is a [schema.Compare] by Avro's rules of schema resolution. Unlike
// Decode, which fails when a value comes that the reader cannot take, it asks for
// all that a writer may write: each branch of a union, each symbol of an enum. It
// also reports what a registry lets pass although the same bytes would then mean
// something else: another unit of time, another scale.
func Compare(reader, writer event.Schema) ([]schema.Problem, error) {
	r, err := parseFormat(reader)
	if err != nil {
		return nil, err
	}
	w, err := parseFormat(writer)
	if err != nil {
		return nil, err
	}
	c := comparer{fits: map[pair]bool{}, reported: map[pair]bool{}}
	if !c.assume(pair{r, w}) {
		return nil, schemaErrorf("too large to be compared")
	}
	c.settle()
	c.report("", pair{r, w})
	return c.found, nil
}

func parseFormat(s event.Schema) (*node, error) {
	if s.Format != format {
		return nil, fmt.Errorf("avro: a schema of format %q cannot be compared with Avro's rules", s.Format)
	}
	return parseSchema(s.Text)
}

type pair struct{ reader, writer *node }

// comparer finds which pairs of types fit. Types may contain themselves and the
// branches of unions are alternatives, so a pair is first taken to fit and then
// ruled out until nothing changes: what is left fits.
type comparer struct {
	fits     map[pair]bool
	pairs    []pair
	reported map[pair]bool
	found    []schema.Problem
}

// assume notes p and all pairs that it depends on; false if they are too many.
func (c *comparer) assume(p pair) bool {
	c.note(p)
	for i := 0; i < len(c.pairs); i++ {
		if len(c.pairs) > maxPairs {
			return false
		}
		for _, d := range dependencies(c.pairs[i]) {
			c.note(d)
		}
	}
	return true
}

func (c *comparer) note(p pair) {
	if _, ok := c.fits[p]; !ok {
		c.fits[p] = true
		c.pairs = append(c.pairs, p)
	}
}

func (c *comparer) settle() {
	for changed := true; changed; {
		changed = false
		for i := len(c.pairs) - 1; i >= 0; i-- { // inner types first
			if p := c.pairs[i]; c.fits[p] && !c.fit(p) {
				c.fits[p] = false
				changed = true
			}
		}
	}
}

// dependencies are the pairs that decide whether p fits.
func dependencies(p pair) (list []pair) {
	r, w := p.reader, p.writer
	switch {
	case w.kind == kUnion:
		for _, b := range w.branches {
			list = append(list, pair{r, b})
		}
	case r.kind == kUnion:
		for _, b := range r.branches {
			list = append(list, pair{b, w})
		}
	case mismatch(p) != "":
	case r.kind == kArray || r.kind == kMap:
		list = append(list, pair{r.item, w.item})
	case r.kind == kRecord:
		for i := range r.fields {
			if at := writerField(&r.fields[i], w); at >= 0 {
				list = append(list, pair{r.fields[i].typ, w.fields[at].typ})
			}
		}
	}
	return list
}

// fit decides p by what is known of its dependencies.
func (c *comparer) fit(p pair) bool {
	if p.writer.kind != kUnion && p.reader.kind == kUnion {
		for _, d := range dependencies(p) {
			if c.fits[d] {
				return true
			}
		}
		return false
	}
	if p.writer.kind != kUnion && (mismatch(p) != "" || len(missing(p)) > 0) {
		return false
	}
	for _, d := range dependencies(p) {
		if !c.fits[d] {
			return false
		}
	}
	return true
}

// mismatch compares two types that are no unions, without what they contain.
func mismatch(p pair) schema.Rule {
	r, w := p.reader, p.writer
	switch {
	case r.kind != w.kind && !promotable(r.kind, w.kind):
		return schema.TypeMismatch
	case r.logical != "" && w.logical != "" && (r.logical != w.logical || r.scale != w.scale):
		return schema.MeaningDiffers
	case r.kind != w.kind:
		return ""
	case r.name != "" && !sameName(r, w):
		return schema.NameMismatch
	case r.kind == kFixed && r.size != w.size:
		return schema.SizeMismatch
	case r.kind == kEnum && len(lostSymbols(r, w)) > 0:
		return schema.MissingSymbols
	}
	return ""
}

func promotable(reader, writer kind) bool {
	_, err := promote(&node{kind: reader}, &node{kind: writer})
	return err == nil
}

// lostSymbols are those that the reader can make nothing of.
func lostSymbols(reader, writer *node) (lost []string) {
	if reader.def != "" {
		return nil
	}
	for _, s := range writer.symbols {
		if !slices.Contains(reader.symbols, s) {
			lost = append(lost, s)
		}
	}
	return lost
}

// missing are the reader's fields that neither the writer nor a default fills.
func missing(p pair) (list []schema.Problem) {
	if p.reader.kind != kRecord || p.writer.kind != kRecord {
		return nil
	}
	for i := range p.reader.fields {
		f := &p.reader.fields[i]
		if writerField(f, p.writer) >= 0 {
			continue
		}
		if !f.hasDef {
			list = append(list, schema.Problem{Path: f.name, Rule: schema.MissingDefault, Reader: f.typ.describe()})
		} else if _, err := encodeDefault(f); err != nil {
			list = append(list, schema.Problem{Path: f.name, Rule: schema.BadDefault, Reader: err.Error()})
		}
	}
	return list
}

// report collects the problems of p, each pair of types at the first place where it
// is found.
func (c *comparer) report(path string, p pair) {
	if c.fits[p] || c.reported[p] {
		return
	}
	c.reported[p] = true
	r, w := p.reader, p.writer
	switch {
	case w.kind == kUnion:
		c.reportBranches(path, p)
	case r.kind == kUnion:
		c.reportUnion(path, p)
	default:
		if rule := mismatch(p); rule != "" {
			c.found = append(c.found, problem(path, rule, p))
			return
		}
		for _, m := range missing(p) {
			m.Path = joinPath(path, m.Path)
			c.found = append(c.found, m)
		}
		c.descend(path, p)
	}
}

func (c *comparer) descend(path string, p pair) {
	r, w := p.reader, p.writer
	if r.kind == kArray || r.kind == kMap {
		c.report(joinPath(path, "[]"), pair{r.item, w.item})
		return
	}
	for i := range r.fields {
		if at := writerField(&r.fields[i], w); at >= 0 {
			// The writer's name for it: that is what is in the data.
			c.report(joinPath(path, w.fields[at].name), pair{r.fields[i].typ, w.fields[at].typ})
		}
	}
}

// reportBranches: each branch of the writer must fit.
func (c *comparer) reportBranches(path string, p pair) {
	for _, b := range p.writer.branches {
		d := pair{p.reader, b}
		if !c.fits[d] && p.reader.kind != kUnion && mismatch(d) == schema.TypeMismatch {
			c.found = append(c.found, problem(path, schema.MissingBranch, d))
			continue
		}
		c.report(path, d)
	}
}

// reportUnion looks into the branch that was meant, if one is of the same type and
// name, or if it is the only one beside null.
func (c *comparer) reportUnion(path string, p pair) {
	for _, b := range p.reader.branches {
		if b.kind != p.writer.kind || b.name != "" && !sameName(b, p.writer) {
			continue
		}
		if b.name != "" && p.reader.nullable() == nil {
			path += "<" + baseName(b.name) + ">"
		}
		c.report(path, pair{b, p.writer})
		return
	}
	c.found = append(c.found, problem(path, schema.MissingBranch, p))
}

// problem tells what differs.
func problem(path string, rule schema.Rule, p pair) schema.Problem {
	r, w := p.reader, p.writer
	f := schema.Problem{Path: path, Rule: rule, Reader: outline(r), Writer: outline(w)}
	switch rule {
	case schema.SizeMismatch:
		f.Reader, f.Writer = strconv.Itoa(r.size), strconv.Itoa(w.size)
	case schema.MissingSymbols:
		f.Reader, f.Writer = strings.Join(r.symbols, ", "), strings.Join(lostSymbols(r, w), ", ")
	case schema.MeaningDiffers:
		f.Reader, f.Writer = meaning(r), meaning(w)
	}
	return f
}

func meaning(n *node) string {
	if n.logical == "decimal" {
		return "decimal of scale " + strconv.Itoa(n.scale)
	}
	return n.logical
}

// outline describes a type by its branches too, where it is a union.
func outline(n *node) string {
	if n.kind != kUnion {
		return n.describe()
	}
	parts := make([]string, len(n.branches))
	for i, b := range n.branches {
		parts[i] = b.describe()
	}
	return "[" + strings.Join(parts, ", ") + "]"
}
