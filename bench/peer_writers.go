package main

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/outboxkit/outboxkit/bench/peers"
)

// peerWriters measures what a service pays: the rate of 8 writers at full speed
// that lock a row, change it, insert an order and write its event as the peer's
// users do, while nothing moves events and while the peer does; against the same
// transactions without an event. In a database of its own each, in turn.
func peerWriters(ctx context.Context, e *env) error {
	list, err := peerList(e, peers.Debezium{Delete: true})
	if err != nil {
		return err
	}
	w := &peerWriterRates{none: byPeer{}, event: byPeer{}, running: byPeer{}}
	err = withPeerPostgres(ctx, e, func(e *env) error {
		return inTurn(ctx, e, list, func(p peers.Peer) error {
			return withPeer(ctx, e, p, func(r *peerRun) error { return w.one(ctx, r) })
		})
	})
	for _, p := range list {
		name := p.Name()
		e.out.add("peer_writers_event_vs_none_"+name, "ratio", ratios(w.event[name], w.none[name]))
		e.out.add("peer_writers_running_vs_none_"+name, "ratio", ratios(w.running[name], w.none[name]))
	}
	w.none.report(e, "peer_writers_none", "tx/s", list)
	return err
}

type peerWriterRates struct{ none, event, running byPeer } // transactions a second

func (w *peerWriterRates) one(ctx context.Context, r *peerRun) error {
	if _, err := r.db.Exec(ctx, ordersTables); err != nil {
		return err
	}
	window := pick(r.env, 8*time.Second, 3*time.Second)
	var seq atomic.Int64
	rate := func(d time.Duration, events bool) (float64, error) {
		return fullSpeed(ctx, d, func() error {
			return r.db.order(ctx, func(tx pgx.Tx, id string) error {
				if !events {
					return nil
				}
				key := "order-" + id
				return r.Write(ctx, tx, peers.Event{ID: uuid.NewString(), Topic: r.place.Topic, Key: key, Payload: peerPayload(int(seq.Add(1)), key)})
			})
		})
	}
	for _, events := range []bool{true, false} { // connections, statements, rows in memory
		if _, err := rate(window/2, events); err != nil {
			return err
		}
	}
	none, err := rate(window/2, false)
	if err != nil {
		return err
	}
	event, err := rate(window, true)
	if err != nil {
		return err
	}
	after, err := rate(window/2, false)
	if err != nil {
		return err
	}
	none = (none + after) / 2
	if err := r.start(ctx); err != nil {
		return err
	}
	if _, _, err := r.reached(ctx, seq.Load()); err != nil { // caught up and warm
		return err
	}
	running, err := rate(window, true)
	if err != nil {
		return err
	}
	if _, _, err := r.reached(ctx, seq.Load()); err != nil {
		return err
	}
	w.none.add(r, none)
	w.event.add(r, event)
	w.running.add(r, running)
	note("peer_writers: %s none %.0f tx/s, with the event %.0f, with the peer running %.0f, load %s", r.Name(), none, event, running, loadAverage())
	return r.stop(ctx)
}
