package inbox_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/internal/pgtest"
)

// Dead letters are found by each field, exported whole, and changed no faster than
// asked for.
func TestDeadLettersFromGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var msgs []brokers.Message
	for n := range 41 {
		msgs = append(msgs, message(fmt.Sprint("k", n), n))
	}
	odd := message("a\x00b", 100)
	odd.Topic, odd.Type = "orders", "shop.order.cancelled"
	cfg := w.config("inventory")
	cfg.Unknown = inbox.UnknownDeadLetter
	w.bury(cfg, append(msgs, odd)...)
	for name, c := range map[string]struct {
		f    inbox.DeadFilter
		want int
	}{
		"all":        {inbox.DeadFilter{}, 42},
		"consumer":   {inbox.DeadFilter{Consumer: "inventory"}, 42},
		"topic":      {inbox.DeadFilter{Topic: "orders"}, 42},
		"no topic":   {inbox.DeadFilter{Topic: "order"}, 0},
		"type":       {inbox.DeadFilter{Type: "shop.order.cancelled"}, 1},
		"key":        {inbox.DeadFilter{Key: "k7"}, 1},
		"odd key":    {inbox.DeadFilter{Key: `\x610062`}, 1},
		"source":     {inbox.DeadFilter{Source: source}, 42},
		"id":         {inbox.DeadFilter{ID: msgs[3].ID, Key: "k3"}, 1},
		"other id":   {inbox.DeadFilter{ID: msgs[3].ID, Key: "k4"}, 0},
		"state":      {inbox.DeadFilter{State: "blocked"}, 0},
		"class":      {inbox.DeadFilter{Class: "attempts"}, 41},
		"reason":     {inbox.DeadFilter{Reason: "no handler for"}, 1},
		"since":      {inbox.DeadFilter{Since: time.Now().Add(time.Hour)}, 0},
		"until":      {inbox.DeadFilter{Since: time.Now().Add(-time.Hour), Until: time.Now().Add(time.Hour)}, 42},
		"long since": {inbox.DeadFilter{Until: time.Now().Add(-time.Hour)}, 0},
	} {
		list, err := inbox.DeadLetters(t.Context(), w.pool, "", c.f, 0, 100)
		require.NoError(t, err, name)
		require.Len(t, list, c.want, name)
		n, err := inbox.Discard(t.Context(), w.pool, "", c.f, inbox.DeadAction{DryRun: true})
		require.NoError(t, err, name)
		require.EqualValues(t, c.want, n, name)
	}
	list, err := inbox.DeadLetters(t.Context(), w.pool, "", inbox.DeadFilter{}, 40, 1)
	require.NoError(t, err)
	require.EqualValues(t, 41, list[0].N)

	byID := map[string]inbox.DeadLetter{}
	require.NoError(t, inbox.ExportDeadLetters(t.Context(), w.pool, "", inbox.DeadFilter{}, func(d inbox.DeadLetter) error {
		byID[d.ID] = d
		return nil
	}))
	require.Len(t, byID, 42)
	require.Equal(t, msgs[5].Payload, byID[msgs[5].ID].Payload)
	require.JSONEq(t, `{"tenant": "a"}`, string(byID[msgs[5].ID].Headers))
	require.ErrorIs(t, inbox.ExportDeadLetters(t.Context(), w.pool, "", inbox.DeadFilter{}, func(inbox.DeadLetter) error { return errBroken }), errBroken)

	a := why
	a.Rate = 40
	var seen []int64
	a.Progress = func(p inbox.DeadProgress) { seen = append(seen, p.Events) }
	began := time.Now()
	_, err = inbox.Redrive(t.Context(), w.pool, "", inbox.DeadFilter{Class: "attempts"}, a)
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Since(began), 700*time.Millisecond, "41 events, of which the first 10 are at once")
	require.Equal(t, []int64{10, 20, 30, 40, 41}, seen)
	o, err := inbox.RedriveOutcome(t.Context(), w.pool, "", 1)
	require.NoError(t, err)
	require.Equal(t, inbox.Outcome{Retrying: 41, Untouched: []string{placed.Name}}, o)

	var bad *event.FieldError
	_, err = inbox.Discard(t.Context(), w.pool, "", inbox.DeadFilter{}, inbox.DeadAction{By: "x"})
	require.ErrorAs(t, err, &bad)
	require.Equal(t, "DeadAction.Reason", bad.Field)
	_, err = inbox.Redrive(t.Context(), w.pool, "", inbox.DeadFilter{}, inbox.DeadAction{Reason: "x"})
	require.ErrorContains(t, err, "DeadAction.By")
	_, err = inbox.DeadLetters(t.Context(), w.pool, "nowhere", inbox.DeadFilter{}, 0, 1)
	require.ErrorIs(t, err, inbox.ErrNotMigrated)
	_, err = inbox.DeadLetters(t.Context(), w.pool, "no; where", inbox.DeadFilter{}, 0, 1)
	require.ErrorAs(t, err, &bad)
}

// The printed grants are enough, and a consumer of another name or without the type's
// handler leaves the dead letters alone.
func TestRedriveWithTheConsumersRole(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.bury(w.config("inventory"), message("a", 0), message("a", 1), message("b", 2))
	narrow := asRole(w)
	other := narrow.redriving(narrow.config("billing"), insert("billing"))
	without, err := inbox.New(narrow.pool, narrow.config("inventory"))
	require.NoError(t, err)
	inbox.LookEvery(without, 5*time.Millisecond)
	cancelled := placed
	cancelled.Name = "shop.order.cancelled"
	inbox.On(without, cancelled, insert("inventory"))
	idle := run(t, without)
	narrow.redrive(inbox.DeadFilter{})
	_, err = inbox.Discard(t.Context(), narrow.pool, "", inbox.DeadFilter{Key: "b"}, why)
	require.NoError(t, err)
	pgtest.Never(t, func() bool { return w.count(`SELECT count(*) FROM effect WHERE consumer = 'inventory'`) > 0 }, 100*time.Millisecond, 10*time.Millisecond)
	require.NoError(t, idle.end())
	in := narrow.redriving(narrow.config("inventory"), insert("inventory"))
	eventually(t, "both", func() bool { return w.count(`SELECT count(*) FROM effect WHERE consumer = 'inventory'`) == 2 })
	require.NoError(t, in.end())
	require.NoError(t, other.end())
	require.Equal(t, "0 redriven, 1 redriven, 2 discarded", w.states())
}
