package rabbitmq_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// proxy stands between the adapter and the broker, and can fail like a network.
type proxy struct {
	listener net.Listener
	target   string
	url      string

	mu    sync.Mutex
	conns []net.Conn
	open  chan struct{} // closed while bytes flow to the broker
}

func newProxy(t *testing.T, brokerURL string) *proxy {
	t.Helper()
	u, err := url.Parse(brokerURL)
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return startProxy(t, listener, u)
}

// newTLSProxy returns a proxy that takes TLS, and what a client needs for it.
func newTLSProxy(t *testing.T, brokerURL string) (*proxy, *tls.Config) {
	t.Helper()
	u, err := url.Parse(brokerURL)
	require.NoError(t, err)
	u.Scheme = "amqps"
	certified := httptest.NewTLSServer(nil) // for its certificate
	t.Cleanup(certified.Close)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: certified.TLS.Certificates, MinVersion: tls.VersionTLS12})
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(certified.Certificate())
	return startProxy(t, listener, u), &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
}

func startProxy(t *testing.T, listener net.Listener, u *url.URL) *proxy {
	t.Helper()
	p := &proxy{listener: listener, target: u.Host, open: make(chan struct{})}
	close(p.open)
	u.Host = listener.Addr().String()
	p.url = u.String()

	var running sync.WaitGroup
	running.Go(func() { p.accept(&running) })
	t.Cleanup(func() {
		_ = listener.Close()
		p.resume()
		p.cut()
		running.Wait()
	})
	return p
}

func (p *proxy) accept(running *sync.WaitGroup) {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		// What the proxy has not read stays with the client.
		if tcp, ok := client.(*net.TCPConn); ok {
			_ = tcp.SetReadBuffer(4096)
		}
		p.mu.Lock()
		p.conns = append(p.conns, client, server)
		p.mu.Unlock()
		running.Go(func() { p.copy(server, client, true) })
		running.Go(func() { p.copy(client, server, false) })
	}
}

func (p *proxy) copy(to, from net.Conn, stalls bool) {
	defer func() { _ = to.Close() }()
	buf := make([]byte, 4096)
	for {
		if stalls {
			p.mu.Lock()
			open := p.open
			p.mu.Unlock()
			<-open
		}
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// stall stops reading from clients.
func (p *proxy) stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = make(chan struct{})
}

func (p *proxy) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.open:
	default:
		close(p.open)
	}
}

// cut closes every connection.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}
