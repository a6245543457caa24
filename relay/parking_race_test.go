package relay

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
)

// held is a publisher that refuses events until it is mended; after that each call
// waits for its answer.
type held struct {
	recorder

	mended  atomic.Bool
	entered chan struct{}
	release chan error // the answer, for each event of the call
}

func newHeld() *held {
	p := &held{entered: make(chan struct{}, 100), release: make(chan error)}
	p.answer = func(ctx context.Context, _ int, msgs []brokers.Message) []error {
		var answer error = errBad
		if p.mended.Load() {
			p.entered <- struct{}{}
			select {
			case answer = <-p.release:
			case <-ctx.Done():
				answer = ctx.Err()
			}
		}
		return slices.Repeat([]error{answer}, len(msgs))
	}
	return p
}

// parkedOne has a relay park the event "1" of the key k, and returns its number.
func parkedOne(t testing.TB, db *database, p *held) int64 {
	t.Helper()
	cfg := config(p)
	cfg.DrainTimeout = 50 * time.Millisecond
	running(t, parkingRelay(t, db, cfg))
	db.write(t, "k", "1")
	eventually(t, func() bool { return db.parkedStates(t) == "1 dead" }, "parked")
	return scan[int64](t, db.admin, `SELECT n FROM outbox.parked`)
}

// An event that is being published cannot be discarded; it can when that failed,
// and is not published any more then.
func TestDiscardDuringPublication(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	p := newHeld()
	n := parkedOne(t, db, p)
	db.write(t, "other", "2")
	eventually(t, func() bool { return db.parkedStates(t) == "1 dead, 2 dead" }, "parked")
	p.mended.Store(true)
	redriveOnly := func() {
		_, err := Redrive(t.Context(), db.relay, "", ParkedFilter{N: n}, why)
		require.NoError(t, err)
		<-p.entered
	}
	redriveOnly()
	e, err := ShowParked(t.Context(), db.relay, "", n)
	require.NoError(t, err)
	require.True(t, e.MayBeOut)
	done, err := Discard(t.Context(), db.relay, "", ParkedFilter{}, why)
	require.ErrorIs(t, err, ErrBeingPublished)
	require.ErrorContains(t, err, "1 more events match")
	require.EqualValues(t, 1, done, "the other one")
	require.Equal(t, "1 retrying, 2 discarded", db.parkedStates(t))

	p.release <- errBad
	eventually(t, func() bool { return db.parkedStates(t) == "1 dead, 2 discarded" }, "dead again")
	require.False(t, scan[bool](t, db.admin, `SELECT unanswered OR claim IS NOT NULL FROM outbox.parked WHERE n = $1`, n))
	redriveOnly()
	p.release <- nil
	eventually(t, func() bool { return db.parkedStates(t) == "2 discarded" }, "published")
	done, err = Discard(t.Context(), db.relay, "", ParkedFilter{N: n}, why)
	require.NoError(t, err)
	require.Zero(t, done)
	require.Equal(t, []string{"1"}, p.payloads())
}

// A relay that dies while it publishes keeps nobody from discarding for longer than
// its lease, and the event says that it may be out.
func TestDiscardAfterAClaimantsDeath(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	p := newHeld()
	n := parkedOne(t, db, p)
	p.mended.Store(true)
	_, err := Redrive(t.Context(), db.relay, "", ParkedFilter{N: n}, why)
	require.NoError(t, err)
	<-p.entered
	_, err = Discard(t.Context(), db.relay, "", ParkedFilter{N: n}, why)
	require.ErrorIs(t, err, ErrBeingPublished)
	db.exec(t, `UPDATE outbox.instance SET expires_at = clock_timestamp()`) // as far as others can see
	done, err := Discard(t.Context(), db.relay, "", ParkedFilter{N: n}, why)
	require.NoError(t, err)
	require.EqualValues(t, 1, done)
	e, err := ShowParked(t.Context(), db.relay, "", n)
	require.NoError(t, err)
	require.Equal(t, "discarded", e.State)
	require.True(t, e.MayBeOut)
}

// An attempt that began before a redrive does not count after it: the event is
// tried again.
func TestRedriveDuringPublication(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	p := newHeld()
	n := parkedOne(t, db, p)
	p.mended.Store(true)
	redrive := func() {
		done, err := Redrive(t.Context(), db.relay, "", ParkedFilter{N: n}, why)
		require.NoError(t, err)
		require.EqualValues(t, 1, done)
	}
	redrive()
	<-p.entered
	redrive()
	p.release <- errBad
	<-p.entered // again, although nobody has redriven it since
	p.release <- nil
	eventually(t, func() bool { return db.parkedStates(t) == "" }, "published")
	require.Equal(t, []string{"1"}, p.payloads())
}

// Discarded and redriven all the time while two relays publish: as many events are
// published and discarded as were written, so that none is both and none neither.
func TestDiscardRacesWithPublication(t *testing.T) {
	t.Parallel()
	require.Equal(t, raceEvents, discardRace(t, func(*Relay) {}))
}

// Negative control: claims that nobody can see.
func TestDiscardRaceNoticesMissingClaims(t *testing.T) {
	t.Parallel()
	require.Greater(t, discardRace(t, func(r *Relay) {
		for _, q := range []*string{&r.q.claimHeads, &r.q.claimQueue} {
			*q = strings.Replace(*q, "SET claim = l.epoch", "SET claim = -l.epoch", 1)
		}
	}), raceEvents)
}

const raceEvents = 600

func discardRace(t *testing.T, tune func(*Relay)) int {
	db := newDatabase(t)
	rnd := rand.New(rand.NewPCG(seed(t), 11))
	var mu sync.Mutex
	roll := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return rnd.IntN(n)
	}
	answer := failing(func(m brokers.Message) error {
		if roll(3) == 0 {
			return errBad
		}
		return nil
	})
	slow := func(ctx context.Context, call int, msgs []brokers.Message) []error {
		sleep(ctx, time.Duration(roll(10))*time.Millisecond)
		return answer(ctx, call, msgs)
	}
	p := &recorder{answer: slow}
	for range 2 {
		r := parkingRelay(t, db, config(p))
		tune(r)
		running(t, r)
	}
	for i := range raceEvents {
		db.write(t, fmt.Sprint("k", i%40), fmt.Sprint(i))
	}
	redrive := func() {
		_, err := Redrive(t.Context(), db.admin, "", ParkedFilter{}, why)
		require.NoError(t, err)
	}
	for i := 0; ; i++ {
		redrive()
		for range 5 {
			_, err := Discard(t.Context(), db.admin, "", ParkedFilter{Key: fmt.Sprint("k", roll(40))}, why)
			if err != nil {
				require.ErrorIs(t, err, ErrBeingPublished)
			}
		}
		require.Less(t, i, 5000)
		if i > 100 && scan[int](t, db.admin, `SELECT count(*) FROM outbox.parked WHERE state <> 'discarded'`) == 0 {
			break
		}
	}
	published := map[string]bool{}
	for _, text := range p.payloads() {
		published[text] = true
	}
	discarded := scan[int](t, db.admin, `SELECT sum(events)::int FROM outbox.parked_action WHERE action = 'discard'`)
	t.Logf("%d published, %d discarded", len(published), discarded)
	return len(published) + discarded
}
