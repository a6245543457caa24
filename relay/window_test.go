package relay

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
)

// slowTopic answers for all topics but one, and for that one when it is let go.
func slowTopic(topic string) (p *recorder, called <-chan struct{}, let func()) {
	calls, free := make(chan struct{}, 1), make(chan struct{})
	p = &recorder{answer: func(ctx context.Context, _ int, msgs []brokers.Message) []error {
		if msgs[0].Topic == topic {
			select {
			case calls <- struct{}{}:
			default:
			}
			select {
			case <-free:
			case <-ctx.Done():
			}
		}
		return make([]error, len(msgs))
	}}
	return p, calls, sync.OnceFunc(func() { close(free) })
}

// A topic whose broker takes its time holds no other topic of its page and of the
// pages behind it, as far as the window goes; positions wait for it.
func TestASlowTopicDoesNotHoldTheOthers(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	for i := range 40 {
		db.writeTo(t, []string{"slow", "fast"}[min(i, 1)], fmt.Sprint("k", i), fmt.Sprint(i))
	}
	p, called, let := slowTopic("slow")
	r := newRelay(t, db.relay, config(p))
	r.tune.pageRows, r.tune.pages = 10, 3
	stop := running(t, r)
	<-called
	eventually(t, func() bool { return len(p.messages()) == 29 }, "all others of three pages")
	require.NotContains(t, p.payloads(), "0")
	require.Zero(t, r.engines[0].session().progress.lowest().c, "the position stays before the slow event")
	let()
	eventually(t, func() bool { return len(p.messages()) == 40 && r.caughtUp() }, "the rest")
	require.NoError(t, stop())
}

// lowest is the position that is least far.
func (p *progress) lowest() position {
	p.mu.Lock()
	defer p.mu.Unlock()
	var low *position
	for _, sp := range p.shards {
		if low == nil || sp.at.c < low.c {
			low = &sp.at
		}
	}
	return *low
}

// However pages are divided and overlap, a key is in one call at a time and goes in
// the order of the log.
func TestAKeyIsPublishedInOrderAcrossPages(t *testing.T) {
	t.Parallel()
	const events, keys = 3000, 37
	db := newDatabase(t)
	_, err := db.writer.Exec(t.Context(), `INSERT INTO outbox.event (topic, key, type, source, payload)
SELECT 't' || i % 3, 'k' || i % $2, 'test', '/test', convert_to(i::text, 'UTF8') FROM generate_series(1, $1) i`, events, keys)
	require.NoError(t, err)

	var mu sync.Mutex
	var overlap, most, calls int
	last, active := map[lane]int{}, map[lane]bool{}
	inverted := 0
	p := &recorder{answer: func(_ context.Context, _ int, msgs []brokers.Message) []error {
		mine := map[lane]bool{}
		mu.Lock()
		calls++
		most = max(most, calls)
		for i := range msgs {
			l := laneOf(&msgs[i])
			if active[l] && !mine[l] {
				overlap++
			}
			active[l], mine[l] = true, true
			var n int
			_, _ = fmt.Sscan(string(msgs[i].Payload), &n)
			if n <= last[l] {
				inverted++
			}
			last[l] = n
		}
		mu.Unlock()
		for range 200 {
			runtime.Gosched() // let others in
		}
		mu.Lock()
		defer mu.Unlock()
		for l := range mine {
			delete(active, l)
		}
		calls--
		return make([]error, len(msgs))
	}}
	r := newRelay(t, db.relay, config(p))
	r.tune.pageRows, r.tune.split = 60, 12
	stop := running(t, r)
	eventually(t, func() bool { return len(p.messages()) == events }, "all")
	require.NoError(t, stop())
	require.Zero(t, overlap, "a key in two calls at once")
	require.Zero(t, inverted)
	require.Greater(t, most, 3, "pages and topics overlap")
}

// An event that is to be parked holds the later ones of its key before it is stored:
// its page may be waiting for others.
func TestAnEventThatIsToBeParkedHoldsItsKey(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	for _, e := range [][3]string{{"slow", "s", "slow"}, {"t", "k", "bad"}, {"t", "o", "other0"}, {"t", "o", "other1"}, {"t", "o", "other2"}, {"t", "k", "behind"}} {
		_, err := db.writer.Exec(t.Context(), `INSERT INTO outbox.event (topic, key, type, source, payload)
VALUES ($1, $2, 'test', '/test', convert_to($3, 'UTF8'))`, e[0], e[1], e[2])
		require.NoError(t, err)
	}
	p, called, let := slowTopic("slow")
	answer := p.answer
	p.answer = func(ctx context.Context, call int, msgs []brokers.Message) []error {
		results := answer(ctx, call, msgs)
		for i := range msgs {
			if string(msgs[i].Payload) == "bad" {
				results[i] = &brokers.Error{Class: brokers.ClassRejected, Topic: "t", Err: fmt.Errorf("bad")}
			}
		}
		return results
	}
	r := newRelay(t, db.relay, config(p))
	r.tune.pageRows = 3
	stop := running(t, r)
	<-called
	eventually(t, func() bool { return len(p.messages()) == 3 }, "the others, from both pages")
	require.Zero(t, scan[int](t, db.admin, `SELECT count(*) FROM outbox.parked`), "not stored yet")
	let()
	eventually(t, func() bool { return scan[int](t, db.admin, `SELECT count(*) FROM outbox.parked`) == 2 }, "parked")
	require.NoError(t, stop())
	require.Equal(t, []string{"dead", "blocked"}, scan[[]string](t, db.admin, `SELECT array_agg(state ORDER BY n) FROM outbox.parked`))
	got := p.payloads()
	slices.Sort(got)
	require.Equal(t, []string{"other0", "other1", "other2", "slow"}, got)
}
