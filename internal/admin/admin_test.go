package admin

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/internal/certtest"
)

const token = "0123456789abcdef-secret"

func TestWhatMayBeListenedOn(t *testing.T) {
	t.Parallel()
	for _, listen := range []string{"127.0.0.1:0", "localhost:9464", "[::1]:9464", "127.8.8.8:1"} {
		require.NoError(t, Config{Listen: listen}.Validate(), listen)
	}
	secure := func(c Config) Config {
		c.CertFile, c.KeyFile = "tls.crt", "tls.key"
		return c
	}
	require.NoError(t, secure(Config{Listen: "0.0.0.0:9464", Token: token}).Validate())
	require.NoError(t, secure(Config{Listen: ":9464", ClientCAFile: "ca.pem"}).Validate())
	for want, list := range map[string][]Config{
		"is empty":        {{}},
		"is not host:por": {{Listen: "127.0.0.1"}, {Listen: "[::1"}},
		"without TLS": {
			{Listen: ":9464"}, {Listen: "0.0.0.0:9464", Token: token}, {Listen: "[::]:9464", Token: token}, {Listen: "10.1.2.3:9464"},
			{Listen: "relay.internal:9464", Token: token}, {Listen: "localhost.evil.example:9464"}, {Listen: "[::ffff:10.0.0.1]:1"},
		},
		"by everybody":         {secure(Config{Listen: "0.0.0.0:9464"})},
		"belong together":      {{Listen: "127.0.0.1:1", CertFile: "x"}, {Listen: "127.0.0.1:1", KeyFile: "x"}},
		"is set without TLS":   {{Listen: "127.0.0.1:1", ClientCAFile: "x"}},
		"has only 5 bytes":     {{Listen: "127.0.0.1:1", Token: "short"}},
		"no header can carry":  {{Listen: "127.0.0.1:1", Token: "0123456789abcdef secret"}},
		`Drain "-1s" is negat`: {{Listen: "127.0.0.1:1", Drain: -time.Second}},
	} {
		for _, cfg := range list {
			err := cfg.Validate()
			require.ErrorContains(t, err, want, cfg.Listen)
			require.ErrorAs(t, err, new(*event.FieldError))
			require.NotContains(t, err.Error(), "secret")
			_, err = Listen(cfg, nil)
			require.ErrorContains(t, err, want, "it does not start")
		}
	}
}

// output is a log that is read while it is written.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// start runs a server until the test ends.
func start(t *testing.T, cfg Config, h http.Handler) (addr string, log *output) {
	t.Helper()
	log = &output{}
	cfg.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s, err := Listen(cfg, h)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	return s.Addr().String(), log
}

var hello = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })

// ask returns the status, 0 if there was no answer.
func ask(t *testing.T, client *http.Client, url string, change func(*http.Request)) (int, http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	if change != nil {
		change(r)
	}
	resp, err := client.Do(r)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, resp.Header
}

// browser trusts ca, and shows pair where it is not nil. Each request is a
// connection of its own.
func browser(t *testing.T, ca *certtest.CA, pair *certtest.Pair) *http.Client {
	t.Helper()
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(ca.PEM))
	conf := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	if pair != nil {
		own, err := tls.X509KeyPair(pair.Cert, pair.Key)
		require.NoError(t, err)
		// Shown whatever authorities the server names.
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil }
	}
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}
}

func writePair(t *testing.T, dir string, pair certtest.Pair) (cert, key string) {
	t.Helper()
	return certtest.Write(t, dir, "tls.crt", pair.Cert), certtest.Write(t, dir, "tls.key", pair.Key)
}

func TestTokenIsAskedFor(t *testing.T) {
	t.Parallel()
	ca, dir := certtest.NewCA(t, "ours"), t.TempDir()
	cert, key := writePair(t, dir, ca.Server(t, "127.0.0.1"))
	addr, log := start(t, Config{Listen: "127.0.0.1:0", CertFile: cert, KeyFile: key, Token: token, Open: []string{"/livez"}}, hello)
	url := "https://" + addr
	client := browser(t, ca, nil)
	header := func(value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", value) }
	}
	for _, wrong := range []func(*http.Request){
		nil, header("Bearer "), header("Bearer " + token[:22]), header("Bearer " + token + "x"), header(token), header("Basic " + token), header("Token " + token),
		func(r *http.Request) { r.SetBasicAuth(token, "") },
		func(r *http.Request) { r.SetBasicAuth("admin", token[1:]) },
		func(r *http.Request) { r.URL.RawQuery = "token=" + token },
		func(r *http.Request) { r.URL.Path = "/livez/../metrics" },
		func(r *http.Request) { r.URL.Path, r.Method = "/livez", http.MethodPost },
	} {
		code, h := ask(t, client, url+"/metrics", wrong)
		require.Equal(t, http.StatusUnauthorized, code)
		require.Len(t, h.Values("WWW-Authenticate"), 2, "a browser asks its user")
	}
	for _, right := range []func(*http.Request){
		header("Bearer " + token), header("bearer  " + token), func(r *http.Request) { r.SetBasicAuth("anybody", token) },
		func(r *http.Request) { r.URL.Path = "/livez" },
	} {
		code, h := ask(t, client, url+"/metrics", right)
		require.Equal(t, http.StatusOK, code)
		require.Equal(t, "no-store", h.Get("Cache-Control"))
		require.Equal(t, "nosniff", h.Get("X-Content-Type-Options"))
		require.Contains(t, h.Get("Content-Security-Policy"), "default-src 'none'")
	}
	code, _ := ask(t, &http.Client{}, "http://"+addr+"/livez", nil)
	require.NotEqual(t, http.StatusOK, code, "plain text")
	require.NotContains(t, log.String(), token)
}

func TestClientCertificates(t *testing.T) {
	t.Parallel()
	ca, clients, other, dir := certtest.NewCA(t, "ours"), certtest.NewCA(t, "clients"), certtest.NewCA(t, "other"), t.TempDir()
	cert, key := writePair(t, dir, ca.Server(t, "127.0.0.1"))
	addr, _ := start(t, Config{
		Listen: "127.0.0.1:0", CertFile: cert, KeyFile: key, ClientCAFile: certtest.Write(t, dir, "clients.pem", clients.PEM), Open: []string{"/livez"},
	}, hello)
	good, stranger, old := clients.Client(t, "ann"), other.Client(t, "ann"), clients.Expired(t, "ann")
	for want, pairs := range map[int][]*certtest.Pair{http.StatusOK: {&good}, http.StatusForbidden: {nil}, 0: {&stranger, &old}} {
		for _, pair := range pairs {
			code, _ := ask(t, browser(t, ca, pair), "https://"+addr+"/metrics", nil)
			require.Equal(t, want, code)
		}
	}
	code, _ := ask(t, browser(t, ca, nil), "https://"+addr+"/livez", nil)
	require.Equal(t, http.StatusOK, code)

	// Withdrawn while running.
	certtest.Write(t, dir, "clients.pem", other.PEM)
	code, _ = ask(t, browser(t, ca, &good), "https://"+addr+"/metrics", nil)
	require.Zero(t, code)
	code, _ = ask(t, browser(t, ca, &stranger), "https://"+addr+"/metrics", nil)
	require.Equal(t, http.StatusOK, code)
}

func TestRenewedCertificateIsShown(t *testing.T) {
	t.Parallel()
	ca, next, dir := certtest.NewCA(t, "ours"), certtest.NewCA(t, "next"), t.TempDir()
	cert, key := writePair(t, dir, ca.Server(t, "127.0.0.1"))
	addr, log := start(t, Config{Listen: "127.0.0.1:0", CertFile: cert, KeyFile: key}, hello)
	works := func(ca *certtest.CA) bool {
		code, _ := ask(t, browser(t, ca, nil), "https://"+addr, nil)
		return code == http.StatusOK
	}
	require.True(t, works(ca))
	pair := next.Server(t, "127.0.0.1")
	certtest.Write(t, dir, "tls.crt", pair.Cert)
	require.True(t, works(ca), "half a renewal: what was read last is used")
	require.Contains(t, log.String(), "cannot be read")
	certtest.Write(t, dir, "tls.key", pair.Key)
	require.True(t, works(next))
	require.False(t, works(ca))
	_, err := Listen(Config{Listen: "127.0.0.1:0", CertFile: filepath.Join(dir, "none"), KeyFile: key}, hello)
	require.ErrorContains(t, err, "none: no such file")
}

// A web page whose name leads to this machine is not this machine.
func TestOtherNamesAreRefused(t *testing.T) {
	t.Parallel()
	addr, _ := start(t, Config{Listen: "127.0.0.1:0"}, hello)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for host, want := range map[string]int{
		addr: http.StatusOK, "localhost": http.StatusOK, "LOCALHOST:1": http.StatusOK, "[::1]:9464": http.StatusOK, "127.0.0.1": http.StatusOK,
		"evil.example": http.StatusMisdirectedRequest, "evil.example:9464": http.StatusMisdirectedRequest,
		"127.0.0.1.evil.example": http.StatusMisdirectedRequest, "localhost.evil.example": http.StatusMisdirectedRequest, "10.0.0.1": http.StatusMisdirectedRequest,
	} {
		code, _ := ask(t, client, "http://"+addr, func(r *http.Request) { r.Host = host })
		require.Equal(t, want, code, host)
	}
	code, _ := ask(t, client, "http://"+addr, func(r *http.Request) {
		r.Method = http.MethodPost
		r.Header.Set("Sec-Fetch-Site", "cross-site")
	})
	require.Equal(t, http.StatusForbidden, code, "a form of another site")
}

func TestRequestsAreBounded(t *testing.T) {
	t.Parallel()
	read := make(chan int64, 1)
	addr, _ := start(t, Config{Listen: "127.0.0.1:0"}, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		read <- n
	}))
	_, _ = ask(t, http.DefaultClient, "http://"+addr, func(r *http.Request) { r.Body = io.NopCloser(io.LimitReader(neverEnding{}, 2*maxBody)) })
	require.EqualValues(t, maxBody, <-read)
}

// neverEnding is a body without an end.
type neverEnding struct{}

func (neverEnding) Read(p []byte) (int, error) { return len(p), nil }

// The end does not wait for ever for a page that streams.
func TestTheEnd(t *testing.T) {
	t.Parallel()
	streaming, ended := make(chan struct{}), make(chan struct{})
	s, err := Listen(Config{Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "data: 1\n\n")
		_ = http.NewResponseController(w).Flush()
		close(streaming)
		<-r.Context().Done()
		close(ended)
	}))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	go func() {
		resp, err := http.Get("http://" + s.Addr().String()) //nolint:noctx // the server ends it
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
	}()
	<-streaming
	cancel()
	<-ended
	require.NoError(t, <-done)
	_, err = http.Get("http://" + s.Addr().String()) //nolint:noctx,bodyclose // refused
	require.Error(t, err)
}
