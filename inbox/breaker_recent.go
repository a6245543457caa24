package inbox

// recent is how the first attempts of the latest messages went, as a ring that
// begins full of successes.
type recent struct {
	ok       []bool
	next     int
	failures int
}

func newRecent(size int) recent {
	r := recent{ok: make([]bool, size)}
	r.reset()
	return r
}

func (r *recent) add(ok bool) {
	if !r.ok[r.next] {
		r.failures--
	}
	if !ok {
		r.failures++
	}
	r.ok[r.next] = ok
	r.next = (r.next + 1) % len(r.ok)
}

func (r *recent) reset() {
	for i := range r.ok {
		r.ok[i] = true
	}
	r.next, r.failures = 0, 0
}
