package inboxtest

import (
	"context"
	"testing"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
)

// Handle calls handle as an inbox does, in tx, a transaction of the test's: with
// a new event that has been encoded and decoded, and with the event in the
// context as the cause of what the handler writes. It returns the handler's
// error. It claims nothing, tries once, and leaves tx open:
//
//	err := inboxtest.Handle(t, tx, reserve, OrderPlacedV1.New(order))
//	outboxtest.RequireWritten(t, tx, ReservedV1, Reserved{OrderID: "o-1"})
//
// Tx is pgx.Tx or *sql.Tx, as the handler takes it.
func Handle[Tx, T any](t testing.TB, tx Tx, handle func(ctx context.Context, tx Tx, e inbox.Event[T]) error, d event.Draft) error {
	t.Helper()
	m, err := Consumer{}.withDefaults().message(t.Context(), &d)
	if err != nil {
		t.Fatal("inboxtest: ", err)
	}
	e := inbox.Event[T]{
		Envelope: event.Envelope{
			ID: m.ID, Source: m.Source, Type: m.Type, Topic: m.Topic, Key: m.Key, Time: m.Time, ContentType: m.ContentType,
			CorrelationID: m.CorrelationID, CausationID: m.CausationID, Headers: m.Headers,
		},
		Tombstone: d.Tombstone,
		Origin:    brokers.Origin{Broker: "memory", Topic: m.Topic},
	}
	if !d.Tombstone {
		if err := d.Type.Codec.Decode(m.Payload, event.Schema{}, &e.Data); err != nil {
			t.Fatalf("inboxtest: event of type %s does not decode into %T: %v", d.Type.Name, e.Data, err)
		}
	}
	return handle(event.WithCause(t.Context(), e.Envelope), tx, e)
}
