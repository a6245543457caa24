package avro

import (
	"strconv"
	"strings"
)

// canonical returns the Parsing Canonical Form of the Avro specification. hamba's
// String is not that form: it keeps logical types, so its fingerprints differ
// from everybody else's. With meaning set, the logical types that we know are
// added: two schemas of equal text then read each other's bytes alike.
func canonical(n *node, meaning bool) string {
	w := canonicalWriter{meaning: meaning, seen: map[string]bool{}}
	w.write(n)
	return w.String()
}

type canonicalWriter struct {
	strings.Builder
	meaning bool
	seen    map[string]bool
}

func (w *canonicalWriter) write(n *node) {
	if n.name != "" {
		if w.seen[n.name] {
			w.WriteString(`"` + n.name + `"`)
			return
		}
		w.seen[n.name] = true
	}
	switch n.kind {
	case kRecord:
		w.record(n)
	case kEnum:
		w.WriteString(`{"name":"` + n.name + `","type":"enum","symbols":["` + strings.Join(n.symbols, `","`) + `"]}`)
	case kFixed:
		w.WriteString(`{"name":"` + n.name + `","type":"fixed","size":` + strconv.Itoa(n.size) + `}`)
	case kArray:
		w.WriteString(`{"type":"array","items":`)
		w.write(n.item)
		w.WriteString(`}`)
	case kMap:
		w.WriteString(`{"type":"map","values":`)
		w.write(n.item)
		w.WriteString(`}`)
	case kUnion:
		w.WriteByte('[')
		for i, b := range n.branches {
			if i > 0 {
				w.WriteByte(',')
			}
			w.write(b)
		}
		w.WriteByte(']')
	default:
		w.WriteString(`"` + n.kind.String() + `"`)
	}
	if w.meaning && n.logical != "" {
		w.WriteString("<" + n.logical + " " + strconv.Itoa(n.precision) + " " + strconv.Itoa(n.scale) + ">")
	}
}

func (w *canonicalWriter) record(n *node) {
	typ := "record"
	if n.isError {
		typ = "error"
	}
	w.WriteString(`{"name":"` + n.name + `","type":"` + typ + `","fields":[`)
	for i, f := range n.fields {
		if i > 0 {
			w.WriteByte(',')
		}
		w.WriteString(`{"name":"` + f.name + `","type":`)
		w.write(f.typ)
		w.WriteByte('}')
	}
	w.WriteString(`]}`)
}

const crc64Empty = 0xc15d213aa4d7a795

var crc64Table = func() (t [256]uint64) {
	for i := range t {
		fp := uint64(i)
		for range 8 {
			fp = fp>>1 ^ crc64Empty&-(fp&1)
		}
		t[i] = fp
	}
	return t
}()

// crc64 is CRC-64-AVRO, the Rabin fingerprint of the Avro specification. It is
// not hash/crc64 with another polynomial: its register starts elsewhere and is
// not inverted at the end.
func crc64(s string) uint64 {
	fp := uint64(crc64Empty)
	for i := range len(s) {
		fp = fp>>8 ^ crc64Table[byte(fp)^s[i]] //nolint:gosec // the low byte is meant
	}
	return fp
}
