package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/outboxkit/outboxkit/internal/history"
)

// Run starts everything, inflicts the plan, lets the system come to rest and judges
// it. An error means that the run itself failed; what it found is in the report. It
// ends everything that it has started.
func Run(ctx context.Context, cfg Config) (report Report, err error) {
	if err := cfg.validate(); err != nil {
		return Report{}, err
	}
	cfg = cfg.withDefaults()
	w := &world{cfg: cfg, dir: cfg.Dir}
	if w.dir == "" {
		if w.dir, err = os.MkdirTemp("", "outboxkit-faults-"); err != nil {
			return Report{}, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(w.dir)) }()
	} else if err := os.MkdirAll(w.dir, 0o755); err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, w.close(context.WithoutCancel(ctx))) }()
	d := &dealer{world: w, began: time.Now()}
	d.say("starting servers and processes")
	if err := w.start(ctx); err != nil {
		return Report{}, err
	}
	return d.run(ctx)
}

// dealer inflicts the plan and says so.
type dealer struct {
	*world

	began time.Time

	telling   sync.Mutex // one call of Config.Watch at a time
	mu        sync.Mutex
	active    []string
	inflicted map[string]int
	committed int
	effects   int
}

func (d *dealer) run(ctx context.Context) (Report, error) {
	r := Report{Seed: d.cfg.Seed, Duration: d.cfg.Duration, Numbers: map[string]int{}}
	if err := d.working(ctx); err != nil {
		return r, err
	}
	if err := d.upgrade(ctx); err != nil {
		return r, err
	}
	if err := d.deal(ctx); err != nil {
		return r, err
	}
	d.mu.Lock()
	r.Faults = d.inflicted
	d.mu.Unlock()
	d.say("all faults are healed, no more orders; waiting for rest")
	healed := time.Now()
	for _, name := range serviceNames {
		d.process(name).stop(ctx)
	}
	if err := d.mend(ctx); err != nil {
		return r, err
	}
	owed := d.rest(ctx)
	if ctx.Err() != nil {
		return r, ctx.Err()
	}
	r.RestTook = time.Since(healed)
	if owed != "" {
		r.Problems = append(r.Problems, fmt.Sprintf("not at rest %s after the last fault: %s", r.RestTook.Round(time.Second), owed))
	}
	d.say("at rest; reading the brokers' logs")
	var g errgroup.Group
	for _, p := range d.processes {
		g.Go(func() error { p.stop(ctx); return nil })
	}
	_ = g.Wait()
	if err := d.processProblems(&r); err != nil {
		return r, err
	}
	return r, d.judge(ctx, &r)
}

// working waits until orders have taken effect, derived ones too.
func (d *dealer) working(ctx context.Context) error {
	return until(ctx, 90*time.Second, "the first effects", func(ctx context.Context) (ok bool, err error) {
		err = d.warehouse.db().QueryRow(ctx, `SELECT count(DISTINCT (consumer, of)) = 4 FROM effects`).Scan(&ok)
		return ok, err
	})
}

// deal inflicts the plan, step by step.
func (d *dealer) deal(ctx context.Context) error {
	d.mu.Lock()
	d.inflicted, d.began = map[string]int{}, time.Now()
	d.mu.Unlock()
	besideCtx, cancel := context.WithCancel(ctx)
	var beside sync.WaitGroup
	beside.Go(func() { d.operate(besideCtx) })
	beside.Go(func() { d.count(besideCtx) })
	defer beside.Wait()
	defer cancel()
	g, each := errgroup.WithContext(ctx)
	for _, s := range plan(d.cfg.Seed, d.cfg.Duration, d.cfg.Only) {
		pause(each, time.Until(d.began.Add(s.At)))
		if each.Err() != nil {
			break
		}
		g.Go(func() error {
			d.begin(s)
			defer d.end(s)
			if err := cardOf(s.Kind).do(d.world, each, s); err != nil && each.Err() == nil {
				return fmt.Errorf("%s: %w", s, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	pause(ctx, time.Until(d.began.Add(d.cfg.Duration)))
	return ctx.Err()
}

func (d *dealer) begin(s step) {
	d.world.mu.Lock()
	d.world.faults = append(d.world.faults, history.Fault{At: time.Now(), Text: s.String()})
	d.world.mu.Unlock()
	d.mu.Lock()
	d.active = append(d.active, s.String())
	d.inflicted[s.Kind]++
	d.mu.Unlock()
	d.say(s.String())
}

func (d *dealer) end(s step) {
	d.mu.Lock()
	i := slices.Index(d.active, s.String())
	d.active = slices.Delete(d.active, i, i+1)
	d.mu.Unlock()
	if s.For > 0 {
		d.say("healed: " + s.String())
	}
}

// say tells whoever watches.
func (d *dealer) say(event string) {
	d.telling.Lock()
	defer d.telling.Unlock()
	d.mu.Lock()
	p := Progress{
		Elapsed: time.Since(d.began), Duration: d.cfg.Duration, Event: event, Active: slices.Clone(d.active),
		Committed: d.committed, Effects: d.effects,
	}
	for _, n := range d.inflicted {
		p.Faults += n
	}
	d.mu.Unlock()
	d.cfg.Watch(p)
}

// count looks at how far the run is, until ctx ends. Where a database does not
// answer the numbers stand still.
func (d *dealer) count(ctx context.Context) {
	for ctx.Err() == nil {
		op, cancel := context.WithTimeout(ctx, 2*time.Second)
		var committed, effects int
		if d.shop.db().QueryRow(op, `SELECT count(*) FROM orders`).Scan(&committed) == nil {
			d.mu.Lock()
			d.committed = committed
			d.mu.Unlock()
		}
		if d.warehouse.db().QueryRow(op, `SELECT count(*) FROM effects`).Scan(&effects) == nil {
			d.mu.Lock()
			d.effects = effects
			d.mu.Unlock()
		}
		cancel()
		d.say("")
		pause(ctx, 2*time.Second)
	}
}

// processProblems collects what processes have done that they must not: ended by
// themselves, not ended when told, or crashed.
func (w *world) processProblems(r *Report) error {
	for _, p := range w.processes {
		r.Problems = append(r.Problems, p.problems...)
		r.count("starts of a "+p.kind, p.starts)
		text, err := p.output()
		if err != nil {
			return err
		}
		for _, sign := range []string{"panic: ", "fatal error: ", "WARNING: DATA RACE"} {
			if i := strings.Index(text, sign); i >= 0 {
				r.Problems = append(r.Problems, fmt.Sprintf("%s: %s", p.name, text[i:min(len(text), i+800)]))
			}
		}
	}
	return nil
}
