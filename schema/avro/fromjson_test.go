package avro

import (
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/event"
)

func TestEncodeJSON(t *testing.T) {
	union := `["null",` + inner("Card", fld("no", tStr)) + `,` + inner("Cash", fld("sum", tInt)) + `]`
	for _, tt := range []struct{ schema, doc, want string }{ // want by hand, in hex
		{tNull, `null`, ""},
		{tBool, `true`, "01"},
		{tInt, `-1`, "01"},
		{tLong, `64`, "8001"},
		{tDouble, `1`, "000000000000f03f"},
		{tStr, `"hi"`, "046869"},
		{tBytes, `"ÿ"`, "02ff"},
		{fixedOf("F", "2"), `"00ff"`, "00ff"},
		{fixedOf("F", "2"), `"ab"`, "6162"},
		{enumOf(`"A","B"`, ``), `"B"`, "02"},
		{listOf(tInt), `[1,2]`, "04020400"},
		{listOf(tInt), `[]`, "00"},
		{mapOf(tInt), `{"b":2,"a":1}`, "0402610202620400"},
		{`["null","int"]`, `5`, "020a"},
		{`["null","int"]`, `{"int":5}`, "020a"},
		{`["null","int"]`, `null`, "00"},
		{union, `{"sum":1}`, "0402"},
		{union, `{"Card":{"no":"1"}}`, "020231"},
		{rec(fld("a", tInt), fld("b", tInt, `,"default":3`)), `{"a":1}`, "0206"},
		{logical(tLong, "timestamp-millis", ""), `"1970-01-01T00:00:01Z"`, "d00f"},
		{logical(tLong, "timestamp-micros", ""), `1`, "02"},
		{logical(tInt, "date", ""), `"1970-01-02"`, "02"},
		{logical(tInt, "time-millis", ""), `"1s"`, "d00f"},
		{logical(tBytes, "decimal", `,"precision":9,"scale":2`), `1.28`, "040080"},
		{logical(tBytes, "decimal", `,"precision":9,"scale":2`), `-1.28`, "04ff80"},
		{`{"type":"fixed","name":"D","size":4,"logicalType":"decimal","precision":9,"scale":2}`, `-0.01`, "ffffffff"},
	} {
		data, err := MustParse(tt.schema).EncodeJSON([]byte(tt.doc))
		require.NoError(t, err, tt.doc)
		require.Equal(t, tt.want, hex.EncodeToString(data), tt.doc)
		var v any
		require.NoError(t, MustParse(tt.schema).Decode(data, event.Schema{}, &v), tt.doc)
	}
}

func TestEncodeJSONNamesThePlace(t *testing.T) {
	order := rec(fld("id", tStr), fld("items", listOf(inner("Item", fld("sku", tStr), fld("qty", tInt)))), fld("note", `["null","string"]`, `,"default":null`))
	for doc, want := range map[string]string{
		`{"id":"1","items":[{"sku":"a","qty":1},{"sku":"b","qty":"2"}]}`: `items[1].qty is "2", which is not an int`,
		`{"id":"1","items":[{"sku":"a"}]}`:                               `items[0].qty is missing`,
		`{"id":1,"items":[]}`:                                            `id is 1, which is not a string`,
		`{"id":"1","items":[],"x":1}`:                                    `x is not in the schema`,
		`{"id":"1","items":{}}`:                                          `items is {}, which is not an array`,
		`{"id":"1","items":[],"note":5}`:                                 `note is 5, which is not a [null, string]`,
		`[]`:                                                             `data is [], which is not a record n.R`,
		`{"id":"1","items":[{"sku":"a","qty":99999999999}]}`:             `items[0].qty is 99999999999, which is not an int`,
		`{`:     `not JSON`,
		`{} {}`: `more text`,
	} {
		_, err := MustParse(order).EncodeJSON([]byte(doc))
		require.ErrorContains(t, err, want)
	}
	_, err := MustParse(logical(tBytes, "decimal", `,"precision":3,"scale":2`)).EncodeJSON([]byte(`1e999999999`))
	require.Error(t, err)
	_, err = MustParse(enumOf(`"A","B"`, ``)).EncodeJSON([]byte(`"C"`))
	require.ErrorContains(t, err, `data is "C", which is not an enum E of A, B`)
}
