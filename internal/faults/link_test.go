package faults

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// echoThrough is a link to a server that says what it hears.
func echoThrough(t *testing.T) (*link, string) {
	t.Helper()
	server, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Close()) })
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	l := newLinks()
	addr, err := l.add("process", "server")
	require.NoError(t, err)
	require.NoError(t, l.open("server", server.Addr().String()))
	t.Cleanup(l.close)
	return l.byName["process>server"], addr
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// echo sends bytes and returns those that come back within a second.
func echo(c net.Conn, bytes int) (int, error) {
	if _, err := c.Write(make([]byte, bytes)); err != nil {
		return 0, err
	}
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	return io.ReadFull(c, make([]byte, bytes))
}

// suffering runs a fault until the returned function is called, which waits for its
// end.
func suffering(t *testing.T, do func(ctx context.Context) error) (heal func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- do(ctx) }()
	heal = func() {
		cancel()
		require.NoError(t, <-done)
	}
	return heal
}

func TestLinks(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do    func(k *link, ctx context.Context) error
		holds func(old net.Conn, addr string) bool // what the fault is like
	}{
		"cut": {
			func(k *link, ctx context.Context) error { return k.cut(ctx, time.Minute) },
			func(_ net.Conn, addr string) bool {
				c, err := net.Dial("tcp", addr)
				if err == nil {
					_ = c.Close()
				}
				return err != nil
			},
		},
		"half-open": { // accepted, written to, and no answer, no end
			func(k *link, ctx context.Context) error { return k.halfOpen(ctx, time.Minute) },
			func(old net.Conn, addr string) bool {
				n, err := echo(old, 10)
				fresh, err2 := net.Dial("tcp", addr)
				if err2 != nil {
					return false
				}
				defer fresh.Close()
				m, err3 := echo(fresh, 10)
				return n+m == 0 && errors.Is(err, os.ErrDeadlineExceeded) && errors.Is(err3, os.ErrDeadlineExceeded)
			},
		},
		"truncate": { // some bytes, then the end
			func(k *link, ctx context.Context) error { return k.truncate(ctx, time.Minute, "downstream", 1000) },
			func(_ net.Conn, addr string) bool {
				fresh, err := net.Dial("tcp", addr)
				if err != nil {
					return false
				}
				defer fresh.Close()
				n, err := echo(fresh, 5000)
				return n == 1000 && errors.Is(err, io.ErrUnexpectedEOF)
			},
		},
		"delay": {
			func(k *link, ctx context.Context) error { return k.delay(ctx, time.Minute, 200) },
			func(_ net.Conn, addr string) bool {
				fresh, err := net.Dial("tcp", addr)
				if err != nil {
					return false
				}
				defer fresh.Close()
				began := time.Now()
				_, err = echo(fresh, 10)
				return err == nil && time.Since(began) > 150*time.Millisecond
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, addr := echoThrough(t)
			old := dial(t, addr)
			n, err := echo(old, 100)
			require.NoError(t, err)
			require.Equal(t, 100, n)
			heal := suffering(t, func(ctx context.Context) error { return c.do(k, ctx) })
			require.Eventually(t, func() bool { return c.holds(old, addr) }, 20*time.Second, 10*time.Millisecond)
			heal()
			n, err = echo(dial(t, addr), 5000)
			require.NoError(t, err, "healed")
			require.Equal(t, 5000, n)
		})
	}
}

// A promotion leads a link to another server.
func TestALinkLeadsElsewhere(t *testing.T) {
	t.Parallel()
	k, addr := echoThrough(t)
	other, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer other.Close()
	go func() {
		if c, err := other.Accept(); err == nil {
			_, _ = c.Write([]byte("other"))
			_ = c.Close()
		}
	}()
	require.NoError(t, k.retarget(other.Addr().String()))
	text, err := io.ReadAll(dial(t, addr))
	require.NoError(t, err)
	require.Equal(t, "other", string(text))
}
