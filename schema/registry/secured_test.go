package registry_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/certs"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/internal/certtest"
	"github.com/outboxkit/outboxkit/schema/registry"
)

// secured is what a registry behind mutual TLS uses for a connection.
func secured(t *testing.T, ca *certtest.CA, pair certtest.Pair) *tls.Config {
	t.Helper()
	own, err := tls.X509KeyPair(pair.Cert, pair.Key)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.PEM)
	return &tls.Config{Certificates: []tls.Certificate{own}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, MinVersion: tls.VersionTLS12}
}

func TestCertificateFiles(t *testing.T) {
	ca, next, dir := certtest.NewCA(t, "ours"), certtest.NewCA(t, "next"), t.TempDir()
	var now atomic.Pointer[tls.Config]
	now.Store(secured(t, ca, ca.Server(t, "127.0.0.1")))
	srv := httptest.NewUnstartedServer(status(200, `{"schema":"\"int\""}`))
	srv.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return now.Load(), nil }, MinVersion: tls.VersionTLS12}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	write := func(ca *certtest.CA) certs.Files {
		pair := ca.Client(t, "relay")
		return certs.Files{
			CAFile:   certtest.Write(t, dir, "ca.pem", ca.PEM),
			CertFile: certtest.Write(t, dir, "tls.crt", pair.Cert), KeyFile: certtest.Write(t, dir, "tls.key", pair.Key),
		}
	}
	files := write(ca)
	client := func(url string) *registry.Client {
		c, err := registry.New(registry.Config{URL: url, TLSFiles: &files, Attempts: 1})
		require.NoError(t, err)
		return c
	}
	c := client(srv.URL)
	_, err := c.Schema(ctx, 1)
	require.NoError(t, err)
	_, err = client(strings.Replace(srv.URL, "127.0.0.1", "localhost", 1)).Schema(ctx, 1)
	require.ErrorContains(t, err, "wrong host")
	require.ErrorIs(t, err, event.ErrSchemaUnavailable, "it may be mended")

	now.Store(secured(t, ca, ca.Expired(t, "server", "127.0.0.1")))
	_, err = c.Schema(ctx, 2)
	require.ErrorContains(t, err, "expired")
	now.Store(secured(t, next, next.Server(t, "127.0.0.1")))
	_, err = c.Schema(ctx, 3)
	require.ErrorContains(t, err, "wrong authority")
	write(next)
	_, err = c.Schema(ctx, 4)
	require.NoError(t, err, "the renewed files are used, without a restart")
}
