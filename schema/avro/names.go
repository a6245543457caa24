package avro

import (
	"encoding/json"
	"strings"
)

// setLogical notes the logical types that change what a value means. Others are
// ignored, as the specification demands.
func (n *node) setLogical(d map[string]any) {
	lt, _ := d["logicalType"].(string)
	switch n.kind {
	case kInt:
		if lt == "date" || lt == "time-millis" {
			n.logical = lt
		}
	case kLong:
		if lt == "time-micros" || strings.HasPrefix(lt, "timestamp-") || strings.HasPrefix(lt, "local-timestamp-") {
			n.logical = lt
		}
	case kBytes, kFixed:
		if lt == "duration" && n.size == 12 {
			n.logical = lt
		}
		if lt != "decimal" {
			return
		}
		prec, scale := integer(d["precision"]), max(integer(d["scale"]), 0)
		if prec > 0 && scale <= prec {
			n.logical, n.precision, n.scale = lt, prec, scale
		}
	}
}

func fullName(name, namespace string) string {
	if namespace == "" || strings.Contains(name, ".") {
		return strings.TrimPrefix(name, ".")
	}
	return namespace + "." + name
}

// baseName is a full name without its namespace.
func baseName(full string) string { return full[strings.LastIndexByte(full, '.')+1:] }

func validName(s string) bool {
	for i, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

func stringList(d map[string]any, key string) ([]string, error) {
	if d[key] == nil {
		return nil, nil
	}
	list, ok := d[key].([]any)
	if !ok {
		return nil, schemaErrorf("%q is not a list of strings", key)
	}
	out := make([]string, len(list))
	for i, v := range list {
		if out[i], ok = v.(string); !ok {
			return nil, schemaErrorf("%q is not a list of strings", key)
		}
	}
	return out, nil
}

// integer returns a JSON number as an int, or -1.
func integer(v any) int {
	num, ok := v.(json.Number)
	if !ok {
		return -1
	}
	i, err := num.Int64()
	if err != nil || i < 0 || i > 1<<31 {
		return -1
	}
	return int(i)
}
