package pgtest

import (
	"fmt"
	"testing"
	"time"
)

// Never fails t if condition becomes true within d. Unlike testify's, it asks in the
// test's own goroutine: no query is under way when it returns, to meet the end of
// the test's context.
func Never(t testing.TB, condition func() bool, d, tick time.Duration, what ...any) {
	t.Helper()
	until := time.Now().Add(d)
	for now := range time.Tick(tick) {
		if condition() {
			t.Fatal("it happened: " + fmt.Sprint(what...))
		}
		if now.After(until) {
			return
		}
	}
}
