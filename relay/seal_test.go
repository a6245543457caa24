package relay

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
)

// registryWire is a WireFormat that has a registry's trouble by topic.
type registryWire struct {
	wire

	mu  sync.Mutex
	bad map[string]error
}

func (w *registryWire) fails(topic string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.bad == nil {
		w.bad = map[string]error{}
	}
	w.bad[topic] = err
}

func (w *registryWire) Seal(ctx context.Context, topic string, s event.Schema, data []byte) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.bad[topic]; err != nil {
		return nil, err
	}
	return data, nil
}

func (db *database) writeSealed(t testing.TB, topic, key, payload string) {
	t.Helper()
	_, err := db.writer.Exec(t.Context(), `INSERT INTO outbox.schema (fp, format, text, content_type) VALUES (7, 'json', '{}', 'application/json') ON CONFLICT DO NOTHING`)
	require.NoError(t, err)
	_, err = db.writer.Exec(t.Context(), `INSERT INTO outbox.event (topic, key, type, source, payload, schema_fp) VALUES ($1, $2, 'test', '/test', convert_to($3, 'UTF8'), 7)`, topic, key, payload)
	require.NoError(t, err)
}

var (
	errRegistryAway = fmt.Errorf("registry: %w: connection refused", event.ErrSchemaUnavailable)
	errUnregistered = fmt.Errorf("registry: %w: %w", event.ErrSchemaUnavailable, event.ErrSchemaUnregistered)
)

// While the registry is away topics whose schemas are known go on; the others are
// in trouble, which is told, and are published in order when it is back.
func TestRegistryAway(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	p, w := &recorder{}, &registryWire{}
	cfg := config(p)
	cfg.Pipelines[0].Wire = w
	r := parkingRelay(t, db, cfg)
	running(t, r)
	db.writeSealed(t, "known", "a", "known 1")
	eventually(t, func() bool { return len(p.messages()) == 1 }, "the registry answers")

	w.fails("new", errRegistryAway)
	db.writeSealed(t, "new", "k", "new 1")
	db.writeSealed(t, "new", "k", "new 2")
	db.writeSealed(t, "known", "a", "known 2")
	eventually(t, func() bool { return db.parkedStates(t) == "new 1 retrying, new 2 blocked" }, "parked: %s", db.parkedStates(t))
	db.writeSealed(t, "known", "a", "known 3")
	eventually(t, func() bool { return len(p.messages()) == 3 }, "known schemas go on")
	require.Equal(t, []string{"known 1", "known 2", "known 3"}, p.payloads())
	require.Contains(t, scan[string](t, db.admin, `SELECT reason FROM outbox.parked ORDER BY n LIMIT 1`), "connection refused")
	eventually(t, func() bool { return r.Stats().Pipelines[0].TopicCircuits["new"] != "" }, "the topic's trouble is told")
	require.Equal(t, "closed", r.Stats().Pipelines[0].Circuit)

	w.fails("new", nil)
	eventually(t, func() bool { return len(p.messages()) == 5 }, "published")
	require.Equal(t, []string{"new 1", "new 2"}, p.payloads()[3:])
}

// A relay that starts while the registry is away knows no schema: it parks nothing
// and waits.
func TestRegistryAwayFromTheStart(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	p, w := &recorder{}, &registryWire{}
	for _, topic := range []string{"a", "b"} {
		w.fails(topic, errRegistryAway)
		for i := range 3 {
			db.writeSealed(t, topic, "k", fmt.Sprintf("%s%d", topic, i))
		}
	}
	cfg := config(p)
	cfg.Pipelines[0].Wire = w
	r := parkingRelay(t, db, cfg)
	r.tune.retryMax = 20 * time.Millisecond
	running(t, r)
	eventually(t, func() bool { return r.Stats().Pipelines[0].Retries > 60 }, "tried, more often than a topic has attempts")
	require.Empty(t, db.parkedStates(t))
	w.fails("a", nil)
	w.fails("b", nil)
	eventually(t, func() bool { return len(p.messages()) == 6 }, "published")
	require.Empty(t, db.parkedStates(t))
}

// A schema that nobody has registered is its topic's trouble from the first event on.
func TestUnregisteredSchema(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	p, w := &recorder{}, &registryWire{}
	w.fails("new", errUnregistered)
	db.writeSealed(t, "new", "k", "new 1")
	db.writeSealed(t, "other", "k", "other 1")
	cfg := config(p)
	cfg.Pipelines[0].Wire = w
	running(t, parkingRelay(t, db, cfg))
	eventually(t, func() bool { return len(p.messages()) == 1 && db.parkedStates(t) == "new 1 retrying" }, "the other goes on")
	require.Contains(t, scan[string](t, db.admin, `SELECT reason FROM outbox.parked`), "schema not registered")
	w.fails("new", nil)
	eventually(t, func() bool { return len(p.messages()) == 2 && db.parkedStates(t) == "" }, "published")
}

// What a plain INSERT wrote is validated on request, with its schema or without;
// what does not fit is parked, later events of its key behind it.
func TestPayloadsAreValidated(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.writeSealed(t, "t", "a", "good 1")
	db.writeSealed(t, "t", "a", "bad 1")
	db.writeSealed(t, "t", "a", "good 2")
	db.writeSealed(t, "t", "b", "good 3")
	db.writeIn(t, "t", "c", "bad without a schema")
	_, err := db.writer.Exec(t.Context(), `INSERT INTO outbox.event (topic, key, type, source) VALUES ('t', 'd', 'test', '/test')`)
	require.NoError(t, err)
	p := &recorder{}
	cfg := config(p)
	cfg.Pipelines[0].Wire = &registryWire{}
	cfg.Pipelines[0].Validate = func(m *brokers.Message, s event.Schema) error {
		if len(m.Payload) > 3 && string(m.Payload[:3]) == "bad" {
			return errors.New("qty at byte 3: format " + s.Format + ", " + m.ContentType)
		}
		return nil
	}
	running(t, newRelay(t, db.relay, cfg))
	eventually(t, func() bool { return len(p.messages()) == 3 }, "published")
	require.ElementsMatch(t, []string{"good 1", "good 3", ""}, p.payloads())
	eventually(t, func() bool { return db.parkedStates(t) == "bad 1 dead, good 2 blocked, bad without a schema dead" }, "parked: %s", db.parkedStates(t))
	require.Equal(t, "payload refused: qty at byte 3: format json, application/json; payload refused: qty at byte 3: format , application/json",
		scan[string](t, db.admin, `SELECT string_agg(substring(reason from 'payload refused.*'), '; ' ORDER BY n) FROM outbox.parked WHERE state = 'dead'`))
}
