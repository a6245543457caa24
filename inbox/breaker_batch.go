package inbox

// Batches are for handlers that work: while a breaker is not closed, messages are
// tried alone, and so are those of a batch that failed, which tell the breaker
// themselves.

// closed reports whether batches may be made.
func (b *breaker) closed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state == breakerClosed
}

// batch reports that the handler did its work for n messages at once.
func (b *breaker) batch(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.successes += n
	if n == 0 {
		return
	}
	b.streak = 0
	if b.state != breakerClosed {
		return
	}
	for range n {
		b.recent.add(true)
	}
	b.tokens = min(b.tokens+retryShare*float64(n), retryBurst)
	b.admit()
}
