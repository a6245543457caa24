package inbox_test

import (
	"context"
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/inbox"
)

// v7At is a UUIDv7 of another time than now.
func v7At(at time.Time) string {
	id := uuid.Must(uuid.NewV7())
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(at.UnixMilli())<<16) //nolint:gosec // after 1970
	copy(id[:6], b[:6])
	return id.String()
}

// deliver handles msgs and returns the inbox's counts.
func deliver(w *world, msgs ...brokers.Message) inbox.Stats {
	w.t.Helper()
	w.publish(msgs...)
	in := w.start(w.config("inventory"), insert("inventory"))
	w.settled("inventory")
	require.NoError(w.t, in.end())
	return in.Stats()
}

func withID(source, id string) brokers.Message {
	m := message("", 1) // no key: each message stands for itself
	m.Source, m.ID = source, id
	return m
}

// identityCase is what is delivered and what becomes of it.
type identityCase struct {
	ids  []brokers.Message
	want inbox.Stats
}

// identityCases are the cases of TestIdentity at a moment; some have a minute's
// margin around it.
func identityCases(now time.Time) map[string]identityCase {
	const day = 24 * time.Hour
	v7, v4 := v7At(now), uuid.NewString()
	return map[string]identityCase{
		"same v7":                         {[]brokers.Message{withID("/a", v7), withID("/a", v7)}, inbox.Stats{Handled: 1, Duplicates: 1}},
		"same v7 in capitals":             {[]brokers.Message{withID("/a", v7), withID("/a", strings.ToUpper(v7))}, inbox.Stats{Handled: 1, Duplicates: 1}},
		"same v7 of two sources":          {[]brokers.Message{withID("/a", v7), withID("/b", v7)}, inbox.Stats{Handled: 2}},
		"same v4":                         {[]brokers.Message{withID("/a", v4), withID("/a", v4)}, inbox.Stats{Handled: 1, Duplicates: 1}},
		"same v4 of two sources":          {[]brokers.Message{withID("/a", v4), withID("/b", v4)}, inbox.Stats{Handled: 2}},
		"same text":                       {[]brokers.Message{withID("/a", "1"), withID("/a", "1")}, inbox.Stats{Handled: 1, Duplicates: 1}},
		"same text of two sources":        {[]brokers.Message{withID("/a", "1"), withID("/b", "1")}, inbox.Stats{Handled: 2}},
		"source and id run together":      {[]brokers.Message{withID("/a", "b1"), withID("/ab", "1")}, inbox.Stats{Handled: 2}},
		"no source":                       {[]brokers.Message{withID("", "1"), withID("", "1"), withID("/a", "1")}, inbox.Stats{Handled: 2, Duplicates: 1}},
		"last minute of the window":       {[]brokers.Message{withID("/a", v7At(now.Add(-7*day+time.Minute)))}, inbox.Stats{Handled: 1}},
		"just ahead":                      {[]brokers.Message{withID("/a", v7At(now.Add(59*time.Minute)))}, inbox.Stats{Handled: 1}},
		"older than the window, twice":    {[]brokers.Message{withID("/a", "018f0000-0000-7000-8000-000000000001"), withID("/a", "018f0000-0000-7000-8000-000000000001")}, inbox.Stats{DeadLettered: 1, Duplicates: 1}},
		"just older than the window":      {[]brokers.Message{withID("/a", v7At(now.Add(-7*day-time.Minute)))}, inbox.Stats{DeadLettered: 1}},
		"forged: far past":                {[]brokers.Message{withID("/a", v7At(time.UnixMilli(1)))}, inbox.Stats{DeadLettered: 1}},
		"forged: soon":                    {[]brokers.Message{withID("/a", v7At(now.Add(61*time.Minute)))}, inbox.Stats{DeadLettered: 1}},
		"forged: same slot, one round on": {[]brokers.Message{withID("/a", v7At(now)), withID("/a", v7At(now.Add(36*day)))}, inbox.Stats{Handled: 1, DeadLettered: 1}},
		"forged: far future":              {[]brokers.Message{withID("/a", "ffffffff-ffff-7fff-bfff-ffffffffffff")}, inbox.Stats{DeadLettered: 1}},
		"v7 but for its variant":          {[]brokers.Message{withID("/a", "00000000-0000-7000-0000-000000000001")}, inbox.Stats{Handled: 1}},
	}
}

func TestIdentity(t *testing.T) {
	t.Parallel()
	for name := range identityCases(time.Now()) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.established("inventory")
			tt := identityCases(time.Now())[name] // not before: waiting for its turn may take minutes
			require.Equal(t, tt.want, deliver(w, tt.ids...))
			require.EqualValues(t, tt.want.Handled, w.effects())
			if tt.want.DeadLettered > 0 {
				require.Equal(t, 1, w.count(`SELECT count(*) FROM inbox.dead WHERE reason = 'outside_window' AND error LIKE '%more than 7 days old%' AND attempts = 0`))
			}
		})
	}
}

func TestSameForeignIDWithAnotherTimeIsOneEvent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first, second := withID("/a", "1"), withID("/a", "1")
	second.Time = first.Time.Add(-72 * time.Hour)
	require.Equal(t, inbox.Stats{Handled: 1, Duplicates: 1}, deliver(w, first, second))
}

func TestForeignDuplicateOnAnotherDay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	require.Equal(t, inbox.Stats{Handled: 1}, deliver(w, withID("/a", "1")))
	w.exec(`UPDATE inbox.seen_foreign SET slot = (slot + 31) % 36`) // received five days ago
	require.Equal(t, inbox.Stats{Duplicates: 1}, deliver(w, withID("/a", "1")))
	require.Equal(t, 1, w.effects())
}

func TestTrustedSources(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.established("inventory")
	old := v7At(time.Now().Add(-365 * 24 * time.Hour))
	cfg := w.config("inventory")
	cfg.TrustedSources = []string{"/trusted"}
	in := w.start(cfg, insert("inventory"))
	w.publish(withID("/orders", old), withID("/orders", old), withID("/trusted", old))
	w.settled("inventory")
	require.NoError(t, in.end())
	require.Equal(t, inbox.Stats{Handled: 1, Duplicates: 1, DeadLettered: 1}, in.Stats())
	require.Equal(t, 1, w.count(`SELECT count(*) FROM inbox.seen_foreign`))
}

func TestWithoutIDByOrigin(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := withID("/a", "")
	require.Equal(t, inbox.Stats{DeadLettered: 2}, deliver(w, m, m), "two places in the broker are two messages")
	require.Equal(t, 2, w.count(`SELECT count(*) FROM inbox.dead WHERE reason = 'no_id' AND payload = $1`, m.Payload))

	again := w.config("inventory")
	again.From = w.broker.Subscriber("rewound", "orders")
	in := w.start(again, insert("inventory"))
	w.settled("rewound")
	require.NoError(t, in.end())
	require.Equal(t, inbox.Stats{Duplicates: 2}, in.Stats(), "the same places again")
	require.Zero(t, w.effects())
}

func TestBinaryID(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in := w.start(w.config("inventory"), func(context.Context, pgx.Tx, inbox.Event[order]) error { return nil })
	w.publish(withID("/a", "\x00\xff"), withID("/a", "\x00\xff"), withID("/a", "\x00\xfe"))
	w.settled("inventory")
	require.NoError(t, in.end())
	require.Equal(t, inbox.Stats{Handled: 2, Duplicates: 1}, in.Stats())
}

func timeDaysAgo(days int) time.Time { return time.Now().Add(-time.Duration(days) * 24 * time.Hour) }
