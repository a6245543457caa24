package brokertest_test

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/brokertest"
)

// plantEnv names the bug that TestPlanted puts into the in-memory broker.
const plantEnv = "OUTBOXKIT_BROKERTEST_PLANT"

// plant is a bug, and the subtest that must find it.
type plant struct {
	finds   string
	publish publishFunc // in place of Publish, if not nil
	handle  handleFunc  // around handle, if not nil
	close   func() error
	drain   time.Duration // in place of the drain timeout, if not 0
}

type (
	publishFunc func(ctx context.Context, pub brokers.Publisher, msgs []brokers.Message) []error
	handleFunc  func(m *brokertest.Memory, handle brokers.Handle) brokers.Handle
)

func plants() map[string]plant {
	return map[string]plant{
		"nothing of the key is held":             {finds: "serving/failed_event_holds_its_key_back", publish: publishSingly},
		"a call is published backwards":          {finds: "serving/order_per_key_in_one_call", publish: publishBackwards},
		"empty payloads become nil":              {finds: "serving/fields_arrive_as_sent", publish: publishEmptyAsNil},
		"a too large event fails its batch":      {finds: "serving/neighbours_of_oversize_events", publish: failAllWith(brokers.ClassRejected)},
		"an unknown topic fails its batch":       {finds: "serving/unknown_topic_harms_nobody_else", publish: failAllWith(brokers.ClassDestination)},
		"a return is overlooked now and then":    {finds: "serving/unroutable_is_noticed_every_time", publish: overlookReturns()},
		"the rest goes out after a cancellation": {finds: "serving/publish_with_a_context_that_ends", publish: publishRestAnyway},
		"confirmed though closed":                {finds: "serving/close_while_publishing", publish: confirm(func(err error) bool { return err == brokers.ErrClosed })},
		"confirmed before the server has it":     {finds: "restarting/nothing_lost_over_a_restart", publish: confirmUnavailable},
		"confirmed without a server":             {finds: "restarting/publish_while_the_server_is_away", publish: confirmUnavailable},
		"acknowledged when taken":                {finds: "serving/unsettled_comes_again", handle: ackWhenTaken},
		"stale acks accepted":                    {finds: "serving/unsettled_comes_again", handle: acceptStale},
		"acks by number over reconnects":         {finds: "restarting/ack_of_an_older_connection", handle: ackByNumber},
		"unsettled forgotten on restart":         {finds: "restarting/unsettled_survives_a_restart", handle: ackWhenTaken},
		"release means done":                     {finds: "serving/release_brings_it_back_in_order", handle: releaseAcks},
		"release goes to the end":                {finds: "serving/release_brings_it_back_in_order", handle: releaseToTheEnd},
		"a leaving member drops its buffer":      {finds: "serving/handover_under_load", handle: buffered(true)},
		"a leaving member does not drain":        {finds: "serving/leaving_waits_for_what_is_running", drain: 1},
		"the next member does not wait":          {finds: "serving/handover_under_load", drain: 1, handle: contextsLiveOn},
		"everything is buffered":                 {finds: "serving/blocked_handle_bounds_what_is_buffered", handle: buffered(false)},
		"handle runs concurrently":               {finds: "serving/blocked_handle_blocks_its_unit_only", handle: concurrently},
		"one blocked unit blocks them all":       {finds: "serving/blocked_handle_blocks_its_unit_only", handle: oneAtATime},
		"Close does not end Subscribe":           {finds: "serving/close_while_subscribed", close: func() error { return nil }},
	}
}

// TestSuiteFindsPlantedBugs is the suite's own test: each bug, planted into a
// broker that passes, makes the subtest fail that is there to find it. The
// suite fails in a process of its own.
func TestSuiteFindsPlantedBugs(t *testing.T) {
	for name, p := range plants() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := runPlanted(t, name, p.finds)
			require.Errorf(t, err, "%s does not notice: %s\n%s", p.finds, name, out)
			require.Contains(t, out, "--- FAIL: TestPlanted/"+p.finds)
			require.NotContains(t, out, "panic:", "the suite must say what is wrong")
			require.NotContains(t, out, "DATA RACE")
		})
	}
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		out, err := runPlanted(t, "none", "serving/order_per_key_in_one_call")
		require.NoError(t, err, out)
		require.Contains(t, out, "--- PASS: TestPlanted/serving/order_per_key_in_one_call")
	})
}

// TestForgottenField: what is not declared absent must be there.
func TestForgottenField(t *testing.T) {
	out, err := runPlanted(t, "forgotten field", "serving")
	require.Error(t, err, out)
	require.Contains(t, out, `Harness.Unroutable is nil: set it, or give the reason in Harness.Without["Unroutable"]`)
}

func runPlanted(t *testing.T, name, subtest string) (string, error) {
	t.Helper()
	run := "^TestPlanted$/^" + strings.ReplaceAll(subtest, "/", "$/^") + "$"
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", run, "-test.v", "-test.timeout", "60s") //nolint:gosec // this very test
	cmd.Env = append(os.Environ(), plantEnv+"="+name)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestPlanted runs the suite on a broken broker. It is started by
// TestSuiteFindsPlantedBugs, and fails.
func TestPlanted(t *testing.T) {
	name := os.Getenv(plantEnv)
	if name == "" {
		t.Skip("started by TestSuiteFindsPlantedBugs only")
	}
	p := plants()[name]
	drain := 100 * time.Millisecond
	if p.drain != 0 {
		drain = p.drain
	}
	m := brokertest.NewMemory(brokertest.MemoryConfig{DrainTimeout: drain})
	h := memoryHarness(m)
	h.Timeout = 3 * time.Second
	if p.publish != nil {
		h.NewPublisher = func(*testing.T) brokers.Publisher {
			return &brokenPublisher{Publisher: m.Publisher(), publish: p.publish}
		}
	}
	if p.handle != nil || p.close != nil {
		h.NewSubscriber = func(_ *testing.T, topic brokertest.Topic) brokers.Subscriber {
			return &brokenSubscriber{Subscriber: m.Subscriber(topic.Group, topic.Name), m: m, plant: p}
		}
	}
	if name == "forgotten field" {
		h.Unroutable = nil
	}
	brokertest.Exercise(t, h)
}

type brokenPublisher struct {
	brokers.Publisher
	publish publishFunc
}

func (b *brokenPublisher) Publish(ctx context.Context, msgs []brokers.Message) []error {
	return b.publish(ctx, b.Publisher, msgs)
}

func publishSingly(ctx context.Context, pub brokers.Publisher, msgs []brokers.Message) []error {
	results := make([]error, 0, len(msgs))
	for _, m := range msgs {
		results = append(results, pub.Publish(ctx, []brokers.Message{m})...)
	}
	// Like an asynchronous producer that learns of the failure too late, but
	// reports the rest of the key as held.
	failed := map[string]bool{}
	for i, m := range msgs {
		if results[i] == nil && failed[m.Key] {
			results[i] = brokers.ErrHeld
		}
		failed[m.Key] = failed[m.Key] || results[i] != nil
	}
	return results
}

func publishBackwards(ctx context.Context, pub brokers.Publisher, msgs []brokers.Message) []error {
	msgs = slices.Clone(msgs)
	slices.Reverse(msgs)
	results := pub.Publish(ctx, msgs)
	slices.Reverse(results)
	return results
}

func publishEmptyAsNil(ctx context.Context, pub brokers.Publisher, msgs []brokers.Message) []error {
	msgs = slices.Clone(msgs)
	for i := range msgs {
		if len(msgs[i].Payload) == 0 {
			msgs[i].Payload = nil
		}
	}
	return pub.Publish(ctx, msgs)
}

// failAllWith lets one message's failure be everybody's.
func failAllWith(class brokers.Class) publishFunc {
	return func(ctx context.Context, pub brokers.Publisher, msgs []brokers.Message) []error {
		results := pub.Publish(ctx, msgs)
		for _, err := range results {
			if err != nil && brokers.ClassOf(err) == class {
				return slices.Repeat([]error{err}, len(msgs))
			}
		}
		return results
	}
}

// overlookReturns confirms one in 9,000 unroutable messages.
func overlookReturns() publishFunc {
	n := 0
	return func(ctx context.Context, pub brokers.Publisher, msgs []brokers.Message) []error {
		results := pub.Publish(ctx, msgs)
		for i, err := range results {
			if err != nil && brokers.ClassOf(err) == brokers.ClassDestination {
				if n++; n%9_000 == 0 {
					results[i] = nil
				}
			}
		}
		return results
	}
}

func publishRestAnyway(ctx context.Context, pub brokers.Publisher, msgs []brokers.Message) []error {
	if ctx.Err() != nil {
		pub.Publish(context.WithoutCancel(ctx), msgs[len(msgs)/2:])
	}
	return pub.Publish(ctx, msgs)
}

func confirm(which func(error) bool) publishFunc {
	return func(ctx context.Context, pub brokers.Publisher, msgs []brokers.Message) []error {
		results := pub.Publish(ctx, msgs)
		for i, err := range results {
			if err != nil && which(err) {
				results[i] = nil
			}
		}
		return results
	}
}

func confirmUnavailable(ctx context.Context, pub brokers.Publisher, msgs []brokers.Message) []error {
	return confirm(func(err error) bool { return ctx.Err() == nil && brokers.ClassOf(err) == brokers.ClassUnavailable })(ctx, pub, msgs)
}

type brokenSubscriber struct {
	brokers.Subscriber
	m     *brokertest.Memory
	plant plant
}

func (b *brokenSubscriber) Subscribe(ctx context.Context, handle brokers.Handle) error {
	if b.plant.handle != nil {
		handle = b.plant.handle(b.m, handle)
	}
	return b.Subscriber.Subscribe(ctx, handle)
}

func (b *brokenSubscriber) Close() error {
	if b.plant.close != nil {
		return b.plant.close()
	}
	return b.Subscriber.Close()
}

// settler replaces a delivery's settling.
type settler struct {
	ack     func() error
	release func()
}

func (s settler) Ack() error { return s.ack() }
func (s settler) Release()   { s.release() }

func ackWhenTaken(_ *brokertest.Memory, handle brokers.Handle) brokers.Handle {
	return func(ctx context.Context, d *brokers.Delivery) {
		_ = d.Ack()
		d.Settler = settler{ack: func() error { return nil }, release: func() {}}
		handle(ctx, d)
	}
}

func acceptStale(_ *brokertest.Memory, handle brokers.Handle) brokers.Handle {
	return func(ctx context.Context, d *brokers.Delivery) {
		inner := d.Settler
		d.Settler = settler{release: inner.Release, ack: func() error {
			_ = inner.Ack()
			return nil
		}}
		handle(ctx, d)
	}
}

// ackByNumber acknowledges the delivery that has the same number in the latest
// session, as a client does that reconnects behind the adapter's back.
func ackByNumber(_ *brokertest.Memory, handle brokers.Handle) brokers.Handle {
	var mu sync.Mutex
	var session context.Context //nolint:containedctx // compared only
	var settlers []brokers.Settler
	return func(ctx context.Context, d *brokers.Delivery) {
		mu.Lock()
		if ctx != session {
			session, settlers = ctx, nil
		}
		number := len(settlers)
		settlers = append(settlers, d.Settler)
		mu.Unlock()
		d.Settler = settler{release: d.Settler.Release, ack: func() error {
			mu.Lock()
			defer mu.Unlock()
			if number >= len(settlers) {
				return brokers.ErrStale
			}
			return settlers[number].Ack()
		}}
		handle(ctx, d)
	}
}

func releaseAcks(_ *brokertest.Memory, handle brokers.Handle) brokers.Handle {
	return func(ctx context.Context, d *brokers.Delivery) {
		inner := d.Settler
		d.Settler = settler{ack: inner.Ack, release: func() { _ = inner.Ack() }}
		handle(ctx, d)
	}
}

func releaseToTheEnd(m *brokertest.Memory, handle brokers.Handle) brokers.Handle {
	return func(ctx context.Context, d *brokers.Delivery) {
		inner, msg := d.Settler, d.Message
		d.Settler = settler{ack: inner.Ack, release: func() {
			if inner.Ack() == nil {
				m.Publisher().Publish(context.Background(), []brokers.Message{msg})
			}
		}}
		handle(ctx, d)
	}
}

// buffered takes everything at once, whether handle has room or not; with ack
// it is also done with it.
func buffered(ack bool) handleFunc {
	return func(m *brokertest.Memory, handle brokers.Handle) brokers.Handle {
		var mu sync.Mutex
		queues := map[int32]chan func(){}
		return func(ctx context.Context, d *brokers.Delivery) {
			if ack {
				ackWhenTaken(m, func(context.Context, *brokers.Delivery) {})(ctx, d)
			}
			mu.Lock()
			defer mu.Unlock()
			q := queues[d.Origin.Partition]
			if q == nil {
				q = make(chan func(), 100_000)
				queues[d.Origin.Partition] = q
				go func() {
					for f := range q {
						f()
					}
				}()
			}
			q <- func() {
				if ctx.Err() == nil {
					handle(ctx, d)
				}
			}
		}
	}
}

func concurrently(_ *brokertest.Memory, handle brokers.Handle) brokers.Handle {
	return func(ctx context.Context, d *brokers.Delivery) { go handle(ctx, d) }
}

func oneAtATime(_ *brokertest.Memory, handle brokers.Handle) brokers.Handle {
	var mu sync.Mutex
	return func(ctx context.Context, d *brokers.Delivery) {
		mu.Lock()
		defer mu.Unlock()
		handle(ctx, d)
	}
}

func contextsLiveOn(_ *brokertest.Memory, handle brokers.Handle) brokers.Handle {
	return func(ctx context.Context, d *brokers.Delivery) {
		handle(context.WithoutCancel(ctx), d)
	}
}
