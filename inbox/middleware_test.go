package inbox_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/inbox"
)

// body is a handler in either form.
type body func(ctx context.Context, exec execFunc, e inbox.Event[order]) error

// forms registers a body as either form, with its middleware.
var forms = map[string]func(*inbox.Inbox, body, ...inbox.Middleware){
	"pgx.Tx": func(in *inbox.Inbox, f body, around ...inbox.Middleware) {
		inbox.On(in, placed, func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
			return f(ctx, func(query string, args ...any) error { _, err := tx.Exec(ctx, query, args...); return err }, e)
		}, around...)
	},
	"sql.Tx": func(in *inbox.Inbox, f body, around ...inbox.Middleware) {
		inbox.OnSQL(in, placed, func(ctx context.Context, tx *sql.Tx, e inbox.Event[order]) error {
			return f(ctx, func(query string, args ...any) error { _, err := tx.ExecContext(ctx, query, args...); return err }, e)
		}, around...)
	},
}

func inBothForms(t *testing.T, test func(t *testing.T, w *world, start func(inbox.Config, body, ...inbox.Middleware) *running)) {
	t.Parallel()
	for name, register := range forms {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			test(t, w, func(cfg inbox.Config, f body, around ...inbox.Middleware) *running {
				in, err := inbox.New(w.pool, cfg)
				require.NoError(t, err)
				register(in, f, around...)
				return run(t, in)
			})
		})
	}
}

type nameKey struct{}

func TestMiddlewareGoesAroundEachAttempt(t *testing.T) {
	inBothForms(t, func(t *testing.T, w *world, start func(inbox.Config, body, ...inbox.Middleware) *running) {
		var trail []string // one worker at a time: one message
		named := func(name string) inbox.Middleware {
			return func(next inbox.Handler) inbox.Handler {
				return func(ctx context.Context, a *inbox.Attempt) error {
					above, _ := ctx.Value(nameKey{}).(string)
					trail = append(trail, above+">"+name)
					err := next(context.WithValue(ctx, nameKey{}, name), a)
					if err != nil {
						trail = append(trail, name+": "+err.Error())
						return errors.New(name + " says " + err.Error())
					}
					trail = append(trail, name+" done")
					return nil
				}
			}
		}
		cfg := w.config("inventory")
		var seen []inbox.Attempt
		cfg.Middleware = []inbox.Middleware{named("a"), named("b"), func(next inbox.Handler) inbox.Handler {
			return func(ctx context.Context, a *inbox.Attempt) error {
				seen = append(seen, *a)
				return next(ctx, a)
			}
		}}
		m := message("k", 1)
		w.publish(m, m) // a duplicate is no attempt
		attempts := 0
		in := start(cfg, func(ctx context.Context, exec execFunc, e inbox.Event[order]) error {
			trail = append(trail, "handler below "+ctx.Value(nameKey{}).(string))
			if attempts++; attempts == 1 {
				return errBroken
			}
			return exec(`INSERT INTO effect (id) VALUES ($1)`, e.ID)
		}, named("own"))
		w.settled("inventory")
		require.NoError(t, in.end())

		require.Equal(t, []string{
			">a", "a>b", "b>own", "handler below own",
			"own: the handler is broken", "b: own says the handler is broken", "a: b says own says the handler is broken",
			">a", "a>b", "b>own", "handler below own", "own done", "b done", "a done",
		}, trail)
		require.Len(t, seen, 2)
		for i, a := range seen {
			require.Equal(t, i+1, a.Number)
			require.Equal(t, m.ID, a.ID)
			require.Equal(t, "memory", a.Origin.Broker)
			require.Equal(t, "a", a.Headers["tenant"])
		}
		require.Equal(t, inbox.Stats{Handled: 1, Duplicates: 1, Failures: 1}, in.Stats())
	})
}

// Row-level security needs the tenant in the transaction before the handler's
// first statement, and not a moment after it.
func TestMiddlewareReachesTheHandlersTransaction(t *testing.T) {
	inBothForms(t, func(t *testing.T, w *world, start func(inbox.Config, body, ...inbox.Middleware) *running) {
		cfg := w.config("inventory")
		cfg.Middleware = []inbox.Middleware{func(next inbox.Handler) inbox.Handler {
			return func(ctx context.Context, a *inbox.Attempt) error {
				if err := a.Exec(ctx, `INSERT INTO effect (id, key) VALUES ($1, 'middleware')`, a.ID); err != nil {
					return err
				}
				if a.Number == 2 { // the first attempt must not have left it
					return next(ctx, a)
				}
				if err := a.Exec(ctx, `SELECT set_config('app.tenant', $1, true)`, a.Headers["tenant"]); err != nil {
					return err
				}
				return next(ctx, a)
			}
		}}
		attempts := 0
		in := start(cfg, func(_ context.Context, exec execFunc, e inbox.Event[order]) error {
			err := exec(`INSERT INTO effect (id, key) VALUES ($1, 'tenant ' || coalesce(nullif(current_setting('app.tenant', true), ''), 'none'))`, e.ID)
			if attempts++; attempts == 1 && err == nil {
				return errBroken
			}
			return err
		})
		w.publish(message("k", 1))
		w.settled("inventory")
		require.Equal(t, 1, w.count(`SELECT count(*) FROM effect WHERE key = 'middleware'`), "what a failed attempt did is undone")
		require.Equal(t, 1, w.count(`SELECT count(*) FROM effect WHERE key = 'tenant none'`), "a setting ends with its transaction")
		attempts = 1
		w.publish(message("k", 2))
		w.settled("inventory")
		require.NoError(t, in.end())
		require.Equal(t, 1, w.count(`SELECT count(*) FROM effect WHERE key = 'tenant a'`))
		require.Equal(t, 4, w.effects())
	})
}

func TestPanicsAreCaughtWhereverTheyAre(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	before := func(next inbox.Handler) inbox.Handler {
		return func(ctx context.Context, a *inbox.Attempt) error {
			if a.Key == "bad" {
				panic(boom)
			}
			return next(ctx, a)
		}
	}
	after := func(next inbox.Handler) inbox.Handler {
		return func(ctx context.Context, a *inbox.Attempt) error {
			err := next(ctx, a)
			if a.Key == "bad" {
				panic(boom)
			}
			return err
		}
	}
	for name, tt := range map[string]struct {
		config, own []inbox.Middleware
		handler     bool
		unseen      bool // the panic is further out than the observer
	}{
		"in the handler":                {handler: true},
		"in its middleware":             {own: []inbox.Middleware{before}},
		"in its middleware, afterwards": {own: []inbox.Middleware{after}},
		"in the inbox's middleware":     {config: []inbox.Middleware{before}, unseen: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			var seen error
			observe := func(next inbox.Handler) inbox.Handler {
				return func(ctx context.Context, a *inbox.Attempt) error {
					err := next(ctx, a)
					if err != nil {
						seen = err
					}
					return err
				}
			}
			cfg := w.config("inventory")
			cfg.Concurrency = 1
			cfg.Middleware = append(tt.config, observe)
			in, err := inbox.New(w.pool, cfg)
			require.NoError(t, err)
			inbox.On(in, placed, func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
				if tt.handler && e.Key == "bad" {
					panic(boom)
				}
				return insert("inventory")(ctx, tx, e)
			}, tt.own...)
			r := run(t, in)
			w.publish(message("bad", 1), message("good", 2))
			w.settled("inventory")
			require.NoError(t, r.end())
			require.Equal(t, inbox.Stats{Handled: 1, Failures: 3, DeadLettered: 1}, r.Stats())
			require.Equal(t, 1, w.effects())
			row := w.dead()[0]
			require.Equal(t, "attempts", row.Reason)
			require.Contains(t, row.Error, "panic: boom\ngoroutine ")
			require.Contains(t, row.Error, "middleware_test.go", "the stack says where")
			if tt.unseen {
				require.NoError(t, seen)
				return
			}
			var p *inbox.PanicError
			require.ErrorAs(t, seen, &p)
			require.ErrorIs(t, seen, boom)
		})
	}
}

func TestTimeoutOfOneType(t *testing.T) {
	inBothForms(t, func(t *testing.T, w *world, start func(inbox.Config, body, ...inbox.Middleware) *running) {
		var log lines
		cfg := w.config("inventory")
		cfg.Attempts = 2
		cfg.Logger = slog.New(slog.NewJSONHandler(&log, nil))
		in := start(cfg, func(ctx context.Context, exec execFunc, e inbox.Event[order]) error {
			if e.Key == "slow" {
				return exec(`SELECT pg_sleep(60)`)
			}
			return exec(`INSERT INTO effect (id) VALUES ($1)`, e.ID)
		}, inbox.Timeout(100*time.Millisecond))
		w.publish(message("slow", 1), message("quick", 2))
		w.settled("inventory")
		require.NoError(t, in.end())
		require.Equal(t, inbox.Stats{Handled: 1, Failures: 2, DeadLettered: 1}, in.Stats())
		row := w.dead()[0]
		require.Equal(t, "attempts", row.Reason)
		require.Equal(t, 2, row.Attempts)
		require.Contains(t, row.Error, "handler timed out after 100ms: ")
		require.NotContains(t, log.text(), "does not answer", "a handler's timeout is no outage")
	})
}

// A deadline of the handler's own costs the connection too: pgx closes it.
func TestOwnDeadlineOfAHandlerIsAFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var log lines
	cfg := w.config("inventory")
	cfg.Logger = slog.New(slog.NewJSONHandler(&log, nil))
	in := w.start(cfg, func(ctx context.Context, tx pgx.Tx, _ inbox.Event[order]) error {
		ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		_, err := tx.Exec(ctx, `SELECT pg_sleep(60)`)
		return err
	})
	w.publish(message("k", 1))
	w.settled("inventory")
	require.NoError(t, in.end())
	require.Equal(t, inbox.Stats{Failures: 3, DeadLettered: 1}, in.Stats())
	require.NotContains(t, log.text(), "does not answer")
}

func TestTimeoutThatIsLongerOrNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config("inventory")
	cfg.Attempts, cfg.HandlerTimeout = 1, 100*time.Millisecond
	cfg.Middleware = []inbox.Middleware{inbox.Timeout(0), inbox.Timeout(-1), inbox.Timeout(time.Hour)}
	in := w.start(cfg, func(ctx context.Context, _ pgx.Tx, _ inbox.Event[order]) error { <-ctx.Done(); return ctx.Err() })
	w.publish(message("k", 1))
	w.settled("inventory")
	require.NoError(t, in.end())
	require.Equal(t, "handler timed out after 100ms: context deadline exceeded", w.dead()[0].Error)
}

func TestLogSaysHowEachAttemptEnded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var log lines
	cfg := w.config("inventory")
	cfg.Middleware = []inbox.Middleware{inbox.Log(slog.New(slog.NewJSONHandler(&log, nil)))}
	attempts := 0
	in := w.start(cfg, func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
		if attempts++; attempts == 1 {
			panic("at first")
		}
		return insert("inventory")(ctx, tx, e)
	})
	m := message("k", 1)
	w.publish(m)
	w.settled("inventory")
	require.NoError(t, in.end())

	lines := strings.Split(strings.TrimSpace(log.text()), "\n")
	require.Len(t, lines, 2)
	for i, want := range []struct{ level, msg string }{{"WARN", "inbox: attempt failed"}, {"INFO", "inbox: attempt succeeded"}} {
		var line map[string]any
		require.NoError(t, json.Unmarshal([]byte(lines[i]), &line))
		require.Equal(t, want.level, line["level"])
		require.Equal(t, want.msg, line["msg"])
		require.Equal(t, m.ID, line["id"])
		require.Equal(t, m.Source, line["source"])
		require.Equal(t, m.Type, line["type"])
		require.Equal(t, "k", line["key"])
		require.Contains(t, line["origin"], "memory orders/")
		require.EqualValues(t, i+1, line["attempt"])
		require.Positive(t, line["duration"])
		text, failed := line["error"]
		require.Equal(t, i == 0, failed)
		if failed {
			require.Contains(t, text, "panic: at first")
		}
	}
}

func TestTraceSurroundsEachAttempt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var parents []string
	var ends []error
	cfg := w.config("inventory")
	cfg.Middleware = []inbox.Middleware{inbox.Trace(func(ctx context.Context, a *inbox.Attempt) (context.Context, func(error)) {
		parents = append(parents, a.Headers["traceparent"])
		return context.WithValue(ctx, nameKey{}, "span"), func(err error) { ends = append(ends, err) }
	})}
	attempts := 0
	in := w.start(cfg, func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
		require.Equal(t, "span", ctx.Value(nameKey{}))
		require.Len(t, parents, len(ends)+1, "the span is open while the handler runs")
		if attempts++; attempts == 1 {
			panic(errBroken)
		}
		return insert("inventory")(ctx, tx, e)
	})
	m := message("k", 1)
	m.Headers = map[string]string{"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
	w.publish(m)
	w.settled("inventory")
	require.NoError(t, in.end())
	require.Equal(t, []string{m.Headers["traceparent"], m.Headers["traceparent"]}, parents)
	require.Len(t, ends, 2)
	require.ErrorIs(t, ends[0], errBroken)
	require.NoError(t, ends[1])
}

func TestMiddlewareMayDecide(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config("inventory")
	cfg.Middleware = []inbox.Middleware{func(next inbox.Handler) inbox.Handler {
		return func(ctx context.Context, a *inbox.Attempt) error {
			switch a.Key {
			case "skip":
				return nil
			case "refuse":
				return inbox.Permanent(errBroken)
			}
			return next(ctx, a)
		}
	}}
	in := w.start(cfg, insert("inventory"))
	w.publish(message("skip", 1), message("refuse", 2), message("k", 3))
	w.settled("inventory")
	require.NoError(t, in.end())
	require.Equal(t, inbox.Stats{Handled: 2, Failures: 1, DeadLettered: 1}, in.Stats())
	require.Equal(t, 1, w.effects())
	require.Equal(t, 3, w.claims())
	require.Equal(t, "permanent", w.dead()[0].Reason)
}

func TestMiddlewareGoesAroundRedrives(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config("inventory")
	w.bury(w.config("inventory"), message("k", 1))
	seen := make(chan int, 1)
	cfg.Middleware = []inbox.Middleware{func(next inbox.Handler) inbox.Handler {
		return func(ctx context.Context, a *inbox.Attempt) error {
			seen <- a.Number
			return errors.Join(a.Exec(ctx, `INSERT INTO effect (key) VALUES ('middleware')`), next(ctx, a))
		}
	}}
	in := w.redriving(cfg, insert("inventory"))
	w.redrive(inbox.DeadFilter{Consumer: "inventory"})
	eventually(t, "both effects", func() bool { return w.effects() == 2 })
	require.Equal(t, cfg.Attempts+1, <-seen, "it counts on")
	require.NoError(t, in.end())
}

// What a handler that was given up still has in its hands is of no use any more.
func TestAttemptOfAHandlerThatWasGivenUp(t *testing.T) {
	inBothForms(t, func(t *testing.T, w *world, start func(inbox.Config, body, ...inbox.Middleware) *running) {
		cfg := w.config("inventory")
		cfg.HandlerTimeout = 50 * time.Millisecond
		late, proceed := make(chan error, 1), make(chan struct{})
		in := start(cfg, func(context.Context, execFunc, inbox.Event[order]) error {
			<-proceed // whatever becomes of its context
			return nil
		}, func(next inbox.Handler) inbox.Handler {
			return func(ctx context.Context, a *inbox.Attempt) error {
				err := next(ctx, a)
				select {
				case late <- a.Exec(context.WithoutCancel(ctx), `INSERT INTO effect (key) VALUES ('late')`):
				default:
				}
				return err
			}
		})
		w.publish(message("k", 1))
		eventually(t, "it to be given up", func() bool { return in.Stats().Failures == 1 })
		close(proceed)
		require.Error(t, <-late)
		w.settled("inventory")
		require.NoError(t, in.end())
		require.Equal(t, 1, w.count(`SELECT count(*) FROM effect`), "of the second attempt")
	})
}

// A batch is one attempt. Middleware that needs the events to be of one tenant
// says so, and gets them one by one.
func TestMiddlewareGoesAroundBatches(t *testing.T) {
	inBatches(t, func(t *testing.T, w *world, start func(*batches, inbox.Config, ...inbox.Middleware) *running) {
		b := newBatches(w)
		var sizes []int // one worker
		cfg := w.config("inventory")
		cfg.Middleware = []inbox.Middleware{func(next inbox.Handler) inbox.Handler {
			return func(ctx context.Context, a *inbox.Attempt) error {
				if a.Key == "gate" {
					return next(ctx, a)
				}
				sizes = append(sizes, len(a.Batch))
				tenant := a.Headers["tenant"]
				for _, e := range a.Batch {
					if e.Headers["tenant"] != tenant {
						return errors.New("several tenants")
					}
				}
				if err := a.Exec(ctx, `INSERT INTO effect (key) VALUES ('tenant ' || $1::text)`, tenant); err != nil {
					return err
				}
				return next(ctx, a)
			}
		}}
		msgs := orders(4)
		msgs[3].Headers = map[string]string{"tenant": "b"}
		in := b.together(cfg, start, msgs...)
		w.settled("inventory")
		require.NoError(t, in.end())
		require.Equal(t, []int{4, 1, 1, 1, 1}, sizes)
		require.Equal(t, 4, w.count(`SELECT count(DISTINCT id) FROM effect`))
		require.Equal(t, 3, w.count(`SELECT count(*) FROM effect WHERE key = 'tenant a'`))
		require.Equal(t, 1, w.count(`SELECT count(*) FROM effect WHERE key = 'tenant b'`))
		require.EqualValues(t, 5, in.Stats().Handled, "with the gate")
		require.Empty(t, w.dead())
	})
}

func TestBadMiddlewareIsNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config("inventory")
	cfg.Middleware = []inbox.Middleware{inbox.Log(nil), nil}
	_, err := inbox.New(w.pool, cfg)
	require.ErrorContains(t, err, "inbox.Config.Middleware contains nil (leave it out)")

	for want, m := range map[string]inbox.Middleware{
		`inbox: handler of "shop.order.placed": middleware 2 of 2 is nil`:                 nil,
		`inbox: handler of "shop.order.placed": middleware 2 of 2 returned a nil Handler`: func(inbox.Handler) inbox.Handler { return nil },
	} {
		cfg := w.config("inventory")
		cfg.Middleware = []inbox.Middleware{inbox.Log(nil)}
		in, err := inbox.New(w.pool, cfg)
		require.NoError(t, err)
		inbox.On(in, placed, insert("inventory"), m)
		require.EqualError(t, in.Run(t.Context()), want)
	}
}
