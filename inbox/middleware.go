package inbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
)

// Attempt is one run of a message's handler, as [Middleware] sees it. It is
// valid until the handler that was given it returns, and not to be changed.
type Attempt struct {
	event.Envelope
	Origin brokers.Origin // where the message came from
	Number int            // 1 for the first; counts failed attempts of this process, and on in a redrive

	// Batch is all events of an attempt of [OnBatch], of which Envelope and Origin
	// are the first's; nil for other handlers.
	Batch []event.Envelope

	tx   *transaction
	call func(ctx context.Context) error // the handler itself
}

// Exec runs a statement in the attempt's transaction, the one that the handler
// gets, whether that is a pgx.Tx or a *sql.Tx. Use it for what the database has
// to know before the handler's statements, such as the tenant that row-level
// security asks for:
//
//	a.Exec(ctx, `SELECT set_config('app.tenant', $1, true)`, a.Headers["tenant"])
//
// Such a setting lasts until the transaction ends, so it holds for a whole batch
// of [OnBatch], whose events may be of several tenants: return an error when they
// are, and each is handled alone. An error of Exec has spoiled the transaction:
// return it.
func (a *Attempt) Exec(ctx context.Context, query string, args ...any) error {
	if a.tx.pgx != nil { // refuses when the handler has been given up
		_, err := a.tx.pgx.Exec(ctx, query, args...)
		return err
	}
	_, err := a.tx.Exec(ctx, query, args...)
	return err
}

// Handler makes one attempt. A nil result commits, an error is retried; see [On].
type Handler func(ctx context.Context, a *Attempt) error

// Middleware puts something around every attempt: it returns a Handler that
// calls next, once at most, and may give it another context. An event whose
// next is not called counts as handled if the result is nil. The Handler is
// called concurrently.
//
// It sees attempts only: duplicates, unknown types and messages that do not
// decode have none. When next has returned, nothing is committed yet.
type Middleware func(next Handler) Handler

// Log logs the outcome of each attempt, at Info or, if it failed, at Warn, with
// its duration and number. Default (nil): slog.Default(). The inbox itself logs
// only what goes wrong, to Config.Logger.
func Log(logger *slog.Logger) Middleware {
	logger = cmp.Or(logger, slog.Default())
	return func(next Handler) Handler {
		return func(ctx context.Context, a *Attempt) error {
			began := time.Now()
			err := next(ctx, a)
			attrs := []slog.Attr{
				slog.String("type", a.Type), slog.String("source", a.Source), slog.String("id", a.ID), slog.String("key", a.Key),
				slog.String("origin", a.Origin.String()), slog.Int("attempt", a.Number), slog.Duration("duration", time.Since(began)),
			}
			if a.Batch != nil {
				attrs = append(attrs, slog.Int("events", len(a.Batch)))
			}
			if err != nil {
				logger.LogAttrs(ctx, slog.LevelWarn, "inbox: attempt failed", append(attrs, slog.Any("error", err))...)
				return err
			}
			logger.LogAttrs(ctx, slog.LevelInfo, "inbox: attempt succeeded", attrs...)
			return nil
		}
	}
}

// Timeout ends the handler's context after d, which counts as a failed attempt.
// It is for types that must be quicker than Config.HandlerTimeout, which stays
// in force. d <= 0: no timeout of its own.
func Timeout(d time.Duration) Middleware {
	return func(next Handler) Handler {
		if d <= 0 {
			return next
		}
		return func(ctx context.Context, a *Attempt) error {
			over := fmt.Errorf("%w after %s", errTimeout, d)
			ctx, cancel := context.WithTimeoutCause(ctx, d, over)
			defer cancel()
			err := next(ctx, a)
			if err != nil && errors.Is(context.Cause(ctx), over) {
				return fmt.Errorf("%w: %w", over, err)
			}
			return err
		}
	}
}

// Trace calls start before each attempt, gives the context that it returns to
// the handler, and calls end with the attempt's error when the handler has
// returned. It is where a tracer is put in: the remote parent is in the
// attempt's Headers (traceparent, tracestate).
func Trace(start func(ctx context.Context, a *Attempt) (_ context.Context, end func(error))) Middleware {
	return func(next Handler) Handler {
		return func(ctx context.Context, a *Attempt) error {
			ctx, end := start(ctx, a)
			err := next(ctx, a)
			end(err)
			return err
		}
	}
}

// PanicError is the error of an attempt in which the handler, or middleware
// further in, panicked. It counts like any other.
type PanicError struct {
	Value any
	Stack []byte // of the goroutine, as debug.Stack returns it
}

// Error implements error. It includes the stack.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v\n%s", e.Value, e.Stack) }

// Unwrap returns the panic's value if that was an error, else nil.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// guard runs f and turns a panic into an error.
func guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{Value: p, Stack: debug.Stack()}
		}
	}()
	return f()
}

// guarded makes a panic an error for whoever is around next.
func guarded(next Handler) Handler {
	return func(ctx context.Context, a *Attempt) error {
		return guard(func() error { return next(ctx, a) })
	}
}

// chain puts middleware around the handler: the first is the outermost.
func chain(all []Middleware) (Handler, error) {
	next := guarded(func(ctx context.Context, a *Attempt) error { return a.call(ctx) })
	for i := len(all) - 1; i >= 0; i-- {
		if all[i] == nil {
			return nil, fmt.Errorf("middleware %d of %d is nil", i+1, len(all))
		}
		h := all[i](next)
		if h == nil {
			return nil, fmt.Errorf("middleware %d of %d returned a nil Handler", i+1, len(all))
		}
		next = guarded(h)
	}
	return next, nil
}
