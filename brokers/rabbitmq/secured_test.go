package rabbitmq_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/rabbitmq"
	"github.com/outboxkit/outboxkit/certs"
	"github.com/outboxkit/outboxkit/internal/certtest"
	"github.com/outboxkit/outboxkit/internal/svctest"
)

// securedBroker is a real RabbitMQ that also speaks TLS, asks for certificates and
// takes them as a login.
type securedBroker struct {
	ownBroker
	ca  *certtest.CA
	dir string // of the client's files
}

func newSecuredBroker(t *testing.T) *securedBroker {
	b := &securedBroker{ca: certtest.NewCA(t, "ours"), dir: t.TempDir()}
	b.Server = svctest.SecuredRabbitMQ(t, b.ca)
	b.queue = newQueue(t, b.URL(), nil)
	return b
}

// replace gives the server another certificate, for connections from now on.
func (b *securedBroker) replace(t *testing.T, ca *certtest.CA, pair certtest.Pair) {
	require.NoError(t, b.WriteFile("ca.pem", ca.PEM))
	require.NoError(t, b.WriteFile("tls.crt", pair.Cert))
	require.NoError(t, b.WriteFile("tls.key", pair.Key))
	b.ctl(t, "eval", "ssl:clear_pem_cache().")
}

// files writes what a client needs; name "" is one without a certificate.
func (b *securedBroker) files(t *testing.T, ca *certtest.CA, name string) *certs.Files {
	f := &certs.Files{CAFile: certtest.Write(t, b.dir, "ca.pem", ca.PEM)}
	if name != "" {
		pair := ca.Client(t, name)
		f.CertFile = certtest.Write(t, b.dir, "tls.crt", pair.Cert)
		f.KeyFile = certtest.Write(t, b.dir, "tls.key", pair.Key)
	}
	return f
}

func (b *securedBroker) config(login string, files *certs.Files) rabbitmq.PublisherConfig {
	return rabbitmq.PublisherConfig{URL: "amqps://" + login + b.TLSAddr() + "/", TLSFiles: files, Logger: slog.New(slog.DiscardHandler)}
}

func (b *securedBroker) taken(t *testing.T, p *rabbitmq.Publisher, n int) {
	t.Helper()
	var err error
	require.Eventually(t, func() bool {
		err = p.Publish(t.Context(), []brokers.Message{message(b.queue, "key", n)})[0]
		return err == nil
	}, patience, 10*time.Millisecond)
}

// refused publishes until the error says why. A connection that stood may break first.
func (b *securedBroker) refused(t *testing.T, p *rabbitmq.Publisher, why string) {
	t.Helper()
	var err error
	require.Eventually(t, func() bool {
		err = p.Publish(t.Context(), []brokers.Message{message(b.queue, "refused", 0)})[0]
		return err == nil || strings.Contains(err.Error(), why)
	}, patience, 10*time.Millisecond)
	require.Error(t, err, "it was taken")
	require.Equal(t, brokers.ClassUnavailable, brokers.ClassOf(err), "nothing of the event: it waits")
}

func TestSecuredBroker(t *testing.T) {
	b := newSecuredBroker(t)
	t.Run("servers are verified", b.verified)
	t.Run("login with a certificate", b.external)
	t.Run("renewed while running", b.renewed) // the last: it changes the broker's authority
}

func (b *securedBroker) verified(t *testing.T) {
	other := certtest.NewCA(t, "other")
	b.taken(t, newPublisher(t, b.config("guest:guest@", b.files(t, b.ca, ""))), 0)
	b.refused(t, newPublisher(t, b.config("guest:guest@", b.files(t, other, ""))), "wrong authority")
	files := b.files(t, b.ca, "")
	elsewhere := b.config("guest:guest@", files)
	elsewhere.URL = strings.Replace(elsewhere.URL, "127.0.0.1", "localhost", 1)
	b.refused(t, newPublisher(t, elsewhere), "wrong host")

	b.replace(t, b.ca, b.ca.Expired(t, "server", "127.0.0.1"))
	b.refused(t, newPublisher(t, b.config("guest:guest@", files)), "expired")
	b.replace(t, b.ca, b.ca.Server(t, "127.0.0.1"))
	b.taken(t, newPublisher(t, b.config("guest:guest@", files)), 1)
}

func (b *securedBroker) external(t *testing.T) {
	b.taken(t, newPublisher(t, b.config("", b.files(t, b.ca, "svc"))), 2)
	b.refused(t, newPublisher(t, b.config("", b.files(t, b.ca, "a stranger"))), "403")
	files := b.files(t, certtest.NewCA(t, "other"), "svc")
	b.files(t, b.ca, "") // the server is trusted, but it does not trust the client
	b.refused(t, newPublisher(t, b.config("", files)), "")
}

// Broker and client get another authority and other certificates while publisher and
// subscriber live.
func (b *securedBroker) renewed(t *testing.T) {
	cfg := b.config("", b.files(t, b.ca, "svc"))
	p := newPublisher(t, cfg)
	got := make(chan string, 1000)
	s := rabbitmq.NewSubscriber(rabbitmq.SubscriberConfig{URL: cfg.URL, TLSFiles: cfg.TLSFiles, Logger: cfg.Logger}, b.queue)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- s.Subscribe(ctx, func(_ context.Context, d *brokers.Delivery) {
			got <- d.Message.ID
			_ = d.Ack() // or it comes again
		})
	}()
	defer func() {
		cancel()
		require.NoError(t, <-done)
		require.NoError(t, s.Close())
	}()
	arrives := func(n int) {
		t.Helper()
		want := message(b.queue, "key", n).ID
		late := time.After(patience)
		for {
			select {
			case id := <-got:
				if id == want {
					return
				}
			case <-late:
				require.FailNow(t, "it does not arrive", want)
			}
		}
	}
	b.taken(t, p, 3)
	arrives(3)

	next := certtest.NewCA(t, "next")
	b.replace(t, next, next.Server(t, "127.0.0.1"))
	require.NoError(t, b.Kill())
	require.NoError(t, b.Start(t.Context()))
	b.refused(t, p, "wrong authority")
	b.files(t, next, "svc") // the same paths
	b.taken(t, p, 4)
	arrives(4)
}
