package rabbitmq

import (
	"context"
	"time"

	"github.com/outboxkit/outboxkit/brokers"
)

var _ brokers.Retainer = (*Subscriber)(nil)

// Retention implements brokers.Retainer: a queue keeps no message that has been
// settled, so there is no time to tell. How long one waits before that is bounded
// by a TTL only, which a queue may have and AMQP does not show.
func (s *Subscriber) Retention(context.Context) (keeps time.Duration, ok bool, err error) {
	return 0, false, s.badCfg
}
