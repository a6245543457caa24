package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/outboxkit/outboxkit/brokers/kafka"
	"github.com/outboxkit/outboxkit/examples/demo/events"
	"github.com/outboxkit/outboxkit/examples/demo/inventory"
	"github.com/outboxkit/outboxkit/examples/demo/notification"
	"github.com/outboxkit/outboxkit/examples/demo/orders"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/internal/history"
)

// scenario is the story: orders are placed while things go wrong.
type scenario struct {
	stage     *stage
	screen    *screen
	orders    int // to place
	shop      *orders.Service
	consumers []*consumer
	relay     *relayProcess // nil while none runs

	poison             string // event id
	copies             int    // published a second time by us
	placedBefore       int    // when the relay was killed
	placedWithoutRelay int

	mu         sync.Mutex
	written    []history.Write // orders whose Place returned nil
	rolledBack int
}

// consumer is a service that consumes, with what the verdict needs of it.
type consumer struct {
	name  string
	pool  *pgxpool.Pool
	inbox *inbox.Inbox
	tap   *tap
	table string // its effects
}

// tamperFunc breaks a promise behind the services' backs, before the verdict.
// Tests use it to see the verdict find it.
type tamperFunc func(context.Context, *stage) error

func newScenario(ctx context.Context, st *stage, out *screen, n int) (*scenario, error) {
	s := &scenario{stage: st, screen: out, orders: n}
	var err error
	if s.shop, err = orders.New(ctx, st.orders); err != nil {
		return nil, err
	}
	s.consumers = []*consumer{
		{name: "inventory", pool: st.inventory, table: "reservations"},
		{name: "notification", pool: st.notification, table: "messages"},
	}
	for _, c := range s.consumers {
		c.tap = newTap(kafka.NewSubscriber(kafka.Config{
			Brokers: st.kafka.ListenAddrs(), Group: c.name, Logger: st.log,
		}, events.OrderPlacedV1.Topic))
	}
	if s.consumers[0].inbox, err = inventory.New(st.inventory, s.consumers[0].tap, st.log); err != nil {
		return nil, err
	}
	s.consumers[1].inbox, err = notification.New(st.notification, s.consumers[1].tap, st.log)
	return s, err
}

const shoppers = 4 // place orders at once

var users = []string{"ada", "alan", "barbara", "donald", "edsger", "frances", "grace", "john", "ken", "leslie", "margaret", "niklaus"}

// play starts the relay and places all orders; the acts happen on the way.
func (s *scenario) play(ctx context.Context) (err error) {
	if s.relay, err = startRelay(s.stage); err != nil {
		return err
	}
	s.screen.say("%d orders by %d users: every eighth is rolled back", s.orders, len(users))
	turns := make(chan int)
	g, ctx := errgroup.WithContext(ctx)
	for range shoppers {
		g.Go(func() error {
			for i := range turns {
				if err := s.place(ctx, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	g.Go(func() error {
		defer close(turns)
		return s.direct(ctx, turns)
	})
	return g.Wait()
}

// direct hands out the turns, about 250 a second (faster if they are many), and
// interrupts them for the acts.
func (s *scenario) direct(ctx context.Context, turns chan<- int) error {
	acts := map[int]func(context.Context) error{
		s.orders * 25 / 100: s.sendPoison,
		s.orders * 40 / 100: s.killRelay,
		s.orders * 70 / 100: s.restartRelay,
		s.orders * 85 / 100: s.sendCopies,
	}
	tick := time.NewTicker(min(4*time.Millisecond, 8*time.Second/time.Duration(s.orders)))
	defer tick.Stop()
	for i := range s.orders {
		if act := acts[i]; act != nil {
			if err := act(ctx); err != nil {
				return err
			}
		}
		select {
		case turns <- i:
		case <-ctx.Done():
			return ctx.Err()
		}
		<-tick.C
	}
	return nil
}

var errDeclined = errors.New("payment declined")

func (s *scenario) place(ctx context.Context, i int) error {
	user := users[i%len(users)]
	declined := i%8 == 7
	items := []string{"tea", "honey", "cups"}[:1+i%3]
	id, err := s.shop.Place(ctx, user, items, func() error {
		if declined {
			return errDeclined
		}
		return nil
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case errors.Is(err, errDeclined):
		s.rolledBack++
	case err != nil:
		return err
	default:
		s.written = append(s.written, history.Write{Key: user, N: id})
	}
	return nil
}

// sendPoison writes an event that no consumer can read, with a plain INSERT, as
// a program without outboxkit would.
func (s *scenario) sendPoison(ctx context.Context) error {
	s.screen.say("poison: an event whose bytes do not parse")
	return s.stage.orders.QueryRow(ctx, `INSERT INTO outbox.event (topic, key, type, source, payload)
		VALUES ($1, 'mallory', $2, '/shop/legacy', 'these bytes are no Avro') RETURNING event_id::text`,
		events.OrderPlacedV1.Topic, events.OrderPlacedV1.Name).Scan(&s.poison)
}

func (s *scenario) killRelay(ctx context.Context) error {
	// It should have published something, or this would be no crash.
	if err := s.await(ctx, func() bool { return s.consumers[0].tap.counts().delivered > 0 }); err != nil {
		return err
	}
	if err := s.relay.kill(); err != nil {
		return err
	}
	s.relay = nil
	s.placedBefore = s.placed()
	s.screen.say("the relay is killed (SIGKILL); the shop stays open")
	return nil
}

func (s *scenario) restartRelay(context.Context) (err error) {
	s.placedWithoutRelay = s.placed() - s.placedBefore
	s.relay, err = startRelay(s.stage)
	s.screen.say("the relay is started again; %d orders were placed meanwhile", s.placedWithoutRelay)
	return err
}

// sendCopies publishes events a second time that the consumers have had, as a
// careless operator or another tool might.
func (s *scenario) sendCopies(ctx context.Context) (err error) {
	p := kafka.NewPublisher(kafka.Config{Brokers: s.stage.kafka.ListenAddrs(), Logger: s.stage.log})
	defer func() { err = errors.Join(err, p.Close()) }()
	copies := s.consumers[0].tap.sample()
	results := p.Publish(ctx, copies)
	if err := errors.Join(results...); err != nil {
		return fmt.Errorf("publish copies: %w", err)
	}
	s.copies = len(copies)
	s.screen.say("duplicates: %d events are published again", s.copies)
	return nil
}

func (s *scenario) placed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.written)
}

// status is one line about how far everybody is.
func (s *scenario) status() string {
	line := fmt.Sprintf("%d of %d orders placed; events delivered:", s.placed(), s.orders-s.orders/8)
	for _, c := range s.consumers {
		line += fmt.Sprintf("  %s %d", c.name, c.tap.counts().events)
	}
	return line
}

var errStalled = errors.New("events are still under way, and for 30s none has arrived")

// settle waits until everything has crossed. The relay is stopped meanwhile, in
// order: after that nothing new can come.
func (s *scenario) settle(ctx context.Context) error {
	var written int
	if err := s.stage.orders.QueryRow(ctx, "SELECT count(*) FROM outbox.event").Scan(&written); err != nil {
		return err
	}
	err := s.await(ctx, func() bool {
		return !slices.ContainsFunc(s.consumers, func(c *consumer) bool { return c.tap.counts().events < written })
	})
	if err != nil {
		return err
	}
	if err := s.relay.stop(ctx); err != nil {
		return err
	}
	s.relay = nil
	s.screen.say("all orders are placed and published; the relay has drained and stopped (SIGTERM)")
	return s.await(ctx, func() bool {
		return !slices.ContainsFunc(s.consumers, func(c *consumer) bool { return c.tap.counts().settled < s.stage.records() })
	})
}

// await waits for cond. It gives up with errStalled when nothing is delivered or
// settled for 30 seconds.
func (s *scenario) await(ctx context.Context, cond func() bool) error {
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	var last [2]tapCounts
	moved := time.Now()
	for !cond() {
		now := [2]tapCounts{s.consumers[0].tap.counts(), s.consumers[1].tap.counts()}
		if now != last {
			last, moved = now, time.Now()
		}
		if err := s.relay.check(); err != nil {
			return err
		}
		if time.Since(moved) > 30*time.Second {
			return errStalled
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
