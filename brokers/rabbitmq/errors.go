package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outboxkit/outboxkit/brokers"
)

var (
	errGone      = errors.New("the connection was lost before the confirmation")
	errEnded     = errors.New("the session has ended")
	errUnhealthy = errors.New("channels to RabbitMQ keep closing")
	errGivenUp   = errors.New("the broker did not answer when another call of Publish gave up")
	errNoAnswer  = errors.New("no confirmation in time")
	errNack      = errors.New("the queue refused the message (nack): it is full and has overflow=reject-publish, or it broke")
)

func failed(class brokers.Class, topic string, err error) error {
	return &brokers.Error{Class: class, Topic: topic, Err: err}
}

func unavailable(err error) error {
	if e := (*brokers.Error)(nil); errors.As(err, &e) {
		return err
	}
	return failed(brokers.ClassUnavailable, "", err)
}

// brokenBy returns the error of a message that made the broker close the channel.
func brokenBy(e *amqp.Error, topic string) error {
	// 406 is about the message (larger than the server's max_message_size); 404 and
	// 403 are about where it goes.
	if e.Code == amqp.PreconditionFailed {
		return failed(brokers.ClassRejected, topic, e)
	}
	return failed(brokers.ClassDestination, topic, e)
}

// closesChannelOnly reports whether the broker ended one channel because of
// something that was done on it, and not the connection.
func closesChannelOnly(e *amqp.Error) bool {
	if e == nil || !e.Server {
		return false
	}
	switch e.Code {
	case amqp.ContentTooLarge, amqp.NoConsumers, amqp.AccessRefused, amqp.NotFound,
		amqp.ResourceLocked, amqp.PreconditionFailed:
		return true
	}
	return false
}

// permanent reports whether consuming cannot succeed until somebody changes
// something: a missing queue, missing rights, a wrong password.
func permanent(err error) bool {
	e := (*amqp.Error)(nil)
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case amqp.NotFound:
		// A queue whose node is down is "not found" too, for as long as that lasts.
		return strings.Contains(e.Reason, "no queue")
	case amqp.AccessRefused:
		// Somebody's exclusive use of a queue ends.
		return !strings.Contains(e.Reason, "exclusive use") && !suspected(err)
	case amqp.PreconditionFailed:
		// The broker waited too long for an acknowledgement: begin again.
		return !strings.Contains(e.Reason, "timed out")
	}
	return false
}

// maxSuspected is how often in a row the client may suspect a wrong password before
// it is believed.
const maxSuspected = 5

// suspected reports whether it is the client that speaks of a wrong password, or of
// no access to the virtual host: the server has closed the connection during the
// handshake without a word. That is how it refuses a password, and how it looks
// when it is killed at that moment.
func suspected(err error) bool {
	e := (*amqp.Error)(nil)
	return errors.As(err, &e) && e.Code == amqp.AccessRefused && !e.Server
}

func returned(r *amqp.Return) error {
	return fmt.Errorf("unroutable: %d %s (exchange %q has no queue bound for routing key %q)",
		r.ReplyCode, r.ReplyText, r.Exchange, r.RoutingKey)
}

// contextError adds to err that the context has ended.
func contextError(ctx context.Context, err error) error {
	if errors.Is(err, ctx.Err()) {
		return unavailable(err)
	}
	return failed(brokers.ClassUnavailable, "", fmt.Errorf("%w: %w", ctx.Err(), err))
}
