package kafka_test

import (
	"context"
	"crypto/tls"
	"sync/atomic"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/kafka"
	"github.com/outboxkit/outboxkit/certs"
	"github.com/outboxkit/outboxkit/internal/svctest"
)

func noToken(context.Context) (string, error) { return "", nil }

func TestConfigMistakes(t *testing.T) {
	good := func() kafka.Config { return kafka.Config{Brokers: []string{"localhost:9092"}, Group: "g"} }
	require.NoError(t, good().Validate())
	for says, change := range map[string]func(*kafka.Config){
		"Config.Brokers is empty":    func(c *kafka.Config) { c.Brokers = nil },
		"Config.Brokers[1] is empty": func(c *kafka.Config) { c.Brokers = []string{"a:1", ""} },
		"Config.PublishTimeout -1s":  func(c *kafka.Config) { c.PublishTimeout = -time.Second },
		"Config.MaxRequestBytes -1":  func(c *kafka.Config) { c.MaxRequestBytes = -1 },
		"Config.MaxRequestBytes 9":   func(c *kafka.Config) { c.MaxRequestBytes = 9 },
		"Config.MaxUnsettled -1":     func(c *kafka.Config) { c.MaxUnsettled = -1 },
		"Config.Username is empty":   func(c *kafka.Config) { c.Password = "p" },
		"Config.Password is empty":   func(c *kafka.Config) { c.Username = "u" },
		`Config.Mechanism "NTLM" is`: func(c *kafka.Config) { c.Mechanism = "NTLM" },
		"Config.Token is missing":    func(c *kafka.Config) { c.Mechanism = kafka.OAuthBearer },
		"Config.Token is set, and":   func(c *kafka.Config) { c.Username, c.Password, c.Token = "u", "p", noToken },
		"OAUTHBEARER has none": func(c *kafka.Config) {
			c.Mechanism, c.Username, c.Token = kafka.OAuthBearer, "u", noToken
		},
		"Config.TLSFiles is set together with": func(c *kafka.Config) { c.TLS, c.TLSFiles = &tls.Config{}, &certs.Files{} }, //nolint:gosec // never used
		"Config.Sarama turns on TLS too": func(c *kafka.Config) {
			c.TLSFiles, c.Sarama = &certs.Files{}, func(sc *sarama.Config) { sc.Net.TLS.Enable = true }
		},
		"Config.Sarama: kafka: invalid configuration (Net.MaxOpenRequests must be > 0)": func(c *kafka.Config) {
			c.Sarama = func(sc *sarama.Config) { sc.Net.MaxOpenRequests = 0 }
		},
		"Config.DrainTimeout 56s is not between 0 and 55s": func(c *kafka.Config) { c.DrainTimeout = 56 * time.Second },
	} {
		cfg := good()
		change(&cfg)
		require.ErrorContains(t, cfg.Validate(), says)
		p := newPublisher(t, cfg)
		err := p.Publish(t.Context(), []brokers.Message{{Topic: "orders"}})[0]
		require.ErrorContains(t, err, says)
		require.ErrorContains(t, kafka.NewSubscriber(cfg, "orders").Subscribe(t.Context(), nil), says)
	}
	noGroup := good()
	noGroup.Group = ""
	require.ErrorContains(t, kafka.NewSubscriber(noGroup, "orders").Subscribe(t.Context(), nil), "Config.Group is empty")
	require.ErrorContains(t, kafka.NewSubscriber(good()).Subscribe(t.Context(), nil), "no topics")
	require.ErrorContains(t, kafka.NewSubscriber(good(), "a b").Subscribe(t.Context(), nil), `"a b"`)
}

// TestLogin: SASL/PLAIN on both sides; a wrong password is no topic's fault and
// ends a subscription.
func TestLogin(t *testing.T) {
	c := svctest.FakeKafka(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", "svc", "right"), kfake.SeedTopics(1, "orders"))
	cfg := subscriberConfig(c.ListenAddrs(), "g")
	cfg.PublishTimeout = 300 * time.Millisecond
	cfg.Username, cfg.Password = "svc", "wrong"
	var corrected atomic.Bool
	c.ControlKey(int16(kmsg.SASLAuthenticate), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if corrected.Load() {
			return nil, nil, false
		}
		resp := kreq.ResponseKind().(*kmsg.SASLAuthenticateResponse) // kfake itself only hangs up
		resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
		return resp, nil, true
	})
	err := newPublisher(t, cfg).Publish(t.Context(), numbered("orders", "k", 0, 1))[0]
	require.Equal(t, brokers.ClassUnavailable, brokers.ClassOf(err))
	require.ErrorIs(t, err, sarama.ErrSASLAuthenticationFailed)
	ignore := func(context.Context, *brokers.Delivery) {}
	require.ErrorIs(t, next(t, subscribe(t, kafka.NewSubscriber(cfg, "orders"), ignore)), sarama.ErrSASLAuthenticationFailed)

	corrected.Store(true)
	cfg.Password = "right"
	cfg.PublishTimeout = 0
	mustPublish(t, newPublisher(t, cfg), numbered("orders", "k", 0, 1))
	ch := make(chan delivery)
	subscribe(t, kafka.NewSubscriber(cfg, "orders"), collect(ch))
	require.NoError(t, next(t, ch).Ack())
}
