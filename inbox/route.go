package inbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outboxkit/outboxkit/brokers"
)

// duplicate acknowledges t without effect. With a broker route it may be a dead
// letter whose copy a crash has held up.
func (r *runner) duplicate(t *task) (result, error) {
	if r.routed() {
		ctx, cancel := context.WithTimeout(t.ctx, r.patience())
		defer cancel()
		d := death{}
		err := r.pool.QueryRow(ctx, r.sql.moving, r.store.ConsumerID(), r.store.UUID(t.key)).Scan(&d.reason, &d.err, &t.attempts)
		switch {
		case err == nil:
			t.dead, t.moving = &d, true
			return result{what: again}, nil
		case !errors.Is(err, pgx.ErrNoRows):
			return result{}, fmt.Errorf("look for a dead letter: %w", err)
		}
	}
	r.crashes.repeated(t)
	r.stats.duplicates.Add(1)
	return r.ack(t, nil)
}

func (r *runner) routed() bool { return r.cfg.DeadLetterTo.Publisher != nil }

// publishTimeout bounds one publication of a dead letter's copy.
const publishTimeout = 30 * time.Second

// move publishes the copy of a dead letter and marks its row, then acknowledges.
// A destination that refuses it is no reason to stop: the row is the dead letter.
func (r *runner) move(t *task) result {
	ctx, cancel := context.WithTimeout(t.ctx, publishTimeout)
	defer cancel()
	results := r.cfg.DeadLetterTo.Publisher.Publish(ctx, []brokers.Message{r.deadCopy(t)})
	err, state := results[0], "moved"
	if err != nil && brokers.ClassOf(err) != brokers.ClassUnavailable {
		r.log.Error("inbox: a dead letter's copy was refused; it stays in the table", append(t.attrs(), "error", err)...)
		err, state = nil, "dead"
	}
	if err == nil {
		_, err = r.pool.Exec(ctx, r.sql.moved, r.store.ConsumerID(), r.store.UUID(t.key), state)
	}
	if err != nil {
		wait := t.retry.NextBackOff()
		r.log.Warn("inbox: a dead letter could not be published; will try again", append(t.attrs(), "error", err, "wait", wait)...)
		return result{what: again, wait: wait}
	}
	res, _ := r.ack(t, nil)
	return res
}

// deadCopy is the message as it came, its bytes and its id, with headers that
// say why it is here.
func (r *runner) deadCopy(t *task) brokers.Message {
	m := t.d.Message
	m.Topic = r.cfg.DeadLetterTo.Topic
	headers := map[string]string{
		"outboxkit-dead-consumer": r.cfg.Consumer,
		"outboxkit-dead-reason":   t.dead.reason,
		"outboxkit-dead-error":    t.dead.err,
		"outboxkit-dead-attempts": fmt.Sprint(t.attempts),
		"outboxkit-dead-origin":   t.d.Origin.String(),
	}
	for name, value := range t.d.Message.Headers {
		if _, ours := headers[name]; !ours {
			headers[name] = value
		}
	}
	m.Headers = headers
	return m
}
