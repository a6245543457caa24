package inbox

import (
	"log/slog"
	"sync"
	"time"
)

// breaker pauses the messages of one type while its handler cannot work, and
// keeps retries at a share of the traffic. What it looks at is the first
// failures of different messages, never how often one of them has failed:
//
//   - one message after the other failed at its first attempt, or half of the
//     latest did, or
//   - a message is about to die, no message has succeeded since it first failed,
//     and others have failed as well, or
//   - the handler said so; see Unavailable.
//
// While it is open, one message at a time is tried, each time another, after
// pauses that grow. Attempts that led to the opening are forgotten, attempts
// while it is open are not counted, so that an outage makes no dead letters.
// After a probe that succeeded the number of handlers at once doubles until all
// may run.
type breaker struct {
	name   string
	limits breakerLimits
	log    *slog.Logger

	mu         sync.Mutex
	state      breakerState
	generation int    // openings so far
	running    int    // attempts begun in this generation
	retrying   int    // those of them that are retries
	queue      []*gap // messages that wait for their turn, the longest first
	stopped    bool

	recent    recent
	successes int     // so far
	streak    int     // messages that first failed since the latest success
	tokens    float64 // retries that may run beside another; see retryShare

	limit       int // recovering: attempts at once
	good, bad   int // recovering: successes, and messages that failed, at this limit
	probes      int // failed in a row
	timer       *time.Timer
	since, told time.Time // not closed since; logged at
	err         error     // the latest failure
}

// breakerLimits are the same for all types of an inbox.
type breakerLimits struct {
	never       bool // Config.Breaker is false
	attempts    int  // Config.Attempts
	concurrency int
	base, max   time.Duration // of the pauses
}

type breakerState int

const (
	breakerClosed     breakerState = iota
	breakerOpen                    // nothing is tried
	breakerHalfOpen                // one message is tried
	breakerRecovering              // a few at once
)

// String returns "closed", "open", "half-open" or "recovering".
func (s breakerState) String() string {
	return [...]string{"closed", "open", "half-open", "recovering"}[s]
}

const (
	// sample is how many messages are looked at: half of them open the breaker. So
	// many, because a third of them may be bad for good, and that must not.
	sample = 200
	// inARow is how many messages open it that failed one after the other, beside
	// one for each handler that may run: those that fail quickly come in bursts
	// between those that take their time.
	inARow = 15
	// minStreak is how many different messages must have failed, and none
	// succeeded, for one that has used up its attempts not to die. One bad message
	// alone, or two, are more likely bad than signs of an outage.
	minStreak = 3
	// retryShare is how many retries a success pays for. One at a time is free, or
	// nothing would get better.
	retryShare = 0.2
	retryBurst = 100
	// tellEvery is how often an open breaker says so.
	tellEvery = time.Minute
)

func newBreaker(name string, limits breakerLimits, log *slog.Logger) *breaker {
	return &breaker{
		name: name, limits: limits, log: log,
		recent: newRecent(max(sample, 4*limits.concurrency)), tokens: retryBurst / 10,
	}
}

// trial is what a breaker knows of a message.
type trial struct {
	breaker    *breaker // of the message's type; nil as long as that is not known
	held       bool     // it may run, or runs
	retry      bool     // as a retry
	generation int      // in which it ran last
	attempts   int      // that count
	failed     bool     // in this generation
	successes  int      // of others when it first failed
}

// begin grants t an attempt, or returns the gap in which it has to wait for one.
// Whoever is granted one reports what came of it with succeeded, failed or
// spared.
func (b *breaker) begin(t *trial) *gap {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t.held && t.generation == b.generation { // granted while it waited
		return nil
	}
	t.held, t.breaker = false, b
	mayOvertake := b.state == breakerClosed && !b.isRetry(t)
	if (mayOvertake || len(b.queue) == 0) && b.admits(t) {
		b.grant(t)
		return nil
	}
	g := &gap{trial: t, over: make(chan struct{})}
	b.queue = append(b.queue, g)
	return g
}

func (b *breaker) isRetry(t *trial) bool { return t.failed && t.generation == b.generation }

func (b *breaker) admits(t *trial) bool {
	switch b.state {
	case breakerOpen:
		return false
	case breakerHalfOpen:
		return b.running == 0
	case breakerRecovering:
		return b.running < b.limit
	default:
		return !b.isRetry(t) || b.retrying == 0 || b.tokens >= 1
	}
}

func (b *breaker) grant(t *trial) {
	if t.generation != b.generation {
		t.generation, t.attempts, t.failed = b.generation, 0, false
	}
	t.held, t.retry = true, t.failed
	b.running++
	if t.retry {
		if b.retrying++; b.retrying > 1 && b.state == breakerClosed {
			b.tokens--
		}
	}
}

// end takes t's permission back. It reports false if the breaker has opened
// since it was granted: then its outcome belongs to the past.
func (b *breaker) end(t *trial) (current bool) {
	t.held = false
	if t.generation != b.generation {
		return false
	}
	b.running--
	if t.retry {
		b.retrying--
	}
	return true
}

// spared reports that the attempt did not come to the point: nothing was learned.
func (b *breaker) spared(t *trial) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t.held {
		b.end(t)
		b.admit()
	}
}

// succeeded reports that the handler did its work.
func (b *breaker) succeeded(t *trial) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !t.held {
		return
	}
	b.successes++
	b.streak = 0
	if !b.end(t) {
		return
	}
	switch b.state {
	case breakerHalfOpen:
		b.state = breakerRecovering
		b.grow(2)
	case breakerRecovering:
		if b.good++; b.good >= 2*b.limit {
			b.grow(2 * b.limit)
		}
	default:
		if !t.failed {
			b.recent.add(true)
		}
		b.tokens = min(b.tokens+retryShare, retryBurst)
	}
	b.admit()
}

// failed reports a failed attempt, counts it in t.attempts unless the handler's
// surroundings are at fault, and returns whether it did. unavailable says that
// they are.
func (b *breaker) failed(t *trial, err error, unavailable bool) (counts bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !t.held || !b.end(t) {
		return false
	}
	first := !t.failed
	t.failed = true
	b.err = err
	if first {
		t.successes = b.successes
		b.streak++
	}
	if !b.limits.never && b.trips(t, first, unavailable) {
		b.open()
		return false
	}
	if unavailable {
		return false
	}
	t.attempts++
	b.admit()
	return true
}

// trips decides whether a failure opens the breaker.
func (b *breaker) trips(t *trial, first, unavailable bool) bool {
	if unavailable || b.state == breakerHalfOpen {
		return true
	}
	lastAndAlone := t.attempts+1 >= b.limits.attempts && t.successes == b.successes
	if b.state == breakerRecovering {
		if first {
			b.bad++
		}
		return b.bad >= 2*b.limit || lastAndAlone
	}
	if first {
		b.recent.add(false)
	}
	return b.streak >= inARow+b.limits.concurrency || 2*b.recent.failures >= len(b.recent.ok) || lastAndAlone && b.streak >= minStreak && b.limits.attempts > 1
}

// open begins a pause, and a generation: what has failed so far is forgiven.
func (b *breaker) open() {
	if b.state == breakerClosed {
		b.since, b.probes = time.Now(), 0
	} else {
		b.probes++
	}
	b.state = breakerOpen
	b.generation++
	b.running, b.retrying = 0, 0
	b.tell()
	if b.stopped {
		return
	}
	generation := b.generation
	b.timer = time.AfterFunc(fullJitter(b.limits.base, b.limits.max, b.probes), func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.generation == generation && !b.stopped {
			b.state = breakerHalfOpen
			b.admit()
		}
	})
}

// grow lets limit attempts run at once, or all.
func (b *breaker) grow(limit int) {
	b.limit, b.good, b.bad = limit, 0, 0
	if limit < b.limits.concurrency {
		return
	}
	b.state = breakerClosed
	b.recent.reset()
	b.admitNew()
	if b.told.Before(b.since) {
		return // nobody was told that it opened
	}
	b.log.Info("inbox: circuit closed: the handler works again", "type", b.name, "after", time.Since(b.since).Round(time.Millisecond))
}
