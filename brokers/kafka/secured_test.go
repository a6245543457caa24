package kafka_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/kafka"
	"github.com/outboxkit/outboxkit/certs"
	"github.com/outboxkit/outboxkit/internal/certtest"
	server "github.com/outboxkit/outboxkit/internal/services/kafka"
	"github.com/outboxkit/outboxkit/internal/svctest"
)

// securedBroker is a real Kafka with three more ways to it.
type securedBroker struct {
	*server.Server
	ca    *certtest.CA
	dir   string // of the client's files
	topic string
}

func newSecuredBroker(t *testing.T) *securedBroker {
	b := &securedBroker{ca: certtest.NewCA(t, "ours"), dir: t.TempDir(), topic: svctest.Unique("secured")}
	b.Server = svctest.SecuredKafka(t, b.ca)
	createTopic(t, b.Brokers(), b.topic, 1, nil)
	return b
}

// config is for one of the listeners, with the good CA.
func (b *securedBroker) config(t *testing.T, listener int) kafka.Config {
	cfg := subscriberConfig([]string{b.ListenerAddr(listener)}, svctest.Unique("g"))
	cfg.TLSFiles = &certs.Files{CAFile: certtest.Write(t, b.dir, "ca.pem", b.ca.PEM)}
	return cfg
}

// client adds a client's certificate.
func (b *securedBroker) client(t *testing.T, cfg kafka.Config, ca *certtest.CA) kafka.Config {
	pair := ca.Client(t, "svc")
	cfg.TLSFiles.CertFile = certtest.Write(t, b.dir, "tls.crt", pair.Cert)
	cfg.TLSFiles.KeyFile = certtest.Write(t, b.dir, "tls.key", pair.Key)
	return cfg
}

// refused publishes until the error is as good. A short attempt may end before the
// broker has said anything.
func (b *securedBroker) refused(t *testing.T, p *kafka.Publisher, good func(error) bool) {
	t.Helper()
	var err error
	require.Eventually(t, func() bool {
		err = p.Publish(t.Context(), numbered(b.topic, "refused", 0, 1))[0]
		return err == nil || good(err)
	}, patience, 10*time.Millisecond)
	require.Error(t, err, "it was taken")
	require.Equal(t, brokers.ClassUnavailable, brokers.ClassOf(err), "nothing of the event: it waits")
}

func says(text string) func(error) bool {
	return func(err error) bool { return strings.Contains(err.Error(), text) }
}

// short gives up sooner.
func short(cfg kafka.Config) kafka.Config {
	cfg.PublishTimeout = 500 * time.Millisecond
	return cfg
}

func TestSecuredBroker(t *testing.T) {
	b := newSecuredBroker(t)
	t.Run("servers are verified", b.verified)
	t.Run("SASL", b.sasl)
	t.Run("renewed while running", b.renewed) // the last: it changes the broker's authority
}

func (b *securedBroker) verified(t *testing.T) {
	other := certtest.NewCA(t, "other")
	mustPublish(t, newPublisher(t, b.client(t, b.config(t, svctest.KafkaMutualTLS), b.ca)), numbered(b.topic, "k", 0, 1))

	wrong := b.client(t, b.config(t, svctest.KafkaMutualTLS), b.ca)
	wrong.TLSFiles.CAFile = certtest.Write(t, b.dir, "other.pem", other.PEM)
	b.refused(t, newPublisher(t, short(wrong)), says("wrong authority"))
	b.refused(t, newPublisher(t, short(b.config(t, svctest.KafkaExpired))), says("expired"))
	elsewhere := b.client(t, b.config(t, svctest.KafkaMutualTLS), b.ca)
	elsewhere.Brokers[0] = strings.Replace(elsewhere.Brokers[0], "127.0.0.1", "localhost", 1)
	b.refused(t, newPublisher(t, short(elsewhere)), says("wrong host"))

	b.refused(t, newPublisher(t, short(b.config(t, svctest.KafkaMutualTLS))), func(error) bool { return true })
	b.refused(t, newPublisher(t, short(b.client(t, b.config(t, svctest.KafkaMutualTLS), other))), func(error) bool { return true })
	plain := b.config(t, svctest.KafkaMutualTLS)
	plain.TLSFiles = nil
	b.refused(t, newPublisher(t, short(plain)), func(error) bool { return true })
}

// token is a JWT without a signature, as Kafka takes it where nothing else is set up.
func token(name string) string {
	part := func(json string) string { return base64.RawURLEncoding.EncodeToString([]byte(json)) }
	now := time.Now().Unix()
	return part(`{"alg":"none"}`) + "." + part(fmt.Sprintf(`{"sub":%q,"iat":%d,"exp":%d}`, name, now, now+3600)) + "."
}

func (b *securedBroker) sasl(t *testing.T) {
	sc := sarama.NewConfig()
	sc.Version = sarama.V2_8_0_0
	admin, err := sarama.NewClusterAdmin(b.Brokers(), sc)
	require.NoError(t, err)
	defer func() { require.NoError(t, admin.Close()) }()
	for _, m := range []sarama.ScramMechanismType{sarama.SCRAM_MECHANISM_SHA_256, sarama.SCRAM_MECHANISM_SHA_512} {
		results, err := admin.UpsertUserScramCredentials([]sarama.AlterUserScramCredentialsUpsert{
			{Name: "svc", Mechanism: m, Iterations: 4096, Salt: []byte("0123456789abcdef"), Password: []byte("right")},
		})
		require.NoError(t, err)
		require.Equal(t, sarama.ErrNoError, results[0].ErrorCode)
	}
	bearer := func(token string) func(context.Context) (string, error) {
		return func(context.Context) (string, error) { return token, nil }
	}
	for mechanism, change := range map[kafka.Mechanism]struct{ good, bad func(*kafka.Config) }{
		kafka.Plain:       {user("right"), user("wrong")},
		kafka.ScramSHA256: {user("right"), user("wrong")},
		kafka.ScramSHA512: {user("right"), user("wrong")},
		kafka.OAuthBearer: {
			func(c *kafka.Config) { c.Token = bearer(token("svc")) },
			func(c *kafka.Config) { c.Token = bearer("no.token.") },
		},
	} {
		t.Run(string(mechanism), func(t *testing.T) {
			good, bad := b.config(t, svctest.KafkaSASL), short(b.config(t, svctest.KafkaSASL))
			good.Mechanism, bad.Mechanism = mechanism, mechanism
			change.good(&good)
			change.bad(&bad)
			ch := make(chan delivery)
			subscribe(t, kafka.NewSubscriber(good, b.topic), collect(ch))
			p := newPublisher(t, good)
			// The broker learns of new users a moment after it has confirmed them.
			require.Eventually(t, func() bool {
				return errors.Join(p.Publish(t.Context(), numbered(b.topic, "k", 0, 1))...) == nil
			}, patience, 10*time.Millisecond)
			require.Equal(t, "00000", next(t, ch).Message.ID)
			b.refused(t, newPublisher(t, bad), func(err error) bool { return errors.Is(err, sarama.ErrSASLAuthenticationFailed) })
		})
	}
	broken := short(b.config(t, svctest.KafkaSASL))
	broken.Token = func(context.Context) (string, error) { return "", errors.New("the issuer is away") }
	b.refused(t, newPublisher(t, broken), says("the issuer is away"))
}

func user(password string) func(*kafka.Config) {
	return func(c *kafka.Config) { c.Username, c.Password = "svc", password }
}

// Broker and client get another authority and other certificates while publisher and
// subscriber live.
func (b *securedBroker) renewed(t *testing.T) {
	cfg := short(b.client(t, b.config(t, svctest.KafkaMutualTLS), b.ca))
	ch := make(chan delivery)
	subscribe(t, kafka.NewSubscriber(cfg, b.topic), collect(ch))
	p := newPublisher(t, cfg)
	publish := func(id int) {
		require.Eventually(t, func() bool {
			return errors.Join(p.Publish(t.Context(), numbered(b.topic, "renewed", id, 1))...) == nil
		}, patience, 10*time.Millisecond)
		for next(t, ch).Message.ID != fmt.Sprintf("%05d", id) {
		}
	}
	publish(70)

	ca := certtest.NewCA(t, "next")
	require.NoError(t, b.Kill())
	require.NoError(t, b.WriteFile("ca.pem", ca.PEM))
	require.NoError(t, b.WriteFile("server.pem", ca.Server(t, "127.0.0.1").Both()))
	require.NoError(t, b.Start(t.Context()))
	b.refused(t, p, says("wrong authority"))
	certtest.Write(t, b.dir, "ca.pem", ca.PEM)
	pair := ca.Client(t, "svc")
	certtest.Write(t, b.dir, "tls.crt", pair.Cert)
	certtest.Write(t, b.dir, "tls.key", pair.Key)
	publish(71)
}
