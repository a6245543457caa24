package brokertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
)

// unit names an ordered unit in a delivery's origin.
type unit struct {
	topic     string
	partition int32
}

func unitOf(d *brokers.Delivery) unit { return unit{d.Origin.Topic, d.Origin.Partition} }

// record is what one or more readers have been given, in the order of arrival,
// and what they saw that the contract forbids.
type record struct {
	news chan struct{} // has a token when something was added

	mu     sync.Mutex
	got    []*brokers.Delivery
	open   map[unit][]*opened // deliveries that may not be settled
	faults []error
}

func newRecord() *record {
	return &record{news: make(chan struct{}, 1), open: map[unit][]*opened{}}
}

// opened is a delivery and who has it. It notes when it is settled.
type opened struct {
	brokers.Settler
	by      *reader
	ctx     context.Context
	settled atomic.Bool
}

// Ack implements brokers.Settler. It takes note first: once the adapter knows,
// the unit may be somebody else's.
func (o *opened) Ack() error {
	o.settled.Store(true)
	return o.Settler.Ack()
}

// Release implements brokers.Settler.
func (o *opened) Release() {
	o.settled.Store(true)
	o.Settler.Release()
}

func (o *opened) over() bool { return o.settled.Load() || o.ctx.Err() != nil }

// add records a delivery to a reader. If another reader of the record has
// something of the unit in its hands, that one has not been drained.
func (r *record) add(ctx context.Context, by *reader, d *brokers.Delivery) {
	o := &opened{Settler: d.Settler, by: by, ctx: ctx}
	d.Settler = o
	u := unitOf(d)
	r.mu.Lock()
	r.open[u] = slices.DeleteFunc(r.open[u], (*opened).over)
	for _, other := range r.open[u] {
		if other.by != by {
			r.faults = append(r.faults, fmt.Errorf(
				"%s was given to a member while another had unsettled deliveries of the unit, whose contexts had not ended", d.Origin))
			break
		}
	}
	r.open[u] = append(r.open[u], o)
	r.got = append(r.got, d)
	r.mu.Unlock()
	select {
	case r.news <- struct{}{}:
	default:
	}
}

func (r *record) fault(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, err)
}

// since returns the deliveries from index i on.
func (r *record) since(i int) []*brokers.Delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got[i:len(r.got):len(r.got)]
}

func (r *record) len() int { return len(r.since(0)) }

// await waits until every message has been delivered since index from.
func (r *record) await(t *testing.T, h Harness, from int, msgs []brokers.Message) {
	t.Helper()
	missing := make(map[string]bool, len(msgs))
	for _, m := range msgs {
		missing[m.ID] = true
	}
	r.awaitFunc(t, h, from, func(d *brokers.Delivery) bool {
		delete(missing, d.Message.ID)
		return len(missing) == 0
	}, func() string {
		for id := range missing {
			return fmt.Sprintf("%d of %d messages have not arrived, %q for example", len(missing), len(msgs), id)
		}
		return ""
	})
}

// awaitCount waits until n deliveries have come since index from.
func (r *record) awaitCount(t *testing.T, h Harness, from, n int) {
	t.Helper()
	count := 0
	r.awaitFunc(t, h, from, func(*brokers.Delivery) bool {
		count++
		return count >= n
	}, func() string { return fmt.Sprintf("%d deliveries have arrived instead of %d", count, n) })
}

// awaitFunc shows enough the deliveries from index i on until it returns true.
func (r *record) awaitFunc(t *testing.T, h Harness, i int, enough func(*brokers.Delivery) bool, lack func() string) {
	t.Helper()
	deadline := time.NewTimer(h.Timeout)
	defer deadline.Stop()
	for {
		for _, d := range r.since(i) {
			i++
			if enough(d) {
				return
			}
		}
		select {
		case <-r.news:
		case <-deadline.C:
			require.FailNowf(t, "deliveries are missing", "after %v: %s", h.Timeout, lack())
		}
	}
}

// checkFaults fails the test if a reader saw what the contract forbids.
func (r *record) checkFaults(t *testing.T) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	require.NoError(t, errors.Join(r.faults...))
}

// checkOrder fails the test unless the first deliveries of each key are in
// order and each key stays in one unit.
func (r *record) checkOrder(t *testing.T) {
	t.Helper()
	seen := map[string]bool{}
	last := map[string]int{}
	home := map[string]unit{}
	for _, d := range r.since(0) {
		m := d.Message
		if m.Key == "" || seen[m.ID] {
			continue
		}
		seen[m.ID] = true
		n := numberOf(m)
		if before, ok := last[m.Key]; ok {
			require.Greaterf(t, n, before, "key %q: event %d was delivered before event %d", m.Key, before, n)
			require.Equalf(t, home[m.Key], unitOf(d), "key %q moved to another unit", m.Key)
		}
		last[m.Key], home[m.Key] = n, unitOf(d)
	}
}

// reader is a subscriber whose Subscribe runs in a goroutine.
type reader struct {
	*record
	t      *testing.T
	h      Harness
	sub    brokers.Subscriber
	cancel context.CancelFunc
	done   chan struct{} // closed when Subscribe has returned
	err    error         // its result, after done

	busy sync.Map // unit -> *sync.Mutex, held while handle runs
}

// read starts a reader. settle is called in handle, after the delivery has been
// recorded; nil leaves deliveries unsettled.
func read(t *testing.T, h Harness, topic Topic, rec *record, settle brokers.Handle) *reader {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &reader{record: rec, t: t, h: h, sub: h.NewSubscriber(t, topic), cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.err = r.sub.Subscribe(ctx, func(ctx context.Context, d *brokers.Delivery) { r.handle(ctx, d, settle) })
	}()
	t.Cleanup(r.stop)
	return r
}

func (r *reader) handle(ctx context.Context, d *brokers.Delivery, settle brokers.Handle) {
	lock, _ := r.busy.LoadOrStore(unitOf(d), &sync.Mutex{})
	if !lock.(*sync.Mutex).TryLock() {
		r.fault(fmt.Errorf("handle was called for %s while it was running for the same unit", d.Origin))
		return
	}
	defer lock.(*sync.Mutex).Unlock()
	select {
	case <-r.done:
		r.fault(fmt.Errorf("handle was called for %s after Subscribe had returned", d.Origin))
	default:
	}
	if d.Origin.Broker != r.h.Broker {
		r.fault(fmt.Errorf("a delivery's Origin.Broker is %q, want %q", d.Origin.Broker, r.h.Broker))
	}
	r.add(ctx, r, d)
	if settle != nil {
		settle(ctx, d)
	}
}

// ack settles every delivery at once.
func (r *record) ack(_ context.Context, d *brokers.Delivery) {
	if err := d.Ack(); err != nil && !errors.Is(err, brokers.ErrStale) {
		r.fault(fmt.Errorf("ack of %s: %w", d.Origin, err))
	}
}

// stop ends Subscribe, as a member that leaves. It may be called again.
func (r *reader) stop() {
	r.t.Helper()
	r.cancel()
	await(r.t, r.done, r.h.Timeout, "Subscribe to return after its context ended")
	require.NoError(r.t, r.err, "Subscribe")
	require.NoError(r.t, r.sub.Close())
	r.checkFaults(r.t)
}
