package model

import (
	"cmp"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// steps of a schedule before all comes to rest.
const steps = 200

// TestEverySchedule: whatever order things happen in, no rule and no promise is
// broken. RAPID_CHECKS=100000 explores more schedules than the default.
func TestEverySchedule(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		x := newExplorer(func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "next") }, none)
		if b := x.explore(steps, true); b != nil {
			t.Fatalf("%v\n%s", b, x.Tell())
		}
	})
}

// TestManySchedules is the same, quicker and not shrunk: OUTBOXKIT_SCHEDULES, or 1,000.
func TestManySchedules(t *testing.T) {
	t.Parallel()
	n, err := strconv.Atoi(cmp.Or(os.Getenv("OUTBOXKIT_SCHEDULES"), "1000"))
	require.NoError(t, err, "OUTBOXKIT_SCHEDULES")
	seed := rand.Uint64()
	for i := range n {
		x := newExplorer(rand.New(rand.NewPCG(seed, uint64(i))).IntN, none)
		b := x.explore(steps, true)
		require.Nilf(t, b, "seed %d, schedule %d: %v\n%s", seed, i, b, x.Tell())
	}
}

// mistake is a transition made wrong on purpose.
type mistake string

const (
	none                  mistake = ""
	xmaxForB              mistake = "B is xmax(S)"
	idBeforeXid           mistake = "the id is drawn before the transaction has its xid"
	noLateRows            mistake = "late transactions are not looked for"
	dirtyRead             mistake = "pages without the snapshot's filter"
	endBatchEarly         mistake = "a full page ends the batch"
	positionBeforeConfirm mistake = "the position moves before the confirmation"
	lostIsConfirmed       mistake = "a lost answer counts as a confirmation"
	keyNotHeld            mistake = "later events of a key do not wait"
	noFence               mistake = "positions are stored without looking at the lease"
	takeFromTheLiving     mistake = "a lease is taken from a living owner"
	publishAfterLease     mistake = "a relay publishes after its lease"
	releaseInFlight       mistake = "a shard is released while events are in flight"
	noIncarnation         mistake = "a crash of the database goes unnoticed"
	parkApart             mistake = "the copy is parked after the position"
	passParked            mistake = "later events of a parked key do not queue"
	forgetParked          mistake = "a new owner does not look for parked events"
	tryBlocked            mistake = "a blocked event is tried before the head"
	queueAfterFailure     mistake = "the queue is published although the head failed"
	noClaim               mistake = "a parked event is published without a claim"
	discardClaimed        mistake = "an event is discarded while it is being published"
	truncateWithoutLock   mistake = "a slot is truncated without its lock"
	truncateByBatch       mistake = "truncation goes by the batch under way"
	truncateByOnePipeline mistake = "truncation asks one pipeline"
)

var mistakes = []mistake{
	xmaxForB, idBeforeXid, noLateRows, dirtyRead, endBatchEarly, positionBeforeConfirm, lostIsConfirmed, keyNotHeld,
	noFence, takeFromTheLiving, publishAfterLease, releaseInFlight, noIncarnation,
	parkApart, passParked, forgetParked, tryBlocked, queueAfterFailure, noClaim, discardClaimed,
	truncateWithoutLock, truncateByBatch, truncateByOnePipeline,
}

// hunt explores schedules until a breach is found, and returns how many it took.
func hunt(m mistake, most int, rulesCount bool) (int, *Breach) {
	for n := range most {
		rnd := rand.New(rand.NewPCG(uint64(n), 6))
		if b := newExplorer(rnd.IntN, m).explore(steps, rulesCount); b != nil {
			return n + 1, b
		}
	}
	return most, nil
}

// TestMistakesAreFound: the model finds each mistake, else it proves nothing. The
// seeds are fixed, so that the numbers are always the same. OUTBOXKIT_MODEL_TABLE=1
// also tells after how many schedules a promise to users is broken, and which.
func TestMistakesAreFound(t *testing.T) {
	t.Parallel()
	for _, m := range mistakes {
		n, b := hunt(m, 3000, true)
		require.NotNil(t, b, m)
		t.Logf("%-60s %5d %s", m, n, b.Text)
		if os.Getenv("OUTBOXKIT_MODEL_TABLE") == "" {
			continue
		}
		if n, b = hunt(m, 20_000, false); b != nil {
			t.Logf("%-60s %5d %s", "", n, b.Text)
		}
	}
}
