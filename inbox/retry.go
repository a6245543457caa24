package inbox

import (
	"errors"
	"time"
)

// stubbornGrace is how long after its timeout a handler may take to return.
const stubbornGrace = 5 * time.Second

// errGoexit is a mistake in a handler, most likely in a test.
var errGoexit = errors.New("the handler called runtime.Goexit (testing.T.FailNow, as in require, works in the test's own goroutine only)")

// failed counts an attempt and decides what follows.
func (r *runner) failed(t *task, err error) result {
	err = r.cfg.classify(err)
	r.stats.failures.Add(1)
	if isPermanent(err) {
		t.attempts++
		t.die(reasonPermanent, err)
		return result{what: again}
	}
	if !t.breaker.failed(&t.trial, err, isUnavailable(err)) {
		return r.notCounted(t, err)
	}
	if t.attempts >= r.cfg.Attempts {
		t.die(reasonAttempts, err)
		return result{what: again}
	}
	wait := t.retry.NextBackOff()
	r.log.Warn("inbox: handler failed; will try again", append(t.attrs(), "error", err, "attempt", t.attempts, "wait", wait)...)
	return result{what: again, wait: wait}
}

// notCounted is what follows a failure that is no fault of t's: with a breaker
// that has opened t waits in its queue, otherwise for itself.
func (r *runner) notCounted(t *task, err error) result {
	if *r.cfg.Breaker {
		t.retry.Reset()
		r.log.Debug("inbox: handler failed while its circuit is open", append(t.attrs(), "error", err)...)
		return result{what: again}
	}
	wait := t.retry.NextBackOff()
	r.log.Warn("inbox: the handler's dependency is unavailable; will try again", append(t.attrs(), "error", err, "wait", wait)...)
	return result{what: again, wait: wait}
}
