package relay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/internal/pgtest"
)

var (
	errBad   = &brokers.Error{Class: brokers.ClassRejected, Err: errors.New("too large")}
	errTopic = &brokers.Error{Class: brokers.ClassDestination, Topic: "t", Err: errors.New("no such topic")}
)

// failing is a publisher's answer that asks verdict for each message and keeps the
// contract: what comes after a failed event of its key is held.
func failing(verdict func(m brokers.Message) error) func(context.Context, int, []brokers.Message) []error {
	return func(_ context.Context, _ int, msgs []brokers.Message) []error {
		results := make([]error, len(msgs))
		held := map[lane]bool{}
		for i, m := range msgs {
			if l := laneOf(&m); held[l] {
				results[i] = brokers.ErrHeld
			} else if results[i] = verdict(m); results[i] != nil && m.Key != "" {
				held[l] = true
			}
		}
		return results
	}
}

// parkingRelay retries parked events at test speed.
func parkingRelay(t testing.TB, db *database, cfg Config) *Relay {
	r := newRelay(t, db.relay, cfg)
	r.tune.park.every = 10 * time.Millisecond
	r.tune.park.base, r.tune.park.max = 10*time.Millisecond, 40*time.Millisecond
	return r
}

// parkedStates lists "payload state" in parking order.
func (db *database) parkedStates(t testing.TB) string {
	return scan[string](t, db.admin, `SELECT coalesce(string_agg(convert_from(payload, 'UTF8') || ' ' || state, ', ' ORDER BY n), '') FROM outbox.parked`)
}

func (db *database) writeIn(t testing.TB, topic, key, payload string) {
	t.Helper()
	_, err := db.writer.Exec(t.Context(), `INSERT INTO outbox.event (topic, key, type, source, payload) VALUES ($1, $2, 'test', '/test', convert_to($3, 'UTF8'))`, topic, key, payload)
	require.NoError(t, err)
}

// Event bad: parked as dead at once; its key queues behind it, all else goes on,
// and so does the position.
func TestBadEventStopsOnlyItsKey(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	p := &recorder{answer: failing(func(m brokers.Message) error {
		if strings.HasPrefix(string(m.Payload), "bad") {
			return errBad
		}
		return nil
	})}
	r := parkingRelay(t, db, config(p))
	stop := running(t, r)
	for _, e := range [][2]string{{"a", "a1"}, {"a", "bad"}, {"a", "a2"}, {"b", "b1"}, {"", "bad too"}, {"", "u1"}} {
		db.write(t, e[0], e[1])
	}
	eventually(t, func() bool { return db.parkedStates(t) == "bad dead, a2 blocked, bad too dead" }, "parked")
	db.writeIn(t, "other", "a", "other topic, same key")
	db.write(t, "a", "a3")
	db.write(t, "b", "b2")
	eventually(t, func() bool { return len(p.messages()) == 5 && r.caughtUp() }, "the others")
	require.ElementsMatch(t, []string{"a1", "b1", "u1", "b2", "other topic, same key"}, p.payloads())
	require.NoError(t, stop())

	// A new session knows the parked keys.
	p2 := &recorder{}
	r = parkingRelay(t, db, config(p2))
	running(t, r)
	db.write(t, "a", "a4")
	db.write(t, "b", "b3")
	eventually(t, func() bool { return len(p2.messages()) == 1 && r.caughtUp() }, "after restart")
	require.Equal(t, []string{"b3"}, p2.payloads())
	require.Equal(t, "bad dead, a2 blocked, bad too dead, a3 blocked, a4 blocked", db.parkedStates(t))
}

func TestBlockKeyFalseLetsLaterEventsPass(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	p := &recorder{answer: failing(func(m brokers.Message) error {
		if string(m.Payload) == "bad" {
			return errBad
		}
		return nil
	})}
	cfg := config(p)
	cfg.Pipelines[0].BlockKey = new(false)
	running(t, parkingRelay(t, db, cfg))
	for _, text := range []string{"1", "bad", "2", "3"} {
		db.write(t, "k", text)
	}
	eventually(t, func() bool { return len(p.messages()) == 3 }, "passed")
	require.Equal(t, []string{"1", "2", "3"}, p.payloads())
	eventually(t, func() bool { return db.parkedStates(t) == "bad dead" }, "parked")
}

// Destination bad: its events park after the topic's attempts and other topics go
// on; when it is mended they go out in order, with what was written meanwhile
// behind them.
func TestBadTopicStopsOnlyItself(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	var mended atomic.Bool
	var calls atomic.Int64
	p := &recorder{answer: failing(func(m brokers.Message) error {
		if m.Topic != "bad" {
			return nil
		}
		if calls.Add(1); !mended.Load() {
			return errTopic
		}
		return nil
	})}
	r := parkingRelay(t, db, config(p))
	running(t, r)
	for i := range 40 {
		db.writeIn(t, "bad", fmt.Sprint("k", i%4), fmt.Sprint(i))
		db.writeIn(t, "good", fmt.Sprint("k", i%4), "good")
	}
	eventually(t, func() bool { return len(p.messages()) == 40 && r.caughtUp() }, "the good topic")
	require.Equal(t, 40, scan[int](t, db.admin, `SELECT count(*) FROM outbox.parked`))
	require.Equal(t, 4, scan[int](t, db.admin, `SELECT count(*) FROM outbox.parked WHERE state = 'retrying'`))
	before := calls.Load()
	pgtest.Never(t, func() bool { return calls.Load() > before+40 }, 300*time.Millisecond, tick, "single probes")
	mended.Store(true)
	for i := 40; i < 48; i++ {
		db.writeIn(t, "bad", fmt.Sprint("k", i%4), fmt.Sprint(i))
	}
	eventually(t, func() bool { return len(p.messages()) == 88 }, "all: %s", db.parkedStates(t))
	next := map[string]int{}
	for _, m := range p.messages() {
		if m.Topic != "bad" {
			continue
		}
		want := fmt.Sprint(next[m.Key]*4 + int(m.Key[1]-'0'))
		require.Equal(t, want, string(m.Payload), m.Key)
		next[m.Key]++
	}
	eventually(t, func() bool { return db.parkedStates(t) == "" }, "nothing parked")
	eventually(t, func() bool { any, _ := r.engines[0].session().parking.known(); return !any }, "forgotten")
	require.EqualValues(t, 88, r.Stats().Pipelines[0].Published)
}

// After the policy's attempts a parked event is dead.
func TestRetriesEndAsDead(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	p := &recorder{answer: failing(func(m brokers.Message) error {
		if m.Key == "" {
			return nil
		}
		return errTopic
	})}
	r := parkingRelay(t, db, config(p))
	r.tune.park.attempts = 6
	running(t, r)
	db.write(t, "k", "1")
	db.write(t, "k", "2")
	eventually(t, func() bool { return db.parkedStates(t) == "1 dead, 2 blocked" }, "dead")
	require.Equal(t, 6, scan[int](t, db.admin, `SELECT attempts FROM outbox.parked WHERE state = 'dead'`))
	require.Contains(t, scan[string](t, db.admin, `SELECT class || ' ' || reason FROM outbox.parked WHERE state = 'dead'`), "destination")
}

// Parking without the position would park twice, the position without parking
// would lose: each is made to fail, and neither may be there alone.
func TestParkingAndPositionAreOneTransaction(t *testing.T) {
	t.Parallel()
	for _, table := range []string{"parked", "position"} {
		t.Run(table, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			p := &recorder{answer: failing(func(m brokers.Message) error {
				if string(m.Payload) == "bad" {
					return errBad
				}
				return nil
			})}
			r := parkingRelay(t, db, config(p))
			r.tune.flushEvery = time.Hour
			running(t, r)
			eventually(t, r.caughtUp, "caught up")
			first := r.engines[0].session()
			db.exec(t, `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$`)
			db.exec(t, `CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON outbox.`+table+` DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()`)
			rows := scan[int](t, db.admin, `SELECT count(*) FROM outbox.position`)
			db.write(t, "k", "bad")
			db.write(t, "k", "2")
			eventually(t, func() bool { return r.engines[0].session() != first }, "session given up")
			require.Empty(t, db.parkedStates(t))
			require.Equal(t, rows, scan[int](t, db.admin, `SELECT count(*) FROM outbox.position`))
			db.exec(t, `DROP TRIGGER refuse ON outbox.`+table)
			eventually(t, func() bool { return db.parkedStates(t) == "bad dead, 2 blocked" }, "parked: %s", db.parkedStates(t))
			require.Empty(t, p.payloads())
		})
	}
}

// Somebody else has the lease: nothing is parked, and nothing parked is resolved.
func TestParkingIsFenced(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	p := &recorder{}
	p.answer = failing(func(m brokers.Message) error {
		once.Do(func() {
			close(entered)
			<-release
		})
		return errBad
	})
	r := parkingRelay(t, db, config(p))
	running(t, r)
	eventually(t, r.caughtUp, "caught up")
	db.write(t, "k", "bad")
	<-entered
	first := r.engines[0].session()
	db.exec(t, `UPDATE outbox.lease SET owner = 'other', epoch = epoch + 1`)
	db.exec(t, `INSERT INTO outbox.instance (name, expires_at) VALUES ('other', clock_timestamp() + interval '1 hour')`)
	close(release)
	eventually(t, func() bool { stay, _ := first.progress.held(); return stay == 0 }, "shards lost")
	require.Empty(t, db.parkedStates(t))
	require.ErrorIs(t, first.fence(t.Context(), mustBegin(t, db), []int16{0}, []int64{1}), errLeaseLost)
}

// Faults of every kind at random, restarts in between: nothing lost, and first
// publications in order, through the log and through parking.
func TestOrderThroughParking(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	list := throughParking(t, db, func(*Relay) {})
	require.Empty(t, list)
}

func throughParking(t *testing.T, db *database, tune func(*Relay)) []string {
	rnd := rand.New(rand.NewPCG(seed(t), 7))
	var mu sync.Mutex
	var h history
	var healed atomic.Bool
	answer := failing(func(m brokers.Message) error {
		mu.Lock()
		dice := rnd.IntN(100)
		mu.Unlock()
		switch {
		case healed.Load() || dice >= 25:
			h.add([]brokers.Message{m})
			return nil
		case dice < 5:
			return errAway
		default:
			return errTopic
		}
	})
	const keys, each = 9, 120
	want := map[string]int{}
	start := func(rows int) func() error {
		r := parkingRelay(t, db, config(&recorder{answer: answer}))
		r.tune.pageRows = rows
		r.tune.park.attempts = 1000
		r.tune.park.topicTrip = 2
		tune(r)
		return running(t, r)
	}
	stop := start(5)
	for i := range keys * each {
		key := fmt.Sprint("key", i%keys)
		want[key]++
		db.write(t, key, fmt.Sprint(want[key]))
		if i%250 == 249 {
			require.NoError(t, stop())
			stop = start(5 + i/20)
		}
	}
	healed.Store(true)
	deadline := time.Now().Add(patience)
	for h.missing(want) > 0 && time.Now().Before(deadline) {
		<-time.After(20 * time.Millisecond)
	}
	require.NoError(t, stop())
	return h.violations(want, false)
}

// Negative control: without looking up parked keys later events overtake.
func TestOrderThroughParkingNoticesForgottenKeys(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	list := throughParking(t, db, func(r *Relay) {
		r.q.lanesWith = strings.Replace(r.q.lanesWith, "WHERE EXISTS", "WHERE $1 = '' AND EXISTS", 1)
	})
	require.NotEmpty(t, list)
}

func mustBegin(t *testing.T, db *database) pgx.Tx {
	t.Helper()
	tx, err := db.relay.Begin(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	return tx
}

// What is parked under a mapped topic is retried there, and dead when it has been
// for too long.
func TestRetriesEndByAge(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	cfg := config(&recorder{answer: failing(func(m brokers.Message) error {
		if m.Topic != "mapped.t" {
			return errBad
		}
		return errTopic
	})})
	cfg.Pipelines[0].Topic = func(topic string) string { return "mapped." + topic }
	r := parkingRelay(t, db, cfg)
	r.tune.park.attempts, r.tune.park.age = 1_000_000, 300*time.Millisecond
	running(t, r)
	db.write(t, "k", "1")
	db.write(t, "k", "2")
	eventually(t, func() bool { return db.parkedStates(t) == "1 dead, 2 blocked" }, "dead: %s", db.parkedStates(t))
	list, err := Parked(t.Context(), db.relay, "", ParkedFilter{State: stateDead}, 0, 10)
	require.NoError(t, err)
	require.Equal(t, []string{"t", "mapped.t", "destination"}, []string{list[0].Topic, list[0].Destination, list[0].Class})
}

// An event whose topic stays shut has no attempts of its own: its age counts too.
func TestEventsOfAShutTopicDieByAge(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := parkingRelay(t, db, config(&recorder{answer: failing(func(brokers.Message) error { return errTopic })}))
	r.tune.park.attempts = 1_000_000
	running(t, r)
	db.write(t, "k", "1")
	db.write(t, "l", "2")
	eventually(t, func() bool { return db.parkedStates(t) == "1 retrying, 2 retrying" }, "parked")
	topic := r.engines[0].session().parking.topics.get("t")
	topic.mu.Lock()
	topic.state, topic.until = circuitOpen, time.Now().Add(time.Hour)
	topic.mu.Unlock()
	db.exec(t, `UPDATE outbox.parked SET retry_since = now() - interval '25 hours', next_attempt_at = now() - interval '25 hours'
WHERE convert_from(payload, 'UTF8') = '2'`)
	eventually(t, func() bool { return db.parkedStates(t) == "1 retrying, 2 dead" }, "dead: %s", db.parkedStates(t))
}
