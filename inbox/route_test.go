package inbox_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/brokertest"
	"github.com/outboxkit/outboxkit/inbox"
)

// scripted answers each publication as told, then as the broker does.
type scripted struct {
	brokers.Publisher
	answers []error
	calls   atomic.Int32
	hang    chan struct{} // the call after the answers waits for its context
}

func (s *scripted) Publish(ctx context.Context, msgs []brokers.Message) []error {
	n := int(s.calls.Add(1))
	switch {
	case n <= len(s.answers):
		return []error{s.answers[n-1]}
	case s.hang != nil:
		close(s.hang)
		<-ctx.Done()
		return []error{ctx.Err()}
	}
	return s.Publisher.Publish(ctx, msgs)
}

func routed(w *world, p *scripted) (inbox.Config, *brokertest.Memory) {
	dlq := brokertest.NewMemory(brokertest.MemoryConfig{AutoCreate: 1})
	p.Publisher = dlq.Publisher()
	cfg := w.config("inventory")
	cfg.DeadLetterTo = inbox.Route{Publisher: p, Topic: "inventory.dead"}
	return cfg, dlq
}

func TestDeadLetterRoute(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	away := &brokers.Error{Class: brokers.ClassUnavailable, Err: errors.New("away")}
	cfg, dlq := routed(w, &scripted{answers: []error{away, away}})
	m := message("a", 1)
	w.publish(m, message("a", 2))
	in := w.start(cfg, failing)
	w.settled("inventory")
	require.NoError(t, in.end())
	require.Equal(t, inbox.Stats{Failures: 3, DeadLettered: 1, Blocked: 1}, in.Stats())
	require.Equal(t, 1, w.count(`SELECT count(*) FROM inbox.dead WHERE state = 'moved' AND id = $1`, m.ID))
	require.Equal(t, 1, w.count(`SELECT count(*) FROM inbox.dead WHERE state = 'blocked'`))
	log := dlq.Log("inventory.dead")
	require.Len(t, log, 1)
	require.Equal(t, m.ID, log[0].ID)
	require.Equal(t, m.Source, log[0].Source)
	require.Equal(t, m.Key, log[0].Key)
	require.Equal(t, m.Payload, log[0].Payload)
	require.Equal(t, "a", log[0].Headers["tenant"])
	require.Equal(t, "attempts", log[0].Headers["outboxkit-dead-reason"])
	require.Equal(t, "3", log[0].Headers["outboxkit-dead-attempts"])
	require.Contains(t, log[0].Headers["outboxkit-dead-origin"], "memory orders/")
}

func TestCrashWhileADeadLetterMoves(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]brokers.Message{"failing": message("a", 1), "outside the window": withID("/a", "018f0000-0000-7000-8000-000000000001")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.established("inventory")
			p := &scripted{hang: make(chan struct{})}
			cfg, _ := routed(w, p)
			in := w.start(cfg, failing)
			w.publish(m)
			<-p.hang
			require.Equal(t, 1, w.count(`SELECT count(*) FROM inbox.dead WHERE state = 'moving'`))
			w.broker.Stop() // takes the delivery away: as if the process had died
			require.NoError(t, in.end())
			w.broker.Start()

			cfg, dlq := routed(w, &scripted{})
			in = w.start(cfg, failing)
			w.settled("inventory")
			require.NoError(t, in.end())
			require.Equal(t, 1, w.count(`SELECT count(*) FROM inbox.dead WHERE state = 'moved'`))
			require.Len(t, dlq.Log("inventory.dead"), 1)
			require.Zero(t, in.Stats().Failures, "the handler does not run again")

			w.publish(m) // a late duplicate makes no second copy
			in = w.start(routedTo(w, dlq), failing)
			w.settled("inventory")
			require.NoError(t, in.end())
			require.Len(t, dlq.Log("inventory.dead"), 1)
		})
	}
}

func routedTo(w *world, dlq *brokertest.Memory) inbox.Config {
	cfg := w.config("inventory")
	cfg.DeadLetterTo = inbox.Route{Publisher: dlq.Publisher(), Topic: "inventory.dead"}
	return cfg
}

func TestRefusedCopyStaysInTheTable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	refused := &brokers.Error{Class: brokers.ClassRejected, Err: errors.New("too large")}
	cfg, dlq := routed(w, &scripted{answers: []error{refused}})
	in := w.start(cfg, failing)
	w.publish(message("a", 1))
	w.settled("inventory")
	require.NoError(t, in.end())
	require.Equal(t, 1, w.count(`SELECT count(*) FROM inbox.dead WHERE state = 'dead'`))
	require.Empty(t, dlq.Log("inventory.dead"))
}
