package page

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/relay"
)

func TestAdvice(t *testing.T) {
	t.Parallel()
	owned := []relay.Owner{{Instance: "a", Shards: 64, Live: true}}
	circuit := func(topic, state string) []relay.CircuitStatus {
		return []relay.CircuitStatus{{Instance: "a", Topic: topic, State: state}}
	}
	for name, c := range map[string]struct {
		status   relay.PipelineStatus
		level    string
		says     string
		commands string
	}{
		"well":          {relay.PipelineStatus{Owners: owned, Backlog: 9, OldestUnsentSeconds: 2}, "", "", ""},
		"nobody":        {relay.PipelineStatus{Unowned: 64}, "bad", "No relay publishes it: 64 shards", "relay status"},
		"all silent":    {relay.PipelineStatus{Unowned: 64, Owners: []relay.Owner{{Instance: "a", Shards: 64}}}, "bad", "No relay publishes it", "relay status"},
		"one silent":    {relay.PipelineStatus{Unowned: 32, Owners: []relay.Owner{{Instance: "a", Shards: 32, Live: true}, {Instance: "b", Shards: 32}}}, "warn", "32 shards have no living owner", "relay status"},
		"broker away":   {relay.PipelineStatus{Owners: owned, Circuits: circuit("", "open")}, "bad", "does not answer a. Nothing is lost", "relay status"},
		"broker probed": {relay.PipelineStatus{Owners: owned, Circuits: circuit("", "half-open")}, "bad", "does not answer a. Nothing is lost", "relay status"},
		"broker back":   {relay.PipelineStatus{Owners: owned, Circuits: circuit("", "recovering")}, "warn", "answers a again", "relay status"},
		"topic refused": {relay.PipelineStatus{Name: "kafka", Owners: owned, Circuits: circuit("orders", "open")}, "warn", "refuses topic orders (open, a)", "relay dlq list --pipeline kafka"},
		"dead": {
			relay.PipelineStatus{Name: "kafka", Owners: owned, Parked: relay.ParkedStatus{Dead: 300, Exact: true}}, "bad",
			"300 events could not be published", "relay dlq list --pipeline kafka --state dead",
		},
		"many dead": {relay.PipelineStatus{Owners: owned, Parked: relay.ParkedStatus{Dead: 1234567}}, "bad", "At least 1,234,567 events", "relay dlq list --pipeline  --state dead"},
		"slow":      {relay.PipelineStatus{Owners: owned, Backlog: 9, OldestUnsentSeconds: 125}, "warn", "waited for 2m5s, and no circuit is open", "relay status"},
	} {
		list := adviseOn(c.status, plainCommand)
		require.Equal(t, c.level, worst(list), name)
		if c.level == "" {
			require.Empty(t, list, name)
			continue
		}
		require.Len(t, list, 1, name)
		require.Contains(t, list[0].Text, c.says, name)
		require.Equal(t, c.commands, list[0].Commands[0].Command, name)
	}
	both := adviseOn(relay.PipelineStatus{Owners: owned, Circuits: circuit("", "recovering"), Parked: relay.ParkedStatus{Dead: 1, Exact: true}}, plainCommand)
	require.Len(t, both, 2)
	require.Equal(t, "bad", worst(both))
	away := adviseOn(relay.PipelineStatus{Owners: owned, Circuits: circuit("", "open")}, plainCommand)
	require.Equal(t, "relay doctor", away[0].Commands[1].Command)
	require.Equal(t, away, adviseOn(relay.PipelineStatus{Owners: owned, Circuits: circuit("", "half-open")}, plainCommand), "not news at each probe")
}
