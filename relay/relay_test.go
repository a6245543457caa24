package relay

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
)

func TestPublishesInOrderAndOnlyOnce(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	for i := range 10 {
		db.write(t, "k", fmt.Sprint(i))
	}
	p := &recorder{}
	r := newRelay(t, db.relay, config(p))
	r.tune.pageRows = 3
	stop := running(t, r)
	eventually(t, func() bool { return len(p.messages()) == 10 }, "backlog")
	db.write(t, "k", "10")
	eventually(t, func() bool { return len(p.messages()) == 11 && r.caughtUp() }, "new event")
	require.NoError(t, stop())
	require.Equal(t, []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"}, p.payloads())

	// Clean stop: positions flushed, leases free, nothing is repeated.
	p2 := &recorder{}
	stop = running(t, newRelay(t, db.relay, config(p2)))
	db.write(t, "k", "11")
	eventually(t, func() bool { return len(p2.messages()) > 0 }, "after restart")
	require.NoError(t, stop())
	require.Equal(t, []string{"11"}, p2.payloads())
	require.Zero(t, scan[int](t, db.admin, `SELECT count(*) FROM outbox.instance`))
}

func TestMessageFields(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	schema := event.Schema{Format: "json", Text: `{"v":1}`, ContentType: "application/vnd.test"}
	_, err := db.writer.Exec(t.Context(), `INSERT INTO outbox.schema (fp, format, text, content_type) VALUES ($1, $2, $3, $4)`,
		schema.Fingerprint(), schema.Format, schema.Text, schema.ContentType)
	require.NoError(t, err)
	at := time.Date(2026, 1, 2, 3, 4, 5, 678000, time.UTC)
	const id = "019a0000-0000-7000-8000-000000000001"
	_, err = db.writer.Exec(t.Context(), `INSERT INTO outbox.event (event_id, topic, key, type, source, time, content_type, correlation_id, causation_id, headers, payload, schema_fp) VALUES
  ($1, 't', 'k', 'ty', '/s', $2, 'text/plain', 'co', 'ca', '{"a": "b", "n": 1, "z": null}', 'p', $3)`, id, at, schema.Fingerprint())
	require.NoError(t, err)
	_, err = db.writer.Exec(t.Context(), `INSERT INTO outbox.event (topic, key, type, source, payload, schema_fp) VALUES
  ('t', 'k', 'ty', '/s', 'bare', $1), ('t', 'k', 'ty', '/s', NULL, $1), ('t', 'k', 'ty', '/s', '', NULL)`, schema.Fingerprint())
	require.NoError(t, err)

	p := &recorder{}
	cfg := config(p)
	cfg.Pipelines[0].Wire = &wire{}
	stop := running(t, newRelay(t, db.relay, cfg))
	eventually(t, func() bool { return len(p.messages()) == 4 }, "published")
	require.NoError(t, stop())
	got := p.messages()
	require.True(t, at.Equal(got[0].Time))
	got[0].Time = at
	require.Equal(t, brokers.Message{
		ID: id, Topic: "t", Key: "k", Type: "ty", Source: "/s", Time: at, ContentType: "text/plain",
		CorrelationID: "co", CausationID: "ca", Headers: map[string]string{"a": "b", "n": "1"}, Payload: []byte("sealed:json:p"),
	}, got[0])
	require.Equal(t, "application/vnd.test", got[1].ContentType)
	require.WithinDuration(t, time.Now(), got[1].Time, time.Minute)
	require.Equal(t, "sealed:json:bare", string(got[1].Payload))
	require.Nil(t, got[2].Payload, "a tombstone stays nil")
	require.Equal(t, []byte{}, got[3].Payload, "empty is not nil")
	require.Equal(t, "application/json", got[3].ContentType)
}

// wire is a WireFormat whose Seal fails as often as told.
type wire struct {
	fails []error
}

func (w *wire) Seal(_ context.Context, _ string, s event.Schema, data []byte) ([]byte, error) {
	if len(w.fails) > 0 {
		err := w.fails[0]
		w.fails = w.fails[1:]
		return nil, err
	}
	return append([]byte("sealed:"+s.Format+":"), data...), nil
}

func (w *wire) Open(context.Context, string, []byte) (event.Schema, []byte, error) {
	return event.Schema{}, nil, errors.ErrUnsupported
}
