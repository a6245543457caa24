package e2e

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/svctest"
	"github.com/outboxkit/outboxkit/relay"
)

// maxResident is what docs/benchmarks.md promises of drain_rss_mib.
const maxResident = 150 << 20

// A relay process drains a backlog of 1,001 keys, a tenth of it of one key whose first
// event Kafka refuses: all its others are parked behind that, and published when it is
// discarded. The process's memory stays within its bound. OUTBOXKIT_BACKLOG is the number
// of events; a million take a few minutes.
func TestMemoryIsBoundedWithABlockedKey(t *testing.T) {
	events, err := strconv.Atoi(cmp.Or(os.Getenv("OUTBOXKIT_BACKLOG"), "150000"))
	require.NoError(t, err, "OUTBOXKIT_BACKLOG")
	patience := 30*time.Second + time.Duration(events)*500*time.Microsecond
	kafkaBrokers := svctest.RealKafka(t)
	topic := createTopic(t, kafkaBrokers, 6)
	databaseURL, shop := producerDatabase(t)
	insert := `INSERT INTO outbox.event (topic, key, type, source, payload) SELECT $1, `
	tooLarge := make([]byte, 3<<20) // Kafka takes 1 MiB
	_, _ = rand.Read(tooLarge)      // never fails
	_, err = shop.Exec(t.Context(), insert+`'blocked', 'test', '/test', $2::bytea`, topic, tooLarge)
	require.NoError(t, err)
	_, err = shop.Exec(t.Context(), insert+`CASE WHEN g % 10 = 0 THEN 'blocked' ELSE 'key-' || g % 1009 END, 'test', '/test', decode(repeat(md5(g::text), 18), 'hex')
FROM generate_series(1, $2::int) g`, topic, events)
	require.NoError(t, err)
	blocked := events / 10

	began := time.Now()
	p := startRelay(t, as(t, databaseURL, "outbox_relay"), fmt.Sprintf("    kafka: {brokers: [%q]}\n", kafkaBrokers[0]))
	client, err := sarama.NewClient(kafkaBrokers, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	published := func() (n int) {
		for partition := range int32(6) {
			end, err := client.GetOffset(topic, partition, sarama.OffsetNewest)
			require.NoError(t, err)
			n += int(end)
		}
		return n
	}
	wait := func(condition func() bool, what string) {
		t.Helper()
		require.Eventually(t, condition, patience, 100*time.Millisecond, what)
		t.Logf("%s after %.1f s, at most %d MiB resident", what, time.Since(began).Seconds(), resident(t, p)>>20)
	}
	wait(func() bool { return published() >= events-blocked && count(t, shop, "outbox.parked") == blocked+1 }, "drained")
	require.Equal(t, events-blocked, published())
	relayPool, err := pgxpool.New(t.Context(), as(t, databaseURL, "outbox_relay"))
	require.NoError(t, err)
	t.Cleanup(relayPool.Close)
	n, err := relay.Discard(t.Context(), relayPool, "", relay.ParkedFilter{State: "dead"}, relay.ParkedAction{By: "test", Reason: "too large"})
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	wait(func() bool { return published() >= events }, "the blocked key's events published")
	require.Equal(t, events, published())
	require.LessOrEqual(t, resident(t, p), maxResident)
}

// resident is the most memory that a process has had so far, in bytes.
func resident(t *testing.T, p *process) int {
	t.Helper()
	p.mu.Lock()
	pid := p.cmd.Process.Pid
	p.mu.Unlock()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.Atoi(strings.Fields(rest)[0])
			require.NoError(t, err)
			return kib << 10
		}
	}
	t.Fatal("no VmHWM in /proc/pid/status")
	return 0
}
