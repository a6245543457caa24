package inbox_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/inbox"
)

// silencer loses the answers to commits while it is armed: the server has
// carried them out, and the client sees a broken connection.
type silencer struct{ armed, lost atomic.Int32 }

type silencedConn struct {
	net.Conn
	s    *silencer
	mute atomic.Bool
}

func (c *silencedConn) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("commit")) && c.s.armed.Add(-1) >= 0 {
		c.mute.Store(true)
	}
	return c.Conn.Write(p)
}

func (c *silencedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && c.mute.Load() {
		c.s.lost.Add(1)
		_ = c.Conn.Close()
		return 0, errors.New("the answer is lost")
	}
	return n, err
}

func (w *world) silenced(s *silencer) *pgxpool.Pool {
	cfg := w.pool.Config().Copy()
	dial := cfg.ConnConfig.DialFunc
	cfg.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &silencedConn{Conn: conn, s: s}, nil
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	require.NoError(w.t, err)
	w.t.Cleanup(pool.Close)
	return pool
}

// Whether a commit without an answer happened is asked for by the next claims.
func TestBatchWhoseCommitIsNotAnswered(t *testing.T) {
	inBatches(t, func(t *testing.T, w *world, start func(*batches, inbox.Config, ...inbox.Middleware) *running) {
		s := &silencer{}
		w.pool = w.silenced(s)
		b := newBatches(w)
		b.refuse = func(context.Context, execFunc, inbox.Event[order]) error {
			if len(b.calls()) == 1 {
				s.armed.Store(1)
			}
			return nil
		}
		in := b.together(w.config("inventory"), start, orders(20)...)
		w.settled("inventory")
		require.NoError(t, in.end())
		require.EqualValues(t, 1, s.lost.Load())
		require.Len(t, b.calls(), 1, "it was handled once")
		require.Equal(t, 20, w.effects())
		require.Equal(t, inbox.Stats{Handled: 1, Duplicates: 20}, in.Stats())
	})
}

func TestCommitThatIsNotAnswered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := &silencer{}
	w.pool = w.silenced(s)
	in := w.start(w.config("inventory"), func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
		s.armed.Store(1)
		return insert("inventory")(ctx, tx, e)
	})
	w.publish(message("a", 1))
	w.settled("inventory")
	require.NoError(t, in.end())
	require.EqualValues(t, 1, s.lost.Load())
	require.Equal(t, 1, w.effects())
	require.Equal(t, inbox.Stats{Duplicates: 1}, in.Stats())
}
