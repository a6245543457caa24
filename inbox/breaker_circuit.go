package inbox

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Circuit is a type whose handler does not work, or just works again.
type Circuit struct {
	Type    string
	State   string // "open": messages wait; "half-open": one is being tried; "recovering": a few at once
	Since   time.Time
	Waiting int    // messages in flight that wait for their turn
	Error   string // the latest failure
}

// circuit returns nil for a closed breaker.
func (b *breaker) circuit() *Circuit {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state == breakerClosed {
		return nil
	}
	return &Circuit{Type: b.name, State: b.state.String(), Since: b.since, Waiting: len(b.queue), Error: fmt.Sprint(b.err)}
}

func (in *Inbox) circuits() []Circuit {
	in.mu.Lock()
	defer in.mu.Unlock()
	var all []Circuit
	for _, h := range in.handlers {
		if c := h.breaker.circuit(); c != nil {
			all = append(all, *c)
		}
	}
	slices.SortFunc(all, func(a, b Circuit) int { return cmp.Compare(a.Type, b.Type) })
	return all
}
