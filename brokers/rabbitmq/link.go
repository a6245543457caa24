package rabbitmq

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outboxkit/outboxkit/certs"
)

const (
	// writeTimeout ends a connection whose peer has stopped reading.
	writeTimeout = 10 * time.Second
	// callTimeout bounds one question to the broker on a side channel.
	callTimeout = 10 * time.Second
	// closeTimeout bounds a polite goodbye.
	closeTimeout = 2 * time.Second
)

// dialer is what publisher and subscriber have in common when they connect.
type dialer struct {
	url     string
	tls     *tls.Config
	files   *certs.Files // nil: tls
	timeout time.Duration
	client  func(*amqp.Config)
}

// link is one connection. It keeps the socket, because the AMQP client offers no
// other way out of a write to a peer that does not read.
type link struct {
	conn *amqp.Connection

	mu      sync.Mutex
	raw     net.Conn
	aborted bool
}

func (d dialer) dial(ctx context.Context) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	l := &link{}
	stop := context.AfterFunc(ctx, l.abort)
	defer stop()

	cfg := amqp.Config{TLSClientConfig: d.tls.Clone()}
	if err := d.secure(&cfg); err != nil {
		return nil, fmt.Errorf("connect to RabbitMQ: %w", err)
	}
	if d.client != nil {
		d.client(&cfg)
	}
	// The client's recovery acknowledges messages of an older connection and
	// publishes behind a gap.
	cfg.Recovery = nil
	connect := cfg.Dial
	if connect == nil {
		connect = func(network, addr string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addr)
		}
	}
	cfg.Dial = func(network, addr string) (net.Conn, error) {
		nc, err := connect(network, addr)
		if err != nil {
			return nil, err
		}
		if err := l.adopt(nc); err != nil {
			return nil, err
		}
		return &timedConn{Conn: nc}, nil
	}
	conn, err := amqp.DialConfig(d.url, cfg)
	if err != nil {
		l.abort()
		if ctx.Err() != nil {
			err = fmt.Errorf("%w (%w)", err, context.Cause(ctx))
		}
		return nil, fmt.Errorf("connect to RabbitMQ: %w", certs.Explain(err))
	}
	l.conn = conn
	return l, nil
}

// secure reads the files, if there are any.
func (d dialer) secure(cfg *amqp.Config) error {
	if d.files == nil {
		return nil
	}
	u, err := url.Parse(d.url)
	if err != nil {
		return errors.New("the URL cannot be read") // its own error repeats the password
	}
	if cfg.TLSClientConfig, err = d.files.Config(cmp.Or(u.Hostname(), "localhost")); err != nil {
		return err
	}
	if u.User == nil && d.files.CertFile != "" && !u.Query().Has("auth_mechanism") {
		cfg.SASL = []amqp.Authentication{&amqp.ExternalAuth{}}
	}
	return nil
}

func (l *link) adopt(nc net.Conn) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.aborted {
		_ = nc.Close()
		return net.ErrClosed
	}
	l.raw = nc
	return nil
}

// abort drops the connection, and with it what the kernel has not sent yet:
// given-up messages must not arrive later. It never blocks.
func (l *link) abort() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.aborted = true
	if l.raw == nil {
		return
	}
	if tcp, ok := l.raw.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = l.raw.Close() // only reports that it is closed already
}

// close says goodbye, so that the broker has handled all that was sent, and
// drops the connection if that takes too long.
func (l *link) close() {
	timer := time.AfterFunc(closeTimeout, l.abort)
	defer timer.Stop()
	_ = l.conn.Close() // the connection is over either way
	l.abort()
}

func (l *link) alive() bool { return !l.conn.IsClosed() }

// call runs f, which talks to the broker, and drops the connection if the broker
// does not answer in time: f then fails.
func (l *link) call(timeout time.Duration, f func() error) error {
	timer := time.AfterFunc(timeout, l.abort)
	defer timer.Stop()
	return f()
}

// sideChannel runs f on a channel of its own, which f may break.
func (l *link) sideChannel(f func(*amqp.Channel) error) error {
	return l.call(callTimeout, func() error {
		ch, err := l.conn.Channel()
		if err != nil {
			return err
		}
		return errors.Join(f(ch), ch.Close())
	})
}

// timedConn gives every write a deadline.
type timedConn struct {
	net.Conn
	set atomic.Int64 // when the deadline was last moved, in Unix nanoseconds
}

func (c *timedConn) Write(b []byte) (int, error) {
	// Moving it once a second is exact enough and costs nothing.
	now := time.Now()
	if ago := now.UnixNano() - c.set.Load(); ago > int64(time.Second) || ago < 0 { // below 0 when the clock was set back
		if err := c.SetWriteDeadline(now.Add(writeTimeout)); err != nil {
			return 0, err
		}
		c.set.Store(now.UnixNano())
	}
	return c.Conn.Write(b)
}
