package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/relay"
)

// What was left out is shown in full sight, and nothing in it moves the cursor.
func TestReplayPrintsRefusedEvents(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := &replayPrinter{out: &out}
	p.progress(relay.ReplayProgress{Published: 7, Refused: 1, Held: 2, Error: "unknown topic\x1b[2J"})
	require.NoError(t, p.end(relay.ReplayConfig{}, relay.ReplayResult{
		ID: "r", Published: 10, Held: 2, Refused: []relay.ReplayFailure{{ID: "01a1", Topic: "orders", Key: "k\r", Type: "placed", Reason: "too large"}},
	}, nil))
	for _, want := range []string{"1 refused, 2 held back", "waiting: unknown topic·[2J", "01a1", "k·", "too large", "replay r done: 10 events published"} {
		require.Contains(t, out.String(), want)
	}
}
