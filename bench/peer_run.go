package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/outboxkit/outboxkit/bench/peers"
	"github.com/outboxkit/outboxkit/internal/services/postgres"
)

// peerStall is how long a topic may stay as it is while events are to come.
const peerStall = 90 * time.Second

// withPeerPostgres runs f with a Postgres as services have it: logical decoding,
// which Debezium needs, and commits that wait for the disk. Without full page
// images, which come after a checkpoint, whenever that happens to be.
func withPeerPostgres(ctx context.Context, e *env, f func(*env) error) (err error) {
	server, err := postgres.Start(ctx, postgres.Config{
		Durable: true, Settings: map[string]string{"wal_level": "logical", "full_page_writes": "off", "max_wal_size": "8GB"},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close(context.WithoutCancel(ctx))) }()
	own := *e
	own.postgres = server.URL("postgres")
	return f(&own)
}

// peerRun is a peer with a database, a topic and a folder of its own.
type peerRun struct {
	peers.Peer
	*env

	db      *database
	place   peers.Place
	topic   *topicEnds
	process peers.Process // nil while it does not run
	pg, kfk int           // processes
}

// withPeer prepares p and runs f, which starts it.
func withPeer(ctx context.Context, e *env, p peers.Peer, f func(*peerRun) error) (err error) {
	r := &peerRun{Peer: p, env: e, pg: listener(host(e.postgres)), kfk: listener(e.kafka[0])}
	if r.db, err = newDatabase(ctx, e); err != nil {
		return err
	}
	defer r.db.drop()
	r.place = peers.Place{Database: r.db.relayURL(), Brokers: e.kafka}
	if r.place.Topic, err = kafkaTarget(e).topic(ctx); err != nil {
		return err
	}
	if r.place.Dir, err = os.MkdirTemp("", "outboxkit-peer-"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(r.place.Dir) }()
	if r.topic, err = newTopicEnds(ctx, e.kafka, r.place.Topic); err != nil {
		return err
	}
	defer r.topic.close()
	if err := p.Prepare(ctx, r.db.Pool, r.place.Topic); err != nil {
		return err
	}
	defer func() { // whatever has happened: no process, and no slot, outlives this
		clean := context.WithoutCancel(ctx)
		if r.process != nil {
			err = errors.Join(err, r.process.Kill())
		}
		err = errors.Join(err, p.Forget(clean, r.db.Pool))
	}()
	return f(r)
}

func (r *peerRun) start(ctx context.Context) (err error) {
	r.process, err = r.Start(ctx, r.place)
	return err
}

func (r *peerRun) stop(ctx context.Context) error {
	p := r.process
	r.process = nil
	return p.Stop(ctx)
}

func (r *peerRun) kill() error {
	p := r.process
	r.process = nil
	return p.Kill()
}

// reached waits until the topic has n records and returns how many, and when.
func (r *peerRun) reached(ctx context.Context, n int64) (int64, time.Time, error) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	last, moved := int64(-1), time.Now()
	for {
		have, err := r.topic.count()
		now := time.Now()
		switch {
		case err != nil:
			return 0, now, err
		case have >= n:
			return have, now, nil
		case have > last:
			last, moved = have, now
		case now.Sub(moved) > peerStall:
			return have, now, fmt.Errorf("%d of %d events for %s; %s", have, n, peerStall, r.logTail())
		}
		select {
		case <-tick.C:
		case <-r.process.Done():
			return have, now, fmt.Errorf("it ended; %s", r.logTail())
		case <-ctx.Done():
			return have, now, ctx.Err()
		}
	}
}

func (r *peerRun) logTail() string {
	data, err := os.ReadFile(r.place.Log())
	if err != nil {
		return "no log"
	}
	return "its log: " + strings.TrimSpace(string(data[max(0, len(data)-1500):]))
}

// usage is CPU time in seconds: of a peer, of all Postgres processes, of Kafka.
type usage struct{ peer, postgres, kafka float64 }

func (r *peerRun) usage() usage {
	return usage{peer: cpuSeconds(r.process.Pid()), postgres: treeSeconds(r.pg), kafka: cpuSeconds(r.kfk)}
}

// costs collects, by peer, CPU seconds per million events.
type costs struct{ peer, postgres, kafka byPeer }

func newCosts() costs { return costs{byPeer{}, byPeer{}, byPeer{}} }

func (c costs) add(p peers.Peer, from, to usage, events int64) {
	per := 1e6 / float64(events)
	c.peer.add(p, (to.peer-from.peer)*per)
	c.postgres.add(p, (to.postgres-from.postgres)*per)
	c.kafka.add(p, (to.kafka-from.kafka)*per)
}

func (c costs) report(e *env, prefix string, list []peers.Peer) {
	c.peer.report(e, prefix+"_cpu_own", "s/1M events", list)
	c.postgres.report(e, prefix+"_cpu_postgres", "s/1M events", list)
	c.kafka.report(e, prefix+"_cpu_kafka", "s/1M events", list)
}
