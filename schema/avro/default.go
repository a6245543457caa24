package avro

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
)

// encodeDefault returns the encoded default of a reader's field.
func encodeDefault(f *field) ([]byte, error) {
	if !f.hasDef {
		return nil, errors.New("and the reader's has no default")
	}
	// Not nil, even for a null: an empty default is a default.
	return appendDefault([]byte{}, f.typ, f.def)
}

// appendDefault encodes a JSON value as a value of n.
func appendDefault(dst []byte, n *node, v any) ([]byte, error) {
	misfit := fmt.Errorf("default %v does not fit %s", v, n.describe())
	if len(dst) > maxSchemaText {
		return nil, errors.New("the default is too large")
	}
	switch n.kind {
	case kNull:
		if v != nil {
			return nil, misfit
		}
		return dst, nil
	case kBoolean:
		b, ok := v.(bool)
		if !ok {
			return nil, misfit
		}
		if b {
			return append(dst, 1), nil
		}
		return append(dst, 0), nil
	case kInt, kLong, kFloat, kDouble:
		num, ok := v.(json.Number)
		if !ok {
			return nil, misfit
		}
		return appendNumber(dst, n, num)
	case kString:
		s, ok := v.(string)
		if !ok {
			return nil, misfit
		}
		return append(appendLong(dst, int64(len(s))), s...), nil
	case kBytes, kFixed:
		return appendBytes(dst, n, v)
	case kEnum:
		for i, s := range n.symbols {
			if v == s {
				return appendLong(dst, int64(i)), nil
			}
		}
		return nil, misfit
	case kUnion:
		return appendUnion(dst, n, v)
	default:
		return appendNested(dst, n, v)
	}
}

func appendNumber(dst []byte, n *node, num json.Number) ([]byte, error) {
	if n.kind == kFloat || n.kind == kDouble {
		f, err := num.Float64()
		if err != nil {
			return nil, fmt.Errorf("default %s: %w", num, err)
		}
		if n.kind == kFloat {
			return binary.LittleEndian.AppendUint32(dst, math.Float32bits(float32(f))), nil
		}
		return binary.LittleEndian.AppendUint64(dst, math.Float64bits(f)), nil
	}
	i, err := num.Int64()
	if err == nil && n.kind == kInt && int64(int32(i)) != i { //nolint:gosec // that is the question
		err = errors.New("out of range for int")
	}
	if err != nil {
		return nil, fmt.Errorf("default %s: %w", num, err)
	}
	return appendLong(dst, i), nil
}

// appendBytes: the code points 0 to 255 of the string are the bytes.
func appendBytes(dst []byte, n *node, v any) ([]byte, error) {
	s, ok := v.(string)
	b := make([]byte, 0, len(s))
	for _, r := range s {
		ok = ok && r < 256
		b = append(b, byte(r)) //nolint:gosec // checked in the line above
	}
	if !ok || n.kind == kFixed && len(b) != n.size {
		return nil, fmt.Errorf("default %v does not fit %s", v, n.describe())
	}
	if n.kind == kBytes {
		dst = appendLong(dst, int64(len(b)))
	}
	return append(dst, b...), nil
}

// appendUnion: a default belongs to the first branch; since Avro 1.12 to any.
func appendUnion(dst []byte, n *node, v any) ([]byte, error) {
	var firstErr error
	for i, b := range n.branches {
		out, err := appendDefault(appendLong(dst, int64(i)), b, v)
		if err == nil {
			return out, nil
		}
		if firstErr == nil {
			firstErr = err
		}
	}
	return nil, firstErr
}

func appendNested(dst []byte, n *node, v any) ([]byte, error) {
	var err error
	list, isList := v.([]any)
	object, isObject := v.(map[string]any)
	switch {
	case n.kind == kArray && isList:
		if len(list) > 0 {
			dst = appendLong(dst, int64(len(list)))
		}
		for _, item := range list {
			if dst, err = appendDefault(dst, n.item, item); err != nil {
				return nil, err
			}
		}
		return append(dst, 0), nil
	case n.kind == kMap && isObject:
		if len(object) > 0 {
			dst = appendLong(dst, int64(len(object)))
		}
		for k, item := range object {
			dst = append(appendLong(dst, int64(len(k))), k...)
			if dst, err = appendDefault(dst, n.item, item); err != nil {
				return nil, err
			}
		}
		return append(dst, 0), nil
	case n.kind == kRecord && isObject:
		for i := range n.fields {
			f := &n.fields[i]
			item, ok := object[f.name]
			if !ok && !f.hasDef {
				return nil, fmt.Errorf("the default of %s has no value for %s", n.describe(), f.name)
			}
			if !ok {
				item = f.def
			}
			if dst, err = appendDefault(dst, f.typ, item); err != nil {
				return nil, err
			}
		}
		return dst, nil
	}
	return nil, fmt.Errorf("default %v does not fit %s", v, n.describe())
}
