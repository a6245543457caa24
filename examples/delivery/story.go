package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/outboxkit/outboxkit/examples/delivery/fleet"
	"github.com/outboxkit/outboxkit/examples/delivery/verdict"
)

// story lets the drones fly while things go wrong.
type story struct {
	stage             *stage
	out               io.Writer
	began             time.Time
	station           *fleet.Station
	delivery, history *service
	flights           []flight

	sent     []fleet.Report // in this order
	reports  int            // of these, a status
	repeated int            // sent once more
	kills    int
}

// say prints a line that stays.
func (s *story) say(format string, args ...any) {
	fmt.Fprintf(s.out, "%5.1fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// play starts the services and flies; the acts happen on the way. All flights
// end in the last wave, after whatever was repeated: when a delivery's last
// report has been handled, so has everything before it.
func (s *story) play(ctx context.Context) error {
	if err := errors.Join(s.delivery.start(), s.history.start()); err != nil {
		return err
	}
	s.say("%d deliveries; every second drone has the old firmware", len(s.flights))
	acts := map[int]func(context.Context) error{
		2: s.killDelivery, 3: s.killHistory, 4: s.restart, 6: s.repeat,
	}
	pace := time.NewTicker(max(2*time.Millisecond, min(8*time.Millisecond, 4*time.Second/time.Duration(longest*len(s.flights)))))
	defer pace.Stop()
	for wave := range longest {
		if act := acts[wave]; act != nil {
			if err := act(ctx); err != nil {
				return err
			}
		}
		for i := range s.flights {
			if err := s.fly(ctx, i, wave); err != nil {
				return err
			}
			select {
			case <-pace.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// fly sends what a delivery's drone has to say now. Every fifth is not confirmed
// in time, and says it again; not so in the last wave.
func (s *story) fly(ctx context.Context, i, wave int) error {
	reports := s.flights[i].waves[wave]
	if len(reports) == 0 {
		return nil
	}
	if err := s.station.Send(ctx, reports...); err != nil {
		return err
	}
	s.sent = append(s.sent, reports...)
	s.reports++
	if (i+wave)%5 == 0 && wave < longest-1 {
		s.repeated += len(reports)
		return s.station.Send(ctx, reports...)
	}
	return nil
}

func (s *story) killDelivery(ctx context.Context) error {
	// It should have done something, or this would be no crash.
	if err := s.await(ctx, func(p progress) bool { return p.kept > 0 }); err != nil {
		return err
	}
	s.kills++
	s.say("the delivery service is killed (SIGKILL), and with it the relay inside; the drones fly on")
	return s.delivery.kill()
}

func (s *story) killHistory(context.Context) error {
	if err := s.delivery.start(); err != nil {
		return err
	}
	s.kills++
	s.say("the delivery service is started again; the history service is killed")
	return s.history.kill()
}

func (s *story) restart(context.Context) error {
	s.say("the history service is started again")
	return s.history.start()
}

// repeat sends everything again, as a station that has lost its memory would.
func (s *story) repeat(ctx context.Context) error {
	s.say("the ground station sends all %d reports again", len(s.sent))
	s.repeated += len(s.sent)
	const group = 100
	for i := 0; i < len(s.sent); i += group {
		if err := s.station.Send(ctx, s.sent[i:min(i+group, len(s.sent))]...); err != nil {
			return err
		}
	}
	return nil
}

// settle waits until everything has crossed, and lets the services drain.
func (s *story) settle(ctx context.Context) error {
	s.say("all parcels are dropped off or recalled; what is on its way arrives")
	steps := 0
	for _, f := range s.flights {
		steps += len(f.script.Steps)
	}
	if err := s.await(ctx, func(p progress) bool { return p.handled >= s.reports && p.kept >= steps }); err != nil {
		return err
	}
	if err := errors.Join(s.delivery.stop(ctx), s.history.stop(ctx)); err != nil {
		return err
	}
	s.say("both services have drained and stopped (SIGTERM)")
	return nil
}

// progress is how far the two services are.
type progress struct{ handled, kept, dead int }

func (s *story) progress(ctx context.Context) (p progress, err error) {
	const dead = `(SELECT count(*) FROM inbox.dead)`
	err = s.stage.delivery.QueryRow(ctx, `SELECT (SELECT coalesce(sum(reports), 0) FROM deliveries), `+dead).Scan(&p.handled, &p.dead)
	if err != nil {
		return p, err
	}
	more := 0
	err = s.stage.history.QueryRow(ctx, `SELECT (SELECT count(*) FROM history), `+dead).Scan(&p.kept, &more)
	p.dead += more
	return p, err
}

var errStalled = errors.New("events are still under way, and for a minute nothing has happened")

// await waits for cond. It gives up with errStalled when nothing happens for a
// minute.
func (s *story) await(ctx context.Context, cond func(progress) bool) error {
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	var last progress
	moved := time.Now()
	for {
		now, err := s.progress(ctx)
		if err = errors.Join(err, s.delivery.check(), s.history.check()); err != nil {
			return err
		}
		if cond(now) {
			return nil
		}
		if now != last {
			last, moved = now, time.Now()
		}
		if time.Since(moved) > time.Minute {
			return errStalled
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// evidence reads what the run has left in the databases, with plain SQL.
func (s *story) evidence(ctx context.Context) (e verdict.Evidence, err error) {
	for _, f := range s.flights {
		e.Scripts = append(e.Scripts, f.script)
	}
	return e, errors.Join(
		collect(ctx, s.stage.delivery, &e.Written, `SELECT key, replace(substr(type, 10), '_', ' '), event_id::text,
			coalesce(causation_id, ''), coalesce(correlation_id, ''), id FROM outbox.event`),
		collect(ctx, s.stage.history, &e.History, `SELECT delivery_id, what, event_id, caused_by, request, n FROM history`),
		collect(ctx, s.stage.history, &e.Views, `SELECT delivery_id, state, changes FROM delivery_view`),
		collectDead(ctx, s.stage.delivery, &e.Dead), collectDead(ctx, s.stage.history, &e.Dead),
	)
}
