//go:build faults

package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Members come and go under load: one, four, and another one alone at the end.
func TestScaleToFourMembersAndBack(t *testing.T) {
	overBoth(t, func(t *testing.T, b faultBroker) {
		w := newFaultWorld(t, b)
		spec := func(i int) memberSpec {
			return memberSpec{Name: fmt.Sprint("member-", i), Session: 2 * time.Second, DrainTimeout: 5 * time.Second, Slow: 50 * time.Millisecond}
		}
		w.join(spec(1))
		stop := w.write(load{perSecond: 300, kind: everyNth("slow", 20)})
		w.eventually(func() bool { return w.effectsBy("member-1") > 200 }, "one works")
		for i := 2; i <= 4; i++ {
			w.join(spec(i))
		}
		before := w.shares()
		w.eventually(func() bool {
			for name, n := range w.shares() {
				if n < before[name]+100 {
					return false
				}
			}
			return len(w.shares()) == 4
		}, "all four work at the same time")
		for _, m := range w.members[:3] {
			m.leave()
		}
		alone := w.effectsBy("member-4")
		w.eventually(func() bool { return w.effectsBy("member-4") > alone+200 }, "the one that is left works")
		stop()
		w.judge(true)
		require.Equal(t, 0, w.number(`SELECT count(*) FROM inbox.dead`))
		t.Logf("effects: %v", w.shares())
	})
}

// shares are the effects by member.
func (w *faultWorld) shares() map[string]int {
	w.Helper()
	shares := map[string]int{}
	for _, m := range w.members {
		if n := w.effectsBy(m.spec.Name); n > 0 {
			shares[m.spec.Name] = n
		}
	}
	return shares
}
