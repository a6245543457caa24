package faults

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// watcher knows which events the consumers have dealt with, by reading what is new.
type watcher struct {
	w       *world
	seq     int64
	effects map[[2]string]bool // consumer and event
}

// look returns how many events some consumer owes, in words; "" when all is at
// rest.
func (s *watcher) look(ctx context.Context) (owed string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	shop, warehouse := s.w.shop.db(), s.w.warehouse.db()
	if err := s.read(ctx); err != nil {
		return "", err
	}
	settled, err := s.settled(ctx)
	if err != nil {
		return "", err
	}
	for _, consumer := range []string{overKafka, overRabbitMQ} {
		orders, err := texts(ctx, shop, `SELECT id FROM orders`)
		if err != nil {
			return "", err
		}
		if n := s.owes(consumer, orders, settled); n > 0 {
			return fmt.Sprintf("consumer %s owes %d effects of %d orders", consumer, n, len(orders)), nil
		}
		if n := s.owes(consumer, s.w.sureGarbage(consumer), settled); n > 0 {
			return fmt.Sprintf("consumer %s owes %d dead letters of injected garbage", consumer, n), nil
		}
		derived, err := texts(ctx, warehouse, `SELECT id FROM derived WHERE consumer = $1`, consumer)
		if err != nil {
			return "", err
		}
		if n := s.owes(consumer, derived, settled); n > 0 {
			return fmt.Sprintf("consumer %s owes %d effects of %d derived events", consumer, n, len(derived)), nil
		}
	}
	for _, c := range []*cluster{s.w.shop, s.w.warehouse} {
		var n int
		if err := c.db().QueryRow(ctx, unstored).Scan(&n); err != nil {
			return "", err
		}
		if n > 0 {
			return fmt.Sprintf("the relays' positions lack %d events of %s", n, c.name), nil
		}
	}
	return "", nil
}

// unstored counts the events that a relay would find unpublished if it started from
// what is stored now, and those that are to be tried again.
const unstored = `WITH latest AS (
	SELECT DISTINCT ON (p.pipeline, q.shard) p.pipeline, q.shard, p.s FROM outbox.position p, unnest(p.shards) q(shard) ORDER BY p.pipeline, q.shard, p.n DESC)
	SELECT (SELECT count(*) FROM outbox.event e JOIN latest l ON l.shard = outbox.shard(e.key, e.event_id) WHERE NOT pg_visible_in_snapshot(e.xid, l.s))
	  + (SELECT count(*) FROM outbox.parked WHERE state = 'retrying')`

// read takes the effects since the last look. A sequence's numbers may become
// visible out of order: what is near the end is read again.
func (s *watcher) read(ctx context.Context) error {
	rows, err := s.w.warehouse.db().Query(ctx, `SELECT seq, consumer, id FROM effects WHERE seq > $1 - 5000`, s.seq)
	if err != nil {
		return err
	}
	var e struct {
		seq          int64
		consumer, id string
	}
	_, err = pgx.ForEachRow(rows, []any{&e.seq, &e.consumer, &e.id}, func() error {
		s.effects[[2]string{e.consumer, e.id}] = true
		s.seq = max(s.seq, e.seq)
		return nil
	})
	return err
}

// settled are the dead letters that wait for a person, by consumer and event. A
// relay's pipeline and the consumer behind it have one name.
func (s *watcher) settled(ctx context.Context) (map[[2]string]bool, error) {
	settled := map[[2]string]bool{}
	var consumer, id string
	for _, q := range []struct {
		of  *cluster
		sql string
	}{
		{s.w.shop, `SELECT pipeline, event_id::text FROM outbox.parked WHERE state IN ('dead', 'blocked')`},
		{s.w.warehouse, `SELECT pipeline, event_id::text FROM outbox.parked WHERE state IN ('dead', 'blocked')`},
		{s.w.warehouse, `SELECT c.name, d.id FROM inbox.dead d JOIN inbox.consumer c ON c.id = d.consumer WHERE d.state IN ('dead', 'blocked')
			AND NOT EXISTS (SELECT FROM inbox.dead r WHERE r.consumer = d.consumer AND r.key_hash = d.key_hash AND r.key_hash <> 0 AND r.state IN ('retrying', 'moving'))`},
	} {
		rows, err := q.of.db().Query(ctx, q.sql)
		if err != nil {
			return nil, err
		}
		if _, err := pgx.ForEachRow(rows, []any{&consumer, &id}, func() error { settled[[2]string{consumer, id}] = true; return nil }); err != nil {
			return nil, err
		}
	}
	return settled, nil
}

func (s *watcher) owes(consumer string, ids []string, settled map[[2]string]bool) (n int) {
	for _, id := range ids {
		if at := [2]string{consumer, id}; !s.effects[at] && !settled[at] {
			n++
		}
	}
	return n
}

// sureGarbage are the injected messages that a broker has for certain.
func (w *world) sureGarbage(broker string) (ids []string) {
	for id, at := range w.garbage {
		if at == broker && !w.unsure[id] {
			ids = append(ids, id)
		}
	}
	return ids
}

func texts(ctx context.Context, db interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}, sql string, args ...any) ([]string, error) {
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// rest waits until nothing is under way, and returns what is, if that lasts too
// long.
func (w *world) rest(ctx context.Context) (owed string) {
	s := &watcher{w: w, effects: map[[2]string]bool{}}
	deadline := time.Now().Add(w.cfg.Rest)
	for {
		var err error
		if owed, err = s.look(ctx); err != nil {
			owed = err.Error()
		}
		if owed == "" || ctx.Err() != nil || time.Now().After(deadline) {
			return owed
		}
		pause(ctx, 500*time.Millisecond)
	}
}
