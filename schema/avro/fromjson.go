package avro

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/outboxkit/outboxkit/event"
)

// EncodeJSON encodes a JSON document as people write it: a union's branch as its
// plain value, or as Avro's JSON encoding has it, {"branch": value}; times as
// numbers or RFC 3339; a decimal as a number; bytes as text of the code points 0 to
// 255, a fixed also in hex. Fields may be left out where the schema has a default.
// The error is an [event.FieldError] that names the place. It is for tools and
// tests, not for speed.
func (c *Codec) EncodeJSON(doc []byte) ([]byte, error) {
	if len(doc) > maxData {
		return nil, fmt.Errorf("avro: %d bytes long; at most %d are allowed", len(doc), maxData)
	}
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, fmt.Errorf("avro: not JSON: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF { //nolint:errorlint // Token returns io.EOF itself
		return nil, fmt.Errorf("avro: more text after the JSON value, at byte %d", dec.InputOffset())
	}
	data, err := appendJSON(nil, c.root, v)
	if err != nil {
		return nil, named(err)
	}
	return slices.Clip(append([]byte{}, data...)), check(c.root, data)
}

func jsonMisfit(n *node, v any) *event.FieldError {
	text, _ := json.Marshal(v)
	if len(text) > 64 {
		text = append(text[:61:61], "..."...)
	}
	problem := "is " + string(text) + ", which is not " + article(outline(n))
	if n.kind == kEnum {
		problem += " of " + strings.Join(n.symbols, ", ")
	}
	return &event.FieldError{Problem: problem}
}

func article(s string) string {
	if strings.ContainsRune("aeiou", rune(s[0])) {
		return "an " + s
	}
	return "a " + s
}

// at puts err below a segment of the path.
func at(segment string, err *event.FieldError) *event.FieldError {
	if err != nil {
		err.Field = joinPath(segment, err.Field)
	}
	return err
}

func appendJSON(dst []byte, n *node, v any) ([]byte, *event.FieldError) {
	if n.logical != "" {
		v = plainNumber(n, v)
	}
	switch n.kind {
	case kUnion:
		return jsonUnion(dst, n, v)
	case kRecord:
		return jsonRecord(dst, n, v)
	case kArray:
		list, ok := v.([]any)
		if !ok {
			return nil, jsonMisfit(n, v)
		}
		return jsonBlock(dst, len(list), func(dst []byte, i int) ([]byte, *event.FieldError) {
			out, err := appendJSON(dst, n.item, list[i])
			return out, at(fmt.Sprintf("[%d]", i), err)
		})
	case kMap:
		object, ok := v.(map[string]any)
		if !ok {
			return nil, jsonMisfit(n, v)
		}
		keys := sortedKeys(object)
		return jsonBlock(dst, len(keys), func(dst []byte, i int) ([]byte, *event.FieldError) {
			k := keys[i]
			out, err := appendJSON(append(appendLong(dst, int64(len(k))), k...), n.item, object[k])
			return out, at(fmt.Sprintf("[%q]", k), err)
		})
	case kFixed:
		if raw, ok := v.([]byte); ok && len(raw) <= n.size { // of a decimal: the sign fills it up
			fill := byte(0)
			if raw[0] >= 0x80 {
				fill = 0xff
			}
			return append(append(dst, bytes.Repeat([]byte{fill}, n.size-len(raw))...), raw...), nil
		}
		if s, ok := v.(string); ok && len(s) == 2*n.size {
			if raw, err := hex.DecodeString(s); err == nil {
				return append(dst, raw...), nil
			}
		}
	case kBytes:
		if raw, ok := v.([]byte); ok { // of a decimal
			return append(appendLong(dst, int64(len(raw))), raw...), nil
		}
	default:
	}
	out, err := appendDefault(dst, n, v)
	if err != nil {
		return nil, jsonMisfit(n, v)
	}
	return out, nil
}

func jsonBlock(dst []byte, count int, item func([]byte, int) ([]byte, *event.FieldError)) ([]byte, *event.FieldError) {
	if count > 0 {
		dst = appendLong(dst, int64(count))
	}
	for i := range count {
		var err *event.FieldError
		if dst, err = item(dst, i); err != nil {
			return nil, err
		}
	}
	return append(dst, 0), nil
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func jsonUnion(dst []byte, n *node, v any) ([]byte, *event.FieldError) {
	if object, ok := v.(map[string]any); ok && len(object) == 1 {
		for i, b := range n.branches {
			for _, name := range []string{b.name, b.kind.String()} {
				if inner, ok := object[name]; ok && name != "" {
					if out, err := appendJSON(appendLong(dst, int64(i)), b, inner); err == nil {
						return out, nil
					}
				}
			}
		}
	}
	var inside *event.FieldError
	for i, b := range n.branches {
		out, err := appendJSON(appendLong(slices.Clip(dst), int64(i)), b, v)
		if err == nil {
			return out, nil
		}
		if err.Field != "" && inside == nil {
			inside = err // this branch was meant: only what is inside does not fit
		}
	}
	if inside != nil {
		return nil, inside
	}
	return nil, jsonMisfit(n, v)
}

func jsonRecord(dst []byte, n *node, v any) ([]byte, *event.FieldError) {
	object, ok := v.(map[string]any)
	if !ok {
		return nil, jsonMisfit(n, v)
	}
	for _, name := range sortedKeys(object) {
		if !slices.ContainsFunc(n.fields, func(f field) bool { return f.name == name }) {
			return nil, &event.FieldError{Field: name, Problem: "is not in the schema", Hint: n.describe() + " has no such field"}
		}
	}
	for i := range n.fields {
		f := &n.fields[i]
		value, ok := object[f.name]
		var out []byte
		if !ok {
			filled, err := encodeDefault(f)
			if err != nil {
				return nil, &event.FieldError{Field: f.name, Problem: "is missing", Hint: "the schema has no default for it"}
			}
			out = append(dst, filled...) //nolint:gocritic // dst is taken over
		} else {
			var err *event.FieldError
			if out, err = appendJSON(dst, f.typ, value); err != nil {
				return nil, at(f.name, err)
			}
		}
		dst = out
	}
	return dst, nil
}

// plainNumber turns how people write times and decimals into what is encoded.
func plainNumber(n *node, v any) any {
	text, isText := v.(string)
	number, isNumber := v.(json.Number)
	switch {
	case n.logical == "decimal" && isNumber:
		if raw := decimalBytes(n, string(number)); raw != nil {
			return raw
		}
	case n.logical == "date" && isText:
		if t, err := time.Parse(time.DateOnly, text); err == nil {
			return json.Number(fmt.Sprint(t.Unix() / 86400))
		}
		fallthrough
	case isText:
		if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
			return timeNumber(n.logical, t)
		}
		if d, err := time.ParseDuration(text); err == nil && strings.HasPrefix(n.logical, "time-") {
			if n.logical == "time-millis" {
				return json.Number(fmt.Sprint(d.Milliseconds()))
			}
			return json.Number(fmt.Sprint(d.Microseconds()))
		}
	}
	return v
}

func timeNumber(logical string, t time.Time) any {
	switch {
	case logical == "date":
		return json.Number(fmt.Sprint(t.Unix() / 86400))
	case strings.HasSuffix(logical, "-millis"):
		return json.Number(fmt.Sprint(t.UnixMilli()))
	case strings.HasSuffix(logical, "-micros"):
		return json.Number(fmt.Sprint(t.UnixMicro()))
	default:
		return json.Number(fmt.Sprint(t.UnixNano()))
	}
}

// decimalBytes is the unscaled number in two's complement, big endian; nil if it
// does not fit the scale.
func decimalBytes(n *node, number string) []byte {
	if len(number) > 1024 || strings.ContainsAny(number, "eE") { // 1e999999999 would fill the memory
		return nil
	}
	r, ok := new(big.Rat).SetString(number)
	if !ok {
		return nil
	}
	scaled := r.Mul(r, new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n.scale)), nil)))
	if !scaled.IsInt() || len(new(big.Int).Abs(scaled.Num()).String()) > n.precision {
		return nil
	}
	i := scaled.Num()
	if i.Sign() >= 0 {
		return append([]byte{0}, i.Bytes()...)
	}
	size := uint(i.BitLen()/8 + 1) //nolint:gosec // never negative
	return new(big.Int).Add(i, new(big.Int).Lsh(big.NewInt(1), size*8)).Bytes()
}
