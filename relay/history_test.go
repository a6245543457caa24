package relay

import (
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
)

// history checks the promises. Writers keep a counter per key, under its row lock,
// and write the counter's value as the event: whatever was rolled back is written
// again with the same value, so that the committed history of a key with counter n
// is exactly 1..n.
type history struct {
	mu   sync.Mutex
	keys map[string][]int // as published
}

func (h *history) add(msgs []brokers.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.keys == nil {
		h.keys = map[string][]int{}
	}
	for _, m := range msgs {
		n, _ := strconv.Atoi(string(m.Payload))
		h.keys[m.Key] = append(h.keys[m.Key], n)
	}
}

// shownViolations bounds what a failed test prints.
const shownViolations = 20

// violations compares with the committed counters. Exactly: no repeats either;
// otherwise first publications count.
func (h *history) violations(want map[string]int, exactly bool) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []string
	for key, n := range want {
		seen := map[int]bool{}
		next := 1
		for _, v := range h.keys[key] {
			switch {
			case seen[v] && exactly:
				list = append(list, fmt.Sprintf("%s: %d published again", key, v))
			case seen[v]:
			case v > next:
				list = append(list, fmt.Sprintf("%s: %d published before %d", key, v, next))
			}
			seen[v] = true
			for seen[next] {
				next++
			}
		}
		for v := 1; v <= n; v++ {
			if !seen[v] {
				list = append(list, fmt.Sprintf("%s: %d of %d lost", key, v, n))
			}
		}
		if len(seen) > n {
			list = append(list, fmt.Sprintf("%s: %d values published, %d committed", key, len(seen), n))
		}
	}
	if more := len(list) - shownViolations; more > 0 {
		list = append(list[:shownViolations], fmt.Sprintf("and %d more", more))
	}
	return list
}

func (h *history) missing(want map[string]int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for key, w := range want {
		distinct := map[int]bool{}
		for _, v := range h.keys[key] {
			distinct[v] = true
		}
		n += max(w-len(distinct), 0)
	}
	return n
}

func TestViolationsAreFound(t *testing.T) {
	t.Parallel()
	want := map[string]int{"k": 3}
	for name, published := range map[string][]int{
		"lost": {1, 3}, "inverted": {1, 3, 2}, "doubled": {1, 2, 2, 3}, "rolled back": {1, 2, 3, 4},
	} {
		h := history{keys: map[string][]int{"k": published}}
		require.NotEmpty(t, h.violations(want, true), name)
	}
	list := (&history{}).violations(map[string]int{"k": 1000}, true)
	require.Len(t, list, shownViolations+1)
	require.Equal(t, "and 980 more", list[shownViolations])
	h := history{keys: map[string][]int{"k": {1, 2, 1, 2, 3}}}
	require.Empty(t, h.violations(want, false), "a repeated suffix is allowed after a crash")
}
