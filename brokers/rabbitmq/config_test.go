package rabbitmq

import (
	"crypto/tls"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/certs"
)

func TestQueueName(t *testing.T) {
	require.Equal(t, "orders", QueueName("orders", "k", 0))
	require.Equal(t, "orders.0", QueueName("orders", "k", 1))
	// Fixed for ever: another hash would move keys to other queues.
	for key, want := range map[string]string{"": "orders.4", "o-1": "orders.2", "o-2": "orders.2", "schlüssel": "orders.3"} {
		require.Equal(t, want, QueueName("orders", key, 8), key)
	}
	require.Equal(t, []string{"orders"}, QueueNames("orders", 0))
	require.Equal(t, []string{"orders.0", "orders.1"}, QueueNames("orders", 2))
}

func TestPublisherConfig(t *testing.T) {
	const url = "amqp://guest:secret@localhost/"
	require.NoError(t, PublisherConfig{URL: url}.Validate())
	for want, cfg := range map[string]PublisherConfig{
		"PublisherConfig.URL is empty":                      {},
		"PublisherConfig.URL is not an AMQP URL":            {URL: "http://guest:secret@localhost"},
		"PublisherConfig.URL is not an AMQP URL: invalid":   {URL: "amqp://guest:secret@localhost:port"},
		"PublisherConfig.Window -1 is not between":          {URL: url, Window: -1},
		"PublisherConfig.Queues -2 is negative":             {URL: url, Queues: -2},
		"PublisherConfig.MaxMessageBytes -3 is negative":    {URL: url, MaxMessageBytes: -3},
		"PublisherConfig.ConfirmTimeout -1s is negative":    {URL: url, ConfirmTimeout: -time.Second},
		"PublisherConfig.DialTimeout -1s is negative":       {URL: url, DialTimeout: -time.Second},
		"PublisherConfig.TLSFiles is set together with TLS": {URL: url, TLS: &tls.Config{}, TLSFiles: &certs.Files{}}, //nolint:gosec // never used
		"PublisherConfig.TLSFiles is set but the URL is pl": {URL: url, TLSFiles: &certs.Files{}},
		"PublisherConfig.Route replaces Exchange and Queue": {URL: url, Queues: 2, Route: func(*brokers.Message) (string, string) { return "", "" }},
	} {
		err := cfg.Validate()
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "secret")
		got := NewPublisher(cfg).Publish(t.Context(), make([]brokers.Message, 1))
		require.ErrorContains(t, got[0], want)
	}
}

func TestSubscriberConfig(t *testing.T) {
	const url = "amqp://guest:secret@localhost/"
	require.NoError(t, SubscriberConfig{URL: url}.Validate())
	for want, cfg := range map[string]SubscriberConfig{
		"SubscriberConfig.URL is empty":                 {},
		"SubscriberConfig.TLSFiles is set but the URL":  {URL: "AMQP" + url[4:], TLSFiles: &certs.Files{}},
		"SubscriberConfig.Prefetch 70000 is not":        {URL: url, Prefetch: 70_000},
		"SubscriberConfig.DrainTimeout -1s is negative": {URL: url, DrainTimeout: -time.Second},
	} {
		require.ErrorContains(t, cfg.Validate(), want)
	}
}

func TestQueueArgs(t *testing.T) {
	require.NotContains(t, queueArgs(3), "x-delivery-limit") // 3.x refuses -1
	require.Equal(t, int32(-1), queueArgs(4)["x-delivery-limit"])
}
