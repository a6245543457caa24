package model

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Snapshot is a pg_snapshot. Running lists the transactions in [Xmin, Xmax) that had
// not ended.
type Snapshot struct {
	Xmin, Xmax uint64
	Running    []uint64
}

// ParseSnapshot reads Postgres' text, xmin:xmax:running,…
func ParseSnapshot(text string) (Snapshot, error) {
	parts := strings.SplitN(text, ":", 3)
	if len(parts) != 3 {
		return Snapshot{}, fmt.Errorf("snapshot %q: want xmin:xmax:running", text)
	}
	numbers := parts[:2]
	if parts[2] != "" {
		numbers = append(numbers, strings.Split(parts[2], ",")...)
	}
	var xids []uint64
	for _, n := range numbers {
		xid, err := strconv.ParseUint(n, 10, 64)
		if err != nil {
			return Snapshot{}, fmt.Errorf("snapshot %q: %w", text, err)
		}
		xids = append(xids, xid)
	}
	s := Snapshot{Xmin: xids[0], Xmax: xids[1]}
	if len(xids) > 2 {
		s.Running = xids[2:]
	}
	return s, nil
}

// Sees tells whether a transaction had ended when the snapshot was taken.
func (s Snapshot) Sees(xid uint64) bool { return xid < s.Xmax && !slices.Contains(s.Running, xid) }

// Probe is what one statement saw: a snapshot, the highest id drawn, and the next
// unassigned transaction id.
type Probe struct {
	S Snapshot
	H int64
	B uint64
}

// sees tells whether an event was in the log, committed, at the time of the probe.
func (p Probe) sees(e Event) bool { return e.ID <= p.H && p.S.Sees(e.Xid) }

// pending tells whether a transaction may commit rows with ids up to H later.
func (p Probe) pending(xid uint64) bool { return xid < p.B && !p.S.Sees(xid) }

// finds tells whether a reader that starts from here will come upon the event.
func (p Probe) finds(e Event) bool { return e.ID > p.H || p.pending(e.Xid) }

// Position is how far a shard has been published: all that At sees, and within a
// batch what To sees up to the id C.
type Position struct {
	At Probe
	To *Probe // nil between batches
	C  int64
}

// Passed tells whether the position says of an event that it is dealt with.
func (p Position) Passed(e Event) bool {
	return p.At.sees(e) || p.To != nil && p.To.sees(e) && e.ID <= p.C
}

// Finds tells whether a reader that starts from here will come upon the event, now
// or when its transaction has ended. An event that is neither passed nor found has
// slipped through and is lost.
func (p Position) Finds(e Event) bool {
	switch {
	case p.To == nil:
		return p.At.finds(e)
	case p.To.sees(e): // by the end of the batch
		return e.ID > p.C && p.At.finds(e)
	default:
		return p.To.finds(e)
	}
}
