package verdict_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/examples/delivery/verdict"
)

// kept is the evidence of a run that kept every promise.
func kept() verdict.Evidence {
	events := func() []verdict.Event {
		return []verdict.Event{
			{Delivery: "d1", What: "created", ID: "e1", Cause: "r1", Request: "q1", Seq: 1},
			{Delivery: "d2", What: "created", ID: "e2", Cause: "r2", Request: "q2", Seq: 2},
			{Delivery: "d1", What: "completed", ID: "e3", Cause: "r3", Request: "q1", Seq: 3},
		}
	}
	return verdict.Evidence{
		Scripts: []verdict.Script{
			{Delivery: "d1", Request: "q1", Steps: []verdict.Step{{What: "created", Cause: "r1"}, {What: "completed", Cause: "r3"}}},
			{Delivery: "d2", Request: "q2", Steps: []verdict.Step{{What: "created", Cause: "r2"}}},
		},
		Written: events(), History: events(),
		Views: []verdict.View{{Delivery: "d1", State: "completed", Changes: 2}, {Delivery: "d2", State: "created", Changes: 1}},
	}
}

func TestEveryPromiseCanBeKept(t *testing.T) {
	require.Len(t, verdict.Judge(kept()), 8)
	for _, p := range verdict.Judge(kept()) {
		require.True(t, p.Held, "%s: %v", p.Name, p.Broken)
	}
}

func TestEveryBrokenPromiseIsNamed(t *testing.T) {
	const (
		translation = "each report translated once, in order"
		cause       = "every event names its cause"
	)
	for name, tt := range map[string]struct {
		breakIt func(*verdict.Evidence)
		want    []string
	}{
		"not translated": {func(e *verdict.Evidence) {
			e.Written, e.History = e.Written[:2], e.History[:2]
		}, []string{translation}},
		"translated twice": {func(e *verdict.Evidence) {
			again := verdict.Event{Delivery: "d1", What: "completed", ID: "e4", Cause: "r3", Request: "q1", Seq: 4}
			e.Written, e.History = append(e.Written, again), append(e.History, again)
		}, []string{translation}},
		"of nobody's delivery": {func(e *verdict.Evidence) {
			other := verdict.Event{Delivery: "d9", What: "created", ID: "e9", Seq: 9}
			e.Written, e.History = append(e.Written, other), append(e.History, other)
		}, []string{translation}},
		"lost": {func(e *verdict.Evidence) { e.History = e.History[:2] }, []string{"nothing lost"}},
		"invented": {func(e *verdict.Evidence) {
			e.History = append(e.History, verdict.Event{Delivery: "d2", ID: "?", Seq: 0})
		}, []string{"nothing invented"}},
		"doubled": {func(e *verdict.Evidence) {
			again := e.History[0]
			again.Seq = 4
			e.History = append(e.History, again)
		}, []string{"each event once in the history"}},
		"out of order": {func(e *verdict.Evidence) {
			e.History[0].Seq, e.History[2].Seq = 3, 1
		}, []string{"each delivery's history in order"}},
		"cause lost when written":    {func(e *verdict.Evidence) { e.Written[1].Cause = "" }, []string{cause}},
		"cause lost on the way":      {func(e *verdict.Evidence) { e.History[1].Cause = "" }, []string{cause}},
		"request lost on the way":    {func(e *verdict.Evidence) { e.History[2].Request = "q2" }, []string{cause}},
		"the view forgot":            {func(e *verdict.Evidence) { e.Views = e.Views[:1] }, []string{"the read model agrees"}},
		"the view counted twice":     {func(e *verdict.Evidence) { e.Views[0].Changes = 3 }, []string{"the read model agrees"}},
		"something is a dead letter": {func(e *verdict.Evidence) { e.Dead = []string{"r7: undecodable"} }, []string{"no dead letters"}},
	} {
		t.Run(name, func(t *testing.T) {
			e := kept()
			tt.breakIt(&e)
			var broken []string
			for _, p := range verdict.Judge(e) {
				if !p.Held {
					broken = append(broken, p.Name)
				}
			}
			require.True(t, slices.Equal(tt.want, broken), "want %q, got %q", tt.want, broken)
		})
	}
}
