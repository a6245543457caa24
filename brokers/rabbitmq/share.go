package rabbitmq

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	// shareEvery is how often a member looks whether it has more than its share.
	shareEvery = 3 * time.Second
	// shareRarest bounds the pauses of a member that lets go in vain: of queues
	// without single active consumer there is no share.
	shareRarest = 10 * time.Minute
)

// share spreads queues over the members that consume them. The broker gives a
// queue to the consumer that came first and leaves it there, so whoever starts
// first has all, and members that are added later have nothing to do. A member
// that is active in more than its share of the queues lets go of the rest, in
// order as when it stops, and is then last in line for them.
//
// The broker does not tell how many consumers wait for a quorum queue, so the
// members also consume a queue that never holds a message, which is counted.
type share struct {
	queues []string
	links  *shared[*link]
	log    *slog.Logger

	presence *amqp.Channel // of run; nil before it has joined
	joined   *link         // that presence is on

	mu    sync.Mutex
	units map[*unit]struct{}
}

func (s *share) name() string { return s.queues[0] + ".members" }

func (s *share) add(u *unit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.units[u] = struct{}{}
}

func (s *share) remove(u *unit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.units, u)
}

// run lets go of what is too much until ctx ends.
func (s *share) run(ctx context.Context) {
	defer s.leave()
	pause, known := shareEvery, 0
	for ctx.Err() == nil {
		// An error is a lost connection, of which consuming tells, or a broker that
		// does not let us declare the queue: then all stays as it is.
		members, err := s.members(ctx)
		if err != nil {
			s.log.Debug("rabbitmq: members are not counted", "queue", s.name(), "error", err)
		}
		if members != known {
			pause, known = shareEvery, members
		}
		switch let := s.yield(members); {
		case let > 0:
			s.log.Info("rabbitmq: leaving queues to other members", "queues", let, "members", members)
			pause = min(2*pause, shareRarest)
		default:
			pause = shareEvery
		}
		timer := time.NewTimer(pause*3/4 + rand.N(pause/2)) //nolint:gosec // no secret
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// members counts who consumes the queues, this member included.
func (s *share) members(ctx context.Context) (n int, err error) {
	l, err := s.links.get(ctx)
	if err != nil {
		return 0, err
	}
	err = l.call(callTimeout, func() error {
		joined := s.presence != nil && !s.presence.IsClosed()
		if !joined {
			if s.presence, err = l.conn.Channel(); err != nil {
				return err
			}
			s.joined = l
		}
		q, err := s.presence.QueueDeclare(s.name(), true, true, false, false, nil) // gone with the last member
		if err != nil {
			return err
		}
		n = q.Consumers
		if !joined {
			n++
			_, err = s.presence.Consume(s.name(), "", true, false, false, false, nil)
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

func (s *share) leave() {
	if s.presence != nil {
		_ = s.joined.call(closeTimeout, s.presence.Close) // it is over either way
	}
}

// yield lets go of the queues beyond the share of one of so many members.
func (s *share) yield(members int) (let int) {
	if members == 0 {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var active []*unit
	for u := range s.units {
		if u.active() {
			active = append(active, u)
		}
	}
	fair := (len(s.queues) + members - 1) / members
	for len(active)-let > fair {
		active[let].yield()
		let++
	}
	return let
}

// active reports whether the broker has chosen this consumer, as far as
// deliveries tell.
func (u *unit) active() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.delivered && !u.stopping
}

// yield ends the unit as a released delivery does.
func (u *unit) yield() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.stopping {
		u.stopping = true
		close(u.released)
	}
}
