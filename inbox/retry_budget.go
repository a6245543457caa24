package inbox

// RetryBudgets returns, for each event type with a handler, how many retries may
// run now beside one that always may: a fifth of what has succeeded, at most 100.
// Where it is 0 failed messages are retried one by one.
func (in *Inbox) RetryBudgets() map[string]float64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	budgets := map[string]float64{}
	for name, h := range in.handlers {
		budgets[name] = h.breaker.budget()
	}
	return budgets
}

func (b *breaker) budget() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.tokens
}
