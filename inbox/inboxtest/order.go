package inboxtest

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/outboxkit/outboxkit/brokers"
)

// lanes divides messages by topic and key; one without key is alone. Lanes are
// in the order of their first message.
func lanes(msgs []brokers.Message) (lanes [][]brokers.Message) {
	index := map[string]int{}
	for n, m := range msgs {
		name := fmt.Sprintf("%q %q", m.Topic, m.Key)
		if m.Key == "" {
			name = fmt.Sprint(n)
		}
		i, known := index[name]
		if !known {
			i = len(lanes)
			index[name] = i
			lanes = append(lanes, nil)
		}
		lanes[i] = append(lanes[i], m)
	}
	return lanes
}

// keysReversed puts every key's messages before those of all keys that came
// before it: whatever two keys depend on each other, theirs are exchanged.
func keysReversed(msgs []brokers.Message, _ *rand.Rand) []brokers.Message {
	all := lanes(msgs)
	slices.Reverse(all)
	return slices.Concat(all...)
}

// shuffled puts messages into any order that keeps each key's.
func shuffled(msgs []brokers.Message, rng *rand.Rand) []brokers.Message {
	var out []brokers.Message
	all := lanes(msgs)
	for len(all) > 0 {
		i := rng.IntN(len(all))
		out = append(out, all[i][0])
		if all[i] = all[i][1:]; len(all[i]) == 0 {
			all = slices.Delete(all, i, i+1)
		}
	}
	return out
}

// repeated delivers each message a second time, at once or any while later: the
// first deliveries stay in order, as when a broker goes back to what it has
// delivered before.
func repeated(msgs []brokers.Message, rng *rand.Rand) []brokers.Message {
	again := make([][]brokers.Message, len(msgs)) // after the message of that index
	for i, m := range msgs {
		at := i + rng.IntN(len(msgs)-i)
		again[at] = append(again[at], m)
	}
	var out []brokers.Message
	for i, m := range msgs {
		out = append(append(out, m), again[i]...)
	}
	return out
}
