package telemetry_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/telemetry"
)

//go:generate go test -run TestDocsListTheMetrics -update .

var update = flag.Bool("update", false, "write the table in the documentation")

// Every metric of the list is in a scrape of a live relay and consumer, with no
// other attributes than those listed, and nothing of ours is there that is not
// listed.
func TestScrapeHasWhatTheListPromises(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.place("o-1")
	listed := map[string]telemetry.Metric{}
	for _, m := range telemetry.Metrics() {
		require.NotContains(t, listed, m.Prometheus(), "twice")
		listed[m.Prometheus()] = m
	}
	var missing []string
	var last []sample
	require.Eventually(t, func() bool {
		last, missing = w.samples(), nil
		for name, m := range listed {
			if m.Kind == telemetry.Histogram {
				name += "_count"
			}
			if !slices.ContainsFunc(last, func(s sample) bool { return s.name == name }) {
				missing = append(missing, name)
			}
		}
		return len(missing) == 0 && total(last, "outboxkit_inbox_events_total", map[string]string{"outboxkit_outcome": "handled"}) == 2
	}, patience, tick, "missing: %v", &missing)

	for _, s := range last {
		name := s.name
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if m, ok := listed[strings.TrimSuffix(name, suffix)]; ok && m.Kind == telemetry.Histogram {
				name = strings.TrimSuffix(name, suffix)
			}
		}
		if !strings.HasPrefix(name, "outboxkit_") && !strings.HasPrefix(name, "messaging_") && !strings.HasPrefix(name, "db_client_") {
			continue // Go's and the process's own
		}
		m, ok := listed[name]
		require.True(t, ok, "%s is not in the list", s.name)
		for label := range s.labels {
			if label == "le" && m.Kind == telemetry.Histogram {
				continue
			}
			require.True(t, slices.ContainsFunc(m.Attributes, func(a string) bool { return strings.ReplaceAll(a, ".", "_") == label }), "%s has %s", name, label)
		}
	}
}

// The figures are those of what happened.
func TestScrapeCounts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, id := range []string{"a", "b", "c"} {
		w.place(id)
	}
	sum := func(name string, labels ...string) float64 {
		want := map[string]string{}
		for i := 0; i < len(labels); i += 2 {
			want[labels[i]] = labels[i+1]
		}
		return total(w.samples(), name, want)
	}
	require.Eventually(t, func() bool {
		return sum("outboxkit_inbox_events_total", "messaging_consumer_group_name", "mail", "outboxkit_outcome", "handled") == 3
	}, patience, tick)
	require.Eventually(t, func() bool { return sum("outboxkit_relay_published_total", "outboxkit_pipeline", "memory") == 6 }, patience, tick)
	for _, c := range []struct {
		want   float64
		name   string
		labels []string
	}{
		{3, "messaging_client_sent_messages_total", []string{"messaging_destination_name", "orders", "error_type", ""}},
		{3, "messaging_client_sent_messages_total", []string{"messaging_destination_name", "shipments"}},
		{3, "outboxkit_relay_latency_seconds_count", []string{"messaging_destination_name", "orders"}},
		{3, "outboxkit_inbox_latency_seconds_count", []string{"messaging_consumer_group_name", "mail"}},
		{3, "messaging_process_duration_seconds_count", []string{"messaging_consumer_group_name", "shipping", "error_type", ""}},
		{1, "outboxkit_relay_ready", []string{"outboxkit_database", "shop"}},
		{64, "outboxkit_relay_shards", nil},
		{500, "outboxkit_relay_retry_budget", nil},
		{0, "outboxkit_relay_stuck", nil},
		{0, "outboxkit_relay_circuit_tripped", nil},
		{0, "outboxkit_inbox_failures_total", nil},
	} {
		require.InDelta(t, c.want, sum(c.name, c.labels...), 0, "%s %v", c.name, c.labels)
	}
	// Ten at the start, and a fifth for each success.
	require.Eventually(t, func() bool { return sum("outboxkit_inbox_retry_budget", "outboxkit_event_type", shipped.Name) > 10.5 }, patience, tick)
	require.Positive(t, sum("outboxkit_relay_sent_size_bytes_total"))
	require.Positive(t, sum("outboxkit_relay_lease_remaining_seconds"))
	require.Positive(t, sum("db_client_connection_max"))
	require.Less(t, sum("outboxkit_inbox_latency_seconds_sum", "messaging_consumer_group_name", "mail"), 3*60.0, "seconds, not milliseconds")
}

const doc = "../docs/observability.md"

// The table of the documentation is made from the list.
func TestDocsListTheMetrics(t *testing.T) {
	t.Parallel()
	const begin, end = "<!-- metrics: made by go generate ./telemetry -->\n", "<!-- end of metrics -->"
	data, err := os.ReadFile(doc)
	require.NoError(t, err)
	head, rest, ok := strings.Cut(string(data), begin)
	require.True(t, ok)
	table, tail, ok := strings.Cut(rest, end)
	require.True(t, ok)
	var want strings.Builder
	want.WriteString("\n| OpenTelemetry | Prometheus | kind, unit | attributes | meaning |\n|---|---|---|---|---|\n")
	for _, m := range telemetry.Metrics() {
		fmt.Fprintf(&want, "| `%s` | `%s` | %s, %s | `%s` | %s |\n", m.Name, m.Prometheus(), m.Kind, m.Unit, strings.Join(m.Attributes, "`, `"), m.Text)
	}
	want.WriteString("\n")
	if *update {
		require.NoError(t, os.WriteFile(doc, []byte(head+begin+want.String()+end+tail), 0o600))
		return
	}
	require.Equal(t, want.String(), table, "run: go generate ./telemetry")
}
