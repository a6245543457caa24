package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/outboxkit/outboxkit/examples/demo/events"
	"github.com/outboxkit/outboxkit/examples/demo/verdict"
)

// run plays the scenario and reports. It returns errBroken if a promise was
// broken; whatever it returns, everything has been stopped and removed.
func run(ctx context.Context, opt options, stdout, stderr io.Writer, tamper tamperFunc) (err error) {
	out := newScreen(stdout)
	if opt.json {
		out = newScreen(stderr)
	}
	out.say("starting Postgres and Kafka (the first run downloads Postgres, about 10 MB)")
	st, err := openStage(ctx)
	defer func() { err = errors.Join(err, st.close()) }()
	if err != nil {
		return err
	}
	out.say("Postgres at %s, Kafka at %s, topic %s", st.postgres.Addr(), st.kafka.ListenAddrs()[0], events.OrderPlacedV1.Topic)

	services, ctx := errgroup.WithContext(ctx) // a service that fails ends the demo
	s, err := newScenario(ctx, st, out, opt.orders)
	if err != nil {
		return err
	}
	consuming, stopConsumers := context.WithCancel(ctx)
	for _, c := range s.consumers {
		services.Go(func() error {
			if err := c.inbox.Run(consuming); err != nil {
				return fmt.Errorf("service %s: %w", c.name, err)
			}
			return nil
		})
	}
	defer func() {
		stopConsumers()
		err = errors.Join(services.Wait(), err, s.relay.kill())
	}()

	r, err := perform(ctx, s, tamper)
	if err != nil {
		return err
	}
	if opt.keep {
		if s.relay, err = startRelay(st); err != nil {
			return err
		}
		if r.Connections, err = st.connections(); err != nil {
			return err
		}
	}
	if err := r.print(stdout, opt.json); err != nil {
		return err
	}
	if opt.keep {
		s.keep(ctx)
	}
	if !r.Held {
		return errBroken
	}
	return nil
}

// perform plays the scenario and judges it.
func perform(ctx context.Context, s *scenario, tamper tamperFunc) (report, error) {
	began := time.Now()
	endStatus := s.screen.show(s.status)
	defer endStatus()
	if err := s.play(ctx); err != nil {
		return report{}, err
	}
	stalled := s.settle(ctx)
	if stalled != nil && !errors.Is(stalled, errStalled) {
		return report{}, stalled
	}
	if tamper != nil {
		if err := tamper(ctx, s.stage); err != nil {
			return report{}, err
		}
	}
	evidence, err := s.evidence(ctx)
	if err != nil {
		return report{}, err
	}
	endStatus()
	r := s.report(evidence, verdict.Judge(evidence), time.Since(began))
	if r.Held && stalled != nil {
		return report{}, stalled // nothing to blame, and yet something is wrong
	}
	return r, nil
}
