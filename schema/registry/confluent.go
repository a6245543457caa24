package registry

import (
	"context"
	"encoding/binary"
	"errors"

	"github.com/outboxkit/outboxkit/event"
)

const headerSize = 5 // 0 and a big-endian id of 4 bytes

// Confluent returns Confluent's wire format: a zero byte, the schema's id in the
// registry in 4 bytes big endian, the data. A nil payload (a tombstone) stays nil.
//
// Seal fails with an error that wraps [event.ErrSchemaUnavailable], and so is worth
// a retry, while the registry does not answer or does not know the schema yet; a
// schema that it refuses is final ([ErrRefused]). Open: an id that the registry
// does not know is final ([ErrUnknownID]).
func Confluent(c *Client) event.WireFormat { return confluent{c} }

type confluent struct{ client *Client }

func (f confluent) Seal(ctx context.Context, topic string, s event.Schema, data []byte) ([]byte, error) {
	if data == nil {
		return nil, nil
	}
	subject, err := f.client.cfg.Subject(topic, s)
	if err != nil {
		return nil, err
	}
	id, err := f.client.ID(ctx, subject, s)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, headerSize+len(data))
	out = append(out, 0)
	out = binary.BigEndian.AppendUint32(out, id)
	return append(out, data...), nil
}

func (f confluent) Open(ctx context.Context, _ string, wire []byte) (event.Schema, []byte, error) {
	if wire == nil {
		return event.Schema{}, nil, nil
	}
	if len(wire) < headerSize || wire[0] != 0 {
		return event.Schema{}, nil, errors.New("registry: not in Confluent's wire format: the message does not begin with a zero byte and a schema id")
	}
	s, err := f.client.Schema(ctx, binary.BigEndian.Uint32(wire[1:]))
	if err != nil {
		return event.Schema{}, nil, err
	}
	return s, wire[headerSize:], nil
}
