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

// OnBatch is [On] for a handler that takes several events at once, up to
// Config.BatchSize, and can so change many rows with one statement. They share
// one transaction, in which all are claimed by one round trip: it is what makes
// a consumer fast. A batch is what waits already: nothing is waited for to fill
// it, and it may be one event. Events stand in it in the order in which they
// arrived, and so those of one key in theirs; a key is in one batch at a time.
//
// If the handler returns an error, panics or takes longer than
// Config.HandlerTimeout, nothing of the batch is kept, and it is called again for
// each of the events alone, where an error is a failed attempt of that event:
// its neighbours commit, and it is retried or becomes a dead letter as with On.
//
// Batches run concurrently: a handler that locks rows which others also lock
// should do so in one order, for example by key. (Where it does not and
// Postgres finds a deadlock, the batch fails as above.) The context names no
// cause: a handler that writes events to an outbox gives each its own,
// event.WithCause(ctx, e.Envelope). Middleware sees a batch as one attempt.
func OnBatch[T any](in *Inbox, typ event.Type[T], handle func(ctx context.Context, tx pgx.Tx, events []Event[T]) error, around ...Middleware) {
	if handle == nil {
		in.abort(fmt.Errorf("inbox: handler of %q is nil", typ.Name))
		return
	}
	registerBatch(in, typ, false, func(ctx context.Context, tx *transaction, events []Event[T]) error {
		return handle(ctx, tx.pgx, events)
	}, around)
}

// OnBatchSQL is [OnBatch] for handlers that work on a *sql.Tx, of the same pool.
// It costs a few more round trips for each batch.
func OnBatchSQL[T any](in *Inbox, typ event.Type[T], handle func(ctx context.Context, tx *sql.Tx, events []Event[T]) error, around ...Middleware) {
	if handle == nil {
		in.abort(fmt.Errorf("inbox: handler of %q is nil", typ.Name))
		return
	}
	registerBatch(in, typ, true, func(ctx context.Context, tx *transaction, events []Event[T]) error {
		return handle(ctx, tx.sql, events)
	}, around)
}

// batchHandler is a handler of OnBatch whose data type has been forgotten.
type batchHandler struct {
	overSQL bool
	breaker *breaker // the type's
	// room returns a *[]Event[T] for n events, empty.
	room func(n int) any
	// decode appends the event of d to what room returned, outside any transaction.
	decode func(ctx context.Context, wire event.WireFormat, d *brokers.Delivery, events any) error
	// run gives these events, but for those at the indexes of except (ascending), to
	// the handler, with all middleware around it; it does not panic.
	run func(ctx context.Context, tx *transaction, events any, except []int, attempt int) error
}

func registerBatch[T any](in *Inbox, typ event.Type[T], overSQL bool, handle func(context.Context, *transaction, []Event[T]) error, around []Middleware) {
	all := slices.Concat(in.cfg.Middleware, around)
	attempt, err := chain(all)
	if err != nil {
		in.abort(fmt.Errorf("inbox: handler of %q: %w", typ.Name, err))
		return
	}
	b := &batchHandler{overSQL: overSQL, room: func(n int) any { return new(make([]Event[T], 0, n)) }}
	b.decode = func(ctx context.Context, wire event.WireFormat, d *brokers.Delivery, events any) error {
		list := events.(*[]Event[T])
		more := append(*list, Event[T]{})
		if err := openEvent(ctx, typ, wire, d, &more[len(*list)]); err != nil {
			return err
		}
		*list = more // not before: a codec may panic
		return nil
	}
	b.run = func(ctx context.Context, tx *transaction, events any, except []int, number int) error {
		list := without(*events.(*[]Event[T]), except)
		if len(all) == 0 {
			return guard(func() error { return handle(ctx, tx, list) })
		}
		envelopes := make([]event.Envelope, len(list))
		for i := range list {
			envelopes[i] = list[i].Envelope
		}
		return attempt(ctx, &Attempt{
			Envelope: envelopes[0], Origin: list[0].Origin, Number: number, Batch: envelopes, tx: tx,
			call: func(ctx context.Context) error { return handle(ctx, tx, list) },
		})
	}
	bind := func(ctx context.Context, wire event.WireFormat, d *brokers.Delivery) (call, error) {
		event := b.room(1)
		if err := b.decode(ctx, wire, d, event); err != nil {
			return nil, err
		}
		return func(ctx context.Context, tx *transaction, number int) error {
			return b.run(ctx, tx, event, nil, number)
		}, nil
	}
	in.add(typ.Info(), handler{overSQL: overSQL, bind: bind, batch: b})
}

// without returns list without the elements at the indexes of except, ascending.
func without[E any](list []E, except []int) []E {
	if len(except) == 0 {
		return list
	}
	rest := make([]E, 0, len(list)-len(except))
	from := 0
	for _, i := range except {
		rest = append(rest, list[from:i]...)
		from = i + 1
	}
	return append(rest, list[from:]...)
}
