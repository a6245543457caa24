package faults

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAPlanRepeatsForItsSeed(t *testing.T) {
	t.Parallel()
	require.Equal(t, plan(7, 10*time.Minute, nil), plan(7, 10*time.Minute, nil))
	require.NotEqual(t, plan(7, 10*time.Minute, nil), plan(8, 10*time.Minute, nil))
	a, b := rand.New(rand.NewPCG(7, 1)), rand.New(rand.NewPCG(7, 1))
	for range 1000 {
		require.Equal(t, choose(a), choose(b))
	}
}

// A run of three minutes, as CI has it, sees every kind of fault, whatever its
// seed; one of twenty sees every pair of processes suffer everything.
func TestAPlanHasEveryKind(t *testing.T) {
	t.Parallel()
	all := Kinds()
	for seed := range uint64(20) {
		kinds := map[string]int{}
		for _, s := range plan(seed, 3*time.Minute, nil) {
			kinds[s.Kind]++
		}
		for _, kind := range all {
			require.Positive(t, kinds[kind], "%s, seed %d: %v", kind, seed, kinds)
		}
		links := map[string]bool{}
		for _, s := range plan(seed, 20*time.Minute, nil) {
			if from, to, ok := strings.Cut(s.Target, ">"); ok {
				links[s.Kind+" "+from[:strings.Index(from, "-")]+">"+to] = true
			}
		}
		for _, kind := range []string{"cut", "delay", "half-open", "truncate"} {
			for process, servers := range serversOf {
				for _, server := range servers {
					require.True(t, links[kind+" "+process+">"+server], "%s %s>%s, seed %d", kind, process, server, seed)
				}
			}
		}
	}
}

// What happens to one target does not overlap, and all ends in time.
func TestFaultsOfATargetComeOneAfterTheOther(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		const duration = 20 * time.Minute
		until := map[string]time.Duration{}
		for _, s := range plan(seed, duration, nil) {
			require.GreaterOrEqual(t, s.At, until[s.Target], "%s, seed %d", s, seed)
			until[s.Target] = s.At + s.For
			require.LessOrEqual(t, s.At+s.For, duration)
		}
	}
}

func TestOnlySomeKinds(t *testing.T) {
	t.Parallel()
	only := []string{"freeze relay", "cut"}
	steps := plan(3, 3*time.Minute, only)
	for i, s := range steps {
		require.Contains(t, only, s.Kind)
		if i > 0 {
			require.GreaterOrEqual(t, s.At, steps[i-1].At+steps[i-1].For)
		}
	}
	require.NotEmpty(t, plan(3, 10*time.Second, []string{"late commit"}), "even a run that is too short has one")
}

// A service's transactions are what a seed says: hot keys, rollbacks, long ones,
// poison and oversized orders, and none of the last two among other users' orders.
func TestChoices(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 1))
	seen := map[string]int{}
	note := func(what string, is bool) {
		if is {
			seen[what]++
		}
	}
	for range 10_000 {
		c := choose(rng)
		note("rollback", c.rollback)
		note("nested", c.nested)
		note("twice", c.twice)
		note("long", c.open > 0)
		note("hot", strings.HasPrefix(c.user, "hot-"))
		note(kindPoison, c.kind == kindPoison)
		note(kindLarge, c.kind == kindLarge)
		require.Equal(t, c.kind == kindLarge, c.pad != "")
		if c.kind != "" {
			require.True(t, strings.HasPrefix(c.user, c.kind+"-"), c.user)
		}
		require.LessOrEqual(t, c.open, 3*time.Second)
	}
	for what, least := range map[string]int{"rollback": 900, "nested": 400, "twice": 400, "long": 100, "hot": 2000, kindPoison: 10, kindLarge: 5} {
		require.Greater(t, seen[what], least, what)
	}
}

func TestKindsAreNamedOnce(t *testing.T) {
	t.Parallel()
	kinds := Kinds()
	slices.Sort(kinds)
	require.Equal(t, slices.Compact(slices.Clone(kinds)), kinds)
}
