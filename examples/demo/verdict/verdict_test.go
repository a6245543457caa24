package verdict_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/examples/demo/verdict"
	"github.com/outboxkit/outboxkit/internal/history"
)

// kept is the evidence of a run that kept every promise.
func kept() verdict.Evidence {
	service := func(name string) verdict.Service {
		return verdict.Service{
			Name: name,
			Effects: []history.Effect{
				{Key: "ada", N: 1, Seq: 1}, {Key: "bob", N: 2, Seq: 2}, {Key: "ada", N: 4, Seq: 3},
			},
			Dead: []verdict.Dead{{ID: "poison", State: "dead"}},
		}
	}
	return verdict.Evidence{
		Written:            []history.Write{{Key: "ada", N: 1}, {Key: "bob", N: 2}, {Key: "ada", N: 4}},
		Poison:             "poison",
		Services:           []verdict.Service{service("inventory"), service("notification")},
		PlacedWithoutRelay: 1,
	}
}

func broken(e verdict.Evidence) (names []string) {
	for _, p := range verdict.Judge(e) {
		if !p.Held {
			names = append(names, p.Name)
		}
	}
	return names
}

func TestEveryPromiseCanBeKept(t *testing.T) {
	require.Empty(t, broken(kept()))
}

func TestEveryBrokenPromiseIsNamed(t *testing.T) {
	for name, c := range map[string]struct {
		plant func(e *verdict.Evidence, s *verdict.Service)
		want  string
	}{
		"loss": {
			func(_ *verdict.Evidence, s *verdict.Service) { s.Effects = s.Effects[:2] },
			"nothing lost",
		},
		"rolled back": {
			func(_ *verdict.Evidence, s *verdict.Service) {
				s.Effects = append(s.Effects, history.Effect{Key: "ada", N: 5, Seq: 9})
			},
			"nothing of a rolled-back transaction",
		},
		"double": {
			func(_ *verdict.Evidence, s *verdict.Service) {
				s.Effects = append(s.Effects, history.Effect{Key: "ada", N: 1, Seq: 9})
			},
			"once in each consumer's database",
		},
		"inversion": {
			func(_ *verdict.Evidence, s *verdict.Service) { s.Effects[0].Seq, s.Effects[2].Seq = 3, 1 },
			"in order per user",
		},
		"poison lost": {
			func(_ *verdict.Evidence, s *verdict.Service) { s.Dead = nil },
			"a bad event stops nothing else",
		},
		"another one dead": {
			func(_ *verdict.Evidence, s *verdict.Service) {
				s.Dead = append(s.Dead, verdict.Dead{ID: "innocent", State: "blocked"})
			},
			"a bad event stops nothing else",
		},
		"service stopped with the relay": {
			func(e *verdict.Evidence, _ *verdict.Service) { e.PlacedWithoutRelay = 0 },
			"harmless to the service that writes",
		},
		"rows changed": {
			func(e *verdict.Evidence, _ *verdict.Service) { e.RowsChanged = 1 },
			"harmless to the service that writes",
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := kept()
			c.plant(&e, &e.Services[1])
			require.Equal(t, []string{c.want}, broken(e))
		})
	}
}

func TestStoriesAreFew(t *testing.T) {
	e := kept()
	for n := range int64(10) {
		e.Written = append(e.Written, history.Write{Key: "eve", N: 100 + n})
	}
	i := slices.IndexFunc(verdict.Judge(e), func(p verdict.Promise) bool { return !p.Held })
	require.Len(t, verdict.Judge(e)[i].Broken, 4)
	require.Equal(t, "and 17 more", verdict.Judge(e)[i].Broken[3])
}
