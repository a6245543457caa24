package avro

import (
	"fmt"
	"math"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/outboxkit/outboxkit/event"
)

// intChecker: hamba cuts a Go int, or a time of day, down to 32 bits.
func intChecker(n *node) func(reflect.Value, int) *event.FieldError {
	lowest, highest := int64(math.MinInt32), int64(math.MaxInt32)
	if n.logical == "time-millis" {
		lowest, highest = lowest*1e6, highest*1e6
	}
	return func(v reflect.Value, _ int) *event.FieldError {
		if i := v.Int(); i > highest || i < lowest {
			return &event.FieldError{
				Value: strconv.FormatInt(i, 10), Problem: "is out of range for " + n.describe(),
				Hint: "an Avro int has 32 bits; use long for more",
			}
		}
		return nil
	}
}

// decimalChecker: hamba drops the digits that the scale has no room for.
func decimalChecker(n *node, full bool) func(reflect.Value, int) *event.FieldError {
	scale := powerOfTen(n.scale)
	return func(v reflect.Value, _ int) *event.FieldError {
		r, _ := v.Interface().(*big.Rat)
		if r == nil {
			return misfit(n, "is a nil pointer")
		}
		// Num and Denom have no common factor: the quotient is whole if Denom divides
		// the scale.
		if !divides(r.Denom(), scale) {
			return &event.FieldError{
				Value: r.RatString(), Problem: fmt.Sprintf("has more than %d decimal places", n.scale),
				Hint: "round it, or give the schema a larger scale",
			}
		}
		if !full {
			return nil
		}
		num := new(big.Int).Mul(r.Num(), scale)
		num.Quo(num.Abs(num), r.Denom())
		if digits := len(num.String()); digits > n.precision {
			return misfit(n, fmt.Sprintf("has %d digits; the precision is %d", digits, n.precision))
		}
		return nil
	}
}

func powerOfTen(n int) *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil) }

func divides(d, n *big.Int) bool {
	if d.IsUint64() && n.IsUint64() {
		return n.Uint64()%d.Uint64() == 0
	}
	return new(big.Int).Rem(n, d).Sign() == 0
}

// goKinds are the Go kinds that hamba encodes as each Avro type.
var goKinds = map[kind][]reflect.Kind{
	kBoolean: {reflect.Bool},
	kInt:     {reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Uint8, reflect.Uint16},
	kLong:    {reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint32},
	kFloat:   {reflect.Float32},
	kDouble:  {reflect.Float32, reflect.Float64},
	kBytes:   {reflect.Slice},
	kString:  {reflect.String},
	kFixed:   {reflect.Array},
	kEnum:    {reflect.String},
}

// kindChecker explains a value whose Go type does not stand for n at all, or an
// unknown enum symbol.
func kindChecker(n *node, t reflect.Type) func(reflect.Value, int) *event.FieldError {
	if n.kind == kNull || n.logical != "" && (t.ConvertibleTo(timeType) || t.Kind() == reflect.Int64 || t.Kind() == reflect.Struct) {
		return nil
	}
	if n.kind == kFixed && t.Kind() == reflect.Array && t.Len() != n.size {
		return func(reflect.Value, int) *event.FieldError {
			return misfit(n, fmt.Sprintf("is a Go %s, but the fixed has %d bytes", t, n.size))
		}
	}
	if !slices.Contains(goKinds[n.kind], t.Kind()) {
		return func(reflect.Value, int) *event.FieldError { return misfit(n, "is a Go "+t.String()) }
	}
	if n.kind != kEnum {
		return nil
	}
	return func(v reflect.Value, _ int) *event.FieldError {
		if slices.Contains(n.symbols, v.String()) {
			return nil
		}
		return &event.FieldError{
			Value: v.String(), Problem: "is no symbol of " + n.describe(),
			Hint: "one of " + strings.Join(n.symbols, ", "),
		}
	}
}
