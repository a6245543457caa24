package relay

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

// incarnation: without its token a running relay stops and begins anew within a
// moment; if it stays away, somebody does not.
func (d *diagnosis) incarnation(ctx context.Context) (string, error) {
	var there bool
	var running int
	if err := d.one(ctx, `SELECT EXISTS (SELECT FROM {s}.incarnation), (SELECT count(*)::int FROM {s}.instance i WHERE `+sqlLive+`)`, nil, &there, &running); err != nil {
		return "", err
	}
	if !there && running > 0 {
		d.warn("look again in a few seconds; if it stays so, see the relays' logs, and restart them", "the server has been through a recovery, and %d running relays have not begun anew yet", running)
	}
	if !there {
		return "no token: no relay has run since the server's last recovery", nil
	}
	return "no recovery of the server since relays began", nil
}

func (d *diagnosis) leases(ctx context.Context) (string, error) {
	list, _, err := statusReader{pool: d.pool, schema: d.cfg.Schema}.pipelines(ctx)
	if err != nil {
		return "", err
	}
	instances, err := statusReader{pool: d.pool, schema: d.cfg.Schema}.instances(ctx)
	if err != nil {
		return "", err
	}
	live := 0
	for _, i := range instances {
		if i.Live {
			live++
			continue
		}
		d.warn("none if it was killed: another relay takes over and removes it; otherwise see whether it hangs, or its clock jumps",
			"relay %s has not been heard of since its lease expired %s ago", i.Name, time.Duration(-i.ExpiresInSeconds)*time.Second)
	}
	for _, p := range list {
		if p.Unowned == 0 {
			continue
		}
		held := 0
		for _, o := range p.Owners {
			if !o.Live {
				held += o.Shards
			}
		}
		text := fmt.Sprintf("%d of %d shards of pipeline %s are published by nobody (%d are still leased to silent relays)", p.Unowned, shardCount, p.Name, held)
		if live == 0 {
			d.fail("start a relay: relay run", "%s: no relay runs", text)
		} else {
			d.warn("look again in a few seconds; if it stays so: does a running relay have the pipeline in its configuration, and can it reach the broker?", "%s, although %d relays run", text, live)
		}
	}
	return fmt.Sprintf("%d relays, every shard has a live owner", live), nil
}

// pipelines compares the configuration with what is registered.
func (d *diagnosis) pipelines(ctx context.Context) (string, error) {
	list, _, err := statusReader{pool: d.pool, schema: d.cfg.Schema}.pipelines(ctx)
	if err != nil {
		return "", err
	}
	registered := map[string]bool{}
	for _, p := range list {
		registered[p.Name] = true
		configured, ok := d.cfg.Pipelines[p.Name]
		switch {
		case len(d.cfg.Pipelines) == 0:
		case !ok && !slices.ContainsFunc(p.Owners, func(o Owner) bool { return o.Live }):
			d.warn(fmt.Sprintf("if nobody runs it any more: relay pipeline drop %s --yes", p.Name),
				"pipeline %s is registered, not in this configuration, and nobody runs it: no event is truncated that it has not published", p.Name)
		case ok && configured.text() != p.Filter.text():
			d.fail(fmt.Sprintf("undo the change, or give the pipeline a new name with start: {pipeline: %[1]s}, or stop every relay that runs it and then: relay pipeline filter %[1]s", p.Name),
				"relays with this configuration refuse to run pipeline %s: it publishes %s, configured is %s", p.Name, p.Filter, configured)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.cfg.Pipelines)) {
		if !registered[name] {
			d.warn("start a relay with this configuration: relay run", "pipeline %s of the configuration has never run on this database", name)
		}
	}
	return fmt.Sprintf("%d registered", len(list)), nil
}

// parked: what waits for a person.
func (d *diagnosis) parked(ctx context.Context) (string, error) {
	list, _, err := statusReader{pool: d.pool, schema: d.cfg.Schema}.pipelines(ctx)
	if err != nil {
		return "", err
	}
	for _, p := range list {
		if k := p.Parked; k.Dead > 0 {
			d.warn("relay dlq list --pipeline "+p.Name, "%d events of pipeline %s are dead, %d wait behind them or others; the first parked event is %s old",
				k.Dead, p.Name, k.Blocked, time.Duration(k.OldestSeconds)*time.Second)
		}
	}
	return "no event waits for a person", nil
}

func (d *diagnosis) sequence(ctx context.Context) (string, error) {
	var cache int64
	if err := d.one(ctx, `SELECT seqcache FROM pg_sequence WHERE seqrelid = '{s}.event_id_seq'::regclass`, nil, &cache); err != nil {
		return "", err
	}
	if cache != 1 {
		d.fail(fmt.Sprintf("ALTER SEQUENCE %s.event_id_seq CACHE 1", d.cfg.Schema), "event_id_seq has CACHE %d: later transactions draw lower ids, and events are out of order or skipped", cache)
	}
	return "event_id_seq draws ids one by one", nil
}
