package rabbitmq_test

import (
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers/rabbitmq"
	"github.com/outboxkit/outboxkit/internal/svctest"
)

func TestInspect(t *testing.T) {
	t.Parallel()
	url := svctest.RabbitMQ(t)
	there, missing := svctest.Unique("there"), svctest.Unique("missing")
	withChannel(t, url, func(ch *amqp.Channel) { declareQuorum(t, ch, there, nil) })
	t.Cleanup(func() {
		withChannel(t, url, func(ch *amqp.Channel) {
			_, err := ch.QueueDelete(there, false, false, false)
			require.NoError(t, err)
		})
	})
	for range 2 { // the first look has created nothing
		s, err := rabbitmq.Inspect(t.Context(), rabbitmq.PublisherConfig{URL: url}, []string{"amq.direct", missing}, []string{there, missing})
		require.NoError(t, err)
		require.NotEmpty(t, s.Version)
		require.Len(t, s.MissingExchanges, 1)
		require.ErrorContains(t, s.MissingExchanges[missing], "NOT_FOUND")
		require.Len(t, s.Queues, 2)
		require.Equal(t, rabbitmq.QueueState{Name: there}, s.Queues[0])
		require.ErrorContains(t, s.Queues[1].Err, "NOT_FOUND")
	}
	_, err := rabbitmq.Inspect(t.Context(), rabbitmq.PublisherConfig{URL: "amqp://127.0.0.1:1/"}, nil, nil)
	require.Error(t, err)
	_, err = rabbitmq.Inspect(t.Context(), rabbitmq.PublisherConfig{}, nil, nil)
	require.ErrorContains(t, err, "URL")
}
