package main

import (
	"context"
	"fmt"
	"time"

	"github.com/outboxkit/outboxkit/bench/peers"
)

// numbers of the events of one run: of the warm-up, of the window, of later ones.
const (
	warmNumbers   = 0
	windowNumbers = 10_000_000
	laterNumbers  = 20_000_000
)

// peerLatency measures the time from the return of COMMIT until a consumer has
// the event, at a steady rate, and what that costs: CPU, memory and bytes of
// Postgres's log per event, which include the write of the event itself.
func peerLatency(rate int) func(context.Context, *env) error {
	return func(ctx context.Context, e *env) error {
		list, err := peerList(e)
		if err != nil {
			return err
		}
		l := &peerLatencies{rate: rate, p50: byPeer{}, p99: byPeer{}, wal: byPeer{}, rss: byPeer{}, reached: byPeer{}, cpu: newCosts()}
		err = withPeerPostgres(ctx, e, func(e *env) error {
			return inTurn(ctx, e, list, func(p peers.Peer) error {
				return withPeer(ctx, e, p, func(r *peerRun) error { return l.one(ctx, r) })
			})
		})
		l.report(e, list)
		return err
	}
}

type peerLatencies struct {
	rate     int
	p50, p99 byPeer // ms
	wal      byPeer // bytes an event
	rss      byPeer // MiB
	reached  byPeer // events a second that were written
	cpu      costs
}

func (l *peerLatencies) one(ctx context.Context, r *peerRun) error {
	a, err := watch(r.kafka, r.place.Topic)
	if err != nil {
		return err
	}
	defer a.close()
	if err := r.start(ctx); err != nil {
		return err
	}
	if err := r.warm(ctx, a, warmNumbers, l.rate, pick(r.env, 10*time.Second, 4*time.Second)); err != nil {
		return err
	}
	window := pick(r.env, 20*time.Second, 5*time.Second)
	log, before := r.logBytes(ctx), r.usage()
	committed, err := r.pace(ctx, windowNumbers, l.rate, window)
	if err != nil {
		return err
	}
	if err := a.all(ctx, committed); err != nil {
		return fmt.Errorf("%w; %s", err, r.logTail())
	}
	events := int64(len(committed))
	l.cpu.add(r, before, r.usage(), events)
	l.wal.add(r, (r.logBytes(ctx)-log)/float64(events))
	ms := a.delays(committed)
	l.p50.add(r, quantile(ms, 0.5))
	l.p99.add(r, quantile(ms, 0.99))
	l.rss.add(r, peakMiB(r.process.Pid()))
	l.reached.add(r, float64(events)/window.Seconds())
	name := r.Name()
	note("peer_latency_%d: %s p50 %.1f ms, p99 %.1f ms, %.0f events/s, %.0f MiB, load %s", l.rate, name,
		last(l.p50[name]), last(l.p99[name]), last(l.reached[name]), last(l.rss[name]), loadAverage())
	return r.stop(ctx)
}

// logBytes is where Postgres's log ends. Nobody else writes on this server.
func (r *peerRun) logBytes(ctx context.Context) (bytes float64) {
	if err := r.db.QueryRow(ctx, `SELECT (pg_current_wal_lsn() - '0/0')::float8`).Scan(&bytes); err != nil {
		note("end of Postgres's log: %v", err)
	}
	return bytes
}

func (l *peerLatencies) report(e *env, list []peers.Peer) {
	prefix := fmt.Sprintf("peer_latency_%d", l.rate)
	e.out.add(prefix+"_p50_vs_debezium_tuned", "ratio", l.p50.against("debezium_tuned", lowest))
	e.out.add(prefix+"_p50_vs_debezium_default", "ratio", l.p50.against("debezium_default", lowest))
	e.out.add(prefix+"_p50_vs_watermill", "ratio", l.p50.against("watermill_", lowest))
	l.p50.report(e, prefix+"_p50", "ms", list)
	l.p99.report(e, prefix+"_p99", "ms", list)
	l.wal.report(e, prefix+"_wal", "bytes/event", list)
	l.rss.report(e, prefix+"_rss", "MiB", list)
	l.reached.report(e, prefix+"_written", "events/s", list)
	l.cpu.report(e, prefix, list)
}
