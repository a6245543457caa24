package event

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
)

// Codec turns event data into bytes and back. Implementations are safe for
// concurrent use and never do input or output.
type Codec interface {
	// Schema describes the bytes that Encode makes.
	Schema() Schema
	// Encode returns v's bytes, or an error that names the field that does not
	// fit. v is the T of the Type.
	Encode(v any) ([]byte, error)
	// Decode fills *v (v is a *T) from data, which was encoded with the writer's
	// schema. A zero writer means: encoded with this codec's own schema. Data
	// comes from the network: Decode must survive any bytes in bounded time and
	// memory.
	Decode(data []byte, writer Schema, v any) error
}

// Schema is the text that explains encoded bytes.
type Schema struct {
	Format      string // "avro", "json"; "" means unknown
	Text        string // the schema document; "" where the format needs none
	ContentType string // media type of bare bytes, for example "application/avro"
}

// IsZero reports whether the schema is unknown.
func (s Schema) IsZero() bool { return s.Format == "" }

// Fingerprint identifies the schema within one database: the first 8 bytes of
// SHA-256(format, 0, text), big endian. It is an identity for storage, not the
// Avro CRC-64 of the canonical form, which would take two schemas with
// different defaults for one.
func (s Schema) Fingerprint() int64 {
	h := sha256.New()
	h.Write([]byte(s.Format))
	h.Write([]byte{0})
	h.Write([]byte(s.Text))
	return int64(binary.BigEndian.Uint64(h.Sum(nil))) //nolint:gosec // a bit pattern, not a quantity
}

// WireFormat turns the bytes that the outbox stores into what travels in a
// broker message, and back: it is where a schema registry's id is added and
// read. Implementations are safe for concurrent use and cache what they look up.
type WireFormat interface {
	// Seal frames data, encoded with s, for topic. An error that wraps
	// ErrSchemaUnavailable is worth a retry; any other is final.
	Seal(ctx context.Context, topic string, s Schema, data []byte) ([]byte, error)
	// Open takes the frame off and returns the writer's schema. Errors as Seal;
	// wire may be any bytes.
	Open(ctx context.Context, topic string, wire []byte) (Schema, []byte, error)
}

// ErrSchemaUnavailable says that a schema could not be looked up now, for
// example because the registry does not answer: the bytes may be fine.
var ErrSchemaUnavailable = errors.New("schema unavailable")

// ErrSchemaUnregistered says that a registry answered and does not know a schema
// (yet). Such an error also wraps ErrSchemaUnavailable: it is worth a retry, but
// concerns this schema alone.
var ErrSchemaUnregistered = errors.New("schema not registered")
