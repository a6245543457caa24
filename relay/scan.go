package relay

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Columns of a page, in the order of the queries.
const (
	colID = iota
	colEventID
	colTopic
	colKey
	colType
	colSource
	colTime
	colContentType
	colCorrelation
	colCausation
	colHeaders
	colPayload
	colSchema
	colSize
	colTotal
	colToken
	pageColumns
)

// pageScanner makes items of a page's rows. It decodes the binary format by itself:
// pgx's general scanning, with a value of its own for each column of each row,
// cost more than everything else that the relay does to an event.
type pageScanner struct {
	rows  pgx.Rows
	total int64 // bytes up to the current row
	token token

	slab []item // of which items are handed out
	text []byte // scratch
}

// slabItems is how many items share an allocation; they are freed together.
const slabItems = 256

// next decodes the current row.
func (p *pageScanner) next() (*item, error) {
	if len(p.slab) == 0 {
		p.slab = make([]item, slabItems)
	}
	it := &p.slab[0]
	p.slab = p.slab[1:]
	if !binaryPage(p.rows.FieldDescriptions()) { // simple protocol
		return it, it.scan(p.rows, &p.total, &p.token)
	}
	return it, p.decode(it, p.rows.RawValues())
}

// binaryPage tells whether the columns are those that decode expects, in the
// binary format.
func binaryPage(fields []pgconn.FieldDescription) bool {
	if len(fields) != pageColumns {
		return false
	}
	for i, f := range fields {
		// The two formats are the same for text.
		if f.Format != pgx.BinaryFormatCode && (i < colTopic || i > colSource) && (i < colContentType || i > colCausation) {
			return false
		}
	}
	return true
}

// decode copies the row, because raw is the connection's buffer: all texts into one
// string, the payload into bytes of its own.
func (p *pageScanner) decode(it *item, raw [][]byte) error {
	for _, c := range [...]struct{ column, size int }{
		{colID, 8}, {colEventID, 16}, {colTime, 8}, {colTotal, 8},
	} {
		if len(raw[c.column]) != c.size {
			return fmt.Errorf("column %d has %d bytes, not %d", c.column, len(raw[c.column]), c.size)
		}
	}
	it.id = int64(binary.BigEndian.Uint64(raw[colID]))      //nolint:gosec // two's complement
	p.total = int64(binary.BigEndian.Uint64(raw[colTotal])) //nolint:gosec // two's complement
	if fp := raw[colSchema]; len(fp) == 8 {
		v := int64(binary.BigEndian.Uint64(fp)) //nolint:gosec // two's complement
		it.fp = &v
	}
	p.token = token{}
	if t := raw[colToken]; len(t) == len(p.token.Bytes) {
		p.token.Valid = true
		copy(p.token.Bytes[:], t)
	}
	m := &it.msg
	m.Time = pgTime(raw[colTime])
	if raw[colPayload] != nil {
		m.Payload = append(make([]byte, 0, len(raw[colPayload])), raw[colPayload]...)
	}
	return p.texts(it, raw)
}

// texts fills the strings of a message, which share one allocation.
func (p *pageScanner) texts(it *item, raw [][]byte) error {
	m := &it.msg
	id := raw[colEventID]
	p.text = hex.AppendEncode(p.text[:0], id[:4])
	for _, part := range [][]byte{id[4:6], id[6:8], id[8:10], id[10:16]} {
		p.text = hex.AppendEncode(append(p.text, '-'), part)
	}
	columns := [...]struct {
		to     *string
		column int
	}{
		{&m.Topic, colTopic}, {&m.Key, colKey}, {&m.Type, colType}, {&m.Source, colSource},
		{&m.ContentType, colContentType}, {&m.CorrelationID, colCorrelation}, {&m.CausationID, colCausation},
	}
	for _, c := range columns {
		p.text = append(p.text, raw[c.column]...)
	}
	var headers []byte
	if h := raw[colHeaders]; len(h) > 0 {
		headers = h[1:] // after the version of jsonb's binary format
	}
	p.text = append(p.text, headers...)
	rest := string(p.text)
	m.ID, rest = rest[:36], rest[36:]
	for _, c := range columns {
		n := len(raw[c.column])
		*c.to, rest = rest[:n], rest[n:]
	}
	if rest == "" {
		return nil
	}
	var plain bool
	if m.Headers, plain = plainHeaders(rest); plain {
		return nil
	}
	var err error
	if m.Headers, err = parseHeaders([]byte(rest)); err != nil {
		return fmt.Errorf("event %s: headers: %w", m.ID, err)
	}
	return nil
}

// plainHeaders reads what nearly all headers are, jsonb's own text of an object of
// strings without escapes. Anything else is left to parseHeaders.
func plainHeaders(s string) (map[string]string, bool) {
	if len(s) < 2 || s[0] != '{' || s[len(s)-1] != '}' || strings.IndexByte(s, '\\') >= 0 {
		return nil, false
	}
	headers := map[string]string{}
	for s = s[1 : len(s)-1]; s != ""; {
		if s[0] != '"' {
			return nil, false
		}
		name, rest, ok := strings.Cut(s[1:], `": "`)
		if !ok || strings.IndexByte(name, '"') >= 0 { // a value that is no string
			return nil, false
		}
		value, rest, ok := strings.Cut(rest, `"`)
		if !ok {
			return nil, false
		}
		headers[name] = value
		switch {
		case rest == "":
		case strings.HasPrefix(rest, `, "`):
			rest = rest[2:]
		default:
			return nil, false
		}
		s = rest
	}
	return headers, true
}

// pgTime reads a timestamptz: microseconds since 2000.
func pgTime(raw []byte) time.Time {
	const since2000 = 946_684_800
	us := int64(binary.BigEndian.Uint64(raw)) //nolint:gosec // two's complement
	// Not a Duration, which ends after 292 years. "infinity" is the year 294276: no
	// reason to hold a key back.
	return time.Unix(since2000+us/1e6, us%1e6*1000).UTC()
}
