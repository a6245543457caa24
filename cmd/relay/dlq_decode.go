package main

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/internal/redact"
	"github.com/outboxkit/outboxkit/schema/avro"
)

// decoded is a payload for people.
type decoded struct {
	DecodedAs   string          `json:"decoded_as,omitempty"`   // avro, json, text; "" if nobody can read it
	Decoded     json.RawMessage `json:"decoded,omitempty"`      // text as a JSON string
	DecodeError string          `json:"decode_error,omitempty"` // why it could not be, or not as it should
}

const (
	asAvro = "avro"
	asJSON = "json"
	asText = "text"
)

// decoder makes payloads readable. It takes any bytes.
type decoder struct {
	wire   event.WireFormat // nil: payloads are bare
	hide   redact.Rules     // what conceal takes out
	away   error            // the registry does not answer: it is not asked again
	codecs map[string]*avro.Codec
}

// lookUpTimeout bounds a look into the registry.
const lookUpTimeout = 5 * time.Second

// decode reads a payload that has the given schema, zero if that is in its frame or
// unknown.
func (d *decoder) decode(ctx context.Context, topic string, schema event.Schema, payload []byte) (got decoded) {
	defer func() {
		if p := recover(); p != nil { // for people: never at the price of the command
			got = decoded{DecodeError: fmt.Sprint(p)}
		}
	}()
	if payload == nil {
		return got
	}
	data := payload
	if d.wire != nil {
		s, bare, err := d.open(ctx, topic, payload)
		if err != nil {
			got.DecodeError = err.Error()
		} else {
			schema, data = s, bare
		}
	}
	if schema.Format == asAvro {
		doc, err := d.avro(schema, data)
		if err == nil {
			return decoded{DecodedAs: asAvro, Decoded: doc}
		}
		got.DecodeError = err.Error()
	}
	switch {
	case json.Valid(data):
		got.DecodedAs, got.Decoded = asJSON, data
	case len(data) > 0 && utf8.Valid(data) && strings.IndexFunc(string(data), unreadable) < 0:
		text, _ := json.Marshal(string(data)) // a string: always possible
		got.DecodedAs, got.Decoded = asText, text
	case got.DecodeError == "":
		got.DecodeError = frame(data)
	}
	return got
}

func unreadable(r rune) bool { return r < ' ' && r != '\n' && r != '\t' && r != '\r' || r == 0x7f }

// frame tells what kind of bytes they seem to be.
func frame(data []byte) string {
	switch {
	case len(data) > 10 && data[0] == 0xc3 && data[1] == 1:
		return fmt.Sprintf("Avro's single-object encoding, schema fingerprint %016x? Then describe it: inboxes[].wire in the configuration", binary.LittleEndian.Uint64(data[2:]))
	case len(data) > 5 && data[0] == 0:
		return fmt.Sprintf("Confluent's wire format, schema id %d? Then describe it: inboxes[].wire in the configuration", binary.BigEndian.Uint32(data[1:]))
	}
	return ""
}

func (d *decoder) open(ctx context.Context, topic string, payload []byte) (event.Schema, []byte, error) {
	if d.away != nil {
		return event.Schema{}, nil, d.away
	}
	ctx, cancel := context.WithTimeout(ctx, lookUpTimeout)
	defer cancel()
	s, data, err := d.wire.Open(ctx, topic, payload)
	if errors.Is(err, event.ErrSchemaUnavailable) {
		d.away = err
	}
	return s, data, err
}

func (d *decoder) avro(schema event.Schema, data []byte) (json.RawMessage, error) {
	codec, ok := d.codecs[schema.Text]
	if !ok {
		var err error
		if codec, err = avro.Parse(schema.Text); err != nil {
			return nil, err
		}
		if d.codecs == nil {
			d.codecs = map[string]*avro.Codec{}
		}
		d.codecs[schema.Text] = codec
	}
	var v any
	if err := codec.Decode(data, event.Schema{}, &v); err != nil {
		return nil, err
	}
	return json.Marshal(plain(v))
}

// plain replaces what JSON has no good form of.
func plain(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name := range v {
			v[name] = plain(v[name])
		}
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Sprint(v)
		}
	case float32:
		return plain(float64(v))
	case *big.Rat:
		if digits, exact := v.FloatPrec(); exact {
			return json.Number(v.FloatString(digits))
		}
	case time.Duration:
		return v.String()
	default:
		if r := reflect.ValueOf(v); r.Kind() == reflect.Array && r.Type().Elem().Kind() == reflect.Uint8 { // fixed
			raw := make([]byte, r.Len())
			reflect.Copy(reflect.ValueOf(raw), r)
			return hex.EncodeToString(raw)
		}
	}
	return v
}
