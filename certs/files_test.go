package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/certtest"
)

// server is a TLS server on 127.0.0.1 whose configuration tests replace. It tells
// the common name of the certificate that it was shown.
type server struct {
	addr   string
	config atomic.Pointer[tls.Config]
	seen   chan string
}

func serve(t *testing.T, pair certtest.Pair, clients *certtest.CA) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &server{addr: l.Addr().String(), seen: make(chan string, 10)}
	s.use(t, pair, clients)
	done := make(chan struct{})
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.handle(conn)
		}
	}()
	return s
}

func (s *server) handle(conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	secure := tls.Server(conn, s.config.Load())
	if err := secure.Handshake(); err != nil {
		_, _ = io.Copy(io.Discard, conn) // or a reset could overtake what was said to the client
		return
	}
	name := ""
	if shown := secure.ConnectionState().PeerCertificates; len(shown) > 0 {
		name = shown[0].Subject.CommonName
	}
	s.seen <- name
	_, _ = secure.Write([]byte("ok"))
}

func (s *server) use(t *testing.T, pair certtest.Pair, clients *certtest.CA) {
	t.Helper()
	own, err := tls.X509KeyPair(pair.Cert, pair.Key)
	require.NoError(t, err)
	cfg := &tls.Config{Certificates: []tls.Certificate{own}, MinVersion: tls.VersionTLS12}
	if clients != nil {
		cfg.ClientAuth, cfg.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		cfg.ClientCAs.AppendCertsFromPEM(clients.PEM)
	}
	s.config.Store(cfg)
}

// talk connects as addr, which need not be where the server is.
func (s *server) talk(t *testing.T, f Files, addr string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", s.addr)
	require.NoError(t, err)
	defer raw.Close()
	secure, err := f.Client(ctx, raw, addr)
	if err != nil {
		return err
	}
	// With TLS 1.3 a server's refusal comes after the handshake.
	_, err = secure.Read(make([]byte, 2))
	return Explain(err)
}

func TestServersAreVerified(t *testing.T) {
	t.Parallel()
	ca, other, dir := certtest.NewCA(t, "ours"), certtest.NewCA(t, "other"), t.TempDir()
	good := Files{CAFile: certtest.Write(t, dir, "ca.pem", ca.PEM)}
	s := serve(t, ca.Server(t, "db.example.com", "127.0.0.1"), nil)

	require.NoError(t, s.talk(t, good, "db.example.com:5432"))
	require.NoError(t, s.talk(t, good, s.addr), "an IP address is verified too")
	named := good
	named.ServerName = "db.example.com"
	require.NoError(t, s.talk(t, named, "10.0.0.1:5432"))

	err := s.talk(t, good, "db.example.org:5432")
	require.ErrorContains(t, err, "wrong host")
	require.ErrorAs(t, err, new(x509.HostnameError))
	require.ErrorContains(t, err, "db.example.com", "the name that it has")
	require.ErrorContains(t, s.talk(t, good, "127.0.0.2:5432"), "wrong host")
	wrong := Files{CAFile: certtest.Write(t, dir, "other.pem", other.PEM)}
	require.ErrorContains(t, s.talk(t, wrong, s.addr), "wrong authority")
	require.ErrorContains(t, s.talk(t, Files{}, s.addr), "wrong authority", "the system's do not know ours")

	s.use(t, ca.Expired(t, "server", "127.0.0.1"), nil)
	require.ErrorContains(t, s.talk(t, good, s.addr), "expired")
}

func TestPlainServersAreNamed(t *testing.T) {
	t.Parallel()
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	go func() {
		_, _ = server.Read(make([]byte, 1<<16)) // the whole hello
		_, _ = server.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
	}()
	_, err := Files{}.Client(t.Context(), client, "broker:9092")
	require.ErrorContains(t, err, "TLS with broker:9092")
	require.ErrorContains(t, err, "does not speak TLS")
}

func TestASilentServerDoesNotHang(t *testing.T) {
	t.Parallel()
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := Files{}.Client(ctx, client, "broker:9092")
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// Renewed files are used by the next connection, on both sides of a mutual TLS.
func TestRenewedFilesAreUsed(t *testing.T) {
	t.Parallel()
	ca, next, dir := certtest.NewCA(t, "ours"), certtest.NewCA(t, "next"), t.TempDir()
	first, second := ca.Client(t, "first"), next.Client(t, "second")
	f := Files{
		CAFile:   certtest.Write(t, dir, "ca.pem", ca.PEM),
		CertFile: certtest.Write(t, dir, "tls.crt", first.Cert), KeyFile: certtest.Write(t, dir, "tls.key", first.Key),
	}
	s := serve(t, ca.Server(t, "127.0.0.1"), ca)
	require.NoError(t, s.talk(t, f, s.addr))
	require.Equal(t, "first", <-s.seen)

	s.use(t, next.Server(t, "127.0.0.1"), next)
	require.ErrorContains(t, s.talk(t, f, s.addr), "wrong authority")
	certtest.Write(t, dir, "ca.pem", next.PEM)
	require.ErrorContains(t, s.talk(t, f, s.addr), "the server refused", "of the old authority")
	certtest.Write(t, dir, "tls.crt", second.Cert)
	require.ErrorContains(t, s.talk(t, f, s.addr), "is no pair", "half a renewal")
	certtest.Write(t, dir, "tls.key", second.Key)
	require.NoError(t, s.talk(t, f, s.addr))
	require.Equal(t, "second", <-s.seen)
}

func TestBadFilesAreNamed(t *testing.T) {
	t.Parallel()
	ca, dir := certtest.NewCA(t, "ours"), t.TempDir()
	pair, old := ca.Client(t, "c"), ca.Expired(t, "c")
	cert, key := certtest.Write(t, dir, "tls.crt", pair.Cert), certtest.Write(t, dir, "tls.key", pair.Key)
	for name, c := range map[string]struct {
		files       Files
		field, want string
	}{
		"missing CA":   {Files{CAFile: filepath.Join(dir, "none")}, "CAFile", "no such file"},
		"no CA":        {Files{CAFile: key}, "CAFile", "holds no certificate"},
		"no key":       {Files{CertFile: cert}, "KeyFile", "is empty but CertFile is set"},
		"no cert":      {Files{KeyFile: key}, "CertFile", "is empty but KeyFile is set"},
		"missing cert": {Files{CertFile: filepath.Join(dir, "none"), KeyFile: key}, "CertFile", "no such file"},
		"missing key":  {Files{CertFile: cert, KeyFile: filepath.Join(dir, "none")}, "KeyFile", "no such file"},
		"no pair":      {Files{CertFile: cert, KeyFile: certtest.Write(t, dir, "old.key", old.Key)}, "CertFile", "is no pair"},
	} {
		err := c.files.Validate()
		require.ErrorContains(t, err, c.want, name)
		var file *FileError
		require.ErrorAs(t, err, &file, name)
		require.Equal(t, c.field, file.Field, name)
		_, err = c.files.Config("h:1")
		require.ErrorContains(t, err, c.want, name)
	}
	expired := Files{CertFile: certtest.Write(t, dir, "old.crt", old.Cert), KeyFile: filepath.Join(dir, "old.key")}
	require.NoError(t, expired.Validate(), "it may be renewed before it is needed")
	_, err := expired.Config("h:1")
	require.ErrorContains(t, err, "has expired on")
	plain := errors.New("x")
	require.Equal(t, plain, Explain(plain))
	require.NoError(t, Explain(nil))
}
