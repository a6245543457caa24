package history_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/history"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func after(ms int) time.Time { return noon.Add(time.Duration(ms) * time.Millisecond) }

func id(key string, n int64) string { return fmt.Sprintf("id-%s-%d", key, n) }

// goodRun is a run in which every promise holds: ten keys with ten committed writes
// each, one of them poison with its followers dead in "stock"; rolled-back attempts,
// an attempt that the database forgot, repeated suffixes, two relays in turn.
func goodRun() *history.Run {
	r := &history.Run{Consumers: []string{"stock", "mail"}, Takeovers: 1}
	ms := 0
	for n := int64(1); n <= 10; n++ {
		for k := range 10 {
			ms++
			key := fmt.Sprint("k", k)
			w := history.Written{ID: id(key, n), Key: key, N: n, At: after(ms), Slot: 3, Fate: history.Committed, Poison: k == 5 && n == 4}
			r.Written = append(r.Written, w)
			if n == 7 {
				w.ID, w.Fate = w.ID+"-undone", history.RolledBack
				r.Written = append(r.Written, w)
				w.ID, w.Fate = w.ID+"-forgotten", history.Forgotten
				r.Written = append(r.Written, w)
			}
		}
	}
	publish := func(n int64, k int, by string) {
		ms++
		key := fmt.Sprint("k", k)
		r.Published = append(r.Published, history.Published{
			ID: id(key, n), Unit: fmt.Sprint("orders/", k%3), Offset: int64(ms), At: after(ms), By: by, Handed: after(ms),
		})
	}
	for k := range 10 {
		for n := int64(1); n <= 6; n++ {
			publish(n, k, "a")
		}
		for n := int64(4); n <= 10; n++ { // a takeover repeats a suffix
			publish(n, k, "b")
		}
		for n := int64(1); n <= 10; n++ {
			for _, c := range r.Consumers {
				ms++
				key := fmt.Sprint("k", k)
				if c == "stock" && k == 5 && n >= 4 {
					r.Dead = append(r.Dead, history.DeadLetter{Consumer: c, ID: id(key, n), State: "dead", Reason: "permanent", At: after(ms)})
					continue
				}
				r.Effects = append(r.Effects, history.Effected{Consumer: c, ID: id(key, n), Seq: int64(ms), At: after(ms)})
			}
		}
	}
	return r
}

func TestGoodRun(t *testing.T) {
	t.Parallel()
	require.Empty(t, history.Report(goodRun().Judge()))
	require.Empty(t, (&history.Run{}).Judge())
	r := goodRun()
	r.Published = append(r.Published, history.Published{ID: "id-k1-7-undone-forgotten", Unit: "orders/1", Offset: 1e6})
	r.Effects = append(r.Effects, history.Effected{Consumer: "mail", ID: "id-k1-7-undone-forgotten", Seq: 1e6})
	require.Empty(t, history.Report(r.Judge()), "what the database forgot may be out")
}

// published returns the records of an event, and the run without them.
func published(r *history.Run, id string) (of, others []history.Published) {
	for _, p := range r.Published {
		if p.ID == id {
			of = append(of, p)
		} else {
			others = append(others, p)
		}
	}
	return of, others
}

// swap exchanges the offsets of the first records of two events.
func swap(r *history.Run, a, b string) {
	find := func(id string) *history.Published {
		return &r.Published[slices.IndexFunc(r.Published, func(p history.Published) bool { return p.ID == id })]
	}
	p, q := find(a), find(b)
	p.Offset, q.Offset = q.Offset, p.Offset
}

// plantedFaults are what may be wrong with a good run, and how it is told.
var plantedFaults = map[string]struct {
	plant func(r *history.Run)
	want  []string
}{
	"never published, no effect": {func(r *history.Run) {
		_, r.Published = published(r, id("k3", 8))
		r.Effects = slices.DeleteFunc(r.Effects, func(e history.Effected) bool { return e.ID == id("k3", 8) })
	}, []string{"loss of k3#8: committed, and never published\n"}},
	"no effect in one consumer": {func(r *history.Run) {
		r.Effects = slices.DeleteFunc(r.Effects, func(e history.Effected) bool { return e.ID == id("k3", 8) && e.Consumer == "mail" })
	}, []string{"loss of k3#8: published, and no effect in mail\n"}},
	"the last of a key": {func(r *history.Run) {
		r.Effects = slices.DeleteFunc(r.Effects, func(e history.Effected) bool { return e.ID == id("k3", 10) && e.Consumer == "stock" })
	}, []string{"loss of k3#10: published, and no effect in stock\n"}},
	"two effects": {func(r *history.Run) {
		r.Effects = append(r.Effects, history.Effected{Consumer: "mail", ID: id("k3", 8), Seq: 1e6})
	}, []string{"double of k3#8: took effect 2 times in mail\n"}},
	"first publications inverted, effects not": {func(r *history.Run) {
		swap(r, id("k3", 2), id("k3", 3))
	}, []string{"inversion of k3#2: first published after #3\n"}},
	"inverted behind a repeated suffix": {func(r *history.Run) {
		of, others := published(r, id("k3", 5))
		r.Published = append(others, of[1]) // as if 6 had been first
	}, []string{"inversion of k3#5: first published after #6\n"}},
	"effects inverted": {func(r *history.Run) {
		var a, b *history.Effected
		for i := range r.Effects {
			switch e := &r.Effects[i]; {
			case e.Consumer == "stock" && e.ID == id("k3", 8):
				a = e
			case e.Consumer == "stock" && e.ID == id("k3", 9):
				b = e
			}
		}
		a.Seq, b.Seq = b.Seq, a.Seq
	}, []string{"inversion of k3#8: took effect in stock after #9\n"}},
	"rolled back, published": {func(r *history.Run) {
		r.Published = append(r.Published, history.Published{ID: "id-k3-7-undone", Unit: "orders/0", Offset: 1e6})
	}, []string{"phantom of k3#7: rolled back, and published\n"}},
	"rolled back, effect": {func(r *history.Run) {
		r.Effects = append(r.Effects, history.Effected{Consumer: "mail", ID: "id-k3-7-undone", Seq: 1e6})
	}, []string{"phantom of k3#7: rolled back, and took effect in mail\n"}},
	"nobody wrote it": {func(r *history.Run) {
		r.Published = append(r.Published, history.Published{ID: "x", Unit: "orders/0", Offset: 1e6})
	}, []string{"phantom of x#0: nobody wrote it\n"}},
	"effect and dead letter": {func(r *history.Run) {
		r.Effects = append(r.Effects, history.Effected{Consumer: "stock", ID: id("k5", 4), Seq: 1e6})
	}, []string{"phantom of k5#4: took effect in stock, and is a dead letter too\n"}},
	"dead twice": {func(r *history.Run) {
		r.Dead = append(r.Dead, r.Dead[0])
	}, []string{"double of k5#4: is 2 dead letters of stock\n"}},
	"went past a dead letter": {func(r *history.Run) {
		r.Dead = slices.DeleteFunc(r.Dead, func(d history.DeadLetter) bool { return d.ID == id("k5", 9) })
		r.Effects = append(r.Effects, history.Effected{Consumer: "stock", ID: id("k5", 9), Seq: 1e6})
	}, []string{"inversion of k5#9: went past #4, which is dead in stock\n"}},
	"published past a parked one": {func(r *history.Run) {
		r.Dead = append(r.Dead, history.DeadLetter{ID: id("k5", 4), State: "dead", Reason: "too large"})
		_, r.Published = published(r, id("k5", 4))
	}, []string{"inversion of k5#5: went past #4, which is dead in the relay\n"}},
	"dead without a reason": {func(r *history.Run) {
		for n := int64(8); n <= 10; n++ { // it, and those behind it
			r.Effects = slices.DeleteFunc(r.Effects, func(e history.Effected) bool { return e.Consumer == "mail" && e.ID == id("k3", n) })
			r.Dead = append(r.Dead, history.DeadLetter{Consumer: "mail", ID: id("k3", n), State: "dead", Reason: "attempts"})
		}
	}, []string{"unexplained dead letter of k3#8: died in mail: attempts\n"}},
	"parked without a reason": {func(r *history.Run) {
		_, r.Published = published(r, id("k3", 10))
		r.Effects = slices.DeleteFunc(r.Effects, func(e history.Effected) bool { return e.ID == id("k3", 10) })
		r.Dead = append(r.Dead, history.DeadLetter{ID: id("k3", 10), State: "retrying", Reason: "no such topic"})
	}, []string{"unexplained dead letter of k3#10: died in the relay: no such topic\n"}},
	"two relays at a time": {func(r *history.Run) {
		for i := range r.Published { // k3's second half, in turns
			if p := &r.Published[i]; strings.HasPrefix(p.ID, "id-k3-") && p.By == "b" && i%2 == 0 {
				p.By = "a"
			}
		}
	}, []string{"two publishers at a time of k3#"}},
	"a relay comes back after it was followed": {func(r *history.Run) {
		of, others := published(r, id("k3", 10))
		of[0].By = "a"
		r.Published = append(others, of...)
	}, []string{"two publishers at a time of k3#10: its key went from relay to relay 2 times, and its lease can have gone 1 times\n"}},
	"several at once": {func(r *history.Run) {
		swap(r, id("k3", 2), id("k3", 3))
		r.Effects = append(r.Effects, history.Effected{Consumer: "mail", ID: id("k1", 1), Seq: 1e6})
		r.Published = append(r.Published, history.Published{ID: "id-k9-7-undone", Unit: "orders/0", Offset: 1e6})
	}, []string{"double of k1#1: ", "inversion of k3#2: ", "phantom of k9#7: "}},
}

func TestPlantedFaultsInARunAreFound(t *testing.T) {
	t.Parallel()
	for name, c := range plantedFaults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := goodRun()
			c.plant(r)
			found := r.Judge()
			require.Len(t, found, len(c.want), "%v", found)
			for i, v := range found {
				require.Contains(t, v.String(), c.want[i])
			}
		})
	}
}

// Events behind a dead letter may pass where that was asked for.
func TestPassing(t *testing.T) {
	t.Parallel()
	r := goodRun()
	r.Passing = true
	for n := int64(5); n <= 10; n++ {
		r.Dead = slices.DeleteFunc(r.Dead, func(d history.DeadLetter) bool { return d.ID == id("k5", n) })
		r.Effects = append(r.Effects, history.Effected{Consumer: "stock", ID: id("k5", n), Seq: 1e6 + n})
	}
	require.Empty(t, history.Report(r.Judge()))
	r.Dead = append(r.Dead, history.DeadLetter{Consumer: "mail", ID: id("k5", 10), Reason: "attempts"})
	r.Effects = slices.DeleteFunc(r.Effects, func(e history.Effected) bool { return e.Consumer == "mail" && e.ID == id("k5", 10) })
	found := r.Judge()
	require.Len(t, found, 1)
	require.Contains(t, found[0].String(), "unexplained dead letter of k5#10")
}

// A poison event that the database has forgotten still holds its key at consumers.
func TestForgottenPoison(t *testing.T) {
	t.Parallel()
	r := goodRun()
	r.Written = append(r.Written,
		history.Written{ID: "f1", Key: "k3", N: 8, Fate: history.Forgotten, Poison: true},
		history.Written{ID: "f2", Key: "k3", N: 9, Fate: history.Forgotten})
	r.Dead = append(r.Dead, history.DeadLetter{Consumer: "mail", ID: "f1"}, history.DeadLetter{Consumer: "mail", ID: "f2"})
	for n := int64(8); n <= 10; n++ {
		r.Effects = slices.DeleteFunc(r.Effects, func(e history.Effected) bool { return e.Consumer == "mail" && e.ID == id("k3", n) })
		r.Dead = append(r.Dead, history.DeadLetter{Consumer: "mail", ID: id("k3", n)})
	}
	require.Empty(t, history.Report(r.Judge()))
	r.Dead = append(r.Dead, history.DeadLetter{Consumer: "stock", ID: "f2"})
	found := r.Judge()
	require.Len(t, found, 1)
	require.Contains(t, found[0].String(), "unexplained dead letter of k3#9: died in stock")
}

// What was injected may only die.
func TestInjected(t *testing.T) {
	t.Parallel()
	r := goodRun()
	r.Written = append(r.Written, history.Written{ID: "bytes", Fate: history.Injected, Poison: true})
	r.Dead = append(r.Dead, history.DeadLetter{Consumer: "mail", ID: "bytes", Reason: "undecodable"})
	require.Empty(t, history.Report(r.Judge()))
	r.Effects = append(r.Effects, history.Effected{Consumer: "stock", ID: "bytes"})
	require.Len(t, r.Judge(), 1)
}

// The story is every place where the events were seen, in order of time, and
// nothing else.
func TestStory(t *testing.T) {
	t.Parallel()
	r := &history.Run{
		Consumers: []string{"stock"},
		Written: []history.Written{
			{ID: "id-1", Key: "k", N: 1, At: after(0), Slot: 2, Fate: history.Committed},
			{ID: "id-2", Key: "k", N: 2, At: after(40), Slot: 3, Fate: history.Committed},
			{ID: "id-3", Key: "other", N: 1, At: after(50), Slot: 3, Fate: history.Committed},
		},
		Published: []history.Published{
			{ID: "id-1", Unit: "orders/1", Offset: 7, At: after(100), By: "r1", Handed: after(90)},
			{ID: "id-2", Unit: "orders/1", Offset: 6, At: after(99)},
			{ID: "id-3", Unit: "orders/1", Offset: 8, At: after(101)},
		},
		Effects: []history.Effected{
			{Consumer: "stock", ID: "id-1", Seq: 1, At: after(120)},
			{Consumer: "stock", ID: "id-3", Seq: 3},
		},
		Dead:   []history.DeadLetter{{Consumer: "stock", ID: "id-2", State: "dead", Reason: "permanent", At: after(130)}},
		Faults: []history.Fault{{At: after(95), Text: "relay 1 killed"}, {At: after(9000), Text: "long after"}},
	}
	r.Written[1].Poison = true
	found := r.Judge()
	require.Len(t, found, 1)
	require.Equal(t, `inversion of k#1: first published after #2
    12:00:00.000 k#1 written in slot 2, committed (event id-1)
    12:00:00.040 k#2 written in slot 3, committed, poison (event id-2)
    12:00:00.095 -- relay 1 killed
    12:00:00.099 k#2 published to orders/1 at 6
    12:00:00.100 k#1 published to orders/1 at 7, handed over at 12:00:00.090 by r1
    12:00:00.120 k#1 took effect in stock as number 1
    12:00:00.130 k#2 dead in stock: permanent`, found[0].String())
}

// However much is wrong, a report stays short, and so does the story of an event
// that is published again and again.
func TestStoriesAreBounded(t *testing.T) {
	t.Parallel()
	r := goodRun()
	r.Effects, r.Dead = nil, nil
	for i := range 1000 {
		r.Published = append(r.Published, history.Published{ID: id("k0", 1), Unit: "orders/0", Offset: int64(1e6 + i)})
	}
	report := history.Report(r.Judge())
	require.Less(t, strings.Count(report, "\n"), 80)
	require.Contains(t, report, "published 997 times more")
}
