package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/outboxkit/outboxkit/internal/services/apicurio"
	"github.com/outboxkit/outboxkit/internal/services/kafka"
	"github.com/outboxkit/outboxkit/internal/services/postgres"
	"github.com/outboxkit/outboxkit/internal/services/rabbitmq"
)

// service is one server that tests share.
type service struct {
	name  string
	env   string                                        // the variable that tells tests its address
	check func() error                                  // whether start would find its program; nil: it brings it
	fetch func(context.Context) error                   // brings the program; nil: a package does
	start func(context.Context) (string, closer, error) // returns the address

	address string
	close   closer // nil: not started by us
}

type closer func(context.Context) error

func all() []*service {
	return []*service{
		{name: "postgres", env: "OUTBOXKIT_POSTGRES_URL", start: func(ctx context.Context) (string, closer, error) {
			s, err := postgres.Start(ctx, postgres.Config{})
			if err != nil {
				return "", nil, err
			}
			return s.URL("postgres"), s.Close, nil
		}},
		{name: "kafka", env: "OUTBOXKIT_KAFKA_BROKERS", check: kafka.Available, fetch: kafka.Fetch, start: func(ctx context.Context) (string, closer, error) {
			s, err := kafka.Start(ctx, kafka.Config{})
			if err != nil {
				return "", nil, err
			}
			return strings.Join(s.Brokers(), ","), s.Close, nil
		}},
		{name: "rabbitmq", env: "OUTBOXKIT_AMQP_URL", start: func(ctx context.Context) (string, closer, error) {
			s, err := rabbitmq.Start(ctx, rabbitmq.Config{})
			if err != nil {
				return "", nil, err
			}
			return s.URL(), s.Close, nil
		}},
		{name: "registry", env: "OUTBOXKIT_REGISTRY_URL", check: apicurio.Available, fetch: apicurio.Fetch, start: func(ctx context.Context) (string, closer, error) {
			s, err := apicurio.Start(ctx)
			if err != nil {
				return "", nil, err
			}
			return s.URL(), s.Close, nil
		}},
	}
}

// startAll fetches and starts the services side by side; when one fails, it
// stops waiting for the others.
func startAll(ctx context.Context, services []*service) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(services))
	var wg sync.WaitGroup
	for i, s := range services {
		wg.Go(func() {
			if err := s.up(ctx); err != nil {
				errs[i] = fmt.Errorf("%s: %w", s.name, err)
				cancel()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (s *service) up(ctx context.Context) error {
	if s.address = os.Getenv(s.env); s.address != "" {
		say("%-8s  %s (from %s)", s.name, s.address, s.env)
		return nil
	}
	began := time.Now()
	if s.fetch != nil && s.check() != nil {
		say("%-8s  fetching", s.name)
		if err := s.fetch(ctx); err != nil {
			return err
		}
		say("%-8s  fetched in %s", s.name, time.Since(began).Round(100*time.Millisecond))
	}
	var err error
	began = time.Now()
	if s.address, s.close, err = s.start(ctx); err != nil {
		return err
	}
	say("%-8s  %s (started in %s)", s.name, s.address, time.Since(began).Round(100*time.Millisecond))
	return nil
}

// stopAll stops side by side what startAll started.
func stopAll(services []*service) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	errs := make([]error, len(services))
	var wg sync.WaitGroup
	for i, s := range services {
		if s.close != nil {
			wg.Go(func() { errs[i] = s.close(ctx) })
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}
