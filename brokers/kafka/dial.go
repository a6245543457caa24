package kafka

import (
	"context"
	"net"
	"time"

	"github.com/IBM/sarama"

	"github.com/outboxkit/outboxkit/certs"
)

// dial makes the client dial under ctx and closes its connections when ctx ends:
// the client itself would wait for dial and read timeouts. Each new connection
// is shown to seen, which may be nil. A dialer that the user has set is used.
//
// TLS with files begins here too: the client keeps one configuration for ever.
func dial(ctx context.Context, conf *sarama.Config, files *certs.Files, seen func(net.Conn)) {
	d := &dialer{ctx: ctx, seen: seen, files: files, timeout: conf.Net.DialTimeout}
	if conf.Net.Proxy.Enable {
		d.connect = conf.Net.Proxy.Dialer.Dial
	} else {
		nd := net.Dialer{Timeout: conf.Net.DialTimeout, KeepAlive: conf.Net.KeepAlive, LocalAddr: conf.Net.LocalAddr}
		d.connect = func(network, addr string) (net.Conn, error) { return nd.DialContext(ctx, network, addr) }
	}
	conf.Net.Proxy.Enable, conf.Net.Proxy.Dialer = true, d
}

type dialer struct {
	ctx     context.Context //nolint:containedctx // the client's interface has none
	connect func(network, addr string) (net.Conn, error)
	seen    func(net.Conn)
	files   *certs.Files // nil: no TLS, or the client's
	timeout time.Duration
}

// Dial implements the client's dialer interface.
func (d *dialer) Dial(network, addr string) (net.Conn, error) {
	c, err := d.connect(network, addr)
	if err != nil {
		return nil, err
	}
	out := &boundConn{Conn: c}
	out.unbind = context.AfterFunc(d.ctx, func() { _ = c.Close() })
	if d.seen != nil {
		d.seen(out)
	}
	if d.files == nil {
		return out, nil
	}
	ctx, cancel := context.WithTimeout(d.ctx, d.timeout)
	defer cancel()
	secure, err := d.files.Client(ctx, out, addr)
	if err != nil {
		_ = out.Close() // the handshake's error counts
		return nil, err
	}
	return secure, nil
}

// boundConn is a connection that ends with a context.
type boundConn struct {
	net.Conn
	unbind func() bool
}

// Close implements net.Conn.
func (c *boundConn) Close() error {
	c.unbind()
	return c.Conn.Close()
}
