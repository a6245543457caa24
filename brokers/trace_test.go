package brokers_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
)

func TestTraceID(t *testing.T) {
	t.Parallel()
	const id = "4bf92f3577b34da6a3ce929d0e0e4736"
	for header, want := range map[string]string{
		"":                                  "",
		"00-" + id + "-00f067aa0ba902b7-01": id,
		"cc-" + id + "-00f067aa0ba902b7-01-what-is":               id, // a later version may say more
		"00-" + strings.ToUpper(id) + "-00f067aa0ba902b7-01":      "",
		"00-" + strings.Repeat("0", 32) + "-00f067aa0ba902b7-01":  "",
		"00-" + id[1:] + "-00f067aa0ba902b7-01":                   "",
		"00-" + strings.Repeat("\n", 32) + "-00f067aa0ba902b7-01": "",
		strings.Repeat("-", 60):                                   "",
		"00_" + id + "_00f067aa0ba902b7_01":                       "",
	} {
		m := brokers.Message{Headers: map[string]string{"traceparent": header}}
		require.Equal(t, want, m.TraceID(), header)
	}
	require.Empty(t, (&brokers.Message{}).TraceID())
}
