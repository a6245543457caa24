package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/outboxkit/outboxkit/bench/peers"
)

// peerRecovery kills each peer with SIGKILL at 500 events a second, starts it
// again at once, and measures the time from that start until a consumer has the
// first event that it had not before. What comes again and what comes before an
// earlier event of its key is counted, and nothing may be missing in the end.
func peerRecovery(ctx context.Context, e *env) error {
	list, err := peerList(e)
	if err != nil {
		return err
	}
	x := &peerRecoveries{first: byPeer{}, behind: byPeer{}, duplicates: byPeer{}, inversions: byPeer{}}
	err = withPeerPostgres(ctx, e, func(e *env) error {
		return inTurn(ctx, e, list, func(p peers.Peer) error {
			return withPeer(ctx, e, p, func(r *peerRun) error { return x.one(ctx, r) })
		})
	})
	x.first.report(e, "peer_recovery_first_event", "s", list)
	x.behind.report(e, "peer_recovery_caught_up", "s", list)
	x.duplicates.report(e, "peer_recovery_duplicates", "events", list)
	x.inversions.report(e, "peer_recovery_inversions", "events", list)
	return err
}

type peerRecoveries struct{ first, behind, duplicates, inversions byPeer }

func (x *peerRecoveries) one(ctx context.Context, r *peerRun) error {
	a, err := watch(r.kafka, r.place.Topic)
	if err != nil {
		return err
	}
	defer a.close()
	if err := r.start(ctx); err != nil {
		return err
	}
	if err := r.warm(ctx, a, warmNumbers, 500, pick(r.env, 10*time.Second, 4*time.Second)); err != nil {
		return err
	}
	type load struct {
		committed map[int]int64
		err       error
	}
	written := make(chan load, 1)
	before := pick(r.env, 20*time.Second, 5*time.Second)
	window := before + pick(r.env, 20*time.Second, 12*time.Second)
	writing, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		committed, err := r.pace(writing, windowNumbers, 500, window)
		written <- load{committed, err}
	}()
	restarted, err := x.crash(ctx, r, a, before)
	if err != nil {
		cancel()
		l := <-written
		return errors.Join(err, l.err)
	}
	l := <-written
	if l.err != nil {
		return l.err
	}
	return x.settle(ctx, r, a, l.committed, restarted)
}

// crash kills the process after d and starts it again, then waits for an event
// that has not been seen before. It returns when it was started.
func (x *peerRecoveries) crash(ctx context.Context, r *peerRun, a *arrivals, d time.Duration) (time.Time, error) {
	if err := pause(ctx, d); err != nil {
		return time.Time{}, err
	}
	if err := r.kill(); err != nil {
		return time.Time{}, err
	}
	if err := pause(ctx, 300*time.Millisecond); err != nil { // what it had sent arrives
		return time.Time{}, err
	}
	seen, restarted := a.count(), time.Now()
	if err := r.start(ctx); err != nil {
		return restarted, err
	}
	for a.count() == seen {
		if time.Since(restarted) > peerStall {
			return restarted, fmt.Errorf("no new event within %s of the restart; %s", peerStall, r.logTail())
		}
		if err := pause(ctx, 2*time.Millisecond); err != nil {
			return restarted, err
		}
	}
	x.first.add(r, time.Since(restarted).Seconds())
	return restarted, nil
}

// settle waits for all events and counts what came of them.
func (x *peerRecoveries) settle(ctx context.Context, r *peerRun, a *arrivals, committed map[int]int64, restarted time.Time) error {
	if err := a.all(ctx, committed); err != nil {
		return fmt.Errorf("lost: %w; %s", err, r.logTail())
	}
	a.mu.Lock()
	duplicates, inversions := a.duplicates, a.inversions
	a.mu.Unlock()
	x.duplicates.add(r, float64(duplicates))
	x.inversions.add(r, float64(inversions))
	x.behind.add(r, a.caughtUp(committed, restarted))
	name := r.Name()
	note("peer_recovery: %s first new event after %.1f s, caught up after %.1f s, %d duplicates, %d inversions, load %s",
		name, last(x.first[name]), last(x.behind[name]), duplicates, inversions, loadAverage())
	return r.stop(ctx)
}

// count is how many different events have arrived.
func (a *arrivals) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.at)
}

// caughtUp is the seconds from the restart until the last event that was
// committed before it had arrived.
func (a *arrivals) caughtUp(committed map[int]int64, restarted time.Time) (seconds float64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for seq, at := range committed {
		if at < restarted.UnixNano() {
			seconds = max(seconds, float64(a.at[seq]-restarted.UnixNano())/1e9)
		}
	}
	return seconds
}
