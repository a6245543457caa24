package avro

import (
	"errors"
	"math/big"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/event"
)

// Which Go types need no look at their encoded bytes: where this grows, ask what
// hamba could get wrong.
func TestSureTypes(t *testing.T) {
	type inner struct {
		S string `avro:"s"`
	}
	const innerSchema = `{"type":"record","name":"I","fields":[{"name":"s","type":"string"}]}`
	tests := map[string]struct {
		field  string // the schema of field f
		goType any
		sure   bool
	}{
		"string":             {`"string"`, "", true},
		"int":                {`"int"`, 0, true},
		"narrow int":         {`"int"`, int16(0), true},
		"long":               {`"long"`, int64(0), true},
		"bytes":              {`"bytes"`, []byte{}, true},
		"fixed":              {`{"type":"fixed","name":"F","size":3}`, [3]byte{}, true},
		"enum":               {`{"type":"enum","name":"E","symbols":["A"]}`, "", true},
		"timestamp":          {`{"type":"long","logicalType":"timestamp-millis"}`, time.Time{}, true},
		"time of day, long":  {`{"type":"long","logicalType":"time-micros"}`, time.Duration(0), true},
		"decimal":            {`{"type":"bytes","logicalType":"decimal","precision":4,"scale":2}`, (*big.Rat)(nil), true},
		"nullable":           {`["null","string"]`, (*string)(nil), true},
		"nullable slice":     {`[{"type":"array","items":"int"},"null"]`, []int{}, true},
		"record":             {innerSchema, inner{}, true},
		"pointer to record":  {innerSchema, &inner{}, true},
		"array of records":   {`{"type":"array","items":` + innerSchema + `}`, []inner{}, true},
		"map of strings":     {`{"type":"map","values":"string"}`, map[string]string{}, true},
		"map of a name":      {`{"type":"map","values":"string"}`, namedMap{}, true},
		"map of names":       {`{"type":"map","values":"string"}`, map[string]namedString{}, false},
		"anything":           {`"string"`, any(nil), false},
		"union":              {`["int","string"]`, any(nil), false},
		"time of day, int":   {`{"type":"int","logicalType":"time-millis"}`, time.Duration(0), false},
		"text marshaler":     {`"string"`, time.Time{}, false},
		"items of no bytes":  {`{"type":"array","items":{"type":"fixed","name":"Z","size":0}}`, [][0]byte{}, false},
		"map of others":      {`{"type":"map","values":"int"}`, map[string]int{}, false},
		"record as a map":    {innerSchema, map[string]any{}, false},
		"field from default": {`{"type":"record","name":"D","fields":[{"name":"x","type":"int","default":1}]}`, struct{ S, T string }{}, false},
		"recursive":          {`{"type":"record","name":"T","fields":[{"name":"c","type":{"type":"array","items":"T"}}]}`, recursiveTree{}, false},
		"decimal as a fixed": {`{"type":"fixed","name":"F","size":3,"logicalType":"decimal","precision":4}`, (*big.Rat)(nil), false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			typ := reflect.TypeFor[any]()
			if tt.goType != nil {
				typ = reflect.TypeOf(tt.goType)
			}
			outer := reflect.StructOf([]reflect.StructField{
				{Name: "Before", Type: reflect.TypeFor[string](), Tag: `avro:"b"`}, {Name: "F", Type: typ, Tag: `avro:"f"`},
			})
			c := MustParse(rec(fld("b", `"string"`), fld("f", tt.field)))
			require.Equal(t, tt.sure, c.encodable(outer).encoder != nil)
		})
	}
	small := MustParse(`{"type":"record","name":"S","fields":[{"name":"f","type":["null","string"]}]}`)
	type pointerOnly struct {
		F *string `avro:"f"`
	}
	require.Nil(t, small.encodable(reflect.TypeFor[pointerOnly]()).encoder, "an interface holds it without a pointer")
	require.NotNil(t, small.encodable(reflect.TypeFor[*pointerOnly]()).encoder)
}

type (
	namedMap    map[string]string
	namedString string
)

type recursiveTree struct {
	C []recursiveTree `avro:"c"`
}

// cautious is a codec of the same schema that checks all it encodes.
func cautious(c *Codec, t reflect.Type) *Codec {
	other := MustParse(c.schema.Text)
	other.encodables.Store(t, &encodable{typ: t, err: bind(other.root, t, false), plan: other.silent.plan(other.root, t)})
	return other
}

// With short cuts or without: the same bytes, the same errors.
func TestSureEncodingIsNoOther(t *testing.T) {
	c := MustParse(orderSchema)
	slow, slowPtr := cautious(c, reflect.TypeFor[order]()), cautious(c, reflect.TypeFor[*order]())
	r := rand.New(rand.NewPCG(7, 7))
	text := func() string {
		return []string{"", "a", "seven77", "eight888", "漢字\U0001F600", "bad\xff", "\xc3", "ends with \xe2\x82", strings.Repeat("long ", 9)}[min(r.IntN(40), 8)] // mostly the last
	}
	refused := 0
	for range 3000 {
		user := text()
		o := order{
			OrderID: text(), PlacedAt: time.UnixMicro(r.Int64N(1e15)), Total: big.NewRat(r.Int64N(1e6), []int64{1, 2, 100, 100, 100, 3}[r.IntN(6)]),
			Status: "NEW", Tags: map[string]string{text(): text()},
		}
		if r.IntN(2) == 0 {
			o.UserID = &user
		}
		if r.IntN(50) == 0 {
			o.Total = nil
		}
		if r.IntN(50) == 0 {
			o.Status = "GONE"
		}
		for range r.IntN(4) {
			o.Items = append(o.Items, item{text(), int(r.Int64()>>r.IntN(64)) >> 20})
		}
		data, err := c.Encode(o)
		want, wantErr := slow.Encode(o)
		require.Equal(t, wantErr, err)
		require.Equal(t, want, data)
		data, err = c.Encode(&o)
		want, wantErr = slowPtr.Encode(&o)
		require.Equal(t, wantErr, err)
		require.Equal(t, want, data)
		if err != nil {
			refused++
		} else {
			require.NoError(t, check(c.root, data))
		}
	}
	require.Greater(t, refused, 300)
	require.Less(t, refused, 2700)
}

// Strings of all lengths with a byte that is not ASCII at every place: alone, and
// as part of a letter.
func TestValidText(t *testing.T) {
	for n := range 40 {
		plain := strings.Repeat("x", n)
		require.True(t, validText(plain), n)
		for i := range n {
			require.False(t, validText(plain[:i]+"\xff"+plain[i+1:]), "%d of %d", i, n)
			require.True(t, validText(plain[:i]+"é"+plain[i+1:]), "%d of %d", i, n)
		}
	}
}

func TestEncodeRefusesTooMuch(t *testing.T) {
	o := newOrder()
	o.OrderID = strings.Repeat("x", maxData)
	_, err := MustParse(orderSchema).Encode(o)
	require.ErrorContains(t, err, "at most 16777216 are allowed")
}

// One codec, many types at once: what is remembered of one is not used for
// another.
func TestConcurrentTypes(t *testing.T) {
	type renamed struct {
		Tags   map[string]string `avro:"tags"`
		Items  []item            `avro:"items"`
		UserID *string           `avro:"userId"`
		order
	}
	c := MustParse(orderSchema)
	o := newOrder()
	want, err := c.Encode(o)
	require.NoError(t, err)
	values := []any{o, &o, renamed{o.Tags, o.Items, o.UserID, o}, &renamed{o.Tags, o.Items, o.UserID, o}}
	bad := newOrder()
	bad.Items[2].SKU = "\xff"
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 200 {
				data, err := c.Encode(values[(i+j)%len(values)])
				if err != nil || string(data) != string(want) {
					t.Errorf("%d: %x, %v", (i+j)%len(values), data, err)
					return
				}
				var fe *event.FieldError
				if _, err := c.Encode(&bad); !errors.As(err, &fe) || fe.Field != "items[2].sku" {
					t.Errorf("no or another error: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
}
