package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/examples/delivery/fleet"
	"github.com/outboxkit/outboxkit/examples/delivery/verdict"
)

// run plays the story and reports. It returns errBroken if a promise was broken;
// whatever it returns, everything has been stopped and removed.
func run(ctx context.Context, opt options, stdout, stderr io.Writer, tamper tamperFunc) (err error) {
	s := &story{out: stdout, began: time.Now(), flights: flights(opt.deliveries)}
	if opt.json {
		s.out = stderr
	}
	s.say("starting (the first run downloads Postgres, about 10 MB)")
	s.stage, err = openStage(ctx, opt.broker)
	defer func() { err = errors.Join(err, s.stage.close()) }()
	if err != nil {
		return err
	}
	s.say("%s", s.stage)
	to := s.stage.broker.publisher(s.stage.log)
	s.station = fleet.NewStation(to, s.stage.broker.topic)
	s.delivery = &service{name: "delivery", stage: s.stage}
	s.history = &service{name: "history", stage: s.stage}
	defer func() { err = errors.Join(err, s.delivery.kill(), s.history.kill(), to.Close()) }()

	if err := s.play(ctx); err != nil {
		return err
	}
	stalled := s.settle(ctx)
	if stalled != nil && !errors.Is(stalled, errStalled) {
		return stalled
	}
	if tamper != nil {
		if err := tamper(ctx, s.stage); err != nil {
			return err
		}
	}
	evidence, err := s.evidence(ctx)
	if err != nil {
		return err
	}
	r := s.report(evidence)
	if r.Held && stalled != nil {
		return stalled // nothing to blame, and yet something is wrong
	}
	if err := r.print(stdout, opt.json, s.samples(ctx)); err != nil {
		return err
	}
	if !r.Held {
		return errBroken
	}
	return nil
}

func collect[T any](ctx context.Context, pool *pgxpool.Pool, to *[]T, query string, args ...any) error {
	rows, err := pool.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	*to, err = pgx.CollectRows(rows, pgx.RowToStructByPos[T])
	return err
}

func collectDead(ctx context.Context, pool *pgxpool.Pool, to *[]string) error {
	rows, err := pool.Query(ctx, `SELECT state || ' (' || reason || '): ' || type || ' ' || id || ' of ' || key || ' ' || error FROM inbox.dead`)
	if err != nil {
		return err
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	*to = append(*to, found...)
	return err
}

func (s *story) report(e verdict.Evidence) report {
	r := report{
		Held: true, Promises: verdict.Judge(e), Deliveries: len(s.flights),
		Reports: s.reports, Positions: len(s.sent) - s.reports, Repeated: s.repeated, Kills: s.kills,
		Events: len(e.Written), History: len(e.History), Seconds: time.Since(s.began).Seconds(),
	}
	for _, p := range r.Promises {
		r.Held = r.Held && p.Held
	}
	return r
}

// samples are the histories of one delivery of each kind, as the history service
// knows them.
func (s *story) samples(ctx context.Context) (out []sample) {
	for i := range courses {
		one := sample{Delivery: s.flights[i].script.Delivery, Request: s.flights[i].script.Request}
		err := collect(ctx, s.stage.history, &one.Lines,
			`SELECT what, detail, caused_by FROM history WHERE delivery_id = $1 ORDER BY n`, one.Delivery)
		if err == nil { // for people; the verdict does not need it
			out = append(out, one)
		}
	}
	return out
}

type sample struct {
	Delivery, Request string
	Lines             []sampleLine
}

type sampleLine struct{ What, Detail, Cause string }

func (l sampleLine) String() string {
	return fmt.Sprintf("  %-12s %-40s because of report %s\n", l.What, l.Detail, l.Cause)
}
