package relay

import (
	"slices"
	"sync"
	"time"
)

// progress is which shards a session holds, how far it has published them, and
// how far that is stored. Shards come and go while the session works:
//
//	gained -> read -> leaving -> draining -> gone
//
// The keeper adds a shard when it has its lease and its position. The reader
// adopts it before its next probe. A shard that is to go is let go by the reader,
// which notes how far it has handed it over; when everything up to there is
// published, its position can be stored and its lease released.
type progress struct {
	mu      sync.Mutex
	shards  map[int16]*shardProgress
	dirty   bool // events were published since the last flush
	changed bool // the reader has something to adopt
}

type shardProgress struct {
	epoch  int64
	at     position  // published
	moved  time.Time // when it advanced
	stored position  // in the database
	state  shardState
	last   position // what the reader handed over last, once draining
	lost   bool     // the database refused its position: it is another's
	busy   bool     // its parked events are being published
}

type shardState int

const (
	gained shardState = iota
	read
	leaving
	draining
)

func newProgress() *progress { return &progress{shards: map[int16]*shardProgress{}} }

// gain adds shards that have been taken and loaded.
func (p *progress) gain(epochs map[int16]int64, positions map[int16]position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for shard, epoch := range epochs {
		p.shards[shard] = &shardProgress{epoch: epoch, at: positions[shard], stored: positions[shard]}
	}
	p.changed = true
}

// adopt brings the reader's groups up to date: shards with equal positions, which
// are read as one. The slices in groups are not changed, pages under way hold them.
func (p *progress) adopt(groups map[position][]int16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.changed {
		return
	}
	p.changed = false
	for at, shards := range groups {
		var kept []int16
		for _, shard := range shards {
			switch sp := p.shards[shard]; sp.state {
			case leaving:
				sp.state, sp.last = draining, at
			default:
				kept = append(kept, shard)
			}
		}
		if groups[at] = kept; len(kept) == 0 {
			delete(groups, at)
		}
	}
	for shard, sp := range p.shards {
		switch sp.state {
		case gained:
			sp.state = read
			groups[sp.at] = append(groups[sp.at], shard)
		case leaving: // never read
			sp.state, sp.last = draining, sp.at
		}
	}
}

// waiting tells the reader that it should adopt, in the middle of a turn too.
func (p *progress) waiting() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// held is the number of shards that are to stay, all those that are still here.
func (p *progress) held() (stay, all int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, sp := range p.shards {
		if sp.state == gained || sp.state == read {
			stay++
		}
	}
	return stay, len(p.shards)
}

// has tells whether a shard is here, on its way out included.
func (p *progress) has(shard int16) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.shards[shard] != nil
}

// giveUp has the n highest shards leave.
func (p *progress) giveUp(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []int16
	for shard, sp := range p.shards {
		if sp.state == gained || sp.state == read {
			list = append(list, shard)
		}
	}
	slices.Sort(list)
	for _, shard := range list[max(len(list)-n, 0):] {
		p.leave(p.shards[shard])
	}
}

func (p *progress) leave(sp *shardProgress) {
	if sp.state == gained || sp.state == read {
		sp.state = leaving
		p.changed = true
	}
}

// drained lists the shards of which nothing is in flight any more, with their
// epochs. Those that were lost are forgotten: there is nothing to store.
func (p *progress) drained() map[int16]int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := map[int16]int64{}
	for shard, sp := range p.shards {
		switch {
		case sp.state != draining || sp.at != sp.last || sp.busy:
		case sp.lost:
			delete(p.shards, shard)
		default:
			list[shard] = sp.epoch
		}
	}
	return list
}

// leases lists all shards that are not known to be another's, with their epochs.
func (p *progress) leases() map[int16]int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := map[int16]int64{}
	for shard, sp := range p.shards {
		if !sp.lost {
			list[shard] = sp.epoch
		}
	}
	return list
}

// remove forgets shards that have been released.
func (p *progress) remove(shards map[int16]int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for shard := range shards {
		delete(p.shards, shard)
	}
}

// advance moves shards to a position. An advance over nothing is kept in memory
// only, so that an idle relay writes nothing.
func (p *progress) advance(shards []int16, to position, published bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for _, s := range shards {
		if sp := p.shards[s]; sp != nil {
			sp.at, sp.moved = to, now
		}
	}
	p.dirty = p.dirty || published
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
		if sp.at != sp.stored && !sp.lost {
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

// saved notes what the database accepted, and gives up the shards that it refused.
func (p *progress) saved(list []flushed, accepted map[int16]bool) (refused int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range list {
		sp := p.shards[f.shard]
		if sp == nil {
			continue // released meanwhile
		}
		if accepted[f.shard] {
			sp.stored = f.at
			continue
		}
		refused++
		sp.lost = true
		p.leave(sp)
	}
	return refused
}

// unsaid makes the next flush try again what this one could not write.
func (p *progress) unsaid() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dirty = true
}
