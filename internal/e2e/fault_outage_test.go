//go:build faults

package e2e

import (
	"cmp"
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/internal/svctest"
)

// server is one that can be killed and started again.
type server interface {
	Kill() error
	Start(ctx context.Context) error
}

// The consumer's database and the broker, one after the other, are killed and
// stay away under load, for OUTBOXKIT_OUTAGE (5 s). Nothing dies of it, and all of it
// takes effect soon after.
func TestOutagesOverKafka(t *testing.T) {
	t.Parallel()
	s := svctest.OwnKafka(t)
	outages(t, kafkaTopic(t, s.Brokers()), s)
}

func TestOutagesOverRabbitMQ(t *testing.T) {
	t.Parallel()
	s := svctest.OwnRabbitMQ(t)
	outages(t, rabbitTopic(t, s.URL()), s)
}

// recovery is how long after the end of an outage effects may stay away: the
// longest pauses between two looks, and the machine's slack.
const recovery = 30 * time.Second

func outages(t *testing.T, b faultBroker, brokerServer server) {
	away, err := time.ParseDuration(cmp.Or(os.Getenv("OUTBOXKIT_OUTAGE"), "5s"))
	require.NoError(t, err, "OUTBOXKIT_OUTAGE")
	postgres := pgtest.Own(t)
	consumerURL, consumer := consumerDatabaseAt(t, postgres.URL("postgres"))
	w := newFaultWorldAt(t, b, consumerURL, consumer, b.publisher())
	for _, name := range []string{"one", "two"} {
		w.join(memberSpec{Name: name, Session: 2 * time.Second, Attempts: 1})
	}
	stop := w.write(load{perSecond: 200})
	w.eventually(func() bool { return w.effects() > 300 }, "members work")
	for name, s := range map[string]server{"database": postgres, "broker": brokerServer} {
		before := count(t, w.shop, "orders")
		require.NoError(t, s.Kill())
		timer := time.NewTimer(away)
		defer timer.Stop()
		<-timer.C
		require.NoError(t, s.Start(t.Context()))
		began := time.Now()
		missed := count(t, w.shop, "orders")
		require.Greater(t, missed, before+int(away.Seconds())*50, "the shop goes on meanwhile")
		var done int
		w.eventually(func() bool { return w.readable(&done) }, "the database is back")
		require.Less(t, done, missed, "something is left to be caught up with")
		w.eventually(func() bool { return w.effects() >= missed }, "everything of before and during the outage takes effect")
		require.Less(t, time.Since(began), recovery)
		t.Logf("%s away for %s under load: %d orders behind, caught up with %.1f s after its return", name, away, missed-done, time.Since(began).Seconds())
	}
	stop()
	require.Empty(t, w.judge(true), "an outage kills no message")
}

// readable counts the effects, if the database answers.
func (w *faultWorld) readable(n *int) bool {
	return w.consumer.QueryRow(context.Background(), `SELECT count(*) FROM effects`).Scan(n) == nil
}
