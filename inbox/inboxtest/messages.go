package inboxtest

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
)

// messages are the events as a relay would publish them.
func (c Consumer) messages(ctx context.Context, drafts []event.Draft) ([]brokers.Message, error) {
	msgs := make([]brokers.Message, len(drafts))
	for i := range drafts {
		m, err := c.message(ctx, &drafts[i])
		if err != nil {
			return nil, fmt.Errorf("event %d of %d: %w", i+1, len(drafts), err)
		}
		msgs[i] = m
	}
	return msgs, nil
}

func (c Consumer) message(ctx context.Context, d *event.Draft) (brokers.Message, error) {
	if err := d.Type.Validate(); err != nil {
		return brokers.Message{}, err
	}
	id := d.ID
	if id == "" {
		v7, err := uuid.NewV7()
		if err != nil {
			return brokers.Message{}, err
		}
		id = v7.String()
	}
	at := d.Time
	if at.IsZero() {
		at = time.Now()
	}
	schema := d.Type.Codec.Schema()
	m := brokers.Message{
		Topic: cmp.Or(d.Topic, d.Type.Topic), Key: d.Key, ID: id, Source: c.Source, Type: d.Type.Name, Time: at,
		ContentType: schema.ContentType, CorrelationID: d.CorrelationID, CausationID: d.CausationID, Headers: d.Headers,
	}
	if d.Tombstone {
		return m, nil
	}
	data, err := d.Type.Codec.Encode(d.Data)
	if err != nil {
		return m, fmt.Errorf("does not fit the schema of %s: %w", d.Type.Name, err)
	}
	if c.Wire != nil {
		if data, err = c.Wire.Seal(ctx, m.Topic, schema, data); err != nil {
			return m, fmt.Errorf("frame %s: %w", d.Type.Name, err)
		}
	}
	m.Payload = append([]byte{}, data...) // empty is not a tombstone
	return m, nil
}
