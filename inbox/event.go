package inbox

import (
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
)

// Event is what a handler gets.
type Event[T any] struct {
	event.Envelope
	Data      T              // decoded anew for every attempt; the zero value of a tombstone
	Tombstone bool           // the message had no data
	Origin    brokers.Origin // where it came from
}

// On registers the handler of a type. It runs in the transaction that holds the
// event's claim: what it does through tx commits together with the claim if it
// returns nil, and not at all if it returns an error. It must not commit or roll
// back tx itself. Its context ends after Config.HandlerTimeout and carries the
// event's envelope (event.WithCause), so that events it writes to an outbox name
// their cause. It may run for several events at once, never for two of one key.
// Middleware goes around this type's attempts only, inside Config.Middleware.
//
// A second handler for a name, a nil handler and a registration after Run are
// mistakes that Run returns.
func On[T any](in *Inbox, typ event.Type[T], handle func(ctx context.Context, tx pgx.Tx, e Event[T]) error, around ...Middleware) {
	if handle == nil {
		in.abort(fmt.Errorf("inbox: handler of %q is nil", typ.Name))
		return
	}
	register(in, typ, false, func(ctx context.Context, tx *transaction, e Event[T]) error { return handle(ctx, tx.pgx, e) }, around)
}

// OnSQL is [On] for handlers that work on a *sql.Tx, of the same pool. It costs
// a few more round trips for each message.
func OnSQL[T any](in *Inbox, typ event.Type[T], handle func(ctx context.Context, tx *sql.Tx, e Event[T]) error, around ...Middleware) {
	if handle == nil {
		in.abort(fmt.Errorf("inbox: handler of %q is nil", typ.Name))
		return
	}
	register(in, typ, true, func(ctx context.Context, tx *transaction, e Event[T]) error { return handle(ctx, tx.sql, e) }, around)
}

// handler is a registered handler whose data type has been forgotten.
type handler struct {
	overSQL bool
	breaker *breaker
	// bind decodes a message, before its handler's first statement, and returns what remains
	// to be done inside.
	bind  func(ctx context.Context, wire event.WireFormat, d *brokers.Delivery) (call, error)
	batch *batchHandler // of OnBatch; nil otherwise
}

// call runs the handler with all middleware around it; it does not panic.
// attempt is 1 for the first.
type call func(ctx context.Context, tx *transaction, attempt int) error

func register[T any](in *Inbox, typ event.Type[T], overSQL bool, handle func(context.Context, *transaction, Event[T]) error, around []Middleware) {
	attempt, err := chain(slices.Concat(in.cfg.Middleware, around))
	if err != nil {
		in.abort(fmt.Errorf("inbox: handler of %q: %w", typ.Name, err))
		return
	}
	bind := func(ctx context.Context, wire event.WireFormat, d *brokers.Delivery) (call, error) {
		e := new(Event[T])
		if err := openEvent(ctx, typ, wire, d, e); err != nil {
			return nil, err
		}
		return func(ctx context.Context, tx *transaction, number int) error {
			return attempt(ctx, &Attempt{
				Envelope: e.Envelope, Origin: e.Origin, Number: number, tx: tx,
				call: func(ctx context.Context) error { return handle(ctx, tx, *e) },
			})
		}, nil
	}
	in.add(typ.Info(), handler{overSQL: overSQL, bind: bind})
}

// openEvent decodes a message into e, which is empty.
func openEvent[T any](ctx context.Context, typ event.Type[T], wire event.WireFormat, d *brokers.Delivery, e *Event[T]) error {
	e.Envelope, e.Origin = envelope(&d.Message), d.Origin
	if d.Message.Payload == nil {
		e.Tombstone = true
		return nil
	}
	return decode(ctx, typ.Codec, wire, &d.Message, &e.Data)
}

func decode(ctx context.Context, codec event.Codec, wire event.WireFormat, m *brokers.Message, v any) error {
	var writer event.Schema
	data := m.Payload
	if wire != nil {
		var err error
		if writer, data, err = wire.Open(ctx, m.Topic, data); err != nil {
			return fmt.Errorf("open the wire format: %w", err)
		}
	}
	switch err := codec.Decode(data, writer, v); {
	case err != nil && wire == nil:
		return fmt.Errorf("%sdecode: %w", frameHint(data), err)
	case err != nil:
		return fmt.Errorf("decode: %w", err)
	}
	return nil
}

func envelope(m *brokers.Message) event.Envelope {
	return event.Envelope{
		ID: m.ID, Source: m.Source, Type: m.Type, Topic: m.Topic, Key: m.Key, Time: m.Time, ContentType: m.ContentType,
		CorrelationID: m.CorrelationID, CausationID: m.CausationID, Headers: m.Headers,
	}
}
