package relay

import (
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// circuit keeps calls away from what is broken: a pipeline's broker, or a topic.
// While it is open nothing is sent but single probes, with growing pauses between
// them; after a probe that succeeded the number of events sent at once grows from
// a few until it does not matter any more.
//
// It is our own because the libraries guard calls, while a publisher needs to be
// told how much it may send and when to come again: gobreaker's pause is fixed and
// its recovery is all or nothing, and failsafe-go would put gRPC into every
// service's go.sum.
type circuit struct {
	trip int // failures in a row that open it
	now  func() time.Time

	mu       sync.Mutex
	state    circuitState
	pause    *backoff.ExponentialBackOff
	failures int
	until    time.Time // open: when the next probe may go
	window   int       // recovering: events that may go at once
	err      error     // of the last failure
}

type circuitState int

const (
	circuitClosed     circuitState = iota
	circuitOpen                    // nothing goes
	circuitHalfOpen                // one probe is on its way
	circuitRecovering              // a growing window
)

// String returns "closed", "open", "half-open" or "recovering".
func (s circuitState) String() string {
	return [...]string{"closed", "open", "half-open", "recovering"}[s]
}

// tripped tells whether nothing goes but probes. A recovering circuit works, and
// with little traffic it recovers for hours.
func (s circuitState) tripped() bool { return s == circuitOpen || s == circuitHalfOpen }

const (
	recoveryStart  = 4
	recoveryGrowth = 4
	recovered      = 2000 // a window from which on the circuit is closed
	probeWait      = 20 * time.Millisecond
)

func newCircuit(trip int, longest time.Duration, now func() time.Time) *circuit {
	return &circuit{trip: trip, now: now, pause: jitter(longest)}
}

// acquire returns how many of want events may be sent now; with 0, how long to
// wait before asking again. Whoever gets more than 0 reports what came of it.
func (c *circuit) acquire(want int) (n int, wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.state {
	case circuitOpen:
		if wait := c.until.Sub(c.now()); wait > 0 {
			return 0, wait
		}
		c.state = circuitHalfOpen
		return min(want, 1), 0
	case circuitHalfOpen:
		return 0, probeWait
	case circuitRecovering:
		return min(want, c.window), 0
	default:
		return want, 0
	}
}

// succeeded reports that something was confirmed.
func (c *circuit) succeeded() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failures, c.err = 0, nil
	switch c.state {
	case circuitHalfOpen:
		c.state, c.window = circuitRecovering, recoveryStart
	case circuitRecovering:
		if c.window *= recoveryGrowth; c.window < recovered {
			return
		}
		c.state = circuitClosed
		c.pause.Reset()
	default: // an answer that was on its way when the circuit opened changes nothing
	}
}

// failed reports that nothing was confirmed, and returns whether the circuit is
// open now.
func (c *circuit) failed(err error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	if c.failures++; c.state == circuitClosed && c.failures < c.trip {
		return false
	}
	if c.state != circuitOpen {
		c.state, c.until = circuitOpen, c.now().Add(c.pause.NextBackOff())
	}
	return true
}

// spared reports that nothing was learned: a probe did not get so far.
func (c *circuit) spared() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == circuitHalfOpen {
		c.state, c.until = circuitOpen, c.now()
	}
}

// look returns the state, whether anything may be sent, and the last failure.
func (c *circuit) look() (state circuitState, shut bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	shut = c.state == circuitHalfOpen || c.state == circuitOpen && c.now().Before(c.until)
	return c.state, shut, c.err
}

func (c *circuit) isOpen() bool {
	state, _, _ := c.look()
	return state == circuitOpen
}

// topicCircuits holds the circuits of topics that are in trouble; the others have
// none.
type topicCircuits struct {
	make func() *circuit
	mu   sync.Mutex
	m    map[string]*circuit
}

func (t *topicCircuits) get(topic string) *circuit {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.m[topic]
}

// report notes how a topic fared; nil is a success.
func (t *topicCircuits) report(topic string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.m[topic]
	switch {
	case err != nil && c == nil:
		c = t.make()
		t.m[topic] = c
		fallthrough
	case err != nil:
		c.failed(err)
	case c != nil:
		c.succeeded()
		if state, _, _ := c.look(); state == circuitClosed {
			delete(t.m, topic)
		}
	}
}

// topicGrant is how many events of a troubled topic may be sent now.
type topicGrant struct {
	circuit *circuit
	n, sent int
	err     error
}

// grants asks the circuits of the events' topics; topics without trouble have no
// entry.
func (t *topicCircuits) grants(events []*item) map[string]*topicGrant {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.m) == 0 {
		return nil
	}
	want := map[string]int{}
	for _, it := range events {
		want[it.msg.Topic]++
	}
	grants := map[string]*topicGrant{}
	for topic, n := range want {
		if c := t.m[topic]; c != nil {
			_, _, err := c.look()
			granted, _ := c.acquire(n)
			grants[topic] = &topicGrant{circuit: c, n: granted, err: err}
		}
	}
	return grants
}

// shut lists the topics to which nothing may be sent now.
func (t *topicCircuits) shut() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	topics := []string{}
	for topic, c := range t.m {
		if _, shut, _ := c.look(); shut {
			topics = append(topics, topic)
		}
	}
	return topics
}

// retryBudget keeps retries at a fifth of the traffic: publications earn, retries
// spend. One retry is always allowed, or nothing would ever get better.
type retryBudget struct {
	mu     sync.Mutex
	tokens float64
}

const (
	retryShare = 0.2
	retryBurst = 500
)

func (b *retryBudget) earn(published int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tokens = min(b.tokens+retryShare*float64(published), retryBurst)
}

// spend returns how many of want retries may go now.
func (b *retryBudget) spend(want int) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := min(want, max(1, int(b.tokens)))
	b.tokens = max(0, b.tokens-float64(n))
	return n
}

// left is what spend would grant, but for the retry that is always allowed.
func (b *retryBudget) left() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.tokens
}
