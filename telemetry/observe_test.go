package telemetry_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/telemetry"
)

// A circuit that recovers works; an alert for hours of little traffic would be wrong.
func TestOnlyCircuitsThatLetNothingThroughAreTripped(t *testing.T) {
	t.Parallel()
	for state, want := range map[string]bool{"closed": false, "open": true, "half-open": true, "recovering": false} {
		require.Equal(t, want, telemetry.Tripped(state), state)
	}
}
