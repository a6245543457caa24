package history_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/history"
)

// good is a history in which every promise holds: 20 keys, 50 writes each,
// effects interleaved at random between keys.
func good() ([]history.Write, []history.Effect) {
	var written []history.Write
	next := map[int]int64{}
	var effects []history.Effect
	for len(effects) < 20*50 {
		k := rand.IntN(20)
		if next[k] == 50 {
			continue
		}
		next[k]++
		key := fmt.Sprint("k", k)
		written = append(written, history.Write{Key: key, N: next[k]})
		effects = append(effects, history.Effect{Key: key, N: next[k], Seq: int64(len(effects) + 1)})
	}
	rand.Shuffle(len(written), func(i, j int) { written[i], written[j] = written[j], written[i] })
	return written, effects
}

// at returns the index of the effect of key#n.
func at(effects []history.Effect, key string, n int64) int {
	for i, e := range effects {
		if e.Key == key && e.N == n {
			return i
		}
	}
	panic("no such effect")
}

func TestNothingToReport(t *testing.T) {
	t.Parallel()
	require.Empty(t, history.Check(good()))
	require.Empty(t, history.Check(nil, nil))
}

func TestReportIsShort(t *testing.T) {
	t.Parallel()
	require.Empty(t, history.Report(nil))
	written, _ := good()
	all := history.Report(history.Check(written, nil))
	require.Equal(t, 22, strings.Count(all, "\n")+1)
	require.Contains(t, all, "1000 violations\nloss of k0#1: ")
	require.Contains(t, all, "\nand 980 more")
	one := history.Report(history.Check(written[:1], nil))
	require.Contains(t, one, "1 violations\nloss of ")
	require.NotContains(t, one, "more")
}

func TestPlantedFaultsAreFound(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		plant func(w []history.Write, e []history.Effect) ([]history.Write, []history.Effect)
		want  []string
	}{
		"loss": {func(w []history.Write, e []history.Effect) ([]history.Write, []history.Effect) {
			i := at(e, "k3", 17)
			return w, append(e[:i], e[i+1:]...)
		}, []string{"loss of k3#17"}},
		"loss of a key's last": {func(w []history.Write, e []history.Effect) ([]history.Write, []history.Effect) {
			i := at(e, "k3", 50)
			return w, append(e[:i], e[i+1:]...)
		}, []string{"loss of k3#50"}},
		"double at once": {func(w []history.Write, e []history.Effect) ([]history.Write, []history.Effect) {
			d := e[at(e, "k4", 5)]
			d.Seq = 1_000_000
			return w, append(e, d)
		}, []string{"double of k4#5"}},
		"inversion": {func(w []history.Write, e []history.Effect) ([]history.Write, []history.Effect) {
			i, j := at(e, "k7", 8), at(e, "k7", 9)
			e[i].Seq, e[j].Seq = e[j].Seq, e[i].Seq
			return w, e
		}, []string{"inversion of k7#8"}},
		"phantom": {func(w []history.Write, e []history.Effect) ([]history.Write, []history.Effect) {
			return w, append(e, history.Effect{Key: "k7", N: 51, Seq: 1_000_000})
		}, []string{"phantom of k7#51"}},
		"all at once": {func(w []history.Write, e []history.Effect) ([]history.Write, []history.Effect) {
			i := at(e, "k1", 1)
			e = append(e[:i], e[i+1:]...)
			d := e[at(e, "k2", 2)]
			d.Seq = 1_000_000
			e = append(e, d, history.Effect{Key: "new", N: 1, Seq: 2_000_000})
			i, j := at(e, "k3", 3), at(e, "k3", 4)
			e[i].Seq, e[j].Seq = e[j].Seq, e[i].Seq
			return w, e
		}, []string{"loss of k1#1", "double of k2#2", "inversion of k3#3", "phantom of new#1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found := history.Check(c.plant(good()))
			require.Len(t, found, len(c.want), "%v", found)
			for i, v := range found {
				require.Contains(t, v.String(), c.want[i]+": ")
			}
		})
	}
}
