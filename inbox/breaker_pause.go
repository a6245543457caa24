package inbox

import (
	"math/rand/v2"
	"time"
)

// tell says what is going on and what to do, at times.
func (b *breaker) tell() {
	if time.Since(b.told) < tellEvery {
		return
	}
	b.told = time.Now()
	b.log.Error("inbox: circuit open: the handler of this type fails for one message after the other. Its messages wait, nothing is lost or dead-lettered, "+
		"other types go on; a message is tried from time to time, and all go on when one succeeds. Mend what the handler depends on, or the handler; "+
		"if the events themselves are bad, let it return inbox.Permanent",
		"type", b.name, "error", b.err, "since", b.since, "waiting", len(b.queue))
}

// stop ends the timer. The breaker may still be asked.
func (b *breaker) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopped = true
	if b.timer != nil {
		b.timer.Stop()
	}
}

// fullJitter returns between nothing and base doubled n times, at most longest.
func fullJitter(base, longest time.Duration, n int) time.Duration {
	limit := longest
	if doubled := base << min(n, 20); doubled > 0 && doubled < longest {
		limit = doubled
	}
	return rand.N(limit + 1) //nolint:gosec // jitter
}
