package relay

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
)

var why = ParkedAction{By: "tester", Reason: "test"}

// badUntil refuses payloads that begin with "bad" until it is mended.
func badUntil(mended *atomic.Bool) *recorder {
	return &recorder{answer: failing(func(m brokers.Message) error {
		if strings.HasPrefix(string(m.Payload), "bad") && !mended.Load() {
			return errBad
		}
		return nil
	})}
}

// A redriven event goes out, then what has queued behind it, then what comes.
func TestRedrive(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	var mended atomic.Bool
	p := badUntil(&mended)
	running(t, parkingRelay(t, db, config(p)))
	want := []string{"bad"}
	db.write(t, "k", "bad")
	for i := range 600 { // more than one turn takes
		want = append(want, fmt.Sprint(i))
		db.write(t, "k", fmt.Sprint(i))
	}
	eventually(t, func() bool { return scan[int](t, db.admin, `SELECT count(*) FROM outbox.parked`) == 601 }, "parked")

	// Not mended: dead again, and nothing has overtaken it.
	n, err := Redrive(t.Context(), db.relay, "", ParkedFilter{Key: "k"}, why)
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	eventually(t, func() bool {
		return scan[int](t, db.admin, `SELECT count(*) FROM outbox.parked WHERE state = 'dead' AND attempts = 1 AND action = 1`) == 1
	}, "dead again")
	require.Empty(t, p.payloads())
	list, err := Parked(t.Context(), db.relay, "", ParkedFilter{State: "dead"}, 0, 10)
	require.NoError(t, err)
	require.Equal(t, 2, list[0].Attempts, "attempts count on")
	o, err := RedriveOutcome(t.Context(), db.relay, "", 1)
	require.NoError(t, err)
	require.Equal(t, Outcome{Dead: 1}, o)

	mended.Store(true)
	n, err = Redrive(t.Context(), db.relay, "", ParkedFilter{Reason: "too large", Class: "rejected"}, why)
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	for i := 600; i < 700; i++ {
		want = append(want, fmt.Sprint(i))
		db.write(t, "k", fmt.Sprint(i))
	}
	eventually(t, func() bool { return len(p.messages()) == len(want) }, "all")
	require.Equal(t, want, p.payloads())
	require.Equal(t, "redrive tester test 1", scan[string](t, db.admin, `SELECT concat_ws(' ', action, actor, reason, events) FROM outbox.parked_action WHERE n = 2`))
	eventually(t, func() bool { return db.parkedStates(t) == "" }, "deleted")
	o, err = RedriveOutcome(t.Context(), db.relay, "", 2)
	require.NoError(t, err)
	require.Equal(t, Outcome{Redriven: 1}, o)
}

// parkedMany parks events of one key without a relay: the head is dead.
func (db *database) parkedMany(t *testing.T, events int) {
	t.Helper()
	db.exec(t, `INSERT INTO outbox.pipeline (name) VALUES ('test')`)
	db.exec(t, `INSERT INTO outbox.parked (pipeline, event_id, topic, destination, key, type, source, time, payload, state, blocks)
		SELECT 'test', outbox.uuid_v7(), 'orders', 'orders', 'k', 'placed', '/shop', now(), convert_to(g::text, 'UTF8'),
		CASE g WHEN 1 THEN 'dead' ELSE 'blocked' END, true FROM generate_series(1, $1) g`, events)
}

// What is to be discarded itself never has its turn because what was before it went
// first, in however many batches.
func TestDiscardBeginsWithTheLatest(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.parkedMany(t, redriveBatch+500)
	before := scan[time.Time](t, db.admin, `SELECT clock_timestamp()`)
	n, err := Discard(t.Context(), db.relay, "", ParkedFilter{Key: "k"}, why)
	require.NoError(t, err)
	require.EqualValues(t, redriveBatch+500, n)
	require.Zero(t, scan[int](t, db.admin, fmt.Sprintf(`SELECT count(*) FROM outbox.parked WHERE retry_since >= '%s'`, before.Format(time.RFC3339Nano))))
}

func TestExportAndRate(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.parkedMany(t, 2*exportPage+1)
	next := 1
	each := func(e ParkedEvent) error {
		if string(e.Payload) != fmt.Sprint(next) || e.Time.IsZero() {
			return fmt.Errorf("event %d is %q", next, e.Payload)
		}
		next++
		return nil
	}
	require.NoError(t, ExportParked(t.Context(), db.relay, "", ParkedFilter{Source: "/shop"}, each))
	require.Equal(t, 2*exportPage+2, next)
	require.ErrorContains(t, ExportParked(t.Context(), db.relay, "", ParkedFilter{}, each), `is "1"`)

	a := why
	a.Rate = 400
	var seen []int64
	a.Progress = func(p ParkedProgress) { seen = append(seen, p.Events) }
	began := time.Now()
	_, err := Discard(t.Context(), db.relay, "", ParkedFilter{}, a)
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Since(began), 700*time.Millisecond, "401 events, of which the first 100 are at once")
	require.Equal(t, []int64{100, 200, 300, 400, 401}, seen)
}

// A discarded event is gone for good, and its key goes on.
func TestDiscard(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	p := badUntil(new(atomic.Bool))
	running(t, parkingRelay(t, db, config(p)))
	for _, text := range []string{"bad 1", "2", "3", "bad 4", "5"} {
		db.write(t, "k", text)
	}
	eventually(t, func() bool { return db.parkedStates(t) == "bad 1 dead, 2 blocked, 3 blocked, bad 4 blocked, 5 blocked" }, "parked")
	list, err := Parked(t.Context(), db.relay, "", ParkedFilter{}, 0, 10)
	require.NoError(t, err)
	require.Len(t, list, 5)
	n, err := Discard(t.Context(), db.relay, "", ParkedFilter{N: list[2].N}, why) // from the middle
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	require.Empty(t, p.payloads())
	n, err = Discard(t.Context(), db.relay, "", ParkedFilter{State: "dead"}, why)
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	eventually(t, func() bool { return db.parkedStates(t) == "bad 1 discarded, 3 discarded, bad 4 dead, 5 blocked" }, "goes on")
	require.Equal(t, []string{"2"}, p.payloads())
	e, err := ShowParked(t.Context(), db.relay, "", list[0].N)
	require.NoError(t, err)
	require.Equal(t, []string{"discarded", "discard", "tester", "test", "bad 1"}, []string{e.State, e.Action, e.ActionBy, e.ActionReason, string(e.Payload)})
	_, err = Discard(t.Context(), db.relay, "", ParkedFilter{}, why)
	require.NoError(t, err)
	db.write(t, "k", "6")
	eventually(t, func() bool { return len(p.messages()) == 2 }, "free again")
	require.Equal(t, []string{"2", "6"}, p.payloads())
}

func TestParkedFilters(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	p := badUntil(new(atomic.Bool))
	stop := running(t, parkingRelay(t, db, config(p)))
	db.writeIn(t, "one", "a", "bad a")
	db.writeIn(t, "two", "b", "bad b")
	db.writeIn(t, "two", "b", "behind b")
	eventually(t, func() bool { return scan[int](t, db.admin, `SELECT count(*) FROM outbox.parked`) == 3 }, "parked")
	require.NoError(t, stop())
	for name, c := range map[string]struct {
		f    ParkedFilter
		want string
	}{
		"all":         {ParkedFilter{}, "bad a, bad b, behind b"},
		"topic":       {ParkedFilter{Topic: "two"}, "bad b, behind b"},
		"key":         {ParkedFilter{Key: "a"}, "bad a"},
		"type":        {ParkedFilter{Type: "none"}, ""},
		"pipeline":    {ParkedFilter{Pipeline: "test", State: "blocked"}, "behind b"},
		"no pipeline": {ParkedFilter{Pipeline: "other"}, ""},
		"reason":      {ParkedFilter{Reason: "too large"}, "bad a, bad b"},
		"since":       {ParkedFilter{Since: time.Now().Add(time.Hour)}, ""},
		"until":       {ParkedFilter{Until: time.Now().Add(time.Hour), Class: "rejected"}, "bad a, bad b"},
	} {
		list, err := Parked(t.Context(), db.relay, "", c.f, 0, 10)
		require.NoError(t, err, name)
		var got []string
		for _, e := range list {
			e, err := ShowParked(t.Context(), db.relay, "", e.N)
			require.NoError(t, err)
			got = append(got, string(e.Payload))
		}
		require.Equal(t, c.want, strings.Join(got, ", "), name)
	}
	n, err := Discard(t.Context(), db.relay, "", ParkedFilter{Topic: "two"}, ParkedAction{DryRun: true})
	require.NoError(t, err)
	require.EqualValues(t, 2, n)
	require.Equal(t, 3, scan[int](t, db.admin, `SELECT count(*) FROM outbox.parked WHERE state <> 'discarded'`), "a dry run changes nothing")
	var bad *event.FieldError
	_, err = Redrive(t.Context(), db.relay, "", ParkedFilter{}, ParkedAction{By: "x"})
	require.ErrorAs(t, err, &bad)
	require.Equal(t, "ParkedAction.Reason", bad.Field)
	_, err = Parked(t.Context(), db.relay, "", ParkedFilter{State: "lost"}, 0, 1)
	require.ErrorAs(t, err, &bad)
	_, err = ShowParked(t.Context(), db.relay, "", 999)
	require.ErrorIs(t, err, ErrNotParked)
}

// Redriven from another process all the time while faults come and go and writers
// write: every key stays in order.
func TestRedriveWhileRelaysRun(t *testing.T) {
	t.Parallel()
	require.Empty(t, redriven(t, newDatabase(t), func(*Relay) {}))
}

// Negative control: heads of lanes that are published without their order.
func TestRedriveNoticesWrongOrder(t *testing.T) {
	t.Parallel()
	require.NotEmpty(t, redriven(t, newDatabase(t), func(r *Relay) {
		r.q.claimQueue = strings.ReplaceAll(r.q.claimQueue, "ORDER BY p.n LIMIT", "ORDER BY p.n DESC LIMIT")
		r.q.claimQueue = strings.ReplaceAll(r.q.claimQueue, "ORDER BY f.n", "ORDER BY f.n DESC")
		r.q.claimQueue = strings.ReplaceAll(r.q.claimQueue, "ORDER BY c.n", "ORDER BY c.n DESC")
	}))
}

func redriven(t *testing.T, db *database, tune func(*Relay)) []string {
	rnd := rand.New(rand.NewPCG(seed(t), 3))
	var mu sync.Mutex
	var h history
	var healed atomic.Bool
	p := &recorder{answer: failing(func(m brokers.Message) error {
		mu.Lock()
		dice := rnd.IntN(100)
		mu.Unlock()
		switch {
		case healed.Load() || dice >= 10:
			h.add([]brokers.Message{m})
			return nil
		case dice < 5:
			return errTopic
		default:
			return errBad
		}
	})}
	for range 2 { // sharing the keys
		r := parkingRelay(t, db, config(p))
		tune(r)
		running(t, r)
	}
	want := map[string]int{}
	for i := range 1200 {
		key := fmt.Sprint("key", i%8)
		want[key]++
		db.write(t, key, fmt.Sprint(want[key]))
		if i%40 == 0 {
			_, err := Redrive(t.Context(), db.admin, "", ParkedFilter{}, why)
			require.NoError(t, err)
		}
	}
	healed.Store(true)
	for deadline := time.Now().Add(patience); h.missing(want) > 0 && time.Now().Before(deadline); {
		_, err := Redrive(t.Context(), db.admin, "", ParkedFilter{}, why)
		require.NoError(t, err)
		<-time.After(50 * time.Millisecond)
	}
	return h.violations(want, false)
}

// Discarded events are kept for the retention.
func TestDiscardedEventsAreDeletedInTheEnd(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	p := badUntil(new(atomic.Bool))
	stop := running(t, parkingRelay(t, db, config(p)))
	db.write(t, "k", "bad old")
	db.write(t, "l", "bad young")
	eventually(t, func() bool { return scan[int](t, db.admin, `SELECT count(*) FROM outbox.parked`) == 2 }, "parked")
	require.NoError(t, stop())
	for _, key := range []string{"k", "l"} {
		_, err := Discard(t.Context(), db.relay, "", ParkedFilter{Key: key}, why)
		require.NoError(t, err)
	}
	db.exec(t, `UPDATE outbox.parked_action SET at = at - interval '80 hours' WHERE n = 1`)
	running(t, parkingRelay(t, db, config(p)))
	eventually(t, func() bool { return db.parkedStates(t) == "bad young discarded" }, "deleted")
}
