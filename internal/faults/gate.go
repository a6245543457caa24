package faults

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// gate lets a service's writers pass: SIGUSR1 closes it, SIGUSR2 opens it again.
type gate struct {
	signals chan os.Signal
	mu      sync.Mutex
	open    chan struct{} // closed while it is open
}

func newGate() *gate {
	g := &gate{signals: make(chan os.Signal, 4), open: make(chan struct{})}
	close(g.open)
	signal.Notify(g.signals, syscall.SIGUSR1, syscall.SIGUSR2)
	go g.listen()
	return g
}

func (g *gate) listen() {
	for s := range g.signals {
		g.mu.Lock()
		select {
		case <-g.open:
			if s == syscall.SIGUSR1 {
				g.open = make(chan struct{})
			}
		default:
			if s == syscall.SIGUSR2 {
				close(g.open)
			}
		}
		g.mu.Unlock()
	}
}

func (g *gate) close() {
	signal.Stop(g.signals)
	close(g.signals)
}

// pass waits until it is open, and tells whether ctx still goes on.
func (g *gate) pass(ctx context.Context) bool {
	g.mu.Lock()
	open := g.open
	g.mu.Unlock()
	select {
	case <-open:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
