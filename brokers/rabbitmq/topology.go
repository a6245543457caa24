package rabbitmq

import (
	"errors"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outboxkit/outboxkit/brokers"
)

// refusalTTL is how long a destination that was refused is not tried again.
const refusalTTL = time.Second

// topology knows where messages can be published to. To ask costs a channel; to
// publish to an exchange that does not exist costs the session.
type topology struct {
	declare bool

	asking sync.Mutex // one question at a time

	mu      sync.Mutex
	known   map[destination]*link // the connection on which it was seen last
	refused map[destination]refusal
}

type refusal struct {
	err   error
	until time.Time
}

func newTopology(declare bool) *topology {
	return &topology{
		declare: declare,
		known:   make(map[destination]*link),
		refused: make(map[destination]refusal),
	}
}

// ensure returns nil if messages of topic can be sent to d over l. An error with
// class ClassDestination is about d, any other about l.
func (t *topology) ensure(l *link, d destination, topic string) error {
	if d.exchange == "" && !t.declare {
		return nil // the default exchange is always there
	}
	if known, err := t.look(l, d); known {
		return err
	}
	t.asking.Lock()
	defer t.asking.Unlock()
	if known, err := t.look(l, d); known {
		return err
	}
	err := t.ask(l, d)
	switch {
	case err == nil:
		t.mu.Lock()
		t.known[d] = l
		t.mu.Unlock()
	case l.alive() && saidNo(err):
		err = failed(brokers.ClassDestination, topic, err)
		t.refuse(d, err)
	}
	return err
}

// saidNo reports whether the broker refused what was asked.
func saidNo(err error) bool {
	var e *amqp.Error
	return errors.As(err, &e) && closesChannelOnly(e)
}

func (t *topology) look(l *link, d destination) (known bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r, ok := t.refused[d]; ok {
		if time.Now().Before(r.until) {
			return true, r.err
		}
		delete(t.refused, d)
	}
	return t.known[d] == l, nil
}

// refuse notes that the broker does not take messages for d.
func (t *topology) refuse(d destination, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refused[d] = refusal{err: err, until: time.Now().Add(refusalTTL)}
}

func (t *topology) ask(l *link, d destination) error {
	if d.exchange != "" {
		err := l.sideChannel(func(ch *amqp.Channel) error {
			// The broker ignores the kind when it only looks.
			return ch.ExchangeDeclarePassive(d.exchange, amqp.ExchangeDirect, true, false, false, false, nil)
		})
		if err != nil {
			return err
		}
	}
	if !t.declare {
		return nil
	}
	if err := ensureQueue(l, d.routingKey); err != nil || d.exchange == "" {
		return err
	}
	return l.sideChannel(func(ch *amqp.Channel) error {
		return ch.QueueBind(d.routingKey, d.routingKey, d.exchange, false, nil)
	})
}
