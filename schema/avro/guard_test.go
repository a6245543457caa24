package avro

import (
	"encoding/binary"
	"math"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/event"
)

// encoded builds test data: numbers are zigzag varints, the rest is verbatim.
func encoded(parts ...any) []byte {
	b := []byte{}
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			b = appendLong(b, int64(p))
		case string:
			b = append(b, p...)
		case []byte:
			b = append(b, p...)
		}
	}
	return b
}

func TestGuardRefuses(t *testing.T) {
	rec := func(typ string) string {
		return `{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"f","type":` + typ + `}]}`
	}
	const (
		longs   = `{"type":"array","items":"long"}`
		nulls   = `{"type":"array","items":"null"}`
		strs    = `{"type":"map","values":"string"}`
		empties = `{"type":"array","items":{"type":"record","name":"E","fields":[{"name":"n","type":"null"}]}}`
		tree    = `{"type":"record","name":"T","fields":[{"name":"c","type":{"type":"array","items":"T"}}]}`
		self    = `{"type":"record","name":"S","fields":[{"name":"x","type":"S"},{"name":"y","type":"S"}]}`
	)
	tests := map[string]struct {
		schema string
		data   []byte
		path   string
		offset int
		want   string
	}{
		"2^40 items in ten bytes":     {rec(longs), append(encoded(1, 1<<40), 0, 0, 0), "f", 1, "there is room for 3"},
		"2^40 items, negative count":  {rec(longs), encoded(1, -(1 << 40), 2, 0, 0), "f", 1, "there is room for 2"},
		"smallest count":              {longs, encoded(math.MinInt64, 1, 0), "", 0, "block of -9223372036854775808 items"},
		"negative block size":         {longs, encoded(-1, -1, 0, 0), "", 0, "in -1 bytes"},
		"block size beyond the end":   {longs, encoded(-1, 100, 0, 0), "", 0, "in 100 bytes"},
		"block size too small":        {longs, encoded(-1, 1, 1000, 0), "", 4, "block ends at byte 4, but its size says 3"},
		"array without end":           {longs, encoded(1, 5), "", 2, "data ends too early"},
		"truncated map block":         {strs, encoded(2, 1, "k", 1, "v"), "[1]", 5, "data ends too early"},
		"map block promises more":     {strs, encoded(5, 1, "k", 1, "v"), "", 0, "there is room for 2"},
		"empty map data":              {strs, nil, "", 0, "data ends too early"},
		"2^60 nulls":                  {nulls, encoded(1<<60, 0), "", 0, "there is room for 65536"},
		"nulls in many blocks":        {nulls, encoded(60000, 60000, 0), "[65536]", 6, "more than 65536 values that take no bytes"},
		"empty records":               {empties, encoded(65000, 0), "[32768]", 3, "values that take no bytes"},
		"recursion 10,000 deep":       {tree, encoded(strings.Repeat("\x02", 10000), strings.Repeat("\x00", 10000)), "", 256, "nested deeper than 512"},
		"recursion without end":       {self, []byte{1}, "", 0, "nested deeper than 512"},
		"string of 1 GiB":             {rec(`"string"`), encoded(1, 1<<30, "short"), "f", 1, "length 1073741824, but 5 bytes remain"},
		"string of negative length":   {`"string"`, encoded(-1), "", 0, "length -1"},
		"bytes of largest length":     {`"bytes"`, encoded(math.MaxInt64), "", 0, "length 9223372036854775807"},
		"string not UTF-8":            {rec(`"string"`), encoded(1, 2, "a\xff"), "f", 1, "not UTF-8"},
		"key not UTF-8":               {strs, encoded(1, 1, "\xff", 0, 0), "[0]", 1, "not UTF-8"},
		"bytes after the end":         {`"int"`, []byte{2, 0, 0}, "", 1, "2 bytes follow"},
		"bytes after nothing":         {`"null"`, []byte{0}, "", 0, "1 bytes follow"},
		"union branch 2 of 2":         {rec(`["null","int"]`), encoded(1, 2), "f", 1, "union branch 2 of 2"},
		"union branch -1":             {`["null","int"]`, encoded(-1), "", 0, "union branch -1 of 2"},
		"enum symbol":                 {`{"type":"enum","name":"E","symbols":["A","B"]}`, encoded(2), "", 0, "enum symbol 2 of 2"},
		"boolean 2":                   {`"boolean"`, []byte{2}, "", 0, "boolean is 2"},
		"int of six bytes":            {`"int"`, []byte{0x80, 0x80, 0x80, 0x80, 0x80, 0}, "", 0, "longer than its type allows"},
		"int of 33 bits":              {`"int"`, encoded(math.MaxInt32 + 1), "", 0, "longer than its type allows"},
		"long of eleven bytes":        {`"long"`, append([]byte(strings.Repeat("\x80", 10)), 0), "", 0, "longer than its type allows"},
		"long of 65 bits":             {`"long"`, append([]byte(strings.Repeat("\xff", 9)), 2), "", 0, "longer than its type allows"},
		"varint without end":          {`"long"`, []byte{0x80}, "", 0, "data ends too early"},
		"short float":                 {`"float"`, []byte{1, 2, 3}, "", 0, "data ends too early"},
		"short double":                {`"double"`, make([]byte, 7), "", 0, "data ends too early"},
		"short fixed":                 {rec(`{"type":"fixed","name":"F","size":5}`), encoded(1, "1234"), "f", 1, "data ends too early"},
		"deep path":                   {rec(`{"type":"array","items":{"type":"record","name":"I","fields":[{"name":"ok","type":"boolean"}]}}`), encoded(1, 2, "\x01\x07"), "f[1].ok", 3, "boolean is 7"},
		"no data":                     {rec(longs), nil, "a", 0, "data ends too early"},
		"more than the largest value": {`"bytes"`, make([]byte, maxData+1), "", 0, "at most 16777216 are allowed"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := MustParse(tt.schema)
			var v any
			var err error
			start := time.Now()
			require.Less(t, allocated(func() { err = c.Decode(tt.data, event.Schema{}, &v) }), uint64(1<<20))
			require.Less(t, time.Since(start), 5*time.Second)
			var de *DataError
			require.ErrorAs(t, err, &de)
			require.ErrorContains(t, err, tt.want)
			require.Equal(t, tt.offset, de.Offset)
			if !strings.HasPrefix(name, "recursion") { // their paths are long
				require.Equal(t, tt.path, de.Path)
			}
		})
	}
}

// allocated returns how many bytes f allocates, garbage included.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestGuardAccepts(t *testing.T) {
	tests := map[string]struct {
		schema string
		data   []byte
		want   any
	}{
		"sized block":    {`{"type":"array","items":"long"}`, encoded(-2, 3, 1000, 5, 0), []any{int64(1000), int64(5)}},
		"several blocks": {`{"type":"array","items":"long"}`, encoded(1, 1, -1, 1, 2, 1, 3, 0), []any{int64(1), int64(2), int64(3)}},
		"empty array":    {`{"type":"array","items":"long"}`, []byte{0}, []any{}},
		"some nulls":     {`{"type":"array","items":"null"}`, encoded(3, 0), []any{nil, nil, nil}},
		"largest int":    {`"int"`, encoded(math.MaxInt32), math.MaxInt32},
		"smallest int":   {`"int"`, encoded(math.MinInt32), math.MinInt32},
		"smallest long":  {`"long"`, encoded(math.MinInt64), int64(math.MinInt64)},
		"padded varint":  {`"long"`, []byte{0x82, 0x80, 0}, int64(1)},
		"empty string":   {`"string"`, []byte{0}, ""},
		"empty record":   {`{"type":"record","name":"R","fields":[]}`, []byte{}, map[string]any{}},
		"double":         {`"double"`, binary.LittleEndian.AppendUint64(nil, math.Float64bits(1.5)), 1.5},
		"map":            {`{"type":"map","values":"boolean"}`, encoded(1, 1, "k", "\x01", 0), map[string]any{"k": true}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := MustParse(tt.schema)
			var v any
			require.NoError(t, c.Decode(tt.data, event.Schema{}, &v))
			require.Equal(t, tt.want, v)
		})
	}
	// 100 levels of a recursive schema are fine.
	type tree struct {
		C []tree `avro:"c"`
	}
	c := MustParse(`{"type":"record","name":"T","fields":[{"name":"c","type":{"type":"array","items":"T"}}]}`)
	in := tree{C: []tree{}}
	for range 100 {
		in = tree{C: []tree{in}}
	}
	data, err := c.Encode(in)
	require.NoError(t, err)
	var out tree
	require.NoError(t, c.Decode(data, event.Schema{}, &out))
	require.Equal(t, in, out)
}

func TestGuardDoesNotAllocate(t *testing.T) {
	c := MustParse(orderSchema)
	data, err := c.Encode(newOrder())
	require.NoError(t, err)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if err := check(c.root, data); err != nil {
			t.Error(err)
		}
	}))
}

// A schema whose values take no bytes but are many: 2^60 empty records.
func TestGuardBoundsEmptyValues(t *testing.T) {
	defs := []string{`{"type":"record","name":"R0","fields":[]}`}
	for i := 1; i <= 60; i++ {
		prev := "R" + strconv.Itoa(i-1)
		defs = append(defs, `{"type":"record","name":"R`+strconv.Itoa(i)+`","fields":[{"name":"a","type":"`+prev+`"},{"name":"b","type":"`+prev+`"}]}`)
	}
	root, err := parseSchema(`[` + strings.Join(defs, ",") + `]`)
	require.NoError(t, err)
	start := time.Now()
	require.ErrorContains(t, check(root, encoded(60)), "values that take no bytes")
	require.Less(t, time.Since(start), time.Second)
}
