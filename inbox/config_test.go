package inbox_test

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/brokertest"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/internal/pgtest"
)

func TestConfigErrorsNameTheField(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	tests := map[string]func(*inbox.Config){
		"inbox.Config.Consumer is empty":                        func(c *inbox.Config) { c.Consumer = "" },
		"inbox.Config.From is nil":                              func(c *inbox.Config) { c.From = nil },
		`inbox.Config.Concurrency "-1" is negative (leave it 0`: func(c *inbox.Config) { c.Concurrency = -1 },
		`inbox.Config.HandlerTimeout "-1" is negative`:          func(c *inbox.Config) { c.HandlerTimeout = -1 },
		`inbox.Config.Unknown "7" is no policy`:                 func(c *inbox.Config) { c.Unknown = 7 },
		`inbox.Config.DeadLetterTo "dlq" is half set`:           func(c *inbox.Config) { c.DeadLetterTo.Topic = "dlq" },
		"Config.WindowDays 32: must be 1 to 31":                 func(c *inbox.Config) { c.WindowDays = 32 },
		`Config.Schema "In box": must be lower-case`:            func(c *inbox.Config) { c.Schema = "In box" },
		"Config.Consumer has 201 bytes: at most 200":            func(c *inbox.Config) { c.Consumer = string(make([]byte, 201)) },
	}
	for want, change := range tests {
		cfg := w.config("inventory")
		change(&cfg)
		_, err := inbox.New(w.pool, cfg)
		require.ErrorContains(t, err, want)
	}
	_, err := inbox.New(nil, w.config("inventory"))
	require.ErrorContains(t, err, "pool is nil")
}

func TestRegistrationMistakes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	nothing := func(context.Context, pgx.Tx, inbox.Event[order]) error { return nil }
	tests := map[string]func(*inbox.Inbox){
		"inbox: no handler: register one with inbox.On before Run": func(*inbox.Inbox) {},
		`inbox: handler of "shop.order.placed" is nil`:             func(in *inbox.Inbox) { inbox.On(in, placed, nil) },
		`inbox: two handlers for "shop.order.placed": one type has one handler`: func(in *inbox.Inbox) {
			inbox.On(in, placed, nothing)
			inbox.OnSQL(in, placed, func(context.Context, *sql.Tx, inbox.Event[order]) error { return nil })
		},
		`inbox: Type[shop.order.placed].Codec is nil`: func(in *inbox.Inbox) { inbox.On(in, event.Type[order]{Name: placed.Name, Topic: "orders"}, nothing) },
	}
	for want, register := range tests {
		in, err := inbox.New(w.pool, w.config("inventory"))
		require.NoError(t, err)
		register(in)
		require.ErrorContains(t, in.Run(t.Context()), want)
	}

	in := w.start(w.config("inventory"), nothing)
	w.publish(message("a", 1))
	w.settled("inventory")
	require.EqualError(t, in.Run(t.Context()), "inbox: Run called twice: make a new inbox")
	w.publish(message("a", 2))
	w.settled("inventory") // the first still runs
	inbox.On(in.Inbox, placed, nothing)
	require.ErrorContains(t, in.wait(), `handler of "shop.order.placed" registered after Run`)
}

func TestRunReturnsWhatIsMissing(t *testing.T) {
	t.Parallel()
	bare := pgtest.Pool(t) // not migrated
	broker := brokertest.NewMemory(brokertest.MemoryConfig{AutoCreate: 1})
	in, err := inbox.New(bare, inbox.Config{Consumer: "inventory", From: broker.Subscriber("g", "orders")})
	require.NoError(t, err)
	inbox.On(in, placed, insert("inventory"))
	err = in.Run(t.Context())
	require.ErrorContains(t, err, `register consumer "inventory" in schema inbox (migrated and granted? see relay migrate)`)
	require.ErrorContains(t, err, "does not exist")

	w := newWorld(t)
	cfg := w.config("inventory")
	sub := w.broker.Subscriber("inventory", "no such topic")
	cfg.From = sub
	r := w.start(cfg, insert("inventory"))
	require.ErrorContains(t, r.wait(), `inbox: subscribe: destination: topic "no such topic": unknown topic`)
	require.ErrorIs(t, sub.Subscribe(t.Context(), func(context.Context, *brokers.Delivery) {}), brokers.ErrClosed, "Run closes it")
}

func TestRunEndsWithItsContextWhateverTheCause(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in, err := inbox.New(w.pool, w.config("inventory"))
	require.NoError(t, err)
	inbox.On(in, placed, insert("inventory"))
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, errBroken)
	defer cancel()
	require.NoError(t, in.Run(ctx))
}
