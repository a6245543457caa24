package relay

import (
	"context"
	"hash/maphash"
	"math"

	"github.com/outboxkit/outboxkit/internal/planted"
)

// window is the pages that are being published: a few at a time, so that the end of
// one, when only its slowest partition is still busy, is the middle of another.
//
// A page is divided into shares, one for each topic and, if a topic has many events
// in it, for each of some classes of its keys. A share is published when all earlier
// shares with its topic and keys are resolved, whatever page they stand on: that is
// what keeps the order of a key, and why a slow topic does not hold the others before
// the window is full. A page counts as published, and its failed events are parked,
// when all pages before it are through: positions move in the order of the log.
//
// All fields belong to publishAll's goroutine; shares report to it.
type window struct {
	s       *session
	pages   []*underway         // in the order of reading
	queues  map[strand][]*share // unresolved shares; one that is first in all of its queues is being published
	parked  map[lane]int        // events to be parked whose pages are not through, by lane
	words   chan word           // from shares that are being published
	running int                 // such shares
	broken  bool                // the session has ended: nothing is started any more
	seed    maphash.Seed
}

// strand is a topic and a class of its keys: what is published one after the other.
type strand struct {
	topic string
	class int
}

// keyClasses is how many shares a topic with many events in a page is divided into.
const keyClasses = 2

// underway is a page in the window.
type underway struct {
	page

	shares []*share
	left   int // shares that are not resolved
}

// share is a part of a page, in id order.
type share struct {
	of        *underway
	strands   []strand
	events    []*item
	published int // events before the first that is not
}

// word says how far a share is.
type word struct {
	*share

	published int
	resolved  bool // each event is published or to be parked
	ended     bool // nothing more will be heard of it
}

// publishAll takes pages until reading ends and resolves those that it has taken.
func (s *session) publishAll(reading context.Context, pages <-chan page) {
	w := &window{s: s, queues: map[strand][]*share{}, parked: map[lane]int{}, words: make(chan word), seed: maphash.MakeSeed()}
	for pages != nil || w.running > 0 {
		in := pages
		if len(w.pages) >= s.r.tune.pages && !w.broken {
			in = nil
		}
		select {
		case p, ok := <-in:
			switch {
			case !ok:
				pages = nil
			case reading.Err() == nil && s.ctx.Err() == nil && !w.broken:
				w.admit(p)
			default:
				// Once a page has been skipped all that follow must be, empty ones too:
				// their positions lie beyond it.
			}
		case r := <-w.words:
			w.heard(r)
		}
	}
}

// admit begins to publish a page.
func (w *window) admit(p page) {
	u := &underway{page: p}
	w.divide(u)
	u.left = len(u.shares)
	w.pages = append(w.pages, u)
	if planted.Is(planted.PositionBeforeConfirm) {
		w.s.progress.advance(u.shards, u.to, true)
	}
	if len(w.pages) == 1 {
		w.s.stats.at(p)
	}
	for _, sh := range u.shares {
		for _, st := range sh.strands {
			w.queues[st] = append(w.queues[st], sh)
		}
		w.startIfFirst(sh)
	}
	w.settle()
}

// divide makes the page's shares: by topic, in the order in which they first occur.
func (w *window) divide(u *underway) {
	var topics []string
	events := map[string][]*item{}
	for _, it := range u.events {
		topic := it.msg.Topic
		if events[topic] == nil {
			topics = append(topics, topic)
		}
		events[topic] = append(events[topic], it)
	}
	for _, topic := range topics {
		u.shares = append(u.shares, w.ofTopic(u, topic, events[topic])...)
	}
}

// ofTopic makes one share of a topic's events, or, if they are many, one of each
// class of keys.
func (w *window) ofTopic(u *underway, topic string, events []*item) (shares []*share) {
	if len(events) < w.s.r.tune.split {
		sh := &share{of: u, events: events}
		for class := range keyClasses {
			sh.strands = append(sh.strands, strand{topic, class})
		}
		return []*share{sh}
	}
	var parts [keyClasses][]*item
	for i, it := range events {
		class := i % keyClasses // without a key there is no order
		if it.msg.Key != "" {
			class = int(maphash.String(w.seed, it.msg.Key) % keyClasses) //nolint:gosec // below keyClasses
		}
		parts[class] = append(parts[class], it)
	}
	for class, part := range parts {
		if len(part) > 0 {
			shares = append(shares, &share{of: u, strands: []strand{{topic, class}}, events: part})
		}
	}
	return shares
}

// startIfFirst publishes a share if nothing before it is on its strands.
func (w *window) startIfFirst(sh *share) {
	for _, st := range sh.strands {
		if w.queues[st][0] != sh {
			return
		}
	}
	if w.broken {
		return
	}
	if w.s.parking.block && len(w.parked) > 0 {
		for _, it := range sh.events {
			if it.msg.Key != "" && w.parked[laneOf(&it.msg)] > 0 {
				it.park = stateBlocked
			}
		}
	}
	w.running++
	go func() {
		resolved := w.s.resolve(sh, func(n int) { w.words <- word{share: sh, published: n} })
		w.words <- word{share: sh, published: published(sh.events), resolved: resolved, ended: true}
	}()
}

// heard takes a share's word.
func (w *window) heard(r word) {
	r.share.published = r.published
	if !r.ended {
		w.remember(r.of)
		return
	}
	w.running--
	if !r.resolved {
		w.s.end(errLeaseLost) // a cause that is already set stays
		w.broken = true
		return
	}
	r.of.left--
	for _, it := range r.events {
		if it.park != "" && it.msg.Key != "" {
			w.parked[laneOf(&it.msg)]++
		}
	}
	var next []*share
	for _, st := range r.strands {
		q := w.queues[st][1:]
		if len(q) == 0 {
			delete(w.queues, st)
			continue
		}
		w.queues[st] = q
		if len(next) == 0 || next[len(next)-1] != q[0] {
			next = append(next, q[0])
		}
	}
	for _, sh := range next {
		w.startIfFirst(sh)
	}
	w.settle()
}

// remember moves the position to the first event of the oldest page that is not
// published: less to repeat after a crash.
func (w *window) remember(u *underway) {
	if w.broken || u != w.pages[0] {
		return
	}
	first := int64(math.MaxInt64)
	for _, sh := range u.shares {
		if sh.published < len(sh.events) {
			first = min(first, sh.events[sh.published].id)
		}
	}
	n := 0
	for n < len(u.events) && u.events[n].id < first {
		n++
	}
	if n > 0 && n < len(u.events) {
		w.s.progress.advance(u.shards, u.after(n), true)
	}
}

// settle lets go of the pages that are through, in order.
func (w *window) settle() {
	for !w.broken && len(w.pages) > 0 && w.pages[0].left == 0 {
		u := w.pages[0]
		if err := w.s.park(u.page); err != nil {
			w.s.end(err)
			w.broken = true
			return
		}
		for _, it := range u.events {
			if it.park == "" || it.msg.Key == "" {
				continue
			}
			l := laneOf(&it.msg)
			if w.parked[l]--; w.parked[l] == 0 {
				delete(w.parked, l)
			}
		}
		w.s.progress.advance(u.shards, u.to, len(u.events) > 0 || w.s.passedOver(u.page))
		w.s.stats.through()
		if w.pages = w.pages[1:]; len(w.pages) > 0 {
			w.s.stats.at(w.pages[0].page)
		}
	}
}
