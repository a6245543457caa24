package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/dedup"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
)

// joined counts the commits that begin another transaction in their round trip.
type joined struct {
	n      atomic.Int32
	before func(n int32, conn *pgx.Conn) // each is sent; nil: nothing
}

func (j *joined) TraceBatchStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	if data.Batch.QueuedQueries[0].SQL == "commit" {
		if n := j.n.Add(1); j.before != nil {
			j.before(n, conn)
		}
	}
	return ctx
}
func (*joined) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (*joined) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}
func (*joined) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}
func (*joined) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// followWorld is a world whose pool counts, and is changed further by change.
func followWorld(t *testing.T, j *joined, change func(*pgxpool.Config)) *world {
	t.Helper()
	w := newWorld(t)
	cfg := w.pool.Config()
	cfg.ConnConfig.Tracer = j
	if change != nil {
		change(cfg)
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	w.pool = pool
	return w
}

// publishMany publishes orders of as many keys.
func (w *world) publishMany(n int) {
	for i := range n {
		w.publish(message(fmt.Sprint("k", i), i))
	}
}

// startFollowing starts an inbox of one worker that keeps its connection, however
// slow the machine is.
func (w *world) startFollowing(cfg inbox.Config, handle func(context.Context, pgx.Tx, inbox.Event[order]) error) *running {
	w.t.Helper()
	cfg.Concurrency = 1
	in, err := inbox.New(w.pool, cfg)
	require.NoError(w.t, err)
	inbox.FollowFor(in, time.Hour)
	inbox.On(in, placed, handle)
	return run(w.t, in)
}

// requireEffects waits for the effects of events, each once, and nothing
// dead.
func (w *world) requireEffects(n int) {
	w.t.Helper()
	w.settled("inventory")
	require.Equal(w.t, n, w.effects())
	require.Equal(w.t, n, w.count(`SELECT count(DISTINCT id) FROM effect`))
	require.Empty(w.t, w.dead())
}

// A commit begins the next message's transaction in the same round trip.
func TestNextBeginsWithTheCommit(t *testing.T) {
	t.Parallel()
	const n = 60
	for name, tt := range map[string]struct {
		change func(*pgxpool.Config)
		handle func(context.Context, pgx.Tx, inbox.Event[order]) error
		follow time.Duration
		joined bool
	}{
		"two round trips a message": {handle: insert("inventory"), follow: time.Hour, joined: true},
		"with hooks of the service's, each transaction takes a connection from the pool": {
			change: func(cfg *pgxpool.Config) {
				cfg.PrepareConn = func(context.Context, *pgx.Conn) (bool, error) { return true, nil }
			},
			handle: insert("inventory"), follow: time.Hour,
		},
		"a slow handler's connection goes back to the pool each time": {
			handle: func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
				if _, err := tx.Exec(ctx, `SELECT pg_sleep(0.011)`); err != nil {
					return err
				}
				return insert("inventory")(ctx, tx, e)
			},
			follow: 10 * time.Millisecond,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := &joined{}
			w := followWorld(t, j, tt.change)
			w.publishMany(n)
			cfg := w.config("inventory")
			cfg.Concurrency = 1
			in, err := inbox.New(w.pool, cfg)
			require.NoError(t, err)
			inbox.FollowFor(in, tt.follow)
			inbox.On(in, placed, tt.handle)
			run(t, in)
			w.requireEffects(n)
			if tt.joined {
				require.Greater(t, j.n.Load(), int32(n/2), "all but where the worker was faster than the broker")
			} else {
				require.Zero(t, j.n.Load())
			}
		})
	}
}

// What goes wrong with a commit is its own message's, and what goes wrong with
// what begins after it is the next one's.
func TestNeighboursInARoundTripFailAlone(t *testing.T) {
	t.Parallel()
	j := &joined{}
	w := followWorld(t, j, nil)
	w.exec(`ALTER TABLE effect ADD CONSTRAINT late UNIQUE (n) DEFERRABLE INITIALLY DEFERRED`)
	w.exec(`INSERT INTO effect (id, n) SELECT 'before', n FROM generate_series(100, 109) n`)
	const good = 60
	for i := range good {
		w.publish(message(fmt.Sprint("k", i), i))
		if i%6 == 3 { // fails at its commit
			w.publish(message(fmt.Sprint("late", i), 100+i/6))
		}
		if i%6 == 0 { // fails when it has begun
			m := message(fmt.Sprint("garbled", i), 0)
			m.Payload = []byte("no JSON")
			w.publish(m)
		}
	}
	cfg := w.config("inventory")
	no := false
	cfg.Breaker = &no
	w.startFollowing(cfg, insert("inventory"))
	w.settled("inventory")
	require.Positive(t, j.n.Load())
	require.Equal(t, good, w.count(`SELECT count(*) FROM effect WHERE consumer = 'inventory'`))
	dead := w.count(`SELECT count(*) FROM inbox.dead WHERE state = 'dead' AND key LIKE 'late%' AND reason = 'attempts' AND attempts = 3 AND error LIKE '%late%'`)
	require.Equal(t, good/6, dead)
	dead = w.count(`SELECT count(*) FROM inbox.dead WHERE state = 'dead' AND key LIKE 'garbled%' AND reason = 'undecodable'`)
	require.Equal(t, good/6, dead)
	require.Equal(t, good/3, w.count(`SELECT count(*) FROM inbox.dead`))
}

// A claim that fails beside a commit is tried again, and the commit counts.
func TestAFailingClaimLeavesTheCommit(t *testing.T) {
	t.Parallel()
	j := &joined{}
	w := followWorld(t, j, nil)
	w.exec(`CREATE SEQUENCE claims`)
	w.exec(`CREATE FUNCTION seventh() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF nextval('claims') % 7 = 0 THEN RAISE 'the seventh claim'; END IF;
  RETURN NEW;
END $$`)
	w.exec(`CREATE TRIGGER seventh BEFORE INSERT ON inbox.seen FOR EACH ROW EXECUTE FUNCTION seventh()`)
	const n = 60
	w.publishMany(n)
	in := w.startFollowing(w.config("inventory"), insert("inventory"))
	w.requireEffects(n)
	require.Greater(t, j.n.Load(), int32(n/2))
	require.Greater(t, w.count(`SELECT last_value FROM claims`), n)
	require.EqualValues(t, n, in.Stats().Handled)
	require.Zero(t, in.Stats().Duplicates)
}

// A connection that breaks in such a round trip, before it has arrived or when
// its answer is under way, costs no effect and doubles none.
func TestConnectionBreaksBetweenTwoMessages(t *testing.T) {
	t.Parallel()
	for name, deaf := range map[string]bool{"before it has arrived": false, "when both have happened": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := &joined{before: func(n int32, conn *pgx.Conn) {
				if n%5 == 1 {
					conn.PgConn().Conn().(*brittle).breaks(deaf)
				}
			}}
			w := followWorld(t, j, func(cfg *pgxpool.Config) {
				dial := cfg.ConnConfig.DialFunc
				cfg.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
					conn, err := dial(ctx, network, addr)
					return &brittle{Conn: conn}, err
				}
			})
			const n = 60
			w.publishMany(n)
			in := w.startFollowing(w.config("inventory"), insert("inventory"))
			w.requireEffects(n)
			require.Positive(t, j.n.Load())
			if deaf {
				require.Positive(t, in.Stats().Duplicates, "committed unheard")
			}
		})
	}
}

// brittle is a connection that breaks.
type brittle struct {
	net.Conn

	deaf, broken atomic.Bool
}

var errBrittle = errors.New("broken by the test")

func (b *brittle) breaks(deaf bool) {
	if deaf {
		b.deaf.Store(true)
	} else {
		b.broken.Store(true)
	}
}

func (b *brittle) Write(p []byte) (int, error) {
	if b.broken.Load() {
		_ = b.Close()
		return 0, errBrittle
	}
	return b.Conn.Write(p)
}

// Read waits for the answer, and keeps it to itself.
func (b *brittle) Read(p []byte) (int, error) {
	n, err := b.Conn.Read(p)
	if err == nil && b.deaf.Load() {
		_ = b.Close()
		return 0, errBrittle
	}
	return n, err
}

// A transaction that a handler keeps, or what it got from it, is closed to it,
// whatever the connection does next.
func TestAKeptTransactionIsClosed(t *testing.T) {
	t.Parallel()
	for name, keep := range map[string]func(context.Context, pgx.Tx) (pgx.Tx, error){
		"itself":    func(_ context.Context, tx pgx.Tx) (pgx.Tx, error) { return tx, nil },
		"savepoint": func(ctx context.Context, tx pgx.Tx) (pgx.Tx, error) { return tx.Begin(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := &joined{}
			w := followWorld(t, j, nil)
			const n = 30
			w.publishMany(n)
			var kept pgx.Tx
			var open atomic.Int32
			w.startFollowing(w.config("inventory"), func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) (err error) {
				if kept != nil {
					if _, err := kept.Exec(ctx, `SELECT 1`); !errors.Is(err, pgx.ErrTxClosed) {
						open.Add(1)
					}
				}
				if err := insert("inventory")(ctx, tx, e); err != nil {
					return err
				}
				kept, err = keep(ctx, tx)
				return err
			})
			w.requireEffects(n)
			require.Zero(t, open.Load())
			require.Equal(t, name == "itself", j.n.Load() > 0)
		})
	}
}

// waitingWire is a wire format that has to ask somebody who does not answer in
// time, when there is a time.
type waitingWire struct{ waited atomic.Int32 }

func (*waitingWire) Seal(_ context.Context, _ string, _ event.Schema, data []byte) ([]byte, error) {
	return data, nil
}

func (f *waitingWire) Open(ctx context.Context, _ string, data []byte) (event.Schema, []byte, error) {
	if _, limited := ctx.Deadline(); limited {
		f.waited.Add(1)
		<-ctx.Done()
		return event.Schema{}, nil, ctx.Err()
	}
	return event.Schema{}, data, nil
}

// A schema that takes its time does not hold a connection.
func TestDecodingDoesNotHoldAConnection(t *testing.T) {
	t.Parallel()
	j := &joined{}
	w := followWorld(t, j, nil)
	const n = 20
	w.publishMany(n)
	cfg := w.config("inventory")
	wire := &waitingWire{}
	cfg.Wire = wire
	w.startFollowing(cfg, insert("inventory"))
	w.requireEffects(n)
	require.Equal(t, j.n.Load(), wire.waited.Load(), "each that followed waited, once")
	require.Positive(t, j.n.Load())
}

// A claim that always fails is met in a step of its own, whose error is told,
// however much else there is to do.
func TestAFailingClaimIsNotPassedOver(t *testing.T) {
	t.Parallel()
	j := &joined{}
	w := followWorld(t, j, nil)
	bad := message("bad", 0)
	w.exec(`CREATE TABLE bad (key uuid)`)
	w.exec(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF EXISTS (SELECT FROM bad WHERE key = NEW.event_key) THEN RAISE 'not this one'; END IF;
  RETURN NEW;
END $$`)
	w.exec(`CREATE TRIGGER refuse BEFORE INSERT ON inbox.seen FOR EACH ROW EXECUTE FUNCTION refuse()`)
	w.established("inventory")
	store, err := dedup.NewPostgres(t.Context(), w.pool, dedup.Config{Consumer: "inventory"})
	require.NoError(t, err)
	w.exec(`INSERT INTO bad VALUES ($1)`, store.UUID(dedup.Key{Source: source, ID: bad.ID}))
	const n = 200
	w.publish(message("x", 0), message("y", 0), bad)
	for i := range n {
		w.publish(message("x", 1+i), message("y", 1+i))
	}
	var log lines
	cfg := w.config("inventory")
	cfg.Logger = log.logger()
	w.startFollowing(cfg, insert("inventory"))
	eventually(t, "the error to be told", func() bool { return log.has("not this one") })
	require.Less(t, w.effects(), n, "not after all others")
	w.exec(`DELETE FROM bad`)
	w.requireEffects(2*n + 3)
}

// A claim that waits for somebody else's does not keep the effect waiting whose
// commit it came with.
func TestAWaitingClaimDoesNotHoldTheCommit(t *testing.T) {
	t.Parallel()
	j := &joined{}
	w := followWorld(t, j, nil)
	first, second := message("a", 1), message("b", 2)
	w.broker.CreateTopic("few", 1, 0) // one unit: in this order
	first.Topic, second.Topic = "few", "few"
	w.established("inventory")
	other, err := w.pool.Begin(t.Context())
	require.NoError(t, err)
	defer other.Rollback(context.WithoutCancel(t.Context())) //nolint:errcheck // the test's end
	store, err := dedup.NewPostgres(t.Context(), w.pool, dedup.Config{Consumer: "inventory", Schema: "inbox", WindowDays: 7})
	require.NoError(t, err)
	_, err = store.Claim(t.Context(), other, dedup.Key{Source: source, ID: second.ID})
	require.NoError(t, err)
	w.publish(first, second)
	cfg := w.config("inventory")
	cfg.From = w.broker.Subscriber("inventory", "few")
	in := w.startFollowing(cfg, insert("inventory"))
	eventually(t, "the second's claim to wait", func() bool {
		return w.count(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) == 1
	})
	require.Equal(t, 1, w.effects(first.ID), "committed")
	require.EqualValues(t, 1, j.n.Load())
	require.NoError(t, other.Rollback(t.Context()))
	eventually(t, "both effects", func() bool { return w.effects() == 2 })
	require.NoError(t, in.end())
}

// Nothing follows a message whose end takes a connection of its own: with as many
// workers as connections, each would hold one and wait for another.
func TestDoubtfulMessagesAreNotFollowed(t *testing.T) {
	t.Parallel()
	j := &joined{}
	w := followWorld(t, j, func(cfg *pgxpool.Config) { cfg.MaxConns = 1 })
	w.established("inventory")
	w.exec(`INSERT INTO inbox.run (consumer) SELECT id FROM inbox.consumer WHERE name = 'inventory'`) // one that died
	w.broker.CreateTopic("few", 1, 0)                                                                 // one unit: as many of its messages are doubtful as may be in flight
	const n, doubtful = 20, 4
	for i := range n {
		m := message(fmt.Sprint("k", i), i)
		m.Topic = "few"
		w.publish(m)
	}
	cfg := w.config("inventory")
	cfg.From = w.broker.Subscriber("inventory", "few")
	cfg.MaxInFlight = doubtful
	var late atomic.Int32
	w.startFollowing(cfg, func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
		if e.Data.N <= doubtful {
			late.Store(j.n.Load())
		}
		return insert("inventory")(ctx, tx, e)
	})
	eventually(t, "all effects", func() bool { return w.broker.Unacked("inventory", "few") == 0 })
	require.Equal(t, n, w.effects())
	require.Zero(t, late.Load(), "nothing follows a doubtful one")
	require.Positive(t, j.n.Load(), "the others are followed")
	require.Zero(t, w.begun(), "the end of each is on record")
}
