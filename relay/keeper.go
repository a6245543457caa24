package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// keep holds a fair share of the pipeline's shards until ctx ends. Every instance
// counts the same live instances and comes to the same shares; who has too many
// releases some, who has too few takes free ones. Nothing is taken from a live
// owner.
func (s *session) keep(ctx context.Context) {
	pause := jitter(s.r.tune.retryMax)
	var since time.Time // when shards began to leave
	for ctx.Err() == nil {
		err := s.balance(ctx)
		stay, all := s.progress.held()
		s.stats.holds(stay, s.r.tune.stuck)
		s.health.struggles(err, stay, time.Now())
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errIncarnation) || misuse(err):
			s.end(err)
			return
		case err != nil:
			s.stats.failed(err)
			s.log.Warn("relay: looking after the leases failed", "instance", s.t.name, "error", err)
			sleep(ctx, pause.NextBackOff())
			continue
		}
		pause.Reset()
		switch now := time.Now(); {
		case stay == all:
			since = time.Time{}
			sleep(ctx, s.r.tune.standby)
			continue
		case since.IsZero():
			since = now
		case now.Sub(since) > s.r.cfg.Lease:
			// What is in flight does not resolve here; elsewhere it may.
			s.end(errStuck)
			return
		}
		sleep(ctx, min(s.r.tune.standby, 10*time.Millisecond))
	}
}

// balance takes one step towards a fair share.
func (s *session) balance(ctx context.Context) error {
	if err := s.handOver(ctx); err != nil {
		return err
	}
	l, err := s.look(ctx)
	if err != nil {
		return err
	}
	// Leases in our name that this session knows nothing of come from a takeover
	// whose answer was lost, or from an earlier session.
	stray := map[int16]int64{}
	for shard, epoch := range l.mine {
		if !s.progress.has(shard) {
			stray[shard] = epoch
		}
	}
	if len(stray) > 0 {
		return s.release(ctx, stray)
	}
	if l.share == nil { // expired or retired: no share
		return nil
	}
	switch stay, _ := s.progress.held(); {
	case stay > *l.share:
		s.log.Info("relay: giving up shards", "instance", s.t.name, "shards", stay-*l.share, "share", *l.share)
		s.progress.giveUp(stay - *l.share)
	case stay < *l.share && l.free > 0:
		return s.takeUp(ctx, *l.share-stay)
	}
	return nil
}

// lookout is what the lease table says.
type lookout struct {
	share *int            // nil if this instance is not live
	free  int             // leases of no live instance
	mine  map[int16]int64 // epochs
}

// look only reads: an idle relay writes nothing but its heartbeat.
func (s *session) look(ctx context.Context) (lookout, error) {
	l := lookout{mine: map[int16]int64{}}
	var shards []int16
	var epochs []int64
	var tok token
	op, cancel := s.r.op(ctx)
	defer cancel()
	if err := s.r.pool.QueryRow(op, s.r.q.look, s.name, s.t.name, shardCount).Scan(&l.share, &l.free, &shards, &epochs, &tok); err != nil {
		return l, fmt.Errorf("look at leases: %w", err)
	}
	if !same(tok, s.t.token) {
		return l, errIncarnation
	}
	for i, shard := range shards {
		l.mine[shard] = epochs[i]
	}
	return l, nil
}

// takeUp takes up to n free shards and begins to publish them.
func (s *session) takeUp(ctx context.Context, n int) error {
	epochs, err := s.take(ctx, n)
	if err != nil || len(epochs) == 0 {
		return err
	}
	var shards []int16
	for shard := range epochs {
		shards = append(shards, shard)
	}
	positions, err := s.load(ctx, s.t, shards)
	if err != nil {
		return err
	}
	if err := s.lookForParked(ctx); err != nil {
		return err
	}
	s.progress.gain(epochs, positions)
	s.log.Info("relay: shards taken over", "instance", s.t.name, "shards", len(shards))
	return nil
}

// take raises the epochs of up to n leases that no living instance owns. Expired
// instance rows are deleted first: their locks make a late heartbeat wait and then
// find nothing. Leases are locked, in shard order, before a new statement decides,
// because a decision made while waiting for a lock would rest on an old snapshot.
func (s *session) take(ctx context.Context, n int) (map[int16]int64, error) {
	epochs := map[int16]int64{}
	err := s.inTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, s.r.q.expire, s.t.name); err != nil {
			return err
		}
		var locked []int16
		if err := tx.QueryRow(ctx, s.r.q.lockFree, s.name).Scan(&locked); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, s.r.q.take, s.name, s.t.name, locked, n)
		if err != nil {
			return err
		}
		var shard int16
		var epoch int64
		_, err = pgx.ForEachRow(rows, []any{&shard, &epoch}, func() error {
			epochs[shard] = epoch
			return nil
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("take leases: %w", err)
	}
	return epochs, nil
}

// handOver stores the positions of the shards that have drained and releases them.
func (s *session) handOver(ctx context.Context) error {
	done := s.progress.drained()
	if len(done) == 0 {
		return nil
	}
	if _, err := s.flush(ctx, true); err != nil && !errors.Is(err, errLeaseLost) {
		return err
	}
	if err := s.release(ctx, done); err != nil {
		return err
	}
	s.progress.remove(done)
	return nil
}

// release makes leases nobody's. Nothing of these shards may be in flight.
func (s *session) release(ctx context.Context, leases map[int16]int64) error {
	var shards []int16
	var epochs []int64
	for shard, epoch := range leases {
		shards, epochs = append(shards, shard), append(epochs, epoch)
	}
	op, cancel := s.r.op(ctx)
	defer cancel()
	if _, err := s.r.pool.Exec(op, s.r.q.release, s.name, s.t.name, shards, epochs); err != nil {
		return fmt.Errorf("release leases: %w", err)
	}
	return nil
}

// releaseAll ends a session: others need not wait until the whole relay has
// stopped. What fails here is found as stray by the next session, or freed by
// leave.
func (s *session) releaseAll() {
	leases := s.progress.leases()
	if len(leases) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), 2*time.Second)
	defer cancel()
	if err := s.release(ctx, leases); err != nil {
		s.log.Warn("relay: leases not released yet", "instance", s.t.name, "error", err)
	}
}

// works tells whether the session holds any shard.
func (s *session) works() bool {
	_, all := s.progress.held()
	return all > 0
}
