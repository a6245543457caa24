package main

import (
	"context"
	"fmt"
	"time"
)

// effectRates are the events a second at which latency is measured.
var effectRates = []int{100, 500, 2000}

// effectLatency is the time from COMMIT's return in the service to that in the
// consumer, and the mean time in each stage between.
func effectLatency(ctx context.Context, f *effect) error {
	window := pick(f.env, time.Minute, 5*time.Second)
	for range f.rounds {
		err := f.withLine(ctx, func(l *line) error {
			if err := l.start(ctx, consumerSpec{Stages: true}); err != nil {
				return err
			}
			warm, err := l.paced(0, 500, 5*time.Second) // connections, metadata, statements
			if err != nil {
				return err
			}
			total := len(warm)
			for _, rate := range effectRates {
				all, err := l.paced(total, rate, window)
				if err != nil {
					return err
				}
				total += len(all)
				f.judge(rate, all)
				note("%s: %d/s, load %s", f.prefix, rate, loadAverage())
			}
			return ctx.Err()
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// paced lets the service save so many orders a second and returns their ways,
// after total others have been handled.
func (l *line) paced(total, rate int, window time.Duration) (ways, error) {
	if _, err := l.service.ask(fmt.Sprintf("pace %d %d", rate, window.Milliseconds())); err != nil {
		return nil, err
	}
	total += rate * int(window.Milliseconds()) / 1000
	all := ways{}
	for _, p := range []*relayProcess{l.service, l.relay, l.consumer} {
		if p != l.service {
			if _, err := p.published(total); err != nil {
				return nil, err
			}
		}
		a, err := p.ask("ways")
		if err != nil {
			return nil, err
		}
		all.merge(a.Ways)
	}
	for id, w := range all {
		for s, at := range w {
			if at == 0 {
				return nil, fmt.Errorf("event %s has not passed stage %d", id, s)
			}
		}
	}
	return all, nil
}

// judge adds the percentiles of the whole way and the mean of each part. The parts
// from commit to effect add up to mean_ms; what the relay waits for the broker's
// acknowledgement lies beside them.
func (f *effect) judge(rate int, all ways) {
	between := func(from, to int) []float64 {
		out := make([]float64, 0, len(all))
		for _, w := range all {
			out = append(out, float64(w[to]-w[from])/1e6)
		}
		return out
	}
	prefix := fmt.Sprintf("%d_", rate)
	whole := between(committed, effected)
	for _, q := range []struct {
		name string
		part float64
	}{{"p50", 0.5}, {"p99", 0.99}, {"p999", 0.999}} {
		f.add(prefix+q.name+"_ms", "ms", quantile(whole, q.part))
	}
	f.add(prefix+"mean_ms", "ms", mean(whole))
	for _, part := range []struct {
		name     string
		from, to int
	}{
		{"relay", committed, handed},
		{"broker", handed, received},
		{"inbox", received, begun},
		{"handler", begun, effected},
		{"acked", handed, acked},
	} {
		f.add(prefix+part.name+"_ms", "ms", mean(between(part.from, part.to)))
	}
	first, last := int64(0), int64(0)
	for _, w := range all {
		if first == 0 || w[committed] < first {
			first = w[committed]
		}
		last = max(last, w[committed])
	}
	f.add(prefix+"rate", "events/s", float64(len(all)-1)/(float64(last-first)/1e9))
}

func mean(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}
