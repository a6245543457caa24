package inbox

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/outboxkit/outboxkit/brokers"
)

const (
	// maintainEvery is how often old slots are looked for. One becomes due a day.
	maintainEvery = 10 * time.Minute
	// maintainLimit bounds one such look, and the question to the broker.
	maintainLimit = time.Minute
)

// keepWindow compares the window with the broker's retention, and then forgets
// what has left it, until Run's context ends. Failing is no reason to stop: the
// tables grow, and somebody is told.
func (r *runner) keepWindow() {
	r.checkRetention()
	told := ""
	for r.ctx.Err() == nil {
		told = r.maintain(told)
		// Instances that were started together need not come together.
		pause(maintainEvery/2+rand.N(maintainEvery), r.ctx, r.ctx)
	}
}

// maintain returns what it logged if it failed, so that it is not logged again.
func (r *runner) maintain(told string) string {
	ctx, cancel := context.WithTimeout(r.ctx, maintainLimit)
	defer cancel()
	emptied, err := r.store.Maintain(ctx)
	if emptied > 0 {
		r.log.Info("inbox: slots of handled events emptied, two days past the window", "slots", emptied)
	}
	if err == nil || r.ctx.Err() != nil {
		return ""
	}
	if err.Error() != told {
		r.log.Warn("inbox: handled events are not forgotten; will try again", "error", err)
	}
	return err.Error()
}

// checkRetention warns where the broker keeps messages for longer than the
// consumer remembers. It does not refuse: somebody who changes a topic must not
// stop every consumer at its next restart, and nothing is lost by it.
func (r *runner) checkRetention() {
	retainer, ok := r.cfg.From.(brokers.Retainer)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(r.ctx, maintainLimit)
	defer cancel()
	keeps, ok, err := retainer.Retention(ctx)
	window := time.Duration(r.cfg.WindowDays) * 24 * time.Hour
	switch {
	case r.ctx.Err() != nil:
	case err != nil:
		r.log.Debug("inbox: the broker does not tell its retention; it should be no longer than the window", "window", days(window), "error", err)
	case !ok:
		r.log.Debug("inbox: the broker has no retention to compare with the window", "window", days(window))
	case keeps > window:
		hint := "set inbox.Config.WindowDays to the retention or more"
		if keeps > maxWindow {
			hint = fmt.Sprintf("set inbox.Config.WindowDays to as long as a message may have to wait or come again, at most %s", days(maxWindow))
		}
		r.log.Warn("inbox: the broker keeps messages for longer than handled events are remembered: those that come, or come again, later than that become dead letters (outside_window); "+hint,
			"retention", days(keeps), "window", days(window))
	}
}

const maxWindow = 31 * 24 * time.Hour // as in package dedup

func days(d time.Duration) string {
	switch {
	case d == brokers.Forever:
		return "unlimited"
	case d%(24*time.Hour) == 0:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	return d.String()
}
