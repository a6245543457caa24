package relay

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// TestRowsInBothFormats reads odd rows as a relay does with and without a pooler
// that allows only the simple protocol: the two ways must agree.
func TestRowsInBothFormats(t *testing.T) {
	db := newDatabase(t)
	for _, q := range []string{
		`INSERT INTO outbox.event (topic, type, source) VALUES ('t', 'y', 's')`,
		`INSERT INTO outbox.event (topic, key, type, source, payload, headers) VALUES ('t', 'k', 'y', 's', '', '{}')`,
		`INSERT INTO outbox.event (topic, key, type, source, payload, headers, time, content_type, correlation_id, causation_id, schema_fp)
		 VALUES ('tö', 'k\', 'y', 's', '\x00ff', '{"a": "1", "b": "", "": "x, \": y"}', '1969-12-31 23:59:59.123457+00', 'c/t', 'cor', 'cau', -7)`,
		`INSERT INTO outbox.event (topic, type, source, headers, time) VALUES ('t', 'y', 's', '{"a": 1, "b": "2", "c": null, "d": {"e": "f"}}', '2026-01-02 03:04:05+00')`,
		`INSERT INTO outbox.event (topic, type, source, headers, time) VALUES ('t', 'y', 's', '{"traceparent": "00-4b-00-01", "ü": "→"}', '9999-12-31 23:59:59+00')`,
	} {
		db.exec(t, q)
	}
	read := func(first ...any) (items []*item) {
		args := append(first, "3:3:", int64(1<<40), int64(0), allShards, 100, int64(1<<20))
		rows, err := db.admin.Query(t.Context(), strings.Replace(newQueries("outbox").fresh, "AND pg_visible_in_snapshot(xid, $1::text::pg_snapshot)", "AND $1::text <> ''", 1), args...)
		require.NoError(t, err)
		defer rows.Close()
		scan := pageScanner{rows: rows}
		for rows.Next() {
			it, err := scan.next()
			require.NoError(t, err)
			items = append(items, it)
		}
		require.NoError(t, rows.Err())
		require.Equal(t, int64(5*256+2), scan.total-headerBytes(t, db))
		return items
	}
	binary, text := read(pgx.QueryResultFormats{pgx.BinaryFormatCode}), read(pgx.QueryExecModeSimpleProtocol)
	require.Len(t, binary, 5)
	require.Equal(t, text, binary)
	require.Nil(t, binary[0].msg.Payload)
	require.NotNil(t, binary[1].msg.Payload)
}

func headerBytes(t *testing.T, db *database) (n int64) {
	t.Helper()
	require.NoError(t, db.admin.QueryRow(t.Context(), `SELECT sum(pg_column_size(headers)) FROM outbox.event`).Scan(&n))
	return n
}

func FuzzPlainHeaders(f *testing.F) {
	for _, s := range []string{`{}`, `{"a": "b"}`, `{"a": "b", "c": ""}`, `{"a": 1}`, `{"a": "b", "c": null}`, `{"a": {"b": "c"}}`, `{"a": "\u0041"}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var v map[string]json.RawMessage
		if !utf8.ValidString(s) || json.Unmarshal([]byte(s), &v) != nil || v == nil || !canonical(s, v) {
			return // jsonb writes no such text
		}
		fast, ok := plainHeaders(s)
		if !ok {
			return
		}
		slow, err := parseHeaders([]byte(s))
		require.NoError(t, err)
		require.Equal(t, slow, fast)
	})
}

// canonical tells whether s is spaced as jsonb's text is.
func canonical(s string, v map[string]json.RawMessage) bool {
	b, err := json.Marshal(v)
	if err != nil {
		return false
	}
	squeezed := strings.NewReplacer(`": `, `":`, `, "`, `,"`).Replace(s)
	return len(squeezed) == len(b)
}
