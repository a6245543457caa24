package relay

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/outboxkit/outboxkit/internal/planted"
)

// snapshot is a parsed pg_snapshot. It never changes and is compared by address:
// positions taken by the same probe share it.
type snapshot struct {
	text       string
	xmin, xmax uint64
	xip        []uint64 // in progress, ascending
}

func parseSnapshot(text string) (*snapshot, error) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return nil, fmt.Errorf("pg_snapshot %q: want xmin:xmax:xip_list", text)
	}
	s := &snapshot{text: text}
	var err error
	if s.xmin, err = parseXid(parts[0]); err != nil {
		return nil, fmt.Errorf("pg_snapshot %q: %w", text, err)
	}
	if s.xmax, err = parseXid(parts[1]); err != nil {
		return nil, fmt.Errorf("pg_snapshot %q: %w", text, err)
	}
	if parts[2] != "" {
		for x := range strings.SplitSeq(parts[2], ",") {
			xid, err := parseXid(x)
			if err != nil {
				return nil, fmt.Errorf("pg_snapshot %q: %w", text, err)
			}
			s.xip = append(s.xip, xid)
		}
		slices.Sort(s.xip)
	}
	return s, nil
}

func parseXid(text string) (uint64, error) { return strconv.ParseUint(text, 10, 64) }

// sees is pg_visible_in_snapshot: whether xid had ended when s was taken.
func (s *snapshot) sees(xid uint64) bool {
	switch {
	case xid < s.xmin:
		return true
	case xid >= s.xmax:
		return false
	}
	_, running := slices.BinarySearch(s.xip, xid)
	return !running
}

// position is how far a shard has come: see the package comment. Within a batch
// s2, h2, b2 and the cursor c are set; between batches s2 is nil. Positions are
// comparable.
type position struct {
	s  *snapshot
	h  int64
	b  uint64
	s2 *snapshot
	h2 int64
	b2 uint64
	c  int64
}

// start is the position before the oldest event: no id is at or below 0, so
// everything is a new row, and S and B have nothing to exclude.
var start = position{s: &snapshot{text: "3:3:", xmin: 3, xmax: 3}, b: 3}

// begin starts a batch that ends at p.
func (p position) begin(at probe) position {
	p.s2, p.h2, p.b2, p.c = at.s, at.h, at.b, 0
	return p
}

// end is the position after p's batch.
func (p position) end() position { return position{s: p.s2, h: p.h2, b: p.b2} }

// pending lists the transactions that s did not see, that may have rows with
// id <= h, and that cur sees: xip(S) and [xmax(S), B). The second part is needed
// because xmax(S) is one past the highest *completed* xid: running transactions
// may lie above it and are not in xip.
func (p position) pending(cur *snapshot) []uint64 {
	if planted.Is(planted.NoSnapshotFilter) {
		return nil
	}
	var xids []uint64
	for _, x := range p.s.xip {
		if cur.sees(x) {
			xids = append(xids, x)
		}
	}
	for x := p.s.xmax; x < min(p.b, cur.xmax); x++ {
		if cur.sees(x) {
			xids = append(xids, x)
		}
	}
	return xids
}

// formatXids writes an xid8[] literal.
func formatXids(xids []uint64) string {
	b := []byte{'{'}
	for i, x := range xids {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, x, 10)
	}
	return string(append(b, '}'))
}

// xmin is the lowest xmin(S) of the positions: every transaction below it has
// been passed by all of them. Never S': its rows have not all been published.
func xmin(positions []position) uint64 {
	low := uint64(math.MaxUint64)
	for _, p := range positions {
		low = min(low, p.s.xmin)
	}
	return low
}
