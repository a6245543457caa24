package avro

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Schema documents of several files are put together as documents, not as parsed
// schemas, so that attributes nobody here knows stay, in their order.

// object is a JSON object in the order of its text; the other values are those of
// encoding/json, arrays []any, numbers json.Number.
type object struct{ members []member }

type member struct {
	key   string
	value any
}

func (o *object) get(key string) any {
	for _, m := range o.members {
		if m.key == key {
			return m.value
		}
	}
	return nil
}

func (o *object) text(key string) string { s, _ := o.get(key).(string); return s }

// with returns a copy in which keys have the values given.
func (o *object) with(set ...member) *object {
	c := &object{members: append([]member(nil), o.members...)}
next:
	for _, s := range set {
		for i := range c.members {
			if c.members[i].key == s.key {
				c.members[i].value = s.value
				continue next
			}
		}
		c.members = append(c.members, s)
	}
	return c
}

// MarshalJSON implements json.Marshaler.
func (o *object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o.members {
		if i > 0 {
			b.WriteByte(',')
		}
		key, err := marshalText(m.key)
		if err != nil {
			return nil, err
		}
		value, err := marshalText(m.value)
		if err != nil {
			return nil, err
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// marshalText is json.Marshal without HTML escapes.
func marshalText(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// readDocument reads one JSON value and nothing after it.
func readDocument(text string) (any, error) {
	if len(text) > maxSchemaText {
		return nil, schemaErrorf("%d bytes long; at most %d are allowed", len(text), maxSchemaText)
	}
	if !json.Valid([]byte(text)) { // for its message, and its limit on depth
		return nil, schemaErrorf("not JSON: %w", json.Unmarshal([]byte(text), new(any)))
	}
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	return readValue(dec)
}

func readValue(dec *json.Decoder) (any, error) {
	token, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('{'):
		o := &object{}
		for dec.More() {
			key, err := dec.Token()
			if err != nil {
				return nil, err
			}
			value, err := readValue(dec)
			if err != nil {
				return nil, err
			}
			o.members = append(o.members, member{key.(string), value}) //nolint:forcetypeassert // JSON has no other keys
		}
		return o, end(dec)
	case json.Delim('['):
		list := []any{}
		for dec.More() {
			value, err := readValue(dec)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		return list, end(dec)
	}
	return token, nil
}

func end(dec *json.Decoder) error {
	_, err := dec.Token()
	if err == io.EOF { //nolint:errorlint // Token returns io.EOF itself
		return io.ErrUnexpectedEOF
	}
	return err
}

// definition is a named type somewhere in a folder.
type definition struct {
	file      string
	name      string // full
	namespace string
	doc       *object
}

// names of an object that defines a type; ok is false for any other.
func defined(o *object, namespace string) (d definition, ok bool) {
	switch o.text("type") {
	case "record", "error", "enum", "fixed":
	default:
		return d, false
	}
	if ns, ok := o.get("namespace").(string); ok {
		namespace = ns
	}
	d.name, d.doc = fullName(o.text("name"), namespace), o
	if i := strings.LastIndexByte(d.name, '.'); i >= 0 {
		d.namespace = d.name[:i]
	}
	return d, d.name != ""
}

// definitions calls f for each type that doc defines, the outer ones first.
func definitions(doc any, namespace string, f func(definition) error) error {
	switch v := doc.(type) {
	case []any:
		for _, item := range v {
			if err := definitions(item, namespace, f); err != nil {
				return err
			}
		}
	case *object:
		if d, ok := defined(v, namespace); ok {
			if err := f(d); err != nil {
				return err
			}
			namespace = d.namespace
		}
		for _, inner := range innerTypes(v) {
			if err := definitions(inner, namespace, f); err != nil {
				return err
			}
		}
	}
	return nil
}

func innerTypes(o *object) (list []any) {
	for _, key := range []string{"type", "items", "values"} {
		if v := o.get(key); v != nil {
			list = append(list, v)
		}
	}
	fields, _ := o.get("fields").([]any)
	for _, f := range fields {
		if f, ok := f.(*object); ok {
			list = append(list, f.get("type"))
		}
	}
	return list
}

// inliner puts the definitions of other files where they are first referred to.
type inliner struct {
	known   map[string]definition
	written map[string]bool
	foreign bool // something came from another file
}

// rewrite returns doc with every reference resolved. file is whose text it is.
func (in *inliner) rewrite(doc any, namespace, file string) (any, error) {
	switch v := doc.(type) {
	case string:
		return in.reference(v, namespace, file)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			var err error
			if out[i], err = in.rewrite(v[i], namespace, file); err != nil {
				return nil, err
			}
		}
		return out, nil
	case *object:
		d, ok := defined(v, namespace)
		if !ok {
			return in.inner(v, namespace, file)
		}
		if in.written[d.name] {
			return d.name, nil // an earlier reference has brought it in
		}
		in.written[d.name] = true
		return in.inner(v, d.namespace, file)
	default:
		return doc, nil // the parser says what is wrong with it
	}
}

func (in *inliner) inner(o *object, namespace, file string) (any, error) {
	out := o
	for _, key := range []string{"type", "items", "values"} {
		v := o.get(key)
		if _, isDefinition := defined(o, namespace); v == nil || key == "type" && isDefinition {
			continue
		}
		value, err := in.rewrite(v, namespace, file)
		if err != nil {
			return nil, err
		}
		out = out.with(member{key, value})
	}
	fields, ok := o.get("fields").([]any)
	if !ok {
		return out, nil
	}
	list := make([]any, len(fields))
	for i := range fields {
		list[i] = fields[i]
		if f, ok := fields[i].(*object); ok {
			value, err := in.rewrite(f.get("type"), namespace, file)
			if err != nil {
				return nil, err
			}
			list[i] = f.with(member{"type", value})
		}
	}
	return out.with(member{"fields", list}), nil
}

// complexTypes are those whose attributes stand beside them.
var complexTypes = map[string]bool{"array": true, "map": true, "record": true, "error": true, "enum": true, "fixed": true}

func (in *inliner) reference(name, namespace, file string) (any, error) {
	if _, ok := primitive(name); ok || complexTypes[name] {
		return name, nil
	}
	full := fullName(name, namespace)
	d, ok := in.known[full]
	switch {
	case in.written[full]:
		return full, nil
	case !ok:
		return nil, schemaErrorf("unknown type %q: neither this file nor another of the folder defines it", full)
	}
	in.foreign = in.foreign || d.file != file
	in.written[full] = true
	out, err := in.inner(d.doc, d.namespace, d.file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.file, err)
	}
	// Where it stands now another namespace may be in force.
	return out.(*object).with(member{"name", baseName(full)}, member{"namespace", d.namespace}), nil //nolint:forcetypeassert // inner returns an object for one
}
