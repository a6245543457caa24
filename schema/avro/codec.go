package avro

import (
	"errors"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"

	hamba "github.com/hamba/avro/v2"

	"github.com/outboxkit/outboxkit/event"
)

const (
	format      = "avro"
	contentType = "application/avro"
)

// Codec encodes and decodes the values of one schema. It implements
// [event.Codec] and is safe for concurrent use.
type Codec struct {
	schema event.Schema
	root   *node
	layout string // canonical form with logical types
	hamba  hamba.Schema
	// api is the codec's own: hamba caches encoders by a fingerprint without
	// defaults, so that two versions of a record would share one.
	api hamba.API

	silent fit // what hamba would get wrong without an error
	full   fit // everything, to explain an error

	buffers    sync.Pool                 // of *hamba.Writer
	latest     atomic.Pointer[encodable] // the last one asked for: mostly there is but one
	encodables sync.Map                  // reflect.Type → *encodable
	decodable  sync.Map                  // reflect.Type → *event.FieldError, nil if the type is fine
	writers    writerCache
}

// encodable is what is known about a Go type that is encoded.
type encodable struct {
	typ  reflect.Type
	err  *event.FieldError // why it cannot be
	plan *plan             // what to look at in each value

	encoder hamba.ValEncoder // if the type is sure
	checks  []sureCheck
}

// Parse returns the codec of a schema document. Its text is kept as it is but
// for white space, with its documentation, order and unknown attributes. Errors
// wrap [ErrSchema].
func Parse(schema string) (c *Codec, err error) {
	defer func() {
		if p := recover(); p != nil { // hamba, on some invalid defaults
			c, err = nil, schemaErrorf("%v", p)
		}
	}()
	root, err := parseSchema(schema)
	if err != nil {
		return nil, err
	}
	text, err := compact(schema)
	if err != nil {
		return nil, err
	}
	// A cache of its own: in hamba's global one two versions of a name collide.
	parsed, err := hamba.ParseWithCache(text, "", &hamba.SchemaCache{})
	if err != nil {
		return nil, schemaErrorf("%w", err)
	}
	return &Codec{
		schema: event.Schema{Format: format, Text: text, ContentType: contentType},
		root:   root,
		layout: canonical(root, true),
		hamba:  parsed,
		api: hamba.Config{
			MaxByteSliceSize: maxData, MaxSliceAllocSize: maxData,
			// In an any, a primitive branch of a union is the plain value, whatever
			// the other branches are.
			PartialUnionTypeResolution: true,
		}.Freeze(),
		full: fit{full: true},
	}, nil
}

// MustParse is Parse for schemas that are part of the program: it panics instead
// of returning an error.
func MustParse(schema string) *Codec {
	c, err := Parse(schema)
	if err != nil {
		panic(err)
	}
	return c
}

// Schema implements [event.Codec].
func (c *Codec) Schema() event.Schema { return c.schema }

// Encode implements [event.Codec]. The error for a value that does not fit the
// schema is an [event.FieldError] whose Field is its place in the data, for
// example items[3].qty. What Encode returns, Decode accepts.
func (c *Codec) Encode(v any) ([]byte, error) {
	if v == nil && c.root.kind != kNull && c.root.nullable() == nil {
		return nil, &event.FieldError{Field: "data", Problem: "is nil", Hint: "the schema says " + c.root.describe()}
	}
	rv := reflect.ValueOf(v)
	if rv.IsValid() {
		e := c.encodable(rv.Type())
		if e.err != nil {
			return nil, named(copyOf(e.err))
		}
		if p := e.sure(v); p != nil {
			if data, err := c.write(e.encoder, p); err == nil && len(data) <= maxData {
				return data, nil
			} // what is wrong comes out below
		}
		if e.plan.check != nil {
			if err := e.plan.check(rv, 0); err != nil {
				return nil, named(err)
			}
		}
	}
	data, err := c.marshal(v)
	if err != nil {
		return nil, c.explain(rv, err)
	}
	// This finds strings that are not UTF-8, and keeps the promise above.
	if err := check(c.root, data); err != nil {
		var bad *DataError
		if errors.As(err, &bad) {
			err = named(&event.FieldError{Field: bad.Path, Problem: "cannot be encoded", Err: bad.Err})
		}
		return nil, err
	}
	return data, nil
}

// marshal turns hamba's panics into errors.
func (c *Codec) marshal(v any) (data []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			data, err = nil, fmt.Errorf("avro: cannot encode a %T: %v", v, p)
		}
	}()
	return c.api.Marshal(c.hamba, v)
}

// explain names the place of a value that hamba refused.
func (c *Codec) explain(v reflect.Value, cause error) error {
	if err := c.full.check(c.root, v, 0); err != nil {
		return named(err)
	}
	return &event.FieldError{Field: "data", Problem: "does not fit " + c.root.describe(), Err: cause}
}

func named(err *event.FieldError) error {
	if err.Field == "" {
		err.Field = "data"
	}
	return err
}

// Decode implements [event.Codec]. *v should be a zero value: what the data does
// not mention, such as fields of the struct that the schema lacks, stays as it
// was; after an error *v may be half filled. Data that does not fit the writer's
// schema gives a [DataError]; a writer's schema that is no valid one, or cannot be
// read with this codec's, gives an error that wraps [ErrSchema] or
// [ErrIncompatible]. None of them is worth a retry.
func (c *Codec) Decode(data []byte, writer event.Schema, v any) error {
	t := reflect.TypeOf(v)
	if t == nil || t.Kind() != reflect.Pointer || reflect.ValueOf(v).IsNil() {
		return fmt.Errorf("avro: cannot decode into %T: a non-nil pointer is needed", v)
	}
	if err := c.bindDecode(t.Elem()); err != nil {
		return named(err)
	}
	data, err := c.rewrite(data, writer)
	if err != nil {
		return err
	}
	return c.unmarshal(data, v)
}

// rewrite checks data and brings it into the layout of c's schema.
func (c *Codec) rewrite(data []byte, writer event.Schema) ([]byte, error) {
	if writer.IsZero() || writer.Format == format && writer.Text == c.schema.Text {
		return data, check(c.root, data)
	}
	if writer.Format != format {
		return nil, fmt.Errorf("avro: %w: its format is %q", ErrIncompatible, writer.Format)
	}
	w := c.writers.get(writer.Text, c.compile)
	if w.err != nil {
		return nil, w.err
	}
	if err := check(w.root, data); err != nil {
		return nil, err
	}
	if w.conv == nil {
		return data, nil
	}
	out, err := w.conv.convert(&guard{data: data}, make([]byte, 0, len(data)+64))
	if err == nil && len(out) > maxData {
		err = &DataError{Offset: len(data), Err: errGrown}
	}
	return out, err
}

// compile prepares for a writer's schema.
func (c *Codec) compile(text string) *writer {
	w := &writer{}
	if w.root, w.err = parseSchema(text); w.err != nil {
		return w
	}
	if canonical(w.root, true) == c.layout {
		return w
	}
	if w.conv, w.err = resolve(c.root, w.root); w.err != nil {
		w.err = fmt.Errorf("avro: %w: %w", ErrIncompatible, w.err)
	}
	if isSame(w.conv) {
		w.conv = nil
	}
	return w
}

func (c *Codec) unmarshal(data []byte, v any) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("avro: cannot decode into a %T: %v", v, p)
		}
	}()
	return c.api.Unmarshal(c.hamba, data, v)
}

// encodable returns what is known about t.
func (c *Codec) encodable(t reflect.Type) *encodable {
	if e := c.latest.Load(); e != nil && e.typ == t {
		return e
	}
	known, ok := c.encodables.Load(t)
	if !ok {
		e := &encodable{typ: t, err: bind(c.root, t, false), plan: c.silent.plan(c.root, t)}
		if checks, ok := sureChecks(c.root, t); ok {
			e.checks, e.encoder = checks, c.encoderOf(t)
		}
		known, _ = c.encodables.LoadOrStore(t, e)
	}
	e := known.(*encodable) //nolint:forcetypeassert // the map holds nothing else
	c.latest.Store(e)
	return e
}

func (c *Codec) bindDecode(t reflect.Type) *event.FieldError {
	known, ok := c.decodable.Load(t)
	if !ok {
		known = bind(c.root, t, true)
		c.decodable.Store(t, known)
	}
	return copyOf(known.(*event.FieldError)) //nolint:forcetypeassert // the map holds nothing else
}

// copyOf: callers complete the error they get.
func copyOf(err *event.FieldError) *event.FieldError {
	if err == nil {
		return nil
	}
	e := *err
	return &e
}
