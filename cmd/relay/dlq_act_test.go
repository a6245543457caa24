package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/internal/svctest"
	"github.com/outboxkit/outboxkit/relay"
)

// scripted answers with outcomes, one after the other.
type scripted struct {
	deadStore
	outcomes []outcome
	err      error
}

func (s *scripted) act(_ context.Context, _ bool, _ dlqFilter, a dlqAction) (int64, error) {
	for n := int64(1); n <= 3; n++ {
		a.Progress(7, n)
	}
	return 3, s.err
}

func (s *scripted) outcome(_ context.Context, action int64) (outcome, error) {
	if action != 7 {
		return outcome{}, fmt.Errorf("action %d", action)
	}
	o := s.outcomes[0]
	if len(s.outcomes) > 1 {
		s.outcomes = s.outcomes[1:]
	}
	return o, nil
}

func (s *scripted) idle(outcome) string { return "start the consumer" }

// On a terminal one line changes, and in the end it is told what became of the
// events; elsewhere only that is told.
func TestRedriveProgress(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		store      scripted
		live       bool
		want, fail string
	}{
		"terminal": {
			scripted{outcomes: []outcome{{Retrying: 3}, {Redriven: 2, Retrying: 1}, {Redriven: 4}}}, true,
			"\r\x1b[K1 events marked to be redriven\r\x1b[K2 events marked to be redriven\r\x1b[K3 events marked to be redriven\n" +
				"\r\x1b[K0 redriven, 3 still wait\r\x1b[K2 redriven, 1 still wait\r\x1b[K4 redriven\n" +
				"3 events were to be redriven; with what followed behind them: 4 redriven\n", "",
		},
		"pipe":       {scripted{outcomes: []outcome{{Retrying: 3}, {Redriven: 3}}}, false, "3 events were to be redriven; with what followed behind them: 3 redriven\n", ""},
		"dead again": {scripted{outcomes: []outcome{{Redriven: 2, Dead: 1}}}, false, "3 events were to be redriven; with what followed behind them: 2 redriven, 1 dead again\n", "1 events are dead again"},
		"blocked":    {scripted{outcomes: []outcome{{Redriven: 1, Blocked: 2}}}, false, "3 events were to be redriven; with what followed behind them: 1 redriven, 2 blocked\n", "2 events are blocked behind a dead one"},
		"nobody":     {scripted{outcomes: []outcome{{Retrying: 3}}}, false, "3 events were to be redriven; with what followed behind them: 0 redriven, 3 still wait\n", "3 events still wait, and nothing has happened for 300ms: start the consumer"},
		"busy":       {scripted{outcomes: []outcome{{Redriven: 3}}, err: fmt.Errorf("2 more, but are %w", relay.ErrBeingPublished)}, false, "3 events were to be redriven; with what followed behind them: 3 redriven\n", "being published"},
		"broken":     {scripted{err: errors.New("no connection")}, false, "", "no connection (after 3 events)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			p := &dlqPrinter{out: &out, live: c.live, name: "redrive"}
			err := p.act(t.Context(), &c.store, &dlqFlags{wait: 300 * time.Millisecond})
			if c.fail == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, c.fail)
			}
			require.Equal(t, c.want, out.String())
		})
	}
}

// A parked event goes out through a running relay, and the command sees it go.
func TestDLQRedriveIsPublished(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	out, code := runRelay(t, "migrate", "up", "--database-url", url)
	require.Zero(t, code, out)
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	broker := svctest.FakeKafka(t, kfake.SeedTopics(1, "orders")).ListenAddrs()[0]
	path := writeConfig(t, fmt.Sprintf("database: {url: %q}\npipelines:\n  - name: x\n    kafka: {brokers: [%q]}\n", url, broker))
	var log output
	start := func() (stop func()) {
		cmd := command(t, &log, "run", "--config", path)
		require.NoError(t, cmd.Start())
		require.Eventually(t, func() bool {
			var n int
			err := conn.QueryRow(t.Context(), `SELECT count(*) FROM outbox.lease WHERE owner <> ''`).Scan(&n)
			return err == nil && n == 64
		}, time.Minute, 20*time.Millisecond, log.String())
		return func() {
			require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
			require.NoError(t, cmd.Wait())
		}
	}
	start()() // the pipeline is registered
	_, err = conn.Exec(t.Context(), `INSERT INTO outbox.parked (pipeline, event_id, topic, destination, key, type, source, time, payload, state, blocks, class, reason)
		SELECT 'x', outbox.uuid_v7(), 'orders', 'orders', 'k', 'placed', '/shop', now(), convert_to(g::text, 'UTF8'),
		CASE g WHEN 0 THEN 'dead' ELSE 'blocked' END, true, 'rejected', 'too large' FROM generate_series(0, 9) g`)
	require.NoError(t, err)
	stop := start()
	out, code = runRelay(t, "dlq", "redrive", "--config", path, "--class", "rejected", "--state", "dead", "--reason", "limit raised", "--wait", "30s")
	require.Zero(t, code, out+log.String())
	require.True(t, strings.HasSuffix(out, ": 1 redriven\n"), out)
	messages := consumed(t, broker, 9)
	require.Len(t, messages, 10, "what was behind it followed, in order")
	for i, m := range messages {
		require.Equal(t, fmt.Sprint(i), string(m.Value))
	}
	stop()
}
