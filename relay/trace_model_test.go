//go:build faults

package relay

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/model"
)

// TestRecordedTraceIsAllowed: what relays really do under load, freezes, takeovers,
// refusals, redrives and truncation is what the model allows, step by step.
func TestRecordedTraceIsAllowed(t *testing.T) {
	t.Parallel()
	story := recordTrace(t, func(*Relay) {}, func(story []model.Step) bool { return len(lacking(story)) == 0 }, true)
	require.Empty(t, lacking(story), "the trace proves nothing of these")
	t.Logf("%d steps: %v", len(story), kindsOf(story))
	err := replay(story, true)
	require.NoError(t, err, about(story, err))
	for what, tamper := range tampered {
		t.Run(what, func(t *testing.T) {
			changed := tamper(slices.Clone(story))
			require.NotNil(t, changed, "the trace has nothing to tamper with")
			err := replay(changed, true)
			require.Error(t, err)
			t.Log(err)
		})
	}
}

// TestPlantedMistakesAreRefused: relays that break a rule leave a trace that the
// model does not allow.
func TestPlantedMistakesAreRefused(t *testing.T) {
	t.Parallel()
	for what, p := range map[string]struct {
		query    func(r *Relay) *string
		old, new string
		breaks   string
	}{
		"positions are stored without the lease": {func(r *Relay) *string { return &r.q.flush }, "AND l.epoch = a.epoch AND l.owner = $2", "", "the lease is"},
		"late transactions are not looked for":   {func(r *Relay) *string { return &r.q.late }, "WHERE xid = x", "WHERE false AND xid = x", "(passes|before)"},
		"parked keys are not looked up":          {func(r *Relay) *string { return &r.q.lanesWith }, "WHERE EXISTS", "WHERE false AND EXISTS", "of its key is parked"},
		"truncation without a look at positions": {func(r *Relay) *string { return &r.q.slotCheck }, "IS NOT TRUE", "IS NOT TRUE AND false", "has not passed"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			var err error
			var story []model.Step
			for n := 0; n < 3 && err == nil; n++ {
				story = recordTrace(t, func(r *Relay) {
					q := p.query(r)
					require.Contains(t, *q, p.old)
					*q = strings.Replace(*q, p.old, p.new, 1)
				}, func([]model.Step) bool { return true }, false)
				err = replay(story, false)
			}
			require.Error(t, err)
			t.Log(err)
			require.Regexp(t, p.breaks, err.Error(), about(story, err))
		})
	}
}

// tampered changes a trace into one that may not be; nil if there is nothing to
// change.
var tampered = map[string]func([]model.Step) []model.Step{
	"a position before its confirmation": func(story []model.Step) []model.Step {
		sent := map[string]int{}
		for _, s := range story {
			if s, ok := s.(model.Send); ok {
				for _, name := range s.Names {
					sent[name]++
				}
			}
		}
		return without(story, func(s model.Step) bool {
			a, ok := s.(model.Answer)
			return ok && a.Result == model.Confirmed && sent[a.Name] == 1
		})
	},
	"a transaction that was rolled back": func(story []model.Step) []model.Step {
		var xid uint64 // a transaction has one such step for each event
		return slices.DeleteFunc(story, func(s model.Step) bool {
			c, ok := s.(model.Commit)
			if ok && xid == 0 {
				xid = c.Xid
			}
			return ok && c.Xid == xid
		})
	},
	"a parked event without its copy": func(story []model.Step) []model.Step {
		return editTx(story, func(tx model.Tx) model.Tx { return dropFirst[model.Park](tx) })
	},
	"a position of somebody else": func(story []model.Step) []model.Step {
		return editTx(story, func(tx model.Tx) model.Tx {
			return change(tx, func(s model.Store) (model.Store, bool) {
				ok := s.Owner != ""
				s.Owner += "x"
				return s, ok
			})
		})
	},
	"a position ahead of the log": func(story []model.Step) []model.Step {
		return editTx(story, func(tx model.Tx) model.Tx {
			return change(tx, func(s model.Store) (model.Store, bool) {
				ok := s.Owner != ""
				s.Position.At.H += 1000
				s.Position.At.S = model.Snapshot{Xmax: s.Position.At.B + 1000}
				return s, ok
			})
		})
	},
	"a takeover under the old epoch": func(story []model.Step) []model.Step {
		return editTx(story, func(tx model.Tx) model.Tx {
			return change(tx, func(s model.Take) (model.Take, bool) { s.Epoch--; return s, true })
		})
	},
	"a takeover from a living owner": func(story []model.Step) []model.Step {
		owners := map[model.Part]string{}
		return editTx(story, func(tx model.Tx) model.Tx {
			for _, s := range tx {
				take, ok := s.(model.Take)
				if ok && slices.Contains(tx, model.Step(model.Gone{Owner: owners[take.Part]})) {
					return slices.DeleteFunc(tx, func(s model.Step) bool { _, gone := s.(model.Gone); return gone })
				}
				if ok {
					owners[take.Part] = take.Owner
				}
			}
			return nil
		})
	},
	"a published event that was parked and not confirmed": func(story []model.Step) []model.Step {
		return editTx(story, func(tx model.Tx) model.Tx {
			return change(tx, func(s model.Park) (model.Unpark, bool) { return model.Unpark{Pipeline: s.Pipeline, N: s.N}, true })
		})
	},
	"events of a key in the wrong order": func(story []model.Step) []model.Step {
		keys := map[string]string{}
		for i, s := range story {
			if e, ok := s.(model.Insert); ok {
				keys[e.Name] = e.Key
			}
			c, ok := s.(model.Send)
			for n := 1; ok && n < len(c.Names); n++ {
				if keys[c.Names[n]] == keys[c.Names[n-1]] {
					c.Names = slices.Clone(c.Names)
					c.Names[n], c.Names[n-1] = c.Names[n-1], c.Names[n]
					story[i] = c
					return story
				}
			}
		}
		return nil
	},
	"a slot truncated too early": func(story []model.Step) []model.Step {
		for i, s := range story {
			if e, ok := s.(model.Insert); ok {
				return slices.Insert(story, i+1, model.Step(model.Truncate{Slot: e.Slot}))
			}
		}
		return nil
	},
	"an event that nobody published": func(story []model.Step) []model.Step {
		story = append(story, model.Insert{Event: model.Event{Name: "lost", ID: 1 << 40, Xid: 1 << 40, Key: "lost"}})
		return append(story, model.Commit{Xid: 1 << 40})
	},
}

// without drops the first such step.
func without(story []model.Step, drop func(model.Step) bool) []model.Step {
	if i := slices.IndexFunc(story, drop); i >= 0 {
		return slices.Delete(story, i, i+1)
	}
	return nil
}

// editTx changes the first transaction for which edit returns one.
func editTx(story []model.Step, edit func(model.Tx) model.Tx) []model.Step {
	for i, s := range story {
		if tx, ok := s.(model.Tx); ok {
			if tx = edit(slices.Clone(tx)); tx != nil {
				story[i] = tx
				return story
			}
		}
	}
	return nil
}

func dropFirst[S model.Step](tx model.Tx) model.Tx {
	for i, s := range tx {
		if _, ok := s.(S); ok {
			return slices.Delete(tx, i, i+1)
		}
	}
	return nil
}

func change[S, R model.Step](tx model.Tx, edit func(S) (R, bool)) model.Tx {
	for i, s := range tx {
		if s, ok := s.(S); ok {
			if changed, ok := edit(s); ok {
				tx[i] = changed
				return tx
			}
		}
	}
	return nil
}

// lacking lists the kinds of steps that a trace has none of.
func lacking(story []model.Step) (list []string) {
	kinds := kindsOf(story)
	for _, kind := range []string{"insert", "take", "release", "store", "send", "lost answer", "park", "change", "unpark", "truncate"} {
		if kinds[kind] == 0 {
			list = append(list, kind)
		}
	}
	return list
}

func kindsOf(story []model.Step) map[string]int {
	kinds := map[string]int{}
	for _, s := range story {
		count(kinds, s)
	}
	return kinds
}

func count(kinds map[string]int, s model.Step) {
	switch s := s.(type) {
	case model.Tx:
		for _, step := range s {
			count(kinds, step)
		}
	case model.Insert:
		kinds["insert"]++
	case model.Take:
		kinds["take"]++
	case model.Release:
		kinds["release"]++
	case model.Store:
		kinds["store"]++
	case model.Send:
		kinds["send"]++
	case model.Answer:
		if s.Result == model.Lost {
			kinds["lost answer"]++
		}
	case model.Park:
		kinds["park"]++
	case model.Change:
		kinds["change"]++
	case model.Unpark:
		kinds["unpark"]++
	case model.Truncate:
		kinds["truncate"]++
	}
}
