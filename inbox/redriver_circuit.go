package inbox

// Redriven events take part in the circuit of their type only while it is not
// closed: they are probes like others, so that a redrive goes on when the topic is
// quiet. What fails of them opens no circuit, because they are bad ones by
// selection, unless the handler says that it cannot work.

// open reports that rows of this type need not be looked at now.
func (h handler) open() bool {
	c := h.breaker.circuit()
	return c != nil && c.State == breakerOpen.String()
}

// admitted reports whether r may be tried, and makes it a probe if its circuit is
// not closed.
func (r *redriven) admitted(h handler) bool {
	if h.breaker.circuit() == nil {
		return true
	}
	r.trial = &trial{}
	return enter(h.breaker, r.trial)
}

// unavailable tells the circuit that the handler cannot work.
func (r *redriven) unavailable(h handler, err error) {
	if r.trial == nil {
		r.trial = &trial{}
		enter(h.breaker, r.trial)
	}
	h.breaker.failed(r.trial, err, true)
}

// enter begins an attempt if that needs no waiting.
func enter(b *breaker, t *trial) bool {
	g := b.begin(t)
	if g == nil {
		return true
	}
	b.leave(g)
	b.spared(t) // if it was granted meanwhile
	return false
}
