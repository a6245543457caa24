package inbox_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Successes pay for retries, five for one.
func TestRetryBudgets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in := w.start(w.config("inventory"), insert("inventory"))
	before := in.RetryBudgets()
	require.Len(t, before, 1)
	require.InDelta(t, 10, before[placed.Name], 1e-9)
	for n := range 10 {
		w.publish(message("a", n))
	}
	eventually(t, "all to be handled", func() bool { return in.Stats().Handled == 10 })
	eventually(t, "the budget to grow", func() bool { return in.RetryBudgets()[placed.Name] > 11.9 })
	require.InDelta(t, 12, in.RetryBudgets()[placed.Name], 1e-9)
}
