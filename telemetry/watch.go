package telemetry

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel/attribute"

	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/relay"
)

const (
	// watchEvery is how often a database is asked: each time it looks at up to some
	// ten thousand events a pipeline.
	watchEvery = 15 * time.Second
	// watchTimeout bounds one look.
	watchTimeout = 10 * time.Second
	// watchStale is how old figures may be before they are left out: an old backlog
	// is worse than none, because it looks as if all were well.
	watchStale = time.Minute
)

// latest is what was read last. A database that does not answer leaves it as it is.
type latest[T any] struct {
	mu    sync.Mutex
	value T
	at    time.Time // of the reading; before the first, of the start
	any   bool
}

func (l *latest[T]) set(v T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.value, l.at, l.any = v, time.Now(), true
}

// get reports ok if there is a value that is not stale.
func (l *latest[T]) get(stale time.Duration) (v T, age time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	age = time.Since(l.at)
	return l.value, age, l.any && age < stale
}

// keep reads at once and then again and again, until ctx ends.
func (l *latest[T]) keep(ctx context.Context, every time.Duration, read func(context.Context) (T, error)) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		op, cancel := context.WithTimeout(ctx, watchTimeout)
		if v, err := read(op); err == nil {
			l.set(v)
		}
		cancel()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// WatchOutbox exports what a database knows of its outbox, whoever publishes it:
// backlog, parked events, shards that nobody has. It reads them every 15 s with the
// relay's rights, until ctx ends; then it returns nil. While the database does not
// answer only the age of the figures is exported. An empty schema means "outbox".
func (t *Telemetry) WatchOutbox(ctx context.Context, pool *pgxpool.Pool, schema, database string) error {
	l := &latest[relay.Status]{at: time.Now()}
	db := attribute.String(attrDatabase, database)
	stop, err := t.observe(ofOutbox, func(report report) {
		s, age, ok := l.get(t.stale)
		report(outboxStatusAge, age.Seconds(), db)
		if ok {
			reportStatus(report, s, db)
		}
	})
	if err != nil {
		return err
	}
	l.keep(ctx, t.every, func(ctx context.Context) (relay.Status, error) { return relay.ReadStatus(ctx, pool, schema) })
	return stop()
}

func reportStatus(report report, s relay.Status, db attribute.KeyValue) {
	for _, p := range s.Pipelines {
		name := attribute.String(attrPipeline, p.Name)
		report(outboxBacklog, float64(p.Backlog), db, name)
		report(outboxOldest, p.OldestUnsentSeconds, db, name)
		report(outboxParked, float64(p.Parked.Dead), db, name, attribute.String(attrState, "dead"))
		report(outboxParked, float64(p.Parked.Retrying), db, name, attribute.String(attrState, "retrying"))
		report(outboxParked, float64(p.Parked.Blocked), db, name, attribute.String(attrState, "blocked"))
		report(outboxParkedAge, p.Parked.OldestSeconds, db, name)
		report(outboxUnowned, float64(p.Unowned), db, name)
	}
	live := 0
	for _, i := range s.Instances {
		if i.Live {
			live++
		}
	}
	report(outboxRelays, float64(live), db)
	var bytes int64
	for _, slot := range s.Slots {
		bytes += slot.Bytes
	}
	report(outboxLogSize, float64(bytes), db)
}

// WatchInbox exports how many dead letters of each consumer wait in a database. It
// counts them every 15 s with a consumer's rights, until ctx ends; then it returns
// nil. An empty schema means "inbox".
func (t *Telemetry) WatchInbox(ctx context.Context, pool *pgxpool.Pool, schema, database string) error {
	l := &latest[[]inbox.DeadCount]{at: time.Now()}
	db := attribute.String(attrDatabase, database)
	stop, err := t.observe(ofDeadLetter, func(report report) {
		list, _, ok := l.get(t.stale)
		if !ok {
			return
		}
		for _, c := range list {
			name := attribute.String(attrConsumer, c.Consumer)
			report(inboxDead, float64(c.Dead), db, name, attribute.String(attrState, "dead"))
			report(inboxDead, float64(c.Blocked), db, name, attribute.String(attrState, "blocked"))
			report(inboxDead, float64(c.Retrying), db, name, attribute.String(attrState, "retrying"))
			report(inboxDeadAge, c.OldestSeconds, db, name)
		}
	})
	if err != nil {
		return err
	}
	l.keep(ctx, t.every, func(ctx context.Context) ([]inbox.DeadCount, error) { return inbox.CountDeadLetters(ctx, pool, schema) })
	return stop()
}
