package brokertest_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/brokertest"
)

func logIDs(m *brokertest.Memory, topic string) []string {
	var ids []string
	for _, msg := range m.Log(topic) {
		ids = append(ids, msg.ID)
	}
	return ids
}

func TestFaultyMessages(t *testing.T) {
	refused := &brokers.Error{Class: brokers.ClassRejected, Err: errors.New("refused")}
	lost := &brokers.Error{Class: brokers.ClassUnavailable, Err: errors.New("answer lost")}
	m := brokertest.NewMemory(brokertest.MemoryConfig{AutoCreate: 1})
	pub := brokertest.Faulty(m.Publisher(), func(call int, msg brokers.Message) brokertest.Fault {
		switch {
		case call == 0 && msg.ID == "a2":
			return brokertest.Fault{Err: refused}
		case call == 0 && msg.ID == "b1":
			return brokertest.Fault{Err: lost, Published: true}
		}
		return brokertest.Fault{}
	})
	msgs := []brokers.Message{
		{Topic: "t", Key: "a", ID: "a1"}, {Topic: "t", Key: "b", ID: "b1"},
		{Topic: "t", Key: "a", ID: "a2"}, {Topic: "t", Key: "b", ID: "b2"},
		{Topic: "t", Key: "a", ID: "a3"}, {Topic: "t", ID: "c"},
	}
	require.Equal(t, []error{nil, lost, refused, brokers.ErrHeld, brokers.ErrHeld, nil}, pub.Publish(t.Context(), msgs))
	require.Equal(t, []string{"a1", "b1", "c"}, logIDs(m, "t"), "a2 is refused, what follows it and b1 is held")

	require.Equal(t, make([]error, 6), pub.Publish(t.Context(), msgs), "only call 0 has faults")
	require.NoError(t, pub.Close())
	require.ErrorIs(t, pub.Publish(t.Context(), msgs)[0], brokers.ErrClosed)
}

func TestFaultyWaits(t *testing.T) {
	for name, published := range map[string]bool{"before publishing": false, "before answering": true} {
		t.Run(name, func(t *testing.T) {
			m := brokertest.NewMemory(brokertest.MemoryConfig{AutoCreate: 1})
			wait, asked := make(chan struct{}), make(chan struct{}, 2)
			pub := brokertest.Faulty(m.Publisher(), func(int, brokers.Message) brokertest.Fault {
				asked <- struct{}{}
				return brokertest.Fault{Wait: wait, Published: published}
			})
			msgs := []brokers.Message{{Topic: "t", ID: "1"}}

			ctx, cancel := context.WithCancel(t.Context())
			first := make(chan []error)
			go func() { first <- pub.Publish(ctx, msgs) }()
			<-asked
			cancel()
			err := (<-first)[0]
			require.ErrorIs(t, err, context.Canceled)
			require.Equal(t, brokers.ClassUnavailable, brokers.ClassOf(err))

			second := make(chan []error)
			go func() { second <- pub.Publish(t.Context(), msgs) }()
			<-asked
			close(wait)
			require.NoError(t, (<-second)[0])
			require.NotEmpty(t, m.Log("t"))
		})
	}
}
