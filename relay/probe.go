package relay

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// probe is what one statement saw: a snapshot, the highest id drawn and the next
// unassigned xid.
type probe struct {
	s *snapshot
	h int64
	b uint64
}

func (p probe) position() position { return position{s: p.s, h: p.h, b: p.b} }

var errSequence = errors.New("event_id_seq has never been used or may not be read")

// probe reads no event and assigns no xid.
func (s *session) probe(ctx context.Context) (probe, error) {
	op, cancel := s.r.op(ctx)
	defer cancel()
	return takeProbe(op, s.r.pool, s.r.q.probe, s.t.token)
}

type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func takeProbe(ctx context.Context, db querier, query string, want token) (probe, error) {
	var (
		h, b     *int64
		cur      string
		tok      token
		recovery bool
	)
	if err := db.QueryRow(ctx, query).Scan(&h, &cur, &b, &tok, &recovery); err != nil {
		return probe{}, fmt.Errorf("probe: %w", err)
	}
	switch {
	case recovery: // its snapshots leave running transactions out
		return probe{}, errStandby
	case !same(tok, want):
		return probe{}, errIncarnation
	case h == nil || b == nil: // 0 would skip everything
		return probe{}, errSequence
	}
	snap, err := parseSnapshot(cur)
	if err != nil {
		return probe{}, err
	}
	return probe{s: snap, h: *h, b: uint64(*b)}, nil //nolint:gosec // a 64-bit xid, never negative
}
