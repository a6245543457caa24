package inboxtest

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
)

// Consumer is the consumer that is tested. It is a value: declare it once for a
// package's tests.
type Consumer struct {
	// New makes the inbox as the service does, on pool and reading from from. A
	// test is quicker with a short inbox.Config.RetryBase. Required.
	New func(pool *pgxpool.Pool, from brokers.Subscriber) (*inbox.Inbox, error)
	// Wire is the inbox's Config.Wire. Default (nil): payloads are bare bytes.
	Wire event.WireFormat
	// Schema is the inbox's Config.Schema. Default "inbox".
	Schema string
	// Source is the CloudEvents source of the delivered events. Default "/inboxtest".
	Source string
	// Timeout is how long one call of Deliver or Try, or one run of
	// RequireIdempotent, may take. Default 1 min.
	Timeout time.Duration
}

func (c Consumer) withDefaults() Consumer {
	c.Schema = cmp.Or(c.Schema, "inbox")
	c.Source = cmp.Or(c.Source, "/inboxtest")
	c.Timeout = cmp.Or(c.Timeout, time.Minute)
	return c
}

func (c Consumer) validate() error {
	switch {
	case c.New == nil:
		return &event.FieldError{Field: "inboxtest.Consumer.New", Problem: "is nil", Hint: "make the service's inbox there"}
	case c.Timeout < 0:
		return &event.FieldError{Field: "inboxtest.Consumer.Timeout", Value: c.Timeout.String(), Problem: "is negative", Hint: "leave it 0 for the default"}
	}
	return nil
}

// Result is what became of events.
type Result struct {
	inbox.Stats
	// Dead are the dead letters that they became, those that wait behind one among
	// them, in the order of their writing.
	Dead []DeadLetter
}

// Deliver hands the events to the consumer, each after the one before has been
// dealt with, and returns when all are. It ends the test if one was not handled,
// now or before. A draft without ID gets a new one, as when it is written.
func (c Consumer) Deliver(t testing.TB, pool *pgxpool.Pool, drafts ...event.Draft) Result {
	t.Helper()
	r := c.Try(t, pool, drafts...)
	var failed []string
	for _, d := range r.Dead {
		failed = append(failed, d.String())
	}
	if r.Ignored > 0 {
		failed = append(failed, fmt.Sprintf("%d events were ignored: the inbox has no handler for their type", r.Ignored))
	}
	if len(failed) > 0 {
		t.Fatalf("inboxtest: not handled:\n%s", strings.Join(failed, "\n"))
	}
	return r
}

// Try is [Consumer.Deliver] for events that may fail: it returns when each has
// been handled, ignored, or made a dead letter after all its attempts.
func (c Consumer) Try(t testing.TB, pool *pgxpool.Pool, drafts ...event.Draft) Result {
	t.Helper()
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		t.Fatal("inboxtest: ", err)
	}
	r, err := c.try(t.Context(), pool, drafts)
	if err != nil {
		t.Fatal("inboxtest: ", err)
	}
	return r
}

func (c Consumer) try(ctx context.Context, pool *pgxpool.Pool, drafts []event.Draft) (Result, error) {
	msgs, err := c.messages(ctx, drafts)
	if err != nil {
		return Result{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	r := newRig(msgs)
	if err := r.start(c, pool); err != nil {
		return Result{}, err
	}
	if err := r.deliver(ctx, msgs, true); err != nil {
		return Result{}, err
	}
	stats, err := r.stop()
	if err != nil {
		return Result{}, err
	}
	dead, err := deadLetters(ctx, pool, c.Schema, msgs)
	return Result{Stats: stats[0], Dead: dead}, err
}
