package relay

import (
	"context"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/services/pgbouncer"
)

// Several relay processes share one outbox while writers write. At random moments
// one is killed, one is stopped for less or more than its lease and woken again,
// one leaves and one joins. Nothing is lost, first publications of a key are in
// order, and in the end the shares are fair.
func TestProcessesComeAndGo(t *testing.T) {
	t.Parallel()
	for name, pooler := range map[string]bool{"direct": false, "through pgbouncer": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			db.counters(t)
			c := &churn{t: t, dsn: db.relay.Config().ConnString(), rec: newRecord(t), rnd: rand.New(rand.NewPCG(seed(t), 99))}
			if pooler {
				c.dsn = pooled(t, db.url)
			}
			c.run(&load{t: t, db: db, seed: c.rnd.Uint64()})
			want := db.want(t)
			eventually(t, func() bool { return c.rec.missing(want) == 0 }, "all published")
			c.level(3)
			db.shared(t, 21, 21, 22)
			for len(c.up) > 0 {
				c.leave()
			}
			c.leaving.Wait()
			require.Empty(t, c.rec.violations(want, false))
			published, committed := 0, 0
			for key, n := range want {
				committed += n
				published += len(c.rec.keys[key])
			}
			t.Logf("%v, %d events, %d publications repeated", c.done, committed, published-committed)
		})
	}
}

// pooled is the database's address through a PgBouncer in transaction mode.
func pooled(t *testing.T, dsn string) string {
	if err := pgbouncer.Available(); err != nil {
		skip(t, err.Error())
	}
	u, err := url.Parse(dsn)
	require.NoError(t, err)
	bouncer, err := pgbouncer.Start(t.Context(), u.Host)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, bouncer.Close(context.Background())) })
	u, err = url.Parse(bouncer.URL(strings.TrimPrefix(u.Path, "/")))
	require.NoError(t, err)
	q := u.Query()
	q.Set("default_query_exec_mode", "exec")
	u.RawQuery = q.Encode()
	return u.String()
}

// churn starts, stops and kills relay processes.
type churn struct {
	t       *testing.T
	dsn     string
	rec     *record
	rnd     *rand.Rand
	up      []*child // running
	asleep  []*child
	leaving sync.WaitGroup
	done    struct{ kills, stops, leaves, joins int }
}

const churnLease = time.Second

func (c *churn) run(l *load) {
	c.level(3)
	written := make(chan struct{})
	go func() {
		defer close(written)
		l.run(duration(c.t, 10*time.Second))
	}()
	for {
		select {
		case <-written:
			for len(c.asleep) > 0 {
				c.wake()
			}
			return
		case <-time.After(50*time.Millisecond + time.Duration(c.rnd.Int64N(int64(churnLease/2)))):
		}
		c.event()
	}
}

func (c *churn) event() {
	switch n := c.rnd.IntN(10); {
	case len(c.asleep) > 0 && n < 3: // after a third to several leases
		c.wake()
	case len(c.up) < 2 || n < 5 && len(c.up)+len(c.asleep) < 5:
		c.join()
	case n < 7:
		child := c.pick(&c.up)
		child.signal(c.t, syscall.SIGSTOP)
		c.asleep = append(c.asleep, child)
		c.done.stops++
	case n < 8:
		c.leave()
	default:
		child := c.pick(&c.up)
		child.signal(c.t, syscall.SIGKILL)
		_ = child.cmd.Wait()
		c.done.kills++
	}
}

// level makes n processes run.
func (c *churn) level(n int) {
	for len(c.up) < n {
		c.join()
	}
	for len(c.up) > n {
		c.leave()
	}
}

func (c *churn) join() {
	c.up = append(c.up, startChildAt(c.t, c.dsn, c.rec.path, churnLease))
	c.done.joins++
}

func (c *churn) wake() {
	child := c.pick(&c.asleep)
	child.signal(c.t, syscall.SIGCONT)
	c.up = append(c.up, child)
}

func (c *churn) leave() {
	child := c.pick(&c.up)
	child.signal(c.t, syscall.SIGTERM)
	c.leaving.Go(func() {
		if err := child.cmd.Wait(); err != nil {
			c.t.Errorf("a leaving process: %v\n%s", err, child.out.String())
		}
	})
	c.done.leaves++
}

func (c *churn) pick(from *[]*child) *child {
	i := c.rnd.IntN(len(*from))
	child := (*from)[i]
	*from = append((*from)[:i:i], (*from)[i+1:]...)
	return child
}

// A killed process's shards are taken over within its lease; those of one that
// leaves at once.
func TestTakeoverTimes(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	rec := newRecord(t)
	const lease = 3 * time.Second
	start := func() *child { return startChildAt(t, db.relay.Config().ConnString(), rec.path, lease) }
	var killed, left []time.Duration
	start()
	for range 2 {
		other := start()
		db.shared(t, 32, 32)
		other.signal(t, syscall.SIGKILL)
		_ = other.cmd.Wait()
		killed = append(killed, db.shared(t, 64))

		other = start()
		db.shared(t, 32, 32)
		other.signal(t, syscall.SIGTERM)
		left = append(left, db.shared(t, 64))
		require.NoError(t, other.cmd.Wait(), other.out.String())
	}
	t.Logf("lease %v; after SIGKILL %v, after SIGTERM %v", lease, killed, left)
	for i := range killed {
		require.Less(t, killed[i], lease+2*time.Second)
		require.Less(t, left[i], lease/2)
	}
}
