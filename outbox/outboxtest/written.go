package outboxtest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/event"
)

// Event is an event as it was written, its data decoded.
type Event[T any] struct {
	event.Envelope
	Data      T    // the zero value of a tombstone
	Tombstone bool // written without data
}

// Written returns the events of typ that are in db's log, in the order in which
// they were written (see the package comment for what db may be). It ends the
// test if they cannot be read or decoded.
func Written[T any](t testing.TB, db any, typ event.Type[T]) []Event[T] {
	t.Helper()
	return written(t, open(t, db), typ)
}

func written[T any](t testing.TB, l Log, typ event.Type[T]) []Event[T] {
	t.Helper()
	events := []Event[T]{}
	for _, r := range l.read(t, typ.Name) {
		e := Event[T]{Envelope: r.Envelope, Tombstone: r.payload == nil}
		if !e.Tombstone {
			if err := typ.Codec.Decode(r.payload, r.schema, &e.Data); err != nil {
				t.Fatalf("outboxtest: event %s of type %s does not decode: %v", e.ID, typ.Name, err)
			}
		}
		events = append(events, e)
	}
	return events
}

// RequireWritten ends the test unless db's log holds exactly these events of
// typ, in this order; other types do not matter. It returns them, for a look at
// keys, headers or causation. want is encoded and decoded before it is compared,
// so that what the codec cannot carry (nanoseconds, a time zone, nil or empty)
// makes no difference.
func RequireWritten[T any](t testing.TB, db any, typ event.Type[T], want ...T) []Event[T] {
	t.Helper()
	l := open(t, db)
	events := written(t, l, typ)
	got := []T{}
	for i, e := range events {
		if e.Tombstone {
			t.Fatalf("outboxtest: event %d of type %s is a tombstone of key %q: look at it with Written", i+1, typ.Name, e.Key)
		}
		got = append(got, e.Data)
	}
	carried := []T{}
	for i, w := range want {
		data, err := typ.Codec.Encode(w)
		var c T
		if err == nil {
			err = typ.Codec.Decode(data, event.Schema{}, &c)
		}
		if err != nil {
			t.Fatalf("outboxtest: event %d that is wanted cannot be written at all: it does not fit the schema of %s: %v", i+1, typ.Name, err)
		}
		carried = append(carried, c)
	}
	require.Equal(t, carried, got, "events of type %s\n%s", typ.Name, l.summary(t))
	return events
}

// RequireNone ends the test if db's log holds an event of one of these types;
// without types, if it holds any event.
func RequireNone(t testing.TB, db any, types ...event.Any) {
	t.Helper()
	l := open(t, db)
	var names []string
	for _, typ := range types {
		names = append(names, typ.Info().Name)
	}
	if found := l.read(t, names...); len(found) > 0 {
		require.Failf(t, "an event was written", "the first is %s, key %q, payload %q\n%s",
			found[0].Type, found[0].Key, found[0].payload, l.summary(t))
	}
}

// row is an event whose data has not been decoded.
type row struct {
	event.Envelope
	payload []byte
	schema  event.Schema // zero if the row names none
}

// read returns the events of these types, or of all.
func (l Log) read(t testing.TB, types ...string) []row {
	t.Helper()
	where, args := l.where()
	query := fmt.Sprintf(`SELECT e.event_id::text, e.source, e.type, e.topic, e.key, coalesce(e.time, e.created_at),
		coalesce(e.content_type, s.content_type, 'application/json'), coalesce(e.correlation_id, ''), coalesce(e.causation_id, ''),
		coalesce(e.headers, '{}')::text, e.payload, coalesce(s.format, ''), coalesce(s.text, ''), coalesce(s.content_type, '')
		FROM %[1]s.event e LEFT JOIN %[1]s.schema s ON s.fp = e.schema_fp WHERE %[2]s ORDER BY e.id`, l.name(), where)
	var found []row
	err := l.each(t.Context(), query, args, func(r rows) error {
		var e row
		var headers string
		err := r.Scan(&e.ID, &e.Source, &e.Type, &e.Topic, &e.Key, &e.Time, &e.ContentType, &e.CorrelationID, &e.CausationID,
			&headers, &e.payload, &e.schema.Format, &e.schema.Text, &e.schema.ContentType)
		if err != nil {
			return err
		}
		if len(types) > 0 && !slices.Contains(types, e.Type) {
			return nil
		}
		found = append(found, e)
		return json.Unmarshal([]byte(headers), &found[len(found)-1].Headers)
	})
	if err != nil {
		t.Fatalf("outboxtest: read the events %s: %v%s", l, err, l.hint())
	}
	return found
}

// summary says how many events of which types there are.
func (l Log) summary(t testing.TB) string {
	t.Helper()
	counts := map[string]int{}
	for _, r := range l.read(t) {
		counts[r.Type]++
	}
	if len(counts) == 0 {
		return "no event at all was " + l.String()
	}
	var list []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		list = append(list, fmt.Sprintf("%d × %s", counts[name], name))
	}
	return l.String() + ": " + strings.Join(list, ", ")
}
