package history_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/history"
)

// withDead is a good history in which the writes of k5 from #40 on are dead letters.
func withDead() (w []history.Write, e []history.Effect, dead []history.Write) {
	w, e = good()
	e = slices.DeleteFunc(e, func(e history.Effect) bool { return e.Key == "k5" && e.N >= 40 })
	for n := int64(40); n <= 50; n++ {
		dead = append(dead, history.Write{Key: "k5", N: n})
	}
	return w, e, dead
}

func TestDeadLettersAreNoLoss(t *testing.T) {
	t.Parallel()
	w, e, dead := withDead()
	require.Empty(t, history.CheckWithDead(w, e, dead, true))
	require.Empty(t, history.CheckWithDead(w, e, dead, false))
}

func TestPlantedFaultsBesideDeadLettersAreFound(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		plant func(e []history.Effect, dead []history.Write) ([]history.Effect, []history.Write)
		pass  bool
		want  []string
	}{
		"neither": {func(e []history.Effect, dead []history.Write) ([]history.Effect, []history.Write) {
			return e, dead[:len(dead)-1]
		}, false, []string{"loss of k5#50"}},
		"both": {func(e []history.Effect, dead []history.Write) ([]history.Effect, []history.Write) {
			return append(e, history.Effect{Key: "k5", N: 40, Seq: 1_000_000}), dead
		}, false, []string{"phantom of k5#40"}},
		"dead twice": {func(e []history.Effect, dead []history.Write) ([]history.Effect, []history.Write) {
			return e, append(dead, dead[3])
		}, false, []string{"double of k5#43"}},
		"dead, not committed": {func(e []history.Effect, dead []history.Write) ([]history.Effect, []history.Write) {
			return e, append(dead, history.Write{Key: "new", N: 1})
		}, false, []string{"phantom of new#1"}},
		"past a dead letter": {func(e []history.Effect, dead []history.Write) ([]history.Effect, []history.Write) {
			return append(e, history.Effect{Key: "k5", N: 50, Seq: 1_000_000}), dead[:len(dead)-1]
		}, false, []string{"inversion of k5#50"}},
		"past a dead letter that lets others pass": {func(e []history.Effect, dead []history.Write) ([]history.Effect, []history.Write) {
			return append(e, history.Effect{Key: "k5", N: 50, Seq: 1_000_000}), dead[:len(dead)-1]
		}, true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, e, dead := withDead()
			e, dead = c.plant(e, dead)
			found := history.CheckWithDead(w, e, dead, !c.pass)
			if name == "both" {
				require.Contains(t, found[0].String(), "dead letter too")
			}
			require.Len(t, found, len(c.want), "%v", found)
			for i, v := range found {
				require.Contains(t, v.String(), c.want[i]+": ")
			}
		})
	}
}
