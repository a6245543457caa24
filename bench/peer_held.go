package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outboxkit/outboxkit/bench/peers"
)

// peerHeld measures what two kinds of forgotten transactions do to whoever moves
// events: one that only reads (REPEATABLE READ, a snapshot that is held), and
// one that has written and stays open. Each against the time before, at 500
// events a second: latency, and how much of Postgres's log is kept for the peer.
func peerHeld(ctx context.Context, e *env) error {
	list, err := peerList(e)
	if err != nil {
		return err
	}
	h := &peerHolds{
		freeP50: byPeer{}, freeP99: byPeer{}, heldP50: byPeer{}, heldP99: byPeer{}, drainFree: byPeer{}, drainHeld: byPeer{},
		openShare: byPeer{}, openP99: byPeer{}, kept: byPeer{},
	}
	err = withPeerPostgres(ctx, e, func(e *env) error {
		return inTurn(ctx, e, list, func(p peers.Peer) error {
			return withPeer(ctx, e, p, func(r *peerRun) error { return h.one(ctx, r) })
		})
	})
	for _, p := range list {
		name := p.Name()
		e.out.add("peer_held_p99_vs_free_"+name, "ratio", ratios(h.heldP99[name], h.freeP99[name]))
		e.out.add("peer_held_drain_vs_free_"+name, "ratio", ratios(h.drainHeld[name], h.drainFree[name]))
	}
	h.freeP50.report(e, "peer_held_free_p50", "ms", list)
	h.freeP99.report(e, "peer_held_free_p99", "ms", list)
	h.heldP50.report(e, "peer_held_p50", "ms", list)
	h.heldP99.report(e, "peer_held_p99", "ms", list)
	h.openShare.report(e, "peer_held_open_writer_share", "of events", list)
	h.openP99.report(e, "peer_held_open_writer_p99", "ms", list)
	h.kept.report(e, "peer_held_log_kept", "MiB", list)
	return err
}

type peerHolds struct {
	freeP50, freeP99     byPeer
	heldP50, heldP99     byPeer
	drainFree, drainHeld byPeer // events a second of a backlog that appears at once
	openShare            byPeer // of the events, how many arrived while the transaction was open
	openP99              byPeer // of those
	kept                 byPeer // MiB of log that replication slots keep, at the end
}

func (h *peerHolds) one(ctx context.Context, r *peerRun) error {
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
	if err := h.free(ctx, r, a); err != nil {
		return fmt.Errorf("without a snapshot: %w", err)
	}
	if err := h.held(ctx, r, a); err != nil {
		return fmt.Errorf("with a held snapshot: %w", err)
	}
	if err := h.open(ctx, r, a); err != nil {
		return fmt.Errorf("with an open writer: %w", err)
	}
	name := r.Name()
	note("peer_held: %s p99 %.0f ms free, %.0f held; with an open writer %.2f of the events within its time; log kept %.1f MiB, load %s",
		name, last(h.freeP99[name]), last(h.heldP99[name]), last(h.openShare[name]), last(h.kept[name]), loadAverage())
	return r.stop(ctx)
}

func (h *peerHolds) free(ctx context.Context, r *peerRun, a *arrivals) error {
	ms, err := r.passed(ctx, a, windowNumbers, pick(r.env, 20*time.Second, 5*time.Second))
	if err != nil {
		return err
	}
	h.freeP50.add(r, quantile(ms, 0.5))
	h.freeP99.add(r, quantile(ms, 0.99))
	rate, err := r.burst(ctx)
	h.drainFree.add(r, rate)
	return err
}

// held lets events pass for a minute while a transaction that has read stays
// open, then measures the same as free.
func (h *peerHolds) held(ctx context.Context, r *peerRun, a *arrivals) error {
	tx, err := r.db.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }()
	if _, err := tx.Exec(ctx, `SELECT count(*) FROM pg_class`); err != nil { // takes the snapshot
		return err
	}
	if _, err := r.passed(ctx, a, laterNumbers, pick(r.env, time.Minute, 5*time.Second)); err != nil {
		return err
	}
	ms, err := r.passed(ctx, a, 2*laterNumbers, pick(r.env, 20*time.Second, 5*time.Second))
	if err != nil {
		return err
	}
	h.heldP50.add(r, quantile(ms, 0.5))
	h.heldP99.add(r, quantile(ms, 0.99))
	rate, err := r.burst(ctx)
	h.drainHeld.add(r, rate)
	return err
}

// open lets events pass while a transaction that has written stays open.
func (h *peerHolds) open(ctx context.Context, r *peerRun, a *arrivals) error {
	if _, err := r.db.Exec(ctx, `CREATE TABLE forgotten (n int)`); err != nil {
		return err
	}
	tx, err := r.db.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }()
	if _, err := tx.Exec(ctx, `INSERT INTO forgotten VALUES (1)`); err != nil { // any table
		return err
	}
	committed, err := r.pace(ctx, 3*laterNumbers, 500, pick(r.env, 20*time.Second, 5*time.Second))
	if err != nil {
		return err
	}
	if err := pause(ctx, 3*time.Second); err != nil { // more than any peer's interval
		return err
	}
	late, err := a.missing(committed)
	if err != nil {
		return err
	}
	h.openShare.add(r, 1-float64(late)/float64(len(committed)))
	if ms := a.delays(committed); len(ms) > 0 {
		h.openP99.add(r, quantile(ms, 0.99))
	}
	var kept float64
	err = r.db.QueryRow(ctx, `SELECT coalesce(max(pg_current_wal_lsn() - restart_lsn), 0)::float8 / 1048576 FROM pg_replication_slots`).Scan(&kept)
	h.kept.add(r, kept)
	if err := errors.Join(err, tx.Rollback(ctx)); err != nil {
		return err
	}
	return a.all(ctx, committed)
}

// passed lets 500 events a second pass and returns how long each took, in ms.
func (r *peerRun) passed(ctx context.Context, a *arrivals, first int, d time.Duration) ([]float64, error) {
	committed, err := r.pace(ctx, first, 500, d)
	if err != nil {
		return nil, err
	}
	if err := a.all(ctx, committed); err != nil {
		return nil, fmt.Errorf("%w; %s", err, r.logTail())
	}
	return a.delays(committed), nil
}

// burst is the rate at which a backlog goes that appears at once.
func (r *peerRun) burst(ctx context.Context) (float64, error) {
	before, err := r.topic.count()
	if err != nil {
		return 0, err
	}
	n := backlogOf(r.env, r.Peer) / 6
	if err := r.Fill(ctx, r.db.Pool, r.place.Topic, n); err != nil {
		return 0, err
	}
	began := time.Now()
	_, ended, err := r.reached(ctx, before+int64(n))
	return float64(n) / ended.Sub(began).Seconds(), err
}
