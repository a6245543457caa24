package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/inbox"
)

const day = 24 * time.Hour

// keeping is a subscriber of a broker that tells its retention.
type keeping struct {
	brokers.Subscriber
	keeps time.Duration
	ok    bool
	err   error
}

func (k keeping) Retention(context.Context) (time.Duration, bool, error) { return k.keeps, k.ok, k.err }

func TestWindowIsComparedWithTheBrokersRetention(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		from keeping
		days int
		want []string // of one line
	}{
		"longer":          {keeping{keeps: 14 * day, ok: true}, 0, []string{"level=WARN", `retention="14 days"`, `window="7 days"`, "set inbox.Config.WindowDays to the retention or more"}},
		"a little longer": {keeping{keeps: 7*day + time.Hour, ok: true}, 0, []string{"level=WARN", "retention=169h0m0s", `window="7 days"`}},
		"too long":        {keeping{keeps: 32 * day, ok: true}, 0, []string{"level=WARN", `retention="32 days"`, "at most 31 days"}},
		"for ever":        {keeping{keeps: brokers.Forever, ok: true}, 31, []string{"level=WARN", "retention=unlimited", `window="31 days"`}},
		"equal":           {keeping{keeps: 7 * day, ok: true}, 0, nil},
		"shorter":         {keeping{keeps: 7 * day, ok: true}, 8, nil},
		"not permitted":   {keeping{err: errors.New("not authorized")}, 0, []string{"level=DEBUG", "does not tell its retention", "not authorized"}},
		"none":            {keeping{}, 0, []string{"level=DEBUG", "no retention to compare"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			cfg := w.config("inventory")
			var log lines
			cfg.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			tt.from.Subscriber = cfg.From
			cfg.From, cfg.WindowDays = tt.from, tt.days
			in := w.start(cfg, insert("inventory"))
			w.publish(message("a", 1))
			w.settled("inventory") // it goes on, whatever was found
			if tt.want != nil {
				eventually(t, "a line with all of it", func() bool { return oneLine(log.text(), tt.want) })
			}
			require.NoError(t, in.end())
			require.Equal(t, tt.want != nil, strings.Contains(log.text(), "retention"), log.text())
		})
	}
}

func oneLine(log string, want []string) bool {
	for line := range strings.Lines(log) {
		found := 0
		for _, w := range want {
			if strings.Contains(line, w) {
				found++
			}
		}
		if found == len(want) {
			return true
		}
	}
	return false
}

// An inbox forgets in the background what is two days past the window.
func TestOldSlotsAreEmptiedInTheBackground(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.established("inventory")
	cfg := w.config("inventory")
	cfg.WindowDays = 31
	old, edge := withID("/a", v7At(time.Now().Add(-20*day))), withID("/a", v7At(time.Now().Add(-8*day)))
	in := w.start(cfg, insert("inventory"))
	w.publish(message("a", 1), old, edge)
	w.settled("inventory")
	require.NoError(t, in.end())
	require.Equal(t, 3, w.claims())

	cfg = w.config("inventory") // seven days
	var log lines
	cfg.Logger = log.logger()
	in = w.start(cfg, insert("inventory"))
	// Not by counting claims: whoever reads a slot is in the way of emptying it.
	eventually(t, "the oldest is forgotten", func() bool { return log.has("slots of handled events emptied") })
	require.Equal(t, 2, w.claims())
	w.publish(old, edge)
	w.settled("inventory")
	require.NoError(t, in.end())
	require.Equal(t, inbox.Stats{DeadLettered: 1, Duplicates: 1}, in.Stats(), "what is forgotten is for a person to decide; what is not is swallowed")
}

// Without the right to empty slots consumption goes on, and somebody is told once.
func TestNoRightToForget(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	narrow := asRole(w)
	user := narrow.pool.Config().ConnConfig.User
	w.exec(fmt.Sprintf(`REVOKE EXECUTE ON FUNCTION inbox.turn_foreign(), inbox.forget_seen(int), inbox.forget_foreign(int) FROM %s`, user))
	cfg := narrow.config("inventory")
	var log lines
	cfg.Logger = log.logger()
	in := narrow.start(cfg, insert("inventory"))
	w.publish(message("a", 1))
	w.settled("inventory")
	eventually(t, "a warning", func() bool {
		return oneLine(log.text(), []string{"level=WARN", "handled events are not forgotten", "the role may not empty old slots of schema inbox", "relay migrate sql inbox"})
	})
	require.NoError(t, in.end())
	require.EqualValues(t, 1, in.Stats().Handled)
}

// A new consumer takes a backlog, or a replay, from long before its window: it
// cannot have handled any of it. Each event once, be it delivered again or not.
func TestNewConsumerTakesAnOldBacklog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var backlog []brokers.Message
	for n := range 40 {
		m := message("a", n)
		m.ID = v7At(time.Now().Add(-time.Duration(40-n) * 10 * day))
		m.Headers["replayid"] = "018f0000-0000-7000-8000-000000000001"
		backlog = append(backlog, m)
	}
	w.publish(backlog...)
	w.publish(backlog...)
	in := w.start(w.config("newcomer"), insert("newcomer"))
	w.settled("newcomer")
	require.NoError(t, in.end())
	require.Equal(t, inbox.Stats{Handled: 40, Duplicates: 40}, in.Stats())

	// A consumer that has been there all the time cannot tell.
	w.established("veteran")
	in = w.start(w.config("veteran"), insert("veteran"))
	w.settled("veteran")
	require.NoError(t, in.end())
	require.EqualValues(t, 40, in.Stats().DeadLettered)
}

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
