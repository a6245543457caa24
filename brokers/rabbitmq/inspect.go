package rabbitmq

import (
	"context"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
)

// ServerState is what a server says of itself over AMQP.
type ServerState struct {
	Version string
	Queues  []QueueState
	// MissingExchanges are those that were asked for and cannot be used, with the reason.
	MissingExchanges map[string]error
}

// QueueState is what a server says of a queue over AMQP, which tells neither its kind
// nor its arguments nor the policies that apply.
type QueueState struct {
	Name string
	// Err says why nothing is known: it does not exist, or this user may not ask.
	Err       error
	Messages  int // that are ready
	Consumers int
}

// Inspect asks a server for queues and exchanges, for a diagnosis. It changes nothing
// and declares nothing. An error says that the server does not answer.
func Inspect(ctx context.Context, cfg PublisherConfig, exchanges, queues []string) (ServerState, error) {
	if err := cfg.Validate(); err != nil {
		return ServerState{}, err
	}
	cfg = cfg.withDefaults()
	l, err := dialer{url: cfg.URL, tls: cfg.TLS, files: cfg.TLSFiles, timeout: cfg.DialTimeout, client: cfg.Client}.dial(ctx)
	if err != nil {
		return ServerState{}, fmt.Errorf("rabbitmq: %w", err)
	}
	defer l.close()
	s := ServerState{MissingExchanges: map[string]error{}}
	s.Version, _ = l.conn.Properties["version"].(string)
	for _, name := range exchanges {
		err := l.sideChannel(func(ch *amqp.Channel) error {
			// The broker ignores the kind when it only looks.
			return ch.ExchangeDeclarePassive(name, amqp.ExchangeDirect, true, false, false, false, nil)
		})
		switch {
		case err != nil && !saidNo(err):
			return s, fmt.Errorf("rabbitmq: %w", err)
		case err != nil:
			s.MissingExchanges[name] = err
		}
	}
	for _, name := range queues {
		q := QueueState{Name: name}
		err := l.sideChannel(func(ch *amqp.Channel) error {
			found, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
			q.Messages, q.Consumers = found.Messages, found.Consumers
			return err
		})
		if err != nil && !saidNo(err) {
			return s, fmt.Errorf("rabbitmq: %w", err)
		}
		q.Err = err
		s.Queues = append(s.Queues, q)
	}
	return s, nil
}
