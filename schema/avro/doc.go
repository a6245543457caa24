// Package avro encodes event data as Apache Avro.
//
// [Parse] makes a codec from a schema document; hamba/avro does the work of
// turning Go values into bytes and back. Struct fields are matched to schema
// fields by the tag `avro:"name"`, or else by their exact Go name.
//
// # What stands between hamba and the network
//
// hamba trusts its input: a ten-byte message can make it allocate for hours, and
// resolving two recursive schemas overflows the stack, which no recover stops. So
// in this package hamba only ever sees the schema that the program was written
// with, and bytes of that schema:
//
//   - A guard walks every message against the writer's schema first, without
//     allocating, in time bounded by the message's size.
//   - Foreign schemas are parsed here, within limits of size and depth.
//   - Data of another version of the schema is rewritten into the reader's layout
//     by the Avro rules of schema resolution (defaults, aliases, promotions, enum
//     defaults, unions), and only then decoded.
//
// hamba's own resolution was not used: besides the stack overflow it cannot read
// a field that has become nullable, the commonest change of all.
//
// # Go types
//
// As in hamba: int, long, float, double to the Go types that hold every value of
// theirs (an int that is out of range for an Avro int is refused), bytes to
// []byte, decimal to *big.Rat, timestamps and date to [time.Time], times of day
// to [time.Duration], enum to a string type, fixed to an array of bytes, array to
// a slice, map to map[string]T, record to a struct or map[string]any, union of
// null and T to *T (or a slice), other unions to any: there a primitive is the plain
// value, anything else a map of one entry from the branch's name. Types with MarshalText and
// UnmarshalText stand for strings.
package avro
