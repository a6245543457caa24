package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
)

// item is one event of a page.
type item struct {
	id     int64
	msg    brokers.Message
	fp     *int64 // fingerprint of the payload's schema
	ready  bool   // msg is complete: schema known, payload sealed
	failed error  // of the last attempt; nil = not yet tried, or published
	tries  int    // attempts so far
	done   bool   // published
	park   string // the state to park it in; "" = not parked
}

// scan is the general way of pageScanner.decode, for rows in the text format.
func (it *item) scan(row pgx.Rows, total *int64, tok *token) error {
	var (
		eventID           pgtype.UUID
		at                time.Time
		contentType       *string
		correlation, caus *string
		headers           []byte
		size              int64
	)
	m := &it.msg
	if err := row.Scan(&it.id, &eventID, &m.Topic, &m.Key, &m.Type, &m.Source, &at, &contentType,
		&correlation, &caus, &headers, &m.Payload, &it.fp, &size, total, tok); err != nil {
		return err
	}
	m.ID = uuid.UUID(eventID.Bytes).String()
	m.Time = at.UTC()
	m.ContentType, m.CorrelationID, m.CausationID = deref(contentType), deref(correlation), deref(caus)
	if len(headers) > 0 {
		var err error
		if m.Headers, err = parseHeaders(headers); err != nil {
			return fmt.Errorf("event %s: headers: %w", m.ID, err)
		}
	}
	return nil
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// parseHeaders reads a JSON object. A plain INSERT may hold values that are no
// strings: those travel as their JSON text, null not at all.
func parseHeaders(data []byte) (map[string]string, error) {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, err
	}
	headers := make(map[string]string, len(raw))
	for name, value := range raw {
		var s *string
		if err := json.Unmarshal(value, &s); err != nil {
			headers[name] = string(value)
		} else if s != nil {
			headers[name] = *s
		}
	}
	return headers, nil
}

const defaultContentType = "application/json"

// prepare completes a message: content type and, where the pipeline frames
// payloads, the frame. An error has the class of a failed publication.
func (s *session) prepare(ctx context.Context, it *item) error {
	if it.ready {
		return nil
	}
	m := &it.msg
	var schema event.Schema
	if it.fp != nil {
		var ok bool
		if schema, ok = s.r.schemas.get(*it.fp); !ok {
			return &brokers.Error{Class: brokers.ClassRejected, Topic: m.Topic,
				Err: fmt.Errorf("schema_fp %d is not in %s.schema: was the event written without outbox.New?", *it.fp, s.r.cfg.Schema)}
		}
		if m.ContentType == "" {
			m.ContentType = schema.ContentType
		}
	}
	if m.ContentType == "" {
		m.ContentType = defaultContentType
	}
	if s.Validate != nil && m.Payload != nil {
		if err := s.Validate(m, schema); err != nil {
			return &brokers.Error{Class: brokers.ClassRejected, Topic: m.Topic, Err: fmt.Errorf("payload refused: %w", err)}
		}
	}
	if s.Wire != nil && it.fp != nil && m.Payload != nil { // a tombstone stays nil
		if err := s.seal(ctx, m, schema); err != nil {
			return err
		}
	}
	it.ready = true
	return nil
}

// seal frames the payload. A schema that nobody has registered is its topic's
// trouble. So is one that cannot be looked up while the registry is away: topics
// whose schemas are known go on. Where none is known yet everything waits, as for a
// broker: else a relay that restarts meanwhile would park the whole log.
func (s *session) seal(ctx context.Context, m *brokers.Message, schema event.Schema) error {
	sealed, err := s.Wire.Seal(ctx, m.Topic, schema, m.Payload)
	if err == nil {
		m.Payload = sealed
		s.sealed.Store(true)
		return nil
	}
	class := brokers.ClassRejected
	switch {
	case ctx.Err() != nil:
		class = brokers.ClassUnavailable
	case errors.Is(err, event.ErrSchemaUnregistered), errors.Is(err, event.ErrSchemaUnavailable) && s.sealed.Load():
		class = brokers.ClassDestination
	case errors.Is(err, event.ErrSchemaUnavailable):
		class = brokers.ClassUnavailable
	}
	return &brokers.Error{Class: class, Topic: m.Topic, Err: fmt.Errorf("seal: %w", err)}
}

// schemaCache holds the rows of the schema table, which never change.
type schemaCache struct {
	r  *Relay
	mu sync.RWMutex
	m  map[int64]event.Schema
}

func newSchemaCache(r *Relay) *schemaCache {
	return &schemaCache{r: r, m: map[int64]event.Schema{}}
}

func (c *schemaCache) get(fp int64) (event.Schema, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	s, ok := c.m[fp]
	return s, ok
}

// fetch looks up what items need and the cache lacks, in one query.
func (c *schemaCache) fetch(ctx context.Context, items []*item) error {
	missing := map[int64]bool{}
	for _, it := range items {
		if it.fp != nil && !it.ready {
			if _, ok := c.get(*it.fp); !ok {
				missing[*it.fp] = true
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	fps := make([]int64, 0, len(missing))
	for fp := range missing {
		fps = append(fps, fp)
	}
	op, cancel := c.r.op(ctx)
	defer cancel()
	rows, err := c.r.pool.Query(op, c.r.q.schemas, fps)
	if err != nil {
		return fmt.Errorf("read schemas: %w", err)
	}
	var fp int64
	var s event.Schema
	_, err = pgx.ForEachRow(rows, []any{&fp, &s.Format, &s.Text, &s.ContentType}, func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.m[fp] = s
		return nil
	})
	if err != nil {
		return fmt.Errorf("read schemas: %w", err)
	}
	return nil
}
