//go:build faults

package e2e

import (
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// gate stands between a consumer process and Postgres. It reads what the process
// says, so it can stop it at a chosen step of a transaction, just before a
// statement reaches the server or with the answer held back, and cut connections
// there. The process itself knows nothing of it.
type gate struct {
	t        testing.TB
	url      string // of the database, through the gate
	listener net.Listener
	target   string
	running  sync.WaitGroup

	mu    sync.Mutex
	traps []*trap
	open  chan struct{} // closed while answers flow
	conns map[*gateConn]struct{}
}

// moment is a side of a step: see gateConn.step for their names.
type moment struct {
	step     string
	answered bool // the server has carried it out, and the answer is on its way
}

func before(step string) moment { return moment{step: step} }
func after(step string) moment  { return moment{step, true} }

func (m moment) String() string {
	if m.answered {
		return "after " + m.step
	}
	return "before " + m.step
}

// trap waits for a connection to come to a moment.
type trap struct {
	at  moment
	met chan *gateConn // has it, once; held there until it is released or closed
}

func newGate(t testing.TB, databaseURL string) *gate {
	t.Helper()
	u, err := url.Parse(databaseURL)
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g := &gate{t: t, listener: listener, target: u.Host, open: make(chan struct{}), conns: map[*gateConn]struct{}{}}
	close(g.open)
	u.Host = listener.Addr().String()
	g.url = u.String()
	g.running.Go(g.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		g.cut()
		g.running.Wait()
	})
	return g
}

// cut closes all connections.
func (g *gate) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.conns {
		c.close()
	}
}

// set traps the first connection that comes to at.
func (g *gate) set(at moment) *trap {
	g.mu.Lock()
	defer g.mu.Unlock()
	tr := &trap{at: at, met: make(chan *gateConn, 1)}
	g.traps = append(g.traps, tr)
	return tr
}

// hush holds all answers back; nothing is closed, and new connections find a
// server that does not speak.
func (g *gate) hush() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = make(chan struct{})
}

func (g *gate) opened() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open
}

func (g *gate) accept() {
	for {
		client, err := g.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", g.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		c := &gateConn{gate: g, client: client, server: server, ended: make(chan struct{}), statements: map[string]string{}}
		g.mu.Lock()
		g.conns[c] = struct{}{}
		g.mu.Unlock()
		g.running.Go(c.forward)
		g.running.Go(c.answer)
	}
}

// meet holds c if it has come to a trap.
func (g *gate) meet(c *gateConn, step string) {
	g.mu.Lock()
	for i, tr := range g.traps {
		if tr.at.step != step {
			continue
		}
		g.traps = append(g.traps[:i:i], g.traps[i+1:]...)
		held := make(chan struct{})
		c.mu.Lock()
		c.held = held
		c.mu.Unlock()
		g.mu.Unlock()
		tr.met <- c
		if !tr.at.answered {
			c.stay()
		}
		return
	}
	g.mu.Unlock()
}

// gateConn is one connection of the process.
type gateConn struct {
	gate           *gate
	client, server net.Conn
	once           sync.Once
	ended          chan struct{}
	statements     map[string]string // prepared ones, by name
	last           string            // the latest step, as commit has it

	mu    sync.Mutex
	event string        // id of the event that it is about; "" where the statements do not say
	open  bool          // between claim and commit
	held  chan struct{} // nil, or closed when it may go on
}

// about is the id of the event that the held transaction handles.
func (c *gateConn) about() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.event
}

// port is what pg_stat_activity calls client_port.
func (c *gateConn) port() int { return c.server.LocalAddr().(*net.TCPAddr).Port }

// release lets the connection go on.
func (c *gateConn) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.held)
	c.held = nil
}

// close cuts the connection.
func (c *gateConn) close() {
	c.once.Do(func() {
		close(c.ended)
		_ = c.client.Close()
		_ = c.server.Close()
	})
}

// stay returns when c is released or closed.
func (c *gateConn) stay() {
	c.mu.Lock()
	held := c.held
	c.mu.Unlock()
	if held == nil {
		return
	}
	select {
	case <-held:
	case <-c.ended:
	}
}

func (c *gateConn) over() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

func (c *gateConn) answer() {
	defer c.finish()
	buf := make([]byte, 32<<10)
	for {
		n, err := c.server.Read(buf)
		if err != nil {
			return
		}
		c.stay()
		select {
		case <-c.gate.opened():
		case <-c.ended:
		}
		if _, err := c.client.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (c *gateConn) forward() {
	defer c.finish()
	if c.startup() != nil {
		return
	}
	var head [5]byte // type and length, itself included
	for {
		if _, err := io.ReadFull(c.client, head[:]); err != nil {
			return
		}
		message := make([]byte, 1+binary.BigEndian.Uint32(head[1:]))
		copy(message, head[:])
		if _, err := io.ReadFull(c.client, message[5:]); err != nil {
			return
		}
		if step := c.step(message[0], message[5:]); step != "" {
			c.gate.meet(c, step)
		}
		if c.over() { // what was held when it was cut must not arrive
			return
		}
		if _, err := c.server.Write(message); err != nil {
			return
		}
	}
}

func (c *gateConn) finish() {
	c.close()
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	delete(c.gate.conns, c)
}

// startup passes on the message that has no type. Requests for TLS are not
// expected: the tests' URLs turn it off.
func (c *gateConn) startup() error {
	var head [4]byte
	if _, err := io.ReadFull(c.client, head[:]); err != nil {
		return err
	}
	message := make([]byte, binary.BigEndian.Uint32(head[:]))
	copy(message, head[:])
	if _, err := io.ReadFull(c.client, message[4:]); err != nil {
		return err
	}
	_, err := c.server.Write(message)
	return err
}

// between are the events of the transactions that are between claim and commit.
func (g *gate) between() (events []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.conns {
		c.mu.Lock()
		if c.open && c.event != "" {
			events = append(events, c.event)
		}
		c.mu.Unlock()
	}
	return events
}
