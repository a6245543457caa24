package avro

import (
	"encoding"
	"fmt"
	"math/big"
	"reflect"
	"sync"

	"github.com/outboxkit/outboxkit/event"
)

// A fit tells which part of a Go value does not fit the schema. It is used twice:
// before hamba encodes, looking only for what hamba would get wrong in silence
// (an out-of-range int is cut off, a decimal rounded, a cycle overflows the
// stack), and in full after hamba refused a value, to name the place.
type fit struct {
	full  bool
	plans sync.Map // fitKey → *plan
}

type fitKey struct {
	n *node
	t reflect.Type
}

// plan is what there is to look at in values of one Go type; a nil check is
// nothing.
type plan struct {
	check func(v reflect.Value, depth int) *event.FieldError
	built bool
}

var (
	textMarshaler  = reflect.TypeFor[encoding.TextMarshaler]()
	unionConverter = reflect.TypeFor[interface{ ToAny() (any, error) }]()
	ratPtr         = reflect.TypeFor[*big.Rat]()
)

func (f *fit) check(n *node, v reflect.Value, depth int) *event.FieldError {
	if !v.IsValid() {
		if f.full && n.kind != kNull && n.nullable() == nil {
			return misfit(n, "is nil")
		}
		return nil
	}
	p := f.plan(n, v.Type())
	if p.check == nil {
		return nil
	}
	if depth > maxDepth {
		return &event.FieldError{Problem: fmt.Sprintf("is nested deeper than %d levels", maxDepth), Hint: "look for a cycle"}
	}
	return p.check(v, depth+1)
}

func (f *fit) plan(n *node, t reflect.Type) *plan {
	key := fitKey{n, t}
	if p, ok := f.plans.Load(key); ok {
		return p.(*plan)
	}
	b := fitBuilder{fit: f, building: map[fitKey]*plan{}}
	p := b.build(n, t)
	f.plans.Store(key, p)
	return p
}

func misfit(n *node, problem string) *event.FieldError {
	return &event.FieldError{Problem: problem, Hint: "the schema says " + n.describe()}
}

// inside puts err's field below segment.
func inside(segment string, err *event.FieldError) *event.FieldError {
	if err != nil {
		err.Field = joinPath(segment, err.Field)
	}
	return err
}

type fitBuilder struct {
	fit      *fit
	building map[fitKey]*plan
}

func (b *fitBuilder) build(n *node, t reflect.Type) *plan {
	key := fitKey{n, t}
	if p, ok := b.building[key]; ok {
		if !p.built { // the type is recursive: look at every value
			return &plan{check: func(v reflect.Value, depth int) *event.FieldError { return b.fit.check(n, v, depth) }}
		}
		return p
	}
	p := &plan{}
	b.building[key] = p
	p.check, p.built = b.checker(n, t), true
	return p
}

func (b *fitBuilder) checker(n *node, t reflect.Type) func(reflect.Value, int) *event.FieldError {
	f := b.fit
	switch {
	case n.kind == kString && t.Implements(textMarshaler), n.kind == kEnum && t.Implements(textMarshaler),
		n.kind == kUnion && t.Implements(unionConverter):
		return nil
	case t.Kind() == reflect.Interface:
		return func(v reflect.Value, depth int) *event.FieldError { return f.check(n, v.Elem(), depth) }
	case n.kind == kUnion:
		return b.union(n, t)
	case n.logical == "decimal" && t == ratPtr:
		return decimalChecker(n, f.full)
	case t.Kind() == reflect.Pointer && n.kind == kRecord:
		return b.pointer(n, t, f.full)
	case n.kind == kRecord && t.Kind() == reflect.Struct:
		return b.structure(n, t)
	case n.kind == kRecord && t.Kind() == reflect.Map:
		return mapRecordChecker(n, f)
	case n.kind == kArray && t.Kind() == reflect.Slice:
		return b.slice(n, t)
	case n.kind == kMap && t.Kind() == reflect.Map:
		return b.mapping(n, t)
	case n.kind == kInt && (t.Kind() == reflect.Int || n.logical == "time-millis" && t.Kind() == reflect.Int64):
		return intChecker(n)
	case f.full:
		return kindChecker(n, t)
	}
	return nil
}

func (b *fitBuilder) pointer(n *node, t reflect.Type, refuseNil bool) func(reflect.Value, int) *event.FieldError {
	inner := b.build(n, t.Elem())
	if inner.check == nil && !refuseNil {
		return nil
	}
	return func(v reflect.Value, depth int) *event.FieldError {
		if v.IsNil() {
			if refuseNil {
				return misfit(n, "is a nil pointer")
			}
			return nil
		}
		if inner.check == nil {
			return nil
		}
		return inner.check(v.Elem(), depth)
	}
}

func (b *fitBuilder) union(n *node, t reflect.Type) func(reflect.Value, int) *event.FieldError {
	f := b.fit
	other := n.nullable()
	switch {
	case other != nil && t.Kind() == reflect.Pointer:
		return b.pointer(other, t, false)
	case other != nil && t.Kind() == reflect.Slice:
		return b.build(other, t).check
	case t.Kind() == reflect.Map:
		return func(v reflect.Value, depth int) *event.FieldError {
			it := v.MapRange()
			if !it.Next() {
				return nil
			}
			name := it.Key().String()
			branch := n.branch(name)
			if branch == nil {
				return &event.FieldError{Value: name, Problem: "names no branch of the union", Hint: "a union in a map has one entry: branch name → value"}
			}
			return inside(name, f.check(branch, it.Value(), depth))
		}
	case t.Kind() == reflect.Int:
		// hamba prefers int to long for a Go int, and cuts it off.
		if i := n.branch("int"); i != nil {
			return intChecker(i)
		}
	}
	if f.full {
		return func(reflect.Value, int) *event.FieldError {
			return misfit(n, "is a Go "+t.String()+", which is no branch of it")
		}
	}
	return nil
}

// branch returns the branch of a union by hamba's name for it, or nil.
func (n *node) branch(name string) *node {
	for _, b := range n.branches {
		id := b.kind.String()
		if b.name != "" {
			id = b.name
		}
		if name == id || b.logical != "" && name == id+"."+b.logical {
			return b
		}
	}
	return nil
}

type fieldPlan struct {
	name  string
	index []int
	plan  *plan
}

func (b *fitBuilder) structure(n *node, t reflect.Type) func(reflect.Value, int) *event.FieldError {
	var plans []fieldPlan
	for _, f := range n.fields {
		sf, ok := goField(t, f.name)
		if !ok {
			if b.fit.full && !f.hasDef {
				return func(reflect.Value, int) *event.FieldError {
					return &event.FieldError{
						Field: f.name, Problem: fmt.Sprintf("is missing: Go type %s has no such field", t),
						Hint: fmt.Sprintf("tag a field `avro:%q`, or give the schema's field a default", f.name),
					}
				}
			}
			continue
		}
		if p := b.build(f.typ, sf.Type); p.check != nil {
			plans = append(plans, fieldPlan{f.name, sf.Index, p})
		}
	}
	if len(plans) == 0 {
		return nil
	}
	return func(v reflect.Value, depth int) *event.FieldError {
		if depth > maxDepth {
			return &event.FieldError{Problem: fmt.Sprintf("is nested deeper than %d levels", maxDepth), Hint: "look for a cycle"}
		}
		for i := range plans {
			fv, err := fieldAt(v, plans[i].index)
			if err != nil { // an embedded nil pointer: hamba refuses it
				return inside(plans[i].name, misfit(n, "is in an embedded struct that is nil"))
			}
			if err := plans[i].plan.check(fv, depth+1); err != nil {
				return inside(plans[i].name, err)
			}
		}
		return nil
	}
}

// fieldAt is FieldByIndexErr with a short cut for what is not embedded.
func fieldAt(v reflect.Value, index []int) (reflect.Value, error) {
	if len(index) == 1 {
		return v.Field(index[0]), nil
	}
	return v.FieldByIndexErr(index)
}

func mapRecordChecker(n *node, f *fit) func(reflect.Value, int) *event.FieldError {
	return func(v reflect.Value, depth int) *event.FieldError {
		for _, fd := range n.fields {
			item := v.MapIndex(reflect.ValueOf(fd.name).Convert(v.Type().Key()))
			if !item.IsValid() {
				if f.full && !fd.hasDef {
					return &event.FieldError{Field: fd.name, Problem: "is missing", Hint: "set it, or give the schema's field a default"}
				}
				continue
			}
			if err := f.check(fd.typ, item, depth); err != nil {
				return inside(fd.name, err)
			}
		}
		return nil
	}
}

func (b *fitBuilder) slice(n *node, t reflect.Type) func(reflect.Value, int) *event.FieldError {
	item := b.build(n.item, t.Elem())
	if item.check == nil {
		return nil
	}
	return func(v reflect.Value, depth int) *event.FieldError {
		for i := range v.Len() {
			if err := item.check(v.Index(i), depth+1); err != nil {
				return inside(fmt.Sprintf("[%d]", i), err)
			}
		}
		return nil
	}
}

func (b *fitBuilder) mapping(n *node, t reflect.Type) func(reflect.Value, int) *event.FieldError {
	value := b.build(n.item, t.Elem())
	if value.check == nil {
		return nil
	}
	return func(v reflect.Value, depth int) *event.FieldError {
		for it := v.MapRange(); it.Next(); {
			if err := value.check(it.Value(), depth+1); err != nil {
				return inside(fmt.Sprintf("[%q]", fmt.Sprint(it.Key())), err)
			}
		}
		return nil
	}
}
