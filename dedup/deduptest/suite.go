package deduptest

import (
	"context"
	"testing"
	"time"

	"github.com/outboxkit/outboxkit/dedup"
)

// Open makes an empty store for one test. It is closed by t.Cleanup.
type Open func(t testing.TB, concurrent dedup.Concurrent) Begin

// Begin begins what a call of Once is part of: a transaction, for a store that
// works in one. end commits it or rolls it back. Begin is called from several
// goroutines at once, up to 32 times without end.
type Begin func(ctx context.Context) (store dedup.Store, end func(commit bool) error, err error)

// Run runs the suite as subtests of t, in parallel.
func Run(t *testing.T, open Open) {
	for _, check := range []struct {
		name       string
		concurrent dedup.Concurrent
		run        func(t *testing.T, s *store)
	}{
		{"duplicate_gets_the_first_response", dedup.Wait, duplicateGetsTheFirstResponse},
		{"responses_are_kept_as_they_are", dedup.Wait, responsesAreKeptAsTheyAre},
		{"keys_are_source_and_id", dedup.Wait, keysAreSourceAndID},
		{"failure_frees_the_key", dedup.Wait, failureFreesTheKey},
		{"panic_frees_the_key", dedup.Wait, panicFreesTheKey},
		{"rollback_frees_the_key", dedup.Wait, rollbackFreesTheKey},
		{"second_waits_for_the_first", dedup.Wait, secondWaitsForTheFirst},
		{"second_runs_when_the_first_fails", dedup.Wait, secondRunsWhenTheFirstFails},
		{"waiting_ends_with_its_context", dedup.Wait, waitingEndsWithItsContext},
		{"other_keys_do_not_wait", dedup.Wait, otherKeysDoNotWait},
		{"second_gets_a_conflict", dedup.Conflict, secondGetsAConflict},
		{"storm_waiting", dedup.Wait, storm},
		{"storm_in_conflict", dedup.Conflict, storm},
	} {
		t.Run(check.name, func(t *testing.T) {
			t.Parallel()
			check.run(t, &store{t: t, begin: open(t, check.concurrent)})
		})
	}
}

// patience bounds every wait of the suite.
const patience = 30 * time.Second

// store runs each call in a transaction of its own, which commits if the call
// succeeded.
type store struct {
	t     *testing.T
	begin Begin
}

type doFunc = func(context.Context) ([]byte, error)

func (s *store) once(ctx context.Context, key dedup.Key, do doFunc) (answer dedup.Answer, err error) {
	in, end, err := s.begin(ctx)
	if err != nil {
		return dedup.Answer{}, err
	}
	ended := false
	defer func() {
		if !ended { // do panicked
			_ = end(false)
		}
	}()
	answer, err = in.Once(ctx, key, do)
	ended = true
	if endErr := end(err == nil); err == nil {
		err = endErr
	}
	return answer, err
}

func key(id string) dedup.Key { return dedup.Key{Source: "/test", ID: id} }

func returns(response string) doFunc {
	return func(context.Context) ([]byte, error) { return []byte(response), nil }
}

// never is for calls that must not run.
func (s *store) never(context.Context) ([]byte, error) {
	s.t.Error("a duplicate ran")
	return nil, nil
}
