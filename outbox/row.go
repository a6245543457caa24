package outbox

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/google/uuid"

	"github.com/outboxkit/outboxkit/event"
)

// row is one line of outbox.event. Pointers are NULL where nil.
type row struct {
	eventID                    string
	topic, key, typ            string
	time                       *time.Time
	correlationID, causationID *string
	headers                    *string // JSON object
	payload                    []byte  // nil = NULL
	schemaFP                   *int64
}

// rows checks all drafts before the first statement, so that a refused event
// leaves the transaction usable.
func (o *Outbox) rows(ctx context.Context, drafts []event.Draft) ([]row, error) {
	rows := make([]row, len(drafts))
	for i := range drafts {
		r, err := o.row(ctx, &drafts[i])
		if err != nil {
			if len(drafts) > 1 {
				err = fmt.Errorf("event %d of %d: %w", i+1, len(drafts), err)
			}
			return nil, fmt.Errorf("outbox: refused: %w", err)
		}
		rows[i] = r
	}
	return rows, nil
}

func (o *Outbox) row(ctx context.Context, d *event.Draft) (row, error) {
	if d.Type.Codec == nil {
		return row{}, &event.FieldError{Field: "Draft.Type", Problem: "is not set", Hint: "make drafts with Type.New"}
	}
	schema := d.Type.Codec.Schema()
	fp, ok := o.types[typeKey{d.Type.Name, schema}]
	if !ok {
		return row{}, &event.FieldError{Field: "Draft.Type", Value: d.Type.Name, Problem: "is not among Config.Types", Hint: "add it there, so that its schema is stored"}
	}
	r := row{eventID: d.ID, topic: d.Topic, key: d.Key, typ: d.Type.Name}
	if r.topic == "" {
		r.topic = d.Type.Topic
	}
	if !schema.IsZero() {
		r.schemaFP = &fp
	}
	if err := r.setIdentity(ctx, d); err != nil {
		return row{}, err
	}
	if err := r.setHeaders(ctx, d, o.cfg.TraceHeaders); err != nil {
		return row{}, err
	}
	return r, r.setPayload(d, o.cfg.MaxPayload)
}

func (r *row) setIdentity(ctx context.Context, d *event.Draft) error {
	if r.eventID == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return fmt.Errorf("new event id: %w", err)
		}
		r.eventID = id.String()
	} else if err := checkID(r.eventID); err != nil {
		return err
	}
	if err := checkText("Draft.Topic", r.topic, 1, maxTopic); err != nil {
		return err
	}
	if err := checkText("Draft.Key", r.key, 0, maxKey); err != nil {
		return err
	}
	if !d.Time.IsZero() {
		if y := d.Time.Year(); y < 1 || y > 9999 {
			return &event.FieldError{Field: "Draft.Time", Value: d.Time.String(), Problem: "is outside the years 1 to 9999"}
		}
		r.time = &d.Time
	}
	correlation, causation := d.CorrelationID, d.CausationID
	if cause, ok := event.Cause(ctx); ok {
		if causation == "" {
			causation = cause.ID
		}
		if correlation == "" {
			correlation = cause.CorrelationID
		}
		if correlation == "" {
			correlation = cause.ID
		}
	}
	if err := checkText("Draft.CorrelationID", correlation, 0, maxName); err != nil {
		return err
	}
	if err := checkText("Draft.CausationID", causation, 0, maxName); err != nil {
		return err
	}
	r.correlationID, r.causationID = nullable(correlation), nullable(causation)
	return nil
}

func (r *row) setHeaders(ctx context.Context, d *event.Draft, trace func(context.Context) map[string]string) error {
	h := d.Headers
	if trace != nil {
		if t := trace(ctx); len(t) > 0 {
			h = maps.Clone(t)
			maps.Copy(h, d.Headers) // what the caller set wins
		}
	}
	if len(h) == 0 {
		return nil
	}
	if err := checkHeaders(h); err != nil {
		return err
	}
	b, err := json.Marshal(h)
	if err != nil {
		return &event.FieldError{Field: "Draft.Headers", Problem: "cannot be encoded", Err: err}
	}
	r.headers = nullable(string(b))
	return nil
}

func (r *row) setPayload(d *event.Draft, limit int) error {
	if d.Tombstone {
		return nil
	}
	b, err := d.Type.Codec.Encode(d.Data)
	if err != nil {
		return &event.FieldError{Field: "Draft.Data", Problem: "does not fit the schema of " + d.Type.Name, Err: err}
	}
	if len(b) > limit {
		return &event.FieldError{Field: "Draft.Data", Problem: fmt.Sprintf("has %d bytes when encoded", len(b)), Hint: fmt.Sprintf("at most %d are allowed (Config.MaxPayload); store large data elsewhere and send a reference", limit)}
	}
	if b == nil {
		b = []byte{} // an empty payload is not a tombstone
	}
	r.payload = b
	return nil
}

func nullable(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
