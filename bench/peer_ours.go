package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/bench/peers"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/outbox"
)

// ourPeer is outboxkit at its defaults.
type ourPeer struct {
	outbox *outbox.Outbox
	placed event.Type[peers.Event]
}

func (*ourPeer) Name() string { return ours }

func (*ourPeer) Settings() []peers.Setting {
	return []peers.Setting{{Name: "relay.Config", Value: "the defaults", Why: "docs/architecture.md"}}
}

// payloadCodec hands a payload through: the others encode nothing either.
type payloadCodec struct{}

func (payloadCodec) Schema() event.Schema { return event.Schema{} }

func (payloadCodec) Encode(v any) ([]byte, error) {
	e, ok := v.(peers.Event)
	if !ok {
		return nil, fmt.Errorf("%T is no event", v)
	}
	return e.Payload, nil
}

func (payloadCodec) Decode([]byte, event.Schema, any) error {
	return errors.New("nobody reads here")
}

// Prepare has nothing to create: the database has an outbox.
func (p *ourPeer) Prepare(ctx context.Context, db *pgxpool.Pool, topic string) (err error) {
	p.placed = event.Type[peers.Event]{
		Name: "com.example.OrderPlaced", Topic: topic, Key: func(e peers.Event) string { return e.Key }, Codec: payloadCodec{},
	}
	p.outbox, err = outbox.New(ctx, db, outbox.Config{Source: "/shop/orders", Types: []event.Any{p.placed}})
	return err
}

func (*ourPeer) Fill(ctx context.Context, db *pgxpool.Pool, topic string, n int) error {
	return (&database{Pool: db}).fill(ctx, topic, thousandKeys, n)
}

func (p *ourPeer) Write(ctx context.Context, tx pgx.Tx, e peers.Event) error {
	return p.outbox.Write(ctx, tx, p.placed.New(e))
}

func (*ourPeer) Forget(context.Context, *pgxpool.Pool) error { return nil }

func (*ourPeer) Start(ctx context.Context, at peers.Place) (peers.Process, error) {
	r, err := startRelay(ctx, spec{Database: at.Database, Kafka: at.Brokers})
	if err != nil {
		return nil, err
	}
	p := &ourProcess{relay: r, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.err = r.cmd.Wait()
	}()
	return p, nil
}

type ourProcess struct {
	relay *relayProcess
	done  chan struct{}
	err   error // of the process, after done
}

func (p *ourProcess) Pid() int              { return p.relay.pid() }
func (p *ourProcess) Done() <-chan struct{} { return p.done }

func (p *ourProcess) Kill() error {
	_ = p.relay.cmd.Process.Kill() // or it has ended
	<-p.done
	return nil
}

func (p *ourProcess) Stop(ctx context.Context) error {
	_ = p.relay.in.Close()
	select {
	case <-p.done:
		return p.err
	case <-time.After(time.Minute):
		return errors.Join(errors.New("the relay did not stop within a minute"), p.Kill())
	case <-ctx.Done():
		return errors.Join(ctx.Err(), p.Kill())
	}
}
