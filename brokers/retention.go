package brokers

import (
	"context"
	"math"
	"time"
)

// Forever is the retention of a broker that deletes nothing by age.
const Forever = time.Duration(math.MaxInt64)

// Retainer is what a [Subscriber] may implement besides: it tells for how long
// the broker may deliver a message again, so that a consumer can check that it
// remembers as long what it has handled.
type Retainer interface {
	// Retention returns the longest time for which any of the subscriber's topics
	// or queues keeps a message that has been settled, or [Forever]. ok is false
	// where there is no such time, or nobody tells. It may be called before and
	// during Subscribe. Errors are the broker's: it is away, or does not permit to
	// ask.
	Retention(ctx context.Context) (keeps time.Duration, ok bool, err error)
}
