package relay

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/pgtest"
)

// Slots are advanced and truncated under writers with short and long transactions:
// no lock request of a truncation ever queues, no writer ever waits for a table, and
// nothing is lost. Negative control: without NOWAIT a queue is seen.
func TestTruncationNeverQueues(t *testing.T) {
	t.Parallel()
	db := migrated(t, pgtest.Own(t).URL("postgres")) // others' transactions would hold truncation back
	for _, broken := range []bool{false, true} {
		t.Run(map[bool]string{false: "kept", true: "negative control"}[broken], func(t *testing.T) {
			p := &recorder{}
			r := newRelay(t, db.relay, Config{Pipelines: []Pipeline{{Name: fmt.Sprint("broken ", broken), To: p}}, Retention: 120 * time.Millisecond})
			r.tune.retainTick = 5 * time.Millisecond
			if broken {
				r.q.slotLock = strings.TrimSuffix(r.q.slotLock, " NOWAIT")
				require.NotEqual(t, inSchema(sqlSlotLock, "outbox"), r.q.slotLock)
				db.exec(t, `DELETE FROM outbox.pipeline`)
			}
			stop := running(t, r)
			eventually(t, r.owns, "registered")

			stopWriters := make(chan struct{})
			var writers sync.WaitGroup
			var written [4]int
			for w := range written {
				writers.Go(func() {
					for ; ; written[w]++ {
						select {
						case <-stopWriters:
							return
						default:
							writeFor(t, db, fmt.Sprint(w), time.Duration(written[w]%20)*time.Millisecond)
						}
					}
				})
			}
			began := scan[int](t, db.admin, `SELECT pg_sequence_last_value('outbox.slot_seq')`)
			queued, advanced := 0, 0
			eventually(t, func() bool {
				queued += scan[int](t, db.admin, `SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'relation' AND NOT l.granted AND (l.mode = 'AccessExclusiveLock' OR a.usename = 'outbox_writer')`)
				advanced = scan[int](t, db.admin, `SELECT pg_sequence_last_value('outbox.slot_seq')`) - began
				return broken && queued > 0 || !broken && advanced >= 4*slots
			}, "slots are advanced, which needs truncated ones")
			close(stopWriters)
			writers.Wait()
			if broken {
				return
			}
			require.Zero(t, queued, "requests for a table's lock that waited")
			sum := 0
			for _, n := range written {
				sum += n
			}
			eventually(t, func() bool { return len(p.messages()) >= sum }, "published")
			require.NoError(t, stop())
			require.Len(t, p.messages(), sum)
			t.Logf("%d events, slots advanced %d times", sum, advanced)
		})
	}
}

// writeFor is a writer's transaction of a given length.
func writeFor(t *testing.T, db *database, key string, d time.Duration) {
	tx, err := db.writer.Begin(t.Context())
	if err == nil {
		_, err = tx.Exec(t.Context(), insert, key, "x")
	}
	if err == nil {
		_, err = tx.Exec(t.Context(), `SELECT pg_sleep($1)`, d.Seconds())
	}
	if err == nil {
		err = tx.Commit(t.Context())
	}
	if err != nil {
		t.Error(err)
	}
}
