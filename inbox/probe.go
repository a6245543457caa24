package inbox

import (
	"context"

	"github.com/outboxkit/outboxkit/dedup"
)

// probes is the group of messages that are looked up together.
type probes struct{}

// probe looks messages up that are probably duplicates, all at once and without
// a transaction, and acknowledges those that are.
func (r *runner) probe(taken []share) {
	var tasks []*task
	var keys []dedup.Key
	for _, s := range taken {
		for _, t := range s.tasks {
			t.probed = true
			tasks, keys = append(tasks, t), append(keys, t.key)
		}
	}
	ctx, cancel := context.WithTimeout(r.ctx, r.patience())
	defer cancel()
	if seen, err := r.store.Seen(ctx, r.pool, keys...); err == nil { // else the claim will meet it
		found := 0
		for i, t := range tasks {
			if t.seen = seen[i]; t.seen {
				found++
			}
		}
		r.repeats.Store(2*found >= len(tasks))
	}
	for i := range taken {
		s := &taken[i]
		for _, t := range s.tasks {
			if !t.seen || t.ctx.Err() != nil {
				break
			}
			if res, err := r.duplicate(t); err != nil || res.what != settled {
				break
			}
			s.settled++
		}
	}
	r.putAll(taken)
}
