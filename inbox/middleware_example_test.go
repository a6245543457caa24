package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
)

// attempt is what the inbox gives to middleware.
var attempt = &inbox.Attempt{
	Envelope: event.Envelope{
		ID: "1", Source: "/shop/orders", Type: "shop.order.placed", Key: "o-7",
		Headers: map[string]string{"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
	},
	Origin: brokers.Origin{Broker: "kafka", Topic: "orders", Partition: 3, Offset: 42},
	Number: 1,
}

// Middleware for all types goes into the configuration, middleware for one
// beside its handler. From the outside in: trace, log, tenant, timeout.
func ExampleMiddleware() {
	tenant := func(next inbox.Handler) inbox.Handler {
		return func(ctx context.Context, a *inbox.Attempt) error {
			// Row-level security asks for it: USING (tenant = current_setting('app.tenant')).
			if err := a.Exec(ctx, `SELECT set_config('app.tenant', $1, true)`, a.Headers["tenant"]); err != nil {
				return err
			}
			return next(ctx, a)
		}
	}
	consume := func(ctx context.Context, pool *pgxpool.Pool, orders brokers.Subscriber) error {
		in, err := inbox.New(pool, inbox.Config{
			Consumer: "inventory", From: orders,
			Middleware: []inbox.Middleware{inbox.Log(nil), tenant},
		})
		if err != nil {
			return err
		}
		inbox.On(in, OrderPlacedV1, func(ctx context.Context, tx pgx.Tx, e inbox.Event[OrderPlaced]) error {
			_, err := tx.Exec(ctx, `UPDATE stock SET qty = qty-1 WHERE sku = ANY($1)`, e.Data.Items)
			return err
		}, inbox.Timeout(2*time.Second))
		return in.Run(ctx)
	}
	_ = consume
}

func ExampleLog() {
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == "duration" {
			return slog.Attr{}
		}
		return a
	}}))
	handler := inbox.Log(logger)(func(context.Context, *inbox.Attempt) error { return errors.New("out of stock") })
	_ = handler(context.Background(), attempt)
	// Output:
	// level=WARN msg="inbox: attempt failed" type=shop.order.placed source=/shop/orders id=1 key=o-7 origin="kafka orders/3@42" attempt=1 error="out of stock"
}

func ExampleTimeout() {
	handler := inbox.Timeout(time.Millisecond)(func(ctx context.Context, _ *inbox.Attempt) error {
		<-ctx.Done() // for example a slow statement
		return ctx.Err()
	})
	fmt.Println(handler(context.Background(), attempt))
	// Output: handler timed out after 1ms: context deadline exceeded
}

// A tracer starts a span for each attempt.
func ExampleTrace() {
	trace := inbox.Trace(func(ctx context.Context, a *inbox.Attempt) (context.Context, func(error)) {
		fmt.Println("start", a.Type, "below", a.Headers["traceparent"][36:52])
		return ctx, func(err error) { fmt.Println("end, error:", err) }
	})
	handler := trace(func(context.Context, *inbox.Attempt) error {
		fmt.Println("handle")
		return nil
	})
	_ = handler(context.Background(), attempt)
	// Output:
	// start shop.order.placed below 00f067aa0ba902b7
	// handle
	// end, error: <nil>
}
