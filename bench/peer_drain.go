package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/outboxkit/outboxkit/bench/peers"
)

// peerDrain lets each peer publish a backlog. The first half warms it up, and so
// a JVM's compiler, and counts for nothing but the start: the time from the
// start of the process to its first event.
func peerDrain(ctx context.Context, e *env) error {
	list, err := peerList(e, peers.Debezium{Heap: "256m"})
	if err != nil {
		return err
	}
	d := &peerDrains{list: list, rate: byPeer{}, cold: byPeer{}, first: byPeer{}, rss: byPeer{}, cpu: newCosts(), client: nil}
	err = withPeerPostgres(ctx, e, func(e *env) error {
		return inTurn(ctx, e, list, func(p peers.Peer) error {
			if p.Name() == ours { // the limit, once a round
				if err := d.bare(ctx, e); err != nil {
					return fmt.Errorf("plain client: %w", err)
				}
			}
			return withPeer(ctx, e, p, func(r *peerRun) error { return d.one(ctx, r) })
		})
	})
	d.report(e)
	return err
}

type peerDrains struct {
	list              []peers.Peer
	rate, cold        byPeer // events a second: of the second half, of all from the first event on
	first             byPeer // seconds
	rss               byPeer // MiB
	cpu               costs
	client, clientCPU []float64 // the plain client: events a second; CPU of its process
}

// backlogOf is how many events each has to publish: so many that it takes
// seconds.
func backlogOf(e *env, p peers.Peer) int {
	if _, one := p.(peers.Watermill); one { // it publishes one at a time
		return pick(e, 60_000, 10_000)
	}
	return pick(e, 600_000, 150_000)
}

func (d *peerDrains) one(ctx context.Context, r *peerRun) error {
	n := backlogOf(r.env, r.Peer)
	if err := r.Fill(ctx, r.db.Pool, r.place.Topic, n); err != nil {
		return err
	}
	if _, err := r.db.Exec(ctx, "CHECKPOINT"); err != nil { // not while it is measured
		return err
	}
	began := time.Now()
	if err := r.start(ctx); err != nil {
		return err
	}
	c1, t1, err := r.reached(ctx, 1)
	if err != nil {
		return err
	}
	half, t2, err := r.reached(ctx, int64(n)/2)
	if err != nil {
		return err
	}
	before := r.usage()
	all, t3, err := r.reached(ctx, int64(n))
	if err != nil {
		return err
	}
	d.cpu.add(r, before, r.usage(), all-half)
	d.rate.add(r, float64(all-half)/t3.Sub(t2).Seconds())
	d.cold.add(r, float64(all-c1)/t3.Sub(t1).Seconds())
	d.first.add(r, t1.Sub(began).Seconds())
	d.rss.add(r, peakMiB(r.process.Pid()))
	name := r.Name()
	note("peer_drain: %s %.0f/s (from its first event %.0f/s), first after %.1f s, %.0f MiB, load %s", name,
		last(d.rate[name]), last(d.cold[name]), last(d.first[name]), last(d.rss[name]), loadAverage())
	return r.stop(ctx)
}

// bare is what Kafka's client can do with as many messages that are in memory.
func (d *peerDrains) bare(ctx context.Context, e *env) error {
	db, err := newDatabase(ctx, e)
	if err != nil {
		return err
	}
	defer db.drop()
	topic, err := kafkaTarget(e).topic(ctx)
	if err != nil {
		return err
	}
	n := backlogOf(e, &ourPeer{}) / 2
	if err := db.fill(ctx, topic, thousandKeys, n); err != nil {
		return err
	}
	msgs, err := db.messages(ctx)
	if err != nil {
		return err
	}
	before := cpuSeconds(os.Getpid())
	took, err := kafkaTarget(e).client(ctx, msgs)
	if err != nil {
		return err
	}
	d.client = append(d.client, float64(n)/took)
	d.clientCPU = append(d.clientCPU, (cpuSeconds(os.Getpid())-before)*1e6/float64(n))
	note("peer_drain: plain client %.0f/s, load %s", last(d.client), loadAverage())
	return nil
}

func (d *peerDrains) report(e *env) {
	e.out.add("peer_drain_vs_debezium", "ratio", d.rate.against("debezium_", highest))
	e.out.add("peer_drain_vs_watermill", "ratio", d.rate.against("watermill_", highest))
	e.out.add("peer_drain_vs_client", "ratio", ratios(d.rate[ours], d.client))
	e.out.add("peer_drain_rss_vs_debezium", "ratio", d.rss.against("debezium_", lowest))
	d.rate.report(e, "peer_drain_rate", "events/s", d.list)
	e.out.add("peer_drain_rate_client", "events/s", d.client)
	d.cold.report(e, "peer_drain_cold_rate", "events/s", d.list)
	d.first.report(e, "peer_drain_first_event", "s", d.list)
	d.rss.report(e, "peer_drain_rss", "MiB", d.list)
	d.cpu.report(e, "peer_drain", d.list)
	e.out.add("peer_drain_cpu_own_client", "s/1M events", d.clientCPU)
}

func last(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	return v[len(v)-1]
}
