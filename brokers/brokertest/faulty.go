package brokertest

import (
	"context"
	"sync/atomic"

	"github.com/outboxkit/outboxkit/brokers"
)

// Fault is what [Faulty] does to one message. The zero Fault does nothing.
type Fault struct {
	// Err is the message's result. The message is not published, and later ones
	// of its key in the same call get brokers.ErrHeld, unless Published is set.
	Err error
	// Published lets the message out all the same: Err and Wait then concern only
	// the answer, as when a connection breaks between the two.
	Published bool
	// Wait delays the whole call until the channel is closed: before anything is
	// published, or, with Published, between the publication and the answer. If
	// the context ends first, what is not resolved has class Unavailable.
	Wait <-chan struct{}
}

// Faulty returns a publisher that asks hook what to do with each message and
// hands the rest to pub. call counts the calls of Publish from 0. hook must be
// safe for concurrent use if Publish is used so; it is asked in slice order.
func Faulty(pub brokers.Publisher, hook func(call int, m brokers.Message) Fault) brokers.Publisher {
	return &faulty{Publisher: pub, hook: hook}
}

type faulty struct {
	brokers.Publisher // Close is the real one's
	hook              func(call int, m brokers.Message) Fault
	calls             atomic.Int64
}

// Publish implements brokers.Publisher.
func (f *faulty) Publish(ctx context.Context, msgs []brokers.Message) []error {
	call := int(f.calls.Add(1)) - 1
	results := make([]error, len(msgs))
	faults := make([]Fault, len(msgs))
	failed := map[orderKey]bool{}
	var out []brokers.Message
	var index []int // of each message of out in msgs
	for i, m := range msgs {
		faults[i] = f.hook(call, m)
		k := orderKey{m.Topic, m.Key}
		switch {
		case faults[i].Published:
			out, index = append(out, m), append(index, i)
		case failed[k]:
			results[i] = brokers.ErrHeld
		case faults[i].Err != nil:
			results[i] = faults[i].Err
		default:
			out, index = append(out, m), append(index, i)
		}
		failed[k] = k.ordered() && (failed[k] || faults[i].Err != nil)
	}
	if err := wait(ctx, faults, false); err != nil {
		fill(results, index, err)
		return results
	}
	for i, err := range f.Publisher.Publish(ctx, out) {
		results[index[i]] = err
		if answer := faults[index[i]].Err; answer != nil {
			results[index[i]] = answer
		}
	}
	if err := wait(ctx, faults, true); err != nil {
		fill(results, index, err)
	}
	return results
}

// wait blocks on the Wait channels of the faults whose Published is as given.
func wait(ctx context.Context, faults []Fault, published bool) error {
	for _, f := range faults {
		if f.Wait == nil || f.Published != published {
			continue
		}
		select {
		case <-f.Wait:
		case <-ctx.Done():
			return &brokers.Error{Class: brokers.ClassUnavailable, Err: ctx.Err()}
		}
	}
	return nil
}

func fill(results []error, index []int, err error) {
	for _, i := range index {
		results[i] = err
	}
}
