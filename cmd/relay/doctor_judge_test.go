package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/kafka"
	"github.com/outboxkit/outboxkit/relay"
)

// What a cluster of one broker cannot be: as it should, and degraded.
func TestDoctorJudgesTopics(t *testing.T) {
	t.Parallel()
	good := kafka.TopicState{Topic: "orders", Partitions: 6, Replicas: 3, InSync: 3, MinInSync: 2, Retention: 7 * 24 * time.Hour}
	for name, c := range map[string]struct {
		change  func(*kafka.TopicState)
		verdict string
		text    string
	}{
		"as it should be": {func(*kafka.TopicState) {}, relay.VerdictOK, "3 copies, min.insync.replicas 2, keeps for 7 days"},
		"kept for ever":   {func(s *kafka.TopicState) { s.Retention = brokers.Forever }, relay.VerdictWarning, "keeps messages for ever"},
		"one confirms":    {func(s *kafka.TopicState) { s.MinInSync = 1 }, relay.VerdictWarning, "min.insync.replicas=1"},
		"no slack":        {func(s *kafka.TopicState) { s.Replicas, s.InSync = 2, 2 }, relay.VerdictWarning, "one broker's restart stops it"},
		"lagging":         {func(s *kafka.TopicState) { s.InSync = 2 }, relay.VerdictWarning, "2 of 3 copies in sync"},
		"takes nothing":   {func(s *kafka.TopicState) { s.InSync = 1 }, relay.VerdictFailure, "takes nothing"},
		"leaderless":      {func(s *kafka.TopicState) { s.Leaderless = 2 }, relay.VerdictFailure, "no leader for 2 of 6"},
		"silent":          {func(s *kafka.TopicState) { s.Unsettled = brokers.ErrClosed }, relay.VerdictUnknown, "does not tell its settings"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := &doctor{windows: []window{{"stock", "inventory", 7}}}
			s := good
			c.change(&s)
			d.topic("pipeline kafka", s)
			require.Len(t, d.findings, 1)
			require.Equal(t, c.verdict, d.findings[0].Verdict)
			require.Contains(t, d.findings[0].Detail, c.text)
			require.Equal(t, c.verdict == relay.VerdictOK, d.findings[0].Cure == "")
		})
	}
}

// A queue of RabbitMQ 4 has a delivery limit although nobody has set one.
func TestDoctorKnowsTheDeliveryLimitOfRabbitMQ4(t *testing.T) {
	t.Parallel()
	q := managedQueue{Name: "q", Type: "quorum", Durable: true, Arguments: map[string]any{"x-single-active-consumer": true}}
	require.Empty(t, q.judge("3.13.7"))
	require.Contains(t, q.judge("4.1.3")[0].Detail, "after 20 deliveries")
	q.Arguments["x-delivery-limit"] = float64(-1)
	require.Empty(t, q.judge("4.1.3"))
}

// The clock of a web server is known to a second only.
func TestDoctorComparesClocks(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for ahead, want := range map[time.Duration]string{
		0: relay.VerdictOK, time.Second: relay.VerdictOK, 10 * time.Second: relay.VerdictWarning, -10 * time.Second: relay.VerdictWarning, 2 * time.Hour: relay.VerdictFailure,
	} {
		d := &doctor{}
		d.clock("pipeline x", "the registry's", now.Add(ahead), now, 10*time.Millisecond, 500*time.Millisecond)
		require.Equal(t, want, d.findings[0].Verdict, ahead)
		// Half of the trip on top.
		require.Equal(t, ahead < -time.Second, strings.Contains(d.findings[0].Detail, "10.005s behind this machine's"), d.findings[0].Detail)
	}
}

// A web server that does not tell the time, and one that does not answer, are not
// passed over in silence.
func TestDoctorAsksForTheTime(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path == "/timeless" {
			w.Header()["Date"] = nil
		}
	}))
	defer server.Close()
	for url, want := range map[string]string{
		server.URL:                     relay.VerdictOK,
		server.URL + "/timeless":       relay.VerdictUnknown,
		"http://u:hunter2@127.0.0.1:1": relay.VerdictUnknown,
		"http://u:hunter2@127.0.0.1:x": relay.VerdictUnknown,
	} {
		d := &doctor{}
		d.httpClock(t.Context(), http.DefaultClient, "pipeline x", "the registry's", url)
		require.Len(t, d.findings, 1)
		require.Equal(t, want, d.findings[0].Verdict, d.findings[0].Detail)
		require.NotContains(t, d.findings[0].Detail, "hunter2")
	}
}

func TestManagementAddress(t *testing.T) {
	t.Parallel()
	m, err := newManagement("https://mona:s3@host:15671/", "amqp://u:p@broker:5672/shop", http.DefaultClient)
	require.NoError(t, err)
	require.Equal(t, management{base: "https://host:15671", user: "mona", password: "s3", vhost: "shop", client: http.DefaultClient}, *m)
	m, err = newManagement("http://host:15672", "amqp://u:p@broker:5672/", http.DefaultClient)
	require.NoError(t, err)
	require.Equal(t, management{base: "http://host:15672", user: "u", password: "p", vhost: "/", client: http.DefaultClient}, *m)
	_, err = newManagement("hunter2", "amqp://u:p@broker:5672/", http.DefaultClient)
	require.ErrorContains(t, err, "rabbitmq.management is not an address")
	require.NotContains(t, err.Error(), "hunter2")
}
