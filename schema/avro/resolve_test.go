package avro

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/event"
)

func avroSchema(text string) event.Schema { return event.Schema{Format: "avro", Text: text} }

// rec is a record R with the given fields.
func rec(fields ...string) string {
	return `{"type":"record","name":"R","namespace":"n","fields":[` + strings.Join(fields, ",") + `]}`
}

func fld(name, typ string, more ...string) string {
	return `{"name":"` + name + `","type":` + typ + strings.Join(more, "") + `}`
}

func TestEvolution(t *testing.T) {
	const str, num, long = `"string"`, `"int"`, `"long"`
	enum := func(symbols, more string) string {
		return `{"type":"enum","name":"E","symbols":[` + symbols + `]` + more + `}`
	}
	tests := map[string]struct {
		writer, reader string
		in, want       any
	}{
		"reader newer: default":          {rec(fld("a", num)), rec(fld("a", num), fld("b", str, `,"default":"x"`)), map[string]any{"a": 1}, map[string]any{"a": 1, "b": "x"}},
		"reader newer: default in front": {rec(fld("a", num)), rec(fld("b", str, `,"default":"x"`), fld("a", num)), map[string]any{"a": 1}, map[string]any{"a": 1, "b": "x"}},
		"reader newer: null default":     {rec(fld("a", num)), rec(fld("a", num), fld("b", `["null","int"]`, `,"default":null`)), map[string]any{"a": 1}, map[string]any{"a": 1, "b": nil}},
		"reader older: field dropped":    {rec(fld("a", num), fld("b", `{"type":"array","items":"string"}`), fld("c", num)), rec(fld("c", num)), map[string]any{"a": 1, "b": []any{"x", "y"}, "c": 3}, map[string]any{"c": 3}},
		"null field dropped":             {rec(fld("a", `"null"`), fld("c", num)), rec(fld("c", num)), map[string]any{"a": nil, "c": 3}, map[string]any{"c": 3}},
		"recursive field dropped":        {rec(fld("t", `{"type":"record","name":"T","fields":[{"name":"c","type":{"type":"array","items":"T"}}]}`), fld("c", num)), rec(fld("c", num)), map[string]any{"t": map[string]any{"c": []any{map[string]any{"c": []any{}}}}, "c": 3}, map[string]any{"c": 3}},
		"order of fields":                {rec(fld("a", num), fld("b", str), fld("c", long)), rec(fld("c", long), fld("d", num, `,"default":4`), fld("a", num), fld("b", str)), map[string]any{"a": 1, "b": "two", "c": int64(3)}, map[string]any{"a": 1, "b": "two", "c": int64(3), "d": 4}},
		"alias of a field":               {rec(fld("old", num)), rec(fld("new", num, `,"aliases":["old"]`)), map[string]any{"old": 7}, map[string]any{"new": 7}},
		"alias of a record":              {`{"type":"record","name":"Old","namespace":"n","fields":[` + fld("a", num) + `]}`, `{"type":"record","name":"New","namespace":"n","aliases":["Old"],"fields":[` + fld("a", num) + `]}`, map[string]any{"a": 7}, map[string]any{"a": 7}},
		"other namespace":                {`{"type":"record","name":"m.R","fields":[` + fld("a", num) + `]}`, rec(fld("a", num)), map[string]any{"a": 7}, map[string]any{"a": 7}},
		"int to long":                    {num, long, 5, int64(5)},
		"int to float":                   {num, `"float"`, 5, float32(5)},
		"int to double":                  {num, `"double"`, -5, float64(-5)},
		"long to float":                  {long, `"float"`, int64(1 << 20), float32(1 << 20)},
		"long to double":                 {long, `"double"`, int64(-1 << 40), float64(-1 << 40)},
		"float to double":                {`"float"`, `"double"`, float32(1.5), 1.5},
		"string to bytes":                {str, `"bytes"`, "hi", []byte("hi")},
		"bytes to string":                {`"bytes"`, str, []byte("hi"), "hi"},
		"becomes nullable":               {rec(fld("a", str)), rec(fld("a", `["null","string"]`)), map[string]any{"a": "x"}, map[string]any{"a": "x"}},
		"nullable and promoted":          {rec(fld("a", num)), rec(fld("a", `["null","double"]`)), map[string]any{"a": 2}, map[string]any{"a": 2.0}},
		"no longer nullable":             {rec(fld("a", `["null","string"]`)), rec(fld("a", str)), map[string]any{"a": "x"}, map[string]any{"a": "x"}},
		"union in another order":         {`["null","string","int"]`, `["int","null","string"]`, 5, 5},
		"union promoted":                 {`["int","long"]`, `["null","long"]`, int32(5), int64(5)},
		"union to one type":              {`["int","long"]`, `"double"`, int64(5), 5.0},
		"exact branch first":             {num, `["long","int"]`, 5, 5},
		"enum in another order":          {enum(`"A","B"`, ``), enum(`"C","B","A"`, ``), "B", "B"},
		"enum default":                   {enum(`"A","B"`, ``), enum(`"A","OTHER"`, `,"default":"OTHER"`), "B", "OTHER"},
		"items":                          {`{"type":"array","items":"int"}`, `{"type":"array","items":"double"}`, []any{1, 2}, []any{1.0, 2.0}},
		"map values":                     {`{"type":"map","values":"int"}`, `{"type":"map","values":"long"}`, map[string]any{"k": 1}, map[string]any{"k": int64(1)}},
		"map values promoted":            {`{"type":"map","values":"int"}`, `{"type":"map","values":"double"}`, map[string]any{"k": 1}, map[string]any{"k": 1.0}},
		"logical type added":             {long, `{"type":"long","logicalType":"timestamp-millis"}`, int64(1000), time.Unix(1, 0).UTC()},
		"defaults of all kinds": {rec(), rec(
			fld("n", `"null"`, `,"default":null`), fld("t", `"boolean"`, `,"default":true`), fld("i", num, `,"default":-3`), fld("l", long, `,"default":5`),
			fld("f", `"float"`, `,"default":1.5`), fld("d", `"double"`, `,"default":2`), fld("s", str, `,"default":"é"`), fld("b", `"bytes"`, `,"default":"\u00ff"`),
			fld("x", `{"type":"fixed","name":"F","size":2}`, `,"default":"\u0001\u00fe"`), fld("e", enum(`"A","B"`, ``), `,"default":"B"`),
			fld("a", `{"type":"array","items":"int"}`, `,"default":[1,2]`), fld("m", `{"type":"map","values":"int"}`, `,"default":{"k":1}`),
			fld("r", `{"type":"record","name":"I","fields":[{"name":"p","type":"int"},{"name":"q","type":"int","default":9}]}`, `,"default":{"p":8}`),
			fld("u", `["string","null"]`, `,"default":"v"`)),
			map[string]any{},
			map[string]any{
				"n": nil, "t": true, "i": -3, "l": int64(5), "f": float32(1.5), "d": 2.0, "s": "é", "b": []byte{255}, "x": [2]byte{1, 254}, "e": "B",
				"a": []any{1, 2}, "m": map[string]any{"k": 1}, "r": map[string]any{"p": 8, "q": 9}, "u": "v",
			},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			data, err := MustParse(tt.writer).Encode(tt.in)
			require.NoError(t, err)
			var got any
			require.NoError(t, MustParse(tt.reader).Decode(data, avroSchema(tt.writer), &got))
			require.Equal(t, tt.want, got)
		})
	}
}

func TestEvolutionIntoStructs(t *testing.T) {
	v1 := rec(fld("id", `"string"`), fld("qty", `"int"`), fld("gone", `"string"`))
	v2 := rec(fld("id", `["null","string"]`), fld("note", `"string"`, `,"default":"-"`), fld("qty", `"long"`))
	type one struct {
		ID   string `avro:"id"`
		Qty  int    `avro:"qty"`
		Gone string `avro:"gone"`
	}
	type two struct {
		ID   *string `avro:"id"`
		Note string  `avro:"note"`
		Qty  int64   `avro:"qty"`
	}
	data, err := MustParse(v1).Encode(one{"x", 3, "y"})
	require.NoError(t, err)
	var got two
	require.NoError(t, MustParse(v2).Decode(data, avroSchema(v1), &got))
	require.Equal(t, two{ID: new("x"), Note: "-", Qty: 3}, got)
}

// hamba's resolution of this pair overflows the stack, which ends the process.
func TestEvolutionOfRecursiveType(t *testing.T) {
	v2 := `{"type":"record","name":"N","fields":[{"name":"next","type":["null","N"],"default":null},{"name":"v","type":"long"},{"name":"w","type":"int","default":6}]}`
	data, err := MustParse(nodeSchema).Encode(map[string]any{"v": 1, "next": map[string]any{"N": map[string]any{"v": 2, "next": nil}}})
	require.NoError(t, err)
	type node struct {
		V    int64 `avro:"v"`
		W    int   `avro:"w"`
		Next *node `avro:"next"`
	}
	var got node
	require.NoError(t, MustParse(v2).Decode(data, avroSchema(nodeSchema), &got))
	require.Equal(t, node{V: 1, W: 6, Next: &node{V: 2, W: 6}}, got)
}

func TestIncompatible(t *testing.T) {
	decimal := func(scale string) string {
		return rec(fld("d", `{"type":"bytes","logicalType":"decimal","precision":9,"scale":`+scale+`}`))
	}
	tests := map[string]struct {
		writer, reader string
		data           []byte
		want           string
	}{
		"no default":       {rec(fld("a", `"int"`)), rec(fld("a", `"int"`), fld("b", `"int"`)), []byte{2}, "n.R.b: the writer's record n.R has no such field: and the reader's has no default"},
		"type":             {rec(fld("a", `"string"`)), rec(fld("a", `"int"`)), []byte{0}, "a: string is not readable as int"},
		"narrower":         {`"long"`, `"int"`, []byte{2}, "long is not readable as int"},
		"name":             {`{"type":"record","name":"A","fields":[]}`, `{"type":"record","name":"B","fields":[]}`, nil, "record A is not readable as record B"},
		"fixed size":       {`{"type":"fixed","name":"F","size":1}`, `{"type":"fixed","name":"F","size":2}`, []byte{0}, "the sizes are 2 and 1"},
		"scale":            {decimal("2"), decimal("4"), []byte{2, 5}, "the same number means something else"},
		"unit of time":     {`{"type":"long","logicalType":"timestamp-millis"}`, `{"type":"long","logicalType":"timestamp-micros"}`, []byte{2}, "logical type"},
		"no branch":        {`"int"`, `["null","string"]`, []byte{2}, "no branch fits"},
		"branch that came": {rec(fld("a", `["null","string"]`)), rec(fld("a", `"string"`)), []byte{0}, "a at byte 1: writer's schema cannot be read with the reader's: null is not readable as string"},
		"symbol that came": {`{"type":"enum","name":"E","symbols":["A","B"]}`, `{"type":"enum","name":"E","symbols":["A"]}`, []byte{2}, `no symbol "B"`},
		"nested":           {rec(fld("a", `{"type":"array","items":"string"}`)), rec(fld("a", `{"type":"array","items":"int"}`)), []byte{0}, "a: []: string is not readable as int"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := MustParse(tt.reader)
			for range 2 { // the second time from the cache
				var v any
				err := c.Decode(tt.data, avroSchema(tt.writer), &v)
				require.ErrorIs(t, err, ErrIncompatible)
				require.ErrorContains(t, err, tt.want)
				require.NotErrorIs(t, err, event.ErrSchemaUnavailable)
			}
		})
	}
	var v any
	require.ErrorIs(t, MustParse(`"int"`).Decode([]byte{2}, event.Schema{Format: "json"}, &v), ErrIncompatible)
	require.ErrorIs(t, MustParse(`"int"`).Decode([]byte{2}, avroSchema("{"), &v), ErrSchema)
	var de *DataError
	require.ErrorAs(t, MustParse(`"string"`).Decode([]byte{2, 0xff}, avroSchema(`"bytes"`), &v), &de)
}

// Schemas that somebody made to harm: they end in an error or a value, soon.
func TestHostileWriterSchemas(t *testing.T) {
	doubling := []string{`{"type":"record","name":"R0","fields":[{"name":"x","type":"int","default":0}]}`}
	for i := 1; i < 200; i++ {
		p := strconv.Itoa(i - 1)
		doubling = append(doubling, `{"type":"record","name":"R`+strconv.Itoa(i)+`","fields":[{"name":"a","type":"R`+p+`","default":{}},{"name":"b","type":"R`+p+`","default":{}}]}`)
	}
	deep := strings.Repeat(`{"type":"array","items":`, 100000) + `"int"` + strings.Repeat("}", 100000)
	tests := map[string]string{
		"doubling defaults": rec(fld("id", `"int"`), fld("u", `[`+strings.Join(doubling, ",")+`]`)),
		"recursive":         rec(fld("id", `"int"`), fld("r", `{"type":"array","items":"R"}`)),
		"itself":            rec(fld("id", `"int"`), fld("r", `"R"`)),
		"deep":              deep,
		"huge":              rec(fld("id", `"int"`), fld("f", `{"type":"fixed","name":"F","size":1099511627776}`)),
		"many symbols":      rec(fld("id", `{"type":"enum","name":"E","symbols":["A`+strings.Repeat(`","A`, 100000)+`"]}`)),
		"not a schema":      `<html>`,
	}
	reader := MustParse(rec(fld("id", `"int"`)))
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			for _, data := range [][]byte{nil, {2}, {2, 0}, {2, 4, 8, 0, 0}, []byte(strings.Repeat("\x02", 5000))} {
				var v struct {
					ID int `avro:"id"`
				}
				_ = reader.Decode(data, avroSchema(text), &v)
			}
			require.Less(t, time.Since(start), 5*time.Second)
		})
	}
}

func TestWriterCacheIsBounded(t *testing.T) {
	c := MustParse(rec(fld("a", `"int"`)))
	for i := range 3 * maxWriters {
		var v map[string]any
		require.NoError(t, c.Decode([]byte{2, 0}, avroSchema(rec(fld("a", `"int"`), fld("b"+strconv.Itoa(i), `"int"`))), &v))
		require.Equal(t, map[string]any{"a": 1}, v)
	}
	require.Len(t, c.writers.m, maxWriters)
}
