package main

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// costs is the CPU so far of each process on the way, in seconds: of the server
// for each one's sessions, and for what is nobody's (its log writer, ended
// sessions, other databases).
func (l *line) costs(ctx context.Context) (map[string]float64, error) {
	server := treeSeconds(listener(host(l.postgres)))
	out := map[string]float64{"service": cpuSeconds(l.service.pid()), "broker": cpuSeconds(listener(l.to.address()))}
	if l.relay != nil {
		out["relay"] = cpuSeconds(l.relay.pid())
	}
	if l.consumer != nil {
		out["consumer"] = cpuSeconds(l.consumer.pid())
	}
	for stage, application := range map[string]string{"service": serviceApplication, "relay": relayApplication, "consumer": consumerApplication} {
		rows, err := l.produced.Query(ctx, `SELECT pid FROM pg_stat_activity WHERE application_name = $1 AND datname = ANY($2)`,
			application, []string{l.produced.name, l.consumed.name})
		if err != nil {
			return nil, err
		}
		pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
		if err != nil {
			return nil, err
		}
		seconds := cpuOf(pids)
		out["postgres_"+stage] = seconds
		server -= seconds
	}
	out["postgres_other"] = max(0, server)
	return out, nil
}

// meter begins to count CPU.
func (l *line) meter(ctx context.Context) (err error) {
	l.before, err = l.costs(ctx)
	return err
}

// spent adds the CPU since meter, a million events, of those that had work.
func (l *line) spent(ctx context.Context, name string, n int) error {
	after, err := l.costs(ctx)
	if err != nil {
		return err
	}
	for _, part := range []string{"service", "postgres_service", "relay", "postgres_relay", "broker", "consumer", "postgres_consumer", "postgres_other"} {
		if seconds := after[part] - l.before[part]; seconds > 0.5/ticksPerSecond || l.runs[name+"_cpu_"+part] != nil {
			l.add(name+"_cpu_"+part, "s/1M events", max(0, seconds)*1e6/float64(n))
		}
	}
	return nil
}
