package relay

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
)

// Many parked events, of as many keys, do not slow the rest: the same drain from a
// database without and one with them, alternating. OUTBOXKIT_PARKED says how many;
// a million take a minute to make.
func TestParkedEventsDoNotSlowTheRest(t *testing.T) {
	parked := 20_000
	if text := os.Getenv("OUTBOXKIT_PARKED"); text != "" {
		var err error
		parked, err = strconv.Atoi(text)
		require.NoError(t, err, "OUTBOXKIT_PARKED")
	}
	const events, rounds = 60_000, 3
	var heap uint64 // most, of the session that knows the parked keys
	drain := func(db *database) time.Duration {
		var n atomic.Int64
		p := &recorder{answer: func(_ context.Context, _ int, msgs []brokers.Message) []error {
			n.Add(int64(len(msgs)))
			return make([]error, len(msgs))
		}}
		r := newRelay(t, db.relay, config(p))
		stop := running(t, r)
		eventually(t, r.caughtUp, "caught up")
		eventually(t, func() bool { any, loaded := r.engines[0].session().parking.known(); return !any || loaded }, "keys loaded")
		db.exec(t, `INSERT INTO outbox.event (topic, key, type, source, payload)
SELECT 't', 'new' || g % 5000, 'test', '/test', convert_to(repeat('x', 300), 'UTF8') FROM generate_series(1, $1::int) g`, events)
		began := time.Now()
		for n.Load() < events && time.Since(began) < patience {
			<-time.After(time.Millisecond)
		}
		took := time.Since(began)
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		heap = max(heap, m.HeapAlloc)
		require.EqualValues(t, events, n.Load())
		require.NoError(t, stop())
		return took
	}
	free, full := newDatabase(t), newDatabase(t)
	drain(free) // warm, and the pipeline is registered
	drain(full)
	full.exec(t, `INSERT INTO outbox.parked (pipeline, event_id, topic, destination, key, type, source, time, payload, state, blocks, next_attempt_at)
SELECT 'test', outbox.uuid_v7(), 't', 't', 'parked' || g, 'test', '/test', now(), 'x',
  CASE WHEN g % 10 = 0 THEN 'retrying' ELSE 'dead' END, true, clock_timestamp() + interval '9 minutes' FROM generate_series(1, $1::int) g`, parked)
	full.exec(t, `VACUUM ANALYZE outbox.parked`)
	var without, with []time.Duration
	for range rounds {
		without, with = append(without, drain(free)), append(with, drain(full))
	}
	slices.Sort(without)
	slices.Sort(with)
	ratio := float64(with[rounds/2]) / float64(without[rounds/2])
	t.Logf("%d events, %d parked: median ratio %.2f, without %v, with %v", events, parked, ratio, without, with)
	require.Less(t, ratio, 2.0)
	t.Logf("heap after a drain at most %d MiB", heap>>20)
	require.Less(t, heap, uint64(150<<20))

	// What operators ask stays quick.
	last := ParkedFilter{Key: fmt.Sprint("parked", parked)}
	for what, ask := range map[string]func() error{
		"status": func() error { _, err := ReadStatus(t.Context(), full.relay, ""); return err },
		"list":   func() error { _, err := Parked(t.Context(), full.relay, "", ParkedFilter{}, 0, 100); return err },
		"list of dead": func() error {
			_, err := Parked(t.Context(), full.relay, "", ParkedFilter{State: stateDead}, 0, 100)
			return err
		},
		"list of a key": func() error {
			list, err := Parked(t.Context(), full.relay, "", last, 0, 100)
			require.Len(t, list, 1)
			return err
		},
		"redrive of a key": func() error { _, err := Redrive(t.Context(), full.relay, "", last, why); return err },
	} {
		began := time.Now()
		require.NoError(t, ask(), what)
		t.Logf("%s: %v", what, time.Since(began))
		require.Less(t, time.Since(began), 5*time.Second, what)
	}
}

// More keys than there is room for in memory: every key is looked up.
func TestMoreParkedKeysThanMemory(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	var mended atomic.Bool
	p := badUntil(&mended)
	start := func() (*Relay, func() error) {
		r := parkingRelay(t, db, config(p))
		r.tune.park.keys = 3
		return r, running(t, r)
	}
	r, stop := start()
	for i := range 10 {
		db.write(t, fmt.Sprint("k", i), "bad")
	}
	eventually(t, func() bool { return scan[int](t, db.admin, `SELECT count(*) FROM outbox.parked`) == 10 && r.caughtUp() }, "parked")
	for range 2 { // as parked by this session, and as loaded by the next
		db.write(t, "k9", "behind")
		db.write(t, "free", "free")
		eventually(t, func() bool { return r.caughtUp() }, "caught up")
		require.NoError(t, stop())
		r, stop = start()
	}
	eventually(t, func() bool { return len(p.messages()) == 2 && r.caughtUp() }, "the free key")
	require.Equal(t, 12, scan[int](t, db.admin, `SELECT count(*) FROM outbox.parked`))
}

// Processes that fail, park, retry and share are killed at random moments: nothing
// is lost, and first publications are in order.
func TestSIGKILLWhileParking(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	file := filepath.Join(t.TempDir(), "published")
	rnd := rand.New(rand.NewPCG(seed(t), 5))
	want := map[string]int{}
	kills := 0
	written := make(chan struct{})
	go func() {
		defer close(written)
		for i := range 1500 {
			key := fmt.Sprint("flaky", i%10)
			want[key]++
			db.write(t, key, fmt.Sprint(want[key]))
			<-time.After(3 * time.Millisecond)
		}
	}()
	for writing := true; writing; kills++ {
		a, b := startChild(t, db, file), startChild(t, db, file)
		select {
		case <-written:
			writing = false
		case <-time.After(200*time.Millisecond + time.Duration(rnd.Int64N(int64(time.Second)))):
		}
		for _, c := range []*child{a, b} {
			c.signal(t, syscall.SIGKILL)
			_ = c.cmd.Wait()
		}
		db.exec(t, `DELETE FROM outbox.instance`)
	}
	c := startChild(t, db, file)
	eventually(t, func() bool { return readFile(t, file).missing(want) == 0 }, "all published")
	// All may have been published before c was: it must have joined to hear SIGTERM.
	eventually(t, func() bool { return scan[int64](t, db.admin, `SELECT count(*) FROM outbox.instance`) > 0 }, "joined")
	c.signal(t, syscall.SIGTERM)
	require.NoError(t, c.cmd.Wait(), c.out.String())
	require.Empty(t, readFile(t, file).violations(want, false))
	ever := scan[int64](t, db.admin, `SELECT last_value FROM outbox.parked_n_seq`)
	require.Greater(t, ever, int64(100), "events were parked")
	t.Logf("%d kills, %d events parked", 2*kills, ever)
}

// flakyBroker fails a tenth of the messages of keys that begin with flaky, as a bad
// destination would.
type flakyBroker struct{ brokers.Publisher }

func (b flakyBroker) Publish(ctx context.Context, msgs []brokers.Message) []error {
	results := failing(func(m brokers.Message) error {
		if strings.HasPrefix(m.Key, "flaky") && rand.IntN(10) == 0 {
			return errTopic
		}
		return nil
	})(ctx, 0, msgs)
	var good []brokers.Message
	for i, err := range results {
		if err == nil {
			good = append(good, msgs[i])
		}
	}
	sent := b.Publisher.Publish(ctx, good)
	for i, err := range results {
		if err == nil {
			results[i], sent = sent[0], sent[1:]
		}
	}
	return results
}
