package avro

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"strings"
)

const (
	maxSchemaText  = 1 << 20 // bytes of a schema document
	maxSchemaDepth = 64      // types nested in one another in the document
	maxFixed       = 1 << 20 // bytes of a fixed
)

// parseSchema reads a schema document, which may come from anywhere. Unlike
// hamba's parser it has limits, keeps nothing between calls (two versions of one
// record name live side by side) and never expands a reference.
func parseSchema(text string) (*node, error) {
	if len(text) > maxSchemaText {
		return nil, schemaErrorf("%d bytes long; at most %d are allowed", len(text), maxSchemaText)
	}
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	var doc any
	if err := dec.Decode(&doc); err != nil {
		return nil, schemaErrorf("not JSON: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF { //nolint:errorlint // Token returns io.EOF itself
		return nil, schemaErrorf("more text after the schema")
	}
	p := parser{named: map[string]*node{}}
	n, err := p.parse(doc, "", 0)
	if err != nil {
		return nil, err
	}
	measure(n, map[*node]bool{})
	return n, nil
}

// compact takes the white space out of a schema document and keeps the rest:
// order, unknown attributes, defaults, documentation.
func compact(text string) (string, error) {
	var b bytes.Buffer
	if err := json.Compact(&b, []byte(text)); err != nil {
		return "", schemaErrorf("not JSON: %w", err)
	}
	return b.String(), nil
}

type parser struct {
	named map[string]*node // by full name, as defined so far
}

func (p *parser) parse(doc any, namespace string, depth int) (*node, error) {
	if depth > maxSchemaDepth {
		return nil, schemaErrorf("types are nested deeper than %d levels", maxSchemaDepth)
	}
	switch d := doc.(type) {
	case string:
		return p.byName(d, namespace)
	case []any:
		return p.union(d, namespace, depth)
	case map[string]any:
		name, ok := d["type"].(string)
		if !ok {
			if d["type"] == nil {
				return nil, schemaErrorf("a type has no \"type\" attribute")
			}
			return p.parse(d["type"], namespace, depth+1)
		}
		return p.complex(name, d, namespace, depth)
	default:
		return nil, schemaErrorf("expected a type, found %T", doc)
	}
}

func primitive(name string) (kind, bool) {
	i := slices.Index(kindNames[:kFixed], name)
	return kind(max(i, 0)), i >= 0 //nolint:gosec // at most len(kindNames)
}

func (p *parser) byName(name, namespace string) (*node, error) {
	if k, ok := primitive(name); ok {
		return &node{kind: k}, nil
	}
	if n, ok := p.named[fullName(name, namespace)]; ok {
		return n, nil
	}
	return nil, schemaErrorf("unknown type %q", name)
}

func (p *parser) complex(typ string, d map[string]any, namespace string, depth int) (*node, error) {
	switch typ {
	case "record", "error":
		return p.record(typ, d, namespace, depth)
	case "enum":
		return p.enum(d, namespace)
	case "fixed":
		return p.fixed(d, namespace)
	case "array", "map":
		n := &node{kind: kArray}
		key := "items"
		if typ == "map" {
			n.kind, key = kMap, "values"
		}
		if d[key] == nil {
			return nil, schemaErrorf("%s without %q", typ, key)
		}
		item, err := p.parse(d[key], namespace, depth+1)
		n.item = item
		return n, err
	}
	n, err := p.byName(typ, namespace)
	if err == nil && n.name == "" {
		n.setLogical(d)
	}
	return n, err
}

func (p *parser) union(types []any, namespace string, depth int) (*node, error) {
	n := &node{kind: kUnion}
	if len(types) == 0 {
		return nil, schemaErrorf("a union has no types")
	}
	seen := map[string]bool{}
	for _, t := range types {
		b, err := p.parse(t, namespace, depth+1)
		if err != nil {
			return nil, err
		}
		id := b.kind.String()
		if b.name != "" {
			id = b.name
		}
		if b.kind == kUnion || seen[id] {
			return nil, schemaErrorf("a union contains another union, or %s twice", id)
		}
		seen[id] = true
		n.branches = append(n.branches, b)
	}
	return n, nil
}

func (p *parser) record(typ string, d map[string]any, namespace string, depth int) (*node, error) {
	n := &node{kind: kRecord, isError: typ == "error"}
	namespace, err := p.define(n, d, namespace)
	if err != nil {
		return nil, err
	}
	list, ok := d["fields"].([]any)
	if !ok {
		return nil, schemaErrorf("record %s has no list of fields", n.name)
	}
	seen := map[string]bool{}
	for _, item := range list {
		f, err := p.field(n, item, namespace, depth)
		if err != nil {
			return nil, err
		}
		if seen[f.name] {
			return nil, schemaErrorf("record %s has two fields %q", n.name, f.name)
		}
		seen[f.name] = true
		n.fields = append(n.fields, f)
		n.branches = append(n.branches, f.typ)
	}
	return n, nil
}

func (p *parser) field(rec *node, doc any, namespace string, depth int) (field, error) {
	d, ok := doc.(map[string]any)
	if !ok {
		return field{}, schemaErrorf("a field of record %s is not an object", rec.name)
	}
	f := field{}
	f.name, _ = d["name"].(string)
	if !validName(f.name) {
		return f, schemaErrorf("record %s has a field of invalid name %q", rec.name, f.name)
	}
	if d["type"] == nil {
		return f, schemaErrorf("field %s.%s has no type", rec.name, f.name)
	}
	var err error
	if f.aliases, err = stringList(d, "aliases"); err != nil {
		return f, err
	}
	f.def, f.hasDef = d["default"]
	f.typ, err = p.parse(d["type"], namespace, depth+1)
	return f, err
}

func (p *parser) enum(d map[string]any, namespace string) (*node, error) {
	n := &node{kind: kEnum}
	if _, err := p.define(n, d, namespace); err != nil {
		return nil, err
	}
	var err error
	if n.symbols, err = stringList(d, "symbols"); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, s := range n.symbols {
		if !validName(s) || seen[s] {
			return nil, schemaErrorf("enum %s has symbol %q twice, or it is not a valid name", n.name, s)
		}
		seen[s] = true
	}
	n.def, _ = d["default"].(string)
	if len(n.symbols) == 0 || n.def != "" && !seen[n.def] {
		return nil, schemaErrorf("enum %s has no symbols, or default %q is none of them", n.name, n.def)
	}
	return n, nil
}

func (p *parser) fixed(d map[string]any, namespace string) (*node, error) {
	n := &node{kind: kFixed}
	if _, err := p.define(n, d, namespace); err != nil {
		return nil, err
	}
	n.size = integer(d["size"])
	if n.size < 0 || n.size > maxFixed {
		return nil, schemaErrorf("fixed %s has size %v; 0 to %d are allowed", n.name, d["size"], maxFixed)
	}
	n.setLogical(d)
	return n, nil
}

// define gives n its names and makes it known; it returns the namespace of what
// is declared inside n.
func (p *parser) define(n *node, d map[string]any, namespace string) (string, error) {
	name, _ := d["name"].(string)
	if ns, ok := d["namespace"].(string); ok {
		namespace = ns
	}
	n.name = fullName(name, namespace)
	for part := range strings.SplitSeq(n.name, ".") {
		if !validName(part) {
			return "", schemaErrorf("%s has the invalid name %q", n.kind, n.name)
		}
	}
	if _, ok := primitive(n.name); ok || p.named[n.name] != nil {
		return "", schemaErrorf("the name %q is defined twice", n.name)
	}
	inner := ""
	if i := strings.LastIndexByte(n.name, '.'); i >= 0 {
		inner = n.name[:i]
	}
	aliases, err := stringList(d, "aliases")
	if err != nil {
		return "", err
	}
	for _, a := range aliases {
		n.aliases = append(n.aliases, fullName(a, inner))
	}
	p.named[n.name] = n
	return inner, nil
}
