package avro

import (
	"errors"
	"math"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	hamba "github.com/hamba/avro/v2"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/event"
)

const orderSchema = `{
  "type": "record", "name": "OrderPlaced", "namespace": "shop.events", "doc": "An order.",
  "owner": "team-orders",
  "fields": [
    {"name": "orderId", "type": "string"},
    {"name": "userId", "type": ["null", "string"], "default": null},
    {"name": "placedAt", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "total", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
    {"name": "status", "type": {"type": "enum", "name": "Status", "symbols": ["NEW", "PAID"]}, "default": "NEW"},
    {"name": "items", "type": {"type": "array", "items": {"type": "record", "name": "Item", "fields": [
      {"name": "sku", "type": "string"},
      {"name": "qty", "type": "int"}
    ]}}},
    {"name": "tags", "type": {"type": "map", "values": "string"}, "default": {}}
  ]
}`

type item struct {
	SKU string `avro:"sku"`
	Qty int    `avro:"qty"`
}

type order struct {
	OrderID  string            `avro:"orderId"`
	UserID   *string           `avro:"userId"`
	PlacedAt time.Time         `avro:"placedAt"`
	Total    *big.Rat          `avro:"total"`
	Status   string            `avro:"status"`
	Items    []item            `avro:"items"`
	Tags     map[string]string `avro:"tags"`
}

func newOrder() order {
	user := "u-7"
	return order{
		OrderID: "o-1", UserID: &user, PlacedAt: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC),
		Total: big.NewRat(1999, 100), Status: "PAID",
		Items: []item{{"a", 1}, {"b", 2}, {"c", 3}, {"d", 4}}, Tags: map[string]string{"channel": "web"},
	}
}

func TestRoundTrip(t *testing.T) {
	c := MustParse(orderSchema)
	want := newOrder()
	data, err := c.Encode(want)
	require.NoError(t, err)
	fromPointer, err := c.Encode(&want)
	require.NoError(t, err)
	require.Equal(t, data, fromPointer)

	for name, writer := range map[string]event.Schema{"own": {}, "given": c.Schema(), "formatted": {Format: "avro", Text: orderSchema}} {
		t.Run(name, func(t *testing.T) {
			var got order
			require.NoError(t, c.Decode(data, writer, &got))
			require.Zero(t, want.Total.Cmp(got.Total))
			got.Total = want.Total
			require.Equal(t, want, got)
		})
	}
}

func TestRoundTripGeneric(t *testing.T) {
	c := MustParse(`{"type":"record","name":"R","fields":[
	  {"name":"choice","type":["null","int","string",{"type":"record","name":"P","fields":[{"name":"x","type":"double"}]}]},
	  {"name":"hash","type":{"type":"fixed","name":"H","size":4}},
	  {"name":"day","type":{"type":"int","logicalType":"date"}},
	  {"name":"at","type":{"type":"int","logicalType":"time-millis"}},
	  {"name":"blob","type":"bytes"},
	  {"name":"flag","type":"boolean"},
	  {"name":"ratio","type":"float"}]}`)
	day := time.Date(2026, 5, 6, 0, 0, 0, 0, time.UTC)
	for _, choice := range []any{nil, 42, "text", map[string]any{"P": map[string]any{"x": 1.5}}} {
		in := map[string]any{
			"choice": choice, "hash": [4]byte{1, 2, 3, 4}, "day": day, "at": 5 * time.Second,
			"blob": []byte{0, 255}, "flag": true, "ratio": float32(0.5),
		}
		data, err := c.Encode(in)
		require.NoError(t, err)
		var got map[string]any
		require.NoError(t, c.Decode(data, event.Schema{}, &got))
		require.Equal(t, in, got)
		var typed struct {
			Choice any           `avro:"choice"`
			Hash   [4]byte       `avro:"hash"`
			Day    time.Time     `avro:"day"`
			At     time.Duration `avro:"at"`
			Blob   []byte        `avro:"blob"`
			Flag   bool          `avro:"flag"`
			Ratio  float32       `avro:"ratio"`
		}
		require.NoError(t, c.Decode(data, event.Schema{}, &typed))
		require.Equal(t, choice, typed.Choice)
		again, err := c.Encode(typed)
		require.NoError(t, err)
		require.Equal(t, data, again)
	}
}

func TestSchemaTextIsKept(t *testing.T) {
	c := MustParse(orderSchema)
	s := c.Schema()
	require.Equal(t, "avro", s.Format)
	require.Equal(t, "application/avro", s.ContentType)
	require.JSONEq(t, orderSchema, s.Text)
	require.True(t, strings.HasPrefix(s.Text, `{"type":"record","name":"OrderPlaced","namespace":"shop.events","doc":"An order.","owner":"team-orders",`))
	require.Contains(t, s.Text, `"default":{}`)
	require.NotContains(t, s.Text, "\n")
}

func TestEncodeNamesTheField(t *testing.T) {
	type looseItem struct {
		SKU any `avro:"sku"`
		Qty any `avro:"qty"`
	}
	type loose struct {
		order
		Items []looseItem `avro:"items"`
	}
	c := MustParse(orderSchema)
	with := func(change func(*order)) order {
		o := newOrder()
		change(&o)
		return o
	}
	tests := map[string]struct {
		value any
		want  string
	}{
		"int out of range":    {with(func(o *order) { o.Items[3].Qty = math.MaxInt32 + 1 }), `items[3].qty "2147483648" is out of range for int`},
		"int below range":     {with(func(o *order) { o.Items[0].Qty = math.MinInt32 - 1 }), `items[0].qty "-2147483649" is out of range`},
		"unknown symbol":      {with(func(o *order) { o.Status = "GONE" }), `status "GONE" is no symbol of enum shop.events.Status (one of NEW, PAID)`},
		"nil decimal":         {with(func(o *order) { o.Total = nil }), `total is a nil pointer`},
		"decimal too fine":    {with(func(o *order) { o.Total = big.NewRat(1, 3) }), `total "1/3" has more than 2 decimal places`},
		"decimal too large":   {with(func(o *order) { o.Total = big.NewRat(1e12, 1) }), `total has 15 digits; the precision is 12`},
		"string not UTF-8":    {with(func(o *order) { o.Items[1].SKU = "\xff" }), `items[1].sku cannot be encoded: string is not UTF-8`},
		"map key not UTF-8":   {with(func(o *order) { o.Tags = map[string]string{"\xff": ""} }), `tags[0] cannot be encoded: string is not UTF-8`},
		"wrong type inside":   {loose{order: newOrder(), Items: []looseItem{{"a", 1}, {"b", "two"}}}, `items[1].qty is a Go string (the schema says int)`},
		"nil inside":          {loose{order: newOrder(), Items: []looseItem{{nil, 1}}}, `items[0].sku is nil (the schema says string)`},
		"dynamic int":         {loose{order: newOrder(), Items: []looseItem{{"a", 1 << 40}}}, `items[0].qty "1099511627776" is out of range`},
		"wrong type":          {42, "data is a Go int (the schema says record shop.events.OrderPlaced)"},
		"text":                {"text", "data is a Go string"},
		"nil":                 {nil, "data is nil"},
		"nil pointer":         {(*order)(nil), "data is a nil pointer"},
		"missing field":       {struct{ OrderID string }{}, "orderId is missing: Go type"},
		"missing map entry":   {map[string]any{"orderId": "1"}, "placedAt is missing"},
		"map of wrong values": {map[string]any{"orderId": 1}, "orderId is a Go int"},
		"channel":             {make(chan int), "data"},
		"function":            {func() {}, "data"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := c.Encode(tt.value)
			var fe *event.FieldError
			require.ErrorAs(t, err, &fe)
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func TestEncodeRefusesCycle(t *testing.T) {
	c := MustParse(nodeSchema)
	type node struct {
		V    int   `avro:"v"`
		Next *node `avro:"next"`
	}
	n := &node{V: 1}
	_, err := c.Encode(n)
	require.NoError(t, err)
	n.Next = n
	_, err = c.Encode(n)
	require.ErrorContains(t, err, "nested deeper than")
	m := map[string]any{"v": 1}
	m["next"] = map[string]any{"N": m}
	_, err = c.Encode(m)
	require.ErrorContains(t, err, "nested deeper than")
}

const nodeSchema = `{"type":"record","name":"N","fields":[{"name":"v","type":"int"},{"name":"next","type":["null","N"],"default":null}]}`

// hamba fills or crashes on each of these without an error.
func TestGoTypesThatHambaGetsWrong(t *testing.T) {
	nullableDecimal := `["null",{"type":"bytes","logicalType":"decimal","precision":5,"scale":2}]`
	rec := func(typ string) *Codec {
		return MustParse(`{"type":"record","name":"R","fields":[{"name":"f","type":` + typ + `}]}`)
	}
	t.Run("nullable decimal", func(t *testing.T) {
		c := rec(nullableDecimal)
		var bad struct {
			F *big.Rat `avro:"f"`
		}
		_, err := c.Encode(bad)
		require.ErrorContains(t, err, "declare the Go field as **big.Rat")
		require.ErrorContains(t, c.Decode([]byte{0}, event.Schema{}, &bad), "declare the Go field as **big.Rat")
		type good struct {
			F **big.Rat `avro:"f"`
		}
		r := big.NewRat(314, 100)
		data, err := c.Encode(good{&r})
		require.NoError(t, err)
		var got good
		require.NoError(t, c.Decode(data, event.Schema{}, &got))
		require.Zero(t, r.Cmp(*got.F))
	})
	t.Run("narrow int", func(t *testing.T) {
		var v struct {
			F int8 `avro:"f"`
		}
		require.ErrorContains(t, rec(`"int"`).Decode([]byte{0x80, 8}, event.Schema{}, &v), "f \"int8\"")
		var w struct {
			F []uint32 `avro:"f"`
		}
		require.ErrorContains(t, rec(`{"type":"array","items":"long"}`).Decode([]byte{0}, event.Schema{}, &w), "f[] \"uint32\"")
	})
	t.Run("decimal by value", func(t *testing.T) {
		_, err := rec(`{"type":"bytes","logicalType":"decimal","precision":5}`).Encode(struct {
			F big.Rat `avro:"f"`
		}{})
		require.ErrorContains(t, err, "declare the Go field as *big.Rat")
	})
	t.Run("shared buffer", func(t *testing.T) {
		_, err := rec(`{"type":"fixed","name":"F8","size":8}`).Encode(struct {
			F uint64 `avro:"f"`
		}{})
		require.ErrorContains(t, err, "[8]byte")
	})
	t.Run("no field for a recursive type", func(t *testing.T) {
		c := rec(`{"type":"record","name":"T","fields":[{"name":"c","type":{"type":"array","items":"T"}}]}`)
		require.ErrorContains(t, c.Decode([]byte{0}, event.Schema{}, &struct{}{}), "has no field for a recursive type")
	})
	t.Run("time of day", func(t *testing.T) {
		_, err := rec(`{"type":"int","logicalType":"time-millis"}`).Encode(struct {
			F time.Duration `avro:"f"`
		}{1000 * time.Hour})
		require.ErrorContains(t, err, "out of range")
	})
}

func TestDecodeNeedsPointer(t *testing.T) {
	c := MustParse(`"string"`)
	for _, v := range []any{nil, "", (*string)(nil)} {
		require.ErrorContains(t, c.Decode([]byte{0}, event.Schema{}, v), "a non-nil pointer is needed")
	}
	require.Error(t, c.Decode([]byte{0}, event.Schema{}, new(int)))
}

func TestParseRefuses(t *testing.T) {
	deep := strings.Repeat(`{"type":"array","items":`, 100) + `"int"` + strings.Repeat("}", 100)
	tests := map[string]string{
		"empty": ``, "not JSON": `record`, "two schemas": `"int" "int"`, "unknown type": `"text"`, "no type": `{}`,
		"number": `1`, "null": `null`, "fields missing": `{"type":"record","name":"R"}`,
		"field twice":  `{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"a","type":"int"}]}`,
		"bad name":     `{"type":"record","name":"R-1","fields":[]}`,
		"field type":   `{"type":"record","name":"R","fields":[{"name":"a"}]}`,
		"name twice":   `["null",{"type":"enum","name":"E","symbols":["A"]},{"type":"enum","name":"E","symbols":["B"]}]`,
		"no symbols":   `{"type":"enum","name":"E","symbols":[]}`,
		"bad default":  `{"type":"record","name":"R","fields":[{"name":"a","type":"int","default":"x"}]}`,
		"enum default": `{"type":"enum","name":"E","symbols":["A"],"default":"B"}`,
		"union twice":  `["int","int"]`, "union in union": `["int",["string"]]`, "empty union": `[]`,
		"huge fixed": `{"type":"fixed","name":"F","size":1000000000000}`, "negative fixed": `{"type":"fixed","name":"F","size":-1}`,
		"no items": `{"type":"array"}`, "too deep": deep, "too long": `"` + strings.Repeat("x", 2<<20) + `"`,
		"default of itself": `{"type":"record","name":"R","fields":[{"name":"r","type":"R","default":{}}]}`,
		"deep JSON":         strings.Repeat("[", 1<<19),
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(text)
			require.ErrorIs(t, err, ErrSchema)
		})
	}
	require.Panics(t, func() { MustParse("{") })
}

// Versions of one name live side by side; hamba's global cache knows none of them.
func TestSameNamesInTwoVersions(t *testing.T) {
	schema := func(price string) string {
		return `{"type":"record","name":"Basket","fields":[{"name":"line","type":{"type":"record","name":"Line","fields":[
			{"name":"price","type":"` + price + `"},{"name":"note","type":"string","default":"` + price + `"}]}}]}`
	}
	v1, v2 := MustParse(schema("int")), MustParse(schema("string"))
	type line1 struct {
		Line struct {
			Price int `avro:"price"`
		} `avro:"line"`
	}
	type line2 struct {
		Line struct {
			Price string `avro:"price"`
		} `avro:"line"`
	}
	d1, err := v1.Encode(line1{})
	require.NoError(t, err)
	require.Equal(t, []byte("\x00\x06int"), d1)
	in := line2{}
	in.Line.Price = "9"
	d2, err := v2.Encode(in)
	require.NoError(t, err)
	require.Equal(t, []byte("\x029\x0cstring"), d2)
	var got line2
	require.NoError(t, v2.Decode(d2, event.Schema{}, &got))
	require.Equal(t, in, got)

	require.Nil(t, hamba.DefaultSchemaCache.Get("Line"))

	// Equal canonical forms, other defaults: they must not share encoders.
	a := MustParse(`{"type":"record","name":"D","fields":[{"name":"x","type":"int","default":1}]}`)
	b := MustParse(`{"type":"record","name":"D","fields":[{"name":"x","type":"int","default":2}]}`)
	da, err := a.Encode(struct{}{})
	require.NoError(t, err)
	db, err := b.Encode(struct{}{})
	require.NoError(t, err)
	require.Equal(t, []byte{2}, da)
	require.Equal(t, []byte{4}, db)
}

func TestConcurrentUse(t *testing.T) {
	c := MustParse(orderSchema)
	older := event.Schema{Format: "avro", Text: `{"type":"record","name":"OrderPlaced","fields":[{"name":"orderId","type":"string"},
	  {"name":"placedAt","type":"long"},{"name":"total","type":"bytes"},{"name":"items","type":{"type":"array","items":{"type":"record","name":"Item","fields":[
	  {"name":"qty","type":"int"},{"name":"sku","type":"string"}]}}}]}`}
	want, err := c.Encode(newOrder())
	require.NoError(t, err)
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for w := range errs {
		wg.Go(func() {
			for range 200 {
				data, err := c.Encode(newOrder())
				var a, b order
				err = errors.Join(err, c.Decode(data, event.Schema{}, &a))
				err = errors.Join(err, c.Decode([]byte("\x02x\x00\x02\x00\x02\x06\x02s\x00"), older, &b))
				if err == nil && (string(data) != string(want) || a.OrderID != "o-1" || b.Items[0] != item{"s", 3}) {
					err = errors.New("wrong data")
				}
				errs[w] = errors.Join(errs[w], err)
			}
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
}
