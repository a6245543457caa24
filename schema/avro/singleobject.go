package avro

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/outboxkit/outboxkit/event"
)

// The two bytes that begin a single-object encoding.
const marker0, marker1, headerSize = 0xc3, 0x01, 10

// ErrUnknownFingerprint says that a message's schema is none of those that
// [SingleObject] was given.
var ErrUnknownFingerprint = errors.New("unknown schema fingerprint")

// SingleObject returns Avro's single-object encoding: C3 01, the fingerprint of
// the writer's schema (CRC-64-AVRO of its Parsing Canonical Form, little endian),
// the data. It needs no registry. A nil payload stays nil.
//
// It opens messages of the known schemas: give a consumer every version that
// producers use. Any other fingerprint is [ErrUnknownFingerprint], a final error:
// nothing but another deployment teaches a process a schema, and until then a
// message that waited would hold up its key, so it belongs with the dead letters
// and is redriven afterwards. Sealing works for any Avro schema.
//
// Schemas that differ only in defaults, documentation or logical types have one
// fingerprint; the first of them is taken for all.
//
// SingleObject panics if a known schema is not valid Avro, as MustParse does.
func SingleObject(known ...event.Schema) event.WireFormat {
	s := &singleObject{known: make(map[uint64]event.Schema, len(known))}
	for _, k := range known {
		fp, err := s.fingerprint(k)
		if err != nil {
			panic(err)
		}
		if _, ok := s.known[fp]; !ok {
			s.known[fp] = k
		}
	}
	return s
}

type singleObject struct {
	known map[uint64]event.Schema // by fingerprint; does not change

	mu           sync.RWMutex
	fingerprints map[string]uint64 // by schema text
}

func (s *singleObject) Seal(_ context.Context, _ string, schema event.Schema, data []byte) ([]byte, error) {
	if data == nil {
		return nil, nil
	}
	fp, err := s.fingerprint(schema)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, headerSize+len(data))
	out = append(out, marker0, marker1)
	out = binary.LittleEndian.AppendUint64(out, fp)
	return append(out, data...), nil
}

func (s *singleObject) Open(_ context.Context, _ string, wire []byte) (event.Schema, []byte, error) {
	if wire == nil {
		return event.Schema{}, nil, nil
	}
	if len(wire) < headerSize || wire[0] != marker0 || wire[1] != marker1 {
		return event.Schema{}, nil, errors.New("avro: no single-object encoding: the message does not begin with C3 01 and a fingerprint")
	}
	fp := binary.LittleEndian.Uint64(wire[2:])
	schema, ok := s.known[fp]
	if !ok {
		return event.Schema{}, nil, fmt.Errorf("avro: %w %016x: give its schema to SingleObject", ErrUnknownFingerprint, fp)
	}
	return schema, wire[headerSize:], nil
}

// fingerprint returns CRC-64-AVRO of the schema's canonical form.
func (s *singleObject) fingerprint(schema event.Schema) (uint64, error) {
	if schema.Format != format {
		return 0, fmt.Errorf("avro: the single-object encoding is for Avro data, not for format %q", schema.Format)
	}
	s.mu.RLock()
	fp, ok := s.fingerprints[schema.Text]
	s.mu.RUnlock()
	if ok {
		return fp, nil
	}
	root, err := parseSchema(schema.Text)
	if err != nil {
		return 0, err
	}
	fp = crc64(canonical(root, false))
	s.mu.Lock()
	defer s.mu.Unlock()
	// Texts come from the program or its outbox, never from a message: they are few.
	if s.fingerprints == nil {
		s.fingerprints = make(map[string]uint64)
	}
	s.fingerprints[schema.Text] = fp
	return fp, nil
}
