package relay

import (
	"sync"
)

// progress is how far a session has published, and how far that is stored.
type progress struct {
	mu     sync.Mutex
	shards map[int16]*shardProgress
	dirty  bool // events were published since the last flush
}

type shardProgress struct {
	epoch  int64
	at     position // published
	stored position // in the database
}

func newProgress(epochs map[int16]int64, positions map[int16]position) *progress {
	p := &progress{shards: map[int16]*shardProgress{}}
	for shard, epoch := range epochs {
		p.shards[shard] = &shardProgress{epoch: epoch, at: positions[shard], stored: positions[shard]}
	}
	return p
}

// advance moves shards to a position. An advance over nothing is kept in memory
// only, so that an idle relay writes nothing.
func (p *progress) advance(shards []int16, to position, published bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range shards {
		p.shards[s].at = to
	}
	p.dirty = p.dirty || published
}

// groups collects shards with equal positions, which are read as one.
func (p *progress) groups() map[position][]int16 {
	p.mu.Lock()
	defer p.mu.Unlock()
	groups := map[position][]int16{}
	for shard, sp := range p.shards {
		groups[sp.at] = append(groups[sp.at], shard)
	}
	return groups
}

// waits tells whether storing the positions would move the lowest xmin past xid.
func (p *progress) waits(xid uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	var at, stored []position
	for _, sp := range p.shards {
		at, stored = append(at, sp.at), append(stored, sp.stored)
	}
	return xmin(stored) <= xid && xid < xmin(at)
}

// unsaved returns what a flush has to write: the shards whose position changed.
func (p *progress) unsaved(force bool) []flushed {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.dirty && !force {
		return nil
	}
	p.dirty = false
	var list []flushed
	for shard, sp := range p.shards {
		if sp.at != sp.stored {
			list = append(list, flushed{shard: shard, epoch: sp.epoch, at: sp.at})
		}
	}
	return list
}

// flushed is one shard's part of a flush.
type flushed struct {
	shard int16
	epoch int64
	at    position
}

// saved notes what the database accepted; it returns false if it refused a shard.
func (p *progress) saved(list []flushed, accepted map[int16]bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := true
	for _, f := range list {
		if accepted[f.shard] {
			p.shards[f.shard].stored = f.at
		} else {
			all = false
		}
	}
	return all
}

// unsaid makes the next flush try again what this one could not write.
func (p *progress) unsaid() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dirty = true
}
