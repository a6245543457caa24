package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/outboxkit/outboxkit/internal/services/postgres"
	"github.com/outboxkit/outboxkit/migrate"
)

// The switch of docs/migrating.md, as it stands there, while writers write: each event
// is seen by Debezium's slot or stands in the log, none by both, none by neither, and
// of one writer Debezium has the first ones.
func TestMoveFromDebezium(t *testing.T) {
	t.Parallel()
	server, err := postgres.Start(t.Context(), postgres.Config{Settings: map[string]string{"wal_level": "logical", "max_connections": "50"}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Close(context.Background())) })
	url := server.URL("postgres")
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer conn.Close(context.Background())
	require.NoError(t, migrate.Outbox("").Up(t.Context(), conn))
	steps := namedBlocks(t, "migrating.md")
	run := func(sql string) { t.Helper(); require.NoError(t, execScript(t.Context(), conn, sql)) }
	run(steps["table"])
	run(`CREATE TABLE orders (n bigserial)`)
	run(`SELECT pg_create_logical_replication_slot('debezium', 'pgoutput')`)
	run(steps["publication"])
	run(steps["function"])
	run(slowAlterPublication)

	w := &oldWriters{url: url, stop: make(chan struct{})}
	var writers errgroup.Group
	for n := range 4 {
		writers.Go(func() error { return w.write(t.Context(), n) })
	}
	const some = 300
	w.wait(t, some)
	for {
		err := execScript(t.Context(), conn, steps["switch"])
		var pg *pgconn.PgError
		if errors.As(err, &pg) && pg.Code == "55P03" { // lock not available: try again, as the document says
			run(`ROLLBACK`)
			continue
		}
		require.NoError(t, err)
		break
	}
	w.wait(t, w.count()+some)
	close(w.stop)
	require.NoError(t, writers.Wait())

	w.requireSplit(t, seenBySlot(t, conn), inLog(t, conn))
}

// slowAlterPublication gives the writers time between the trigger and the publication,
// if a switch were to let them in there.
const slowAlterPublication = `CREATE FUNCTION slowly() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.1); END $$;
CREATE EVENT TRIGGER slowly ON ddl_command_start WHEN TAG IN ('ALTER PUBLICATION') EXECUTE FUNCTION slowly()`

// namedBlocks are a document's blocks of SQL that have a name.
func namedBlocks(t *testing.T, document string) map[string]string {
	t.Helper()
	named := map[string]string{}
	for _, b := range parseFile(t, filepath.Join(docsFolder, document)) {
		if name := b.args["name"]; name != "" {
			named[name] = b.body
		}
	}
	for _, name := range []string{"table", "publication", "function", "switch"} {
		require.NotEmpty(t, named[name], name)
	}
	return named
}

func execScript(ctx context.Context, conn *pgx.Conn, script string) error {
	_, err := conn.PgConn().Exec(ctx, script).ReadAll()
	return err
}

// oldWriters are services that know the old table only.
type oldWriters struct {
	url  string
	stop chan struct{}

	mu        sync.Mutex
	committed [4][]string // ids by writer, in order
}

func (w *oldWriters) count() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, ids := range w.committed {
		n += len(ids)
	}
	return n
}

func (w *oldWriters) wait(t *testing.T, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return w.count() >= n }, time.Minute, 5*time.Millisecond)
}

// write has its transaction id before it comes to the old table, so that transactions
// are open across the switch; every fifth one rolls back.
func (w *oldWriters) write(ctx context.Context, number int) error {
	conn, err := pgx.Connect(ctx, w.url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for i := 0; ; i++ {
		select {
		case <-w.stop:
			return nil
		default:
		}
		var id string
		tx, err := conn.Begin(ctx)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO orders DEFAULT VALUES`); err != nil {
			return err
		}
		err = tx.QueryRow(ctx, `INSERT INTO outboxevent VALUES (gen_random_uuid(), 'orders', $1, 'OrderCreated', '{"a": 1}') RETURNING id::text`,
			fmt.Sprintf("order-%d", number)).Scan(&id)
		if err != nil {
			return err
		}
		if i%5 == 4 {
			if err := tx.Rollback(ctx); err != nil {
				return err
			}
			continue
		}
		if err := tx.Commit(ctx); err != nil {
			return err
		}
		w.mu.Lock()
		w.committed[number] = append(w.committed[number], id)
		w.mu.Unlock()
	}
}

// requireSplit: counts are of each id, by side.
func (w *oldWriters) requireSplit(t *testing.T, slot, log map[string]int) {
	t.Helper()
	const first = "4d47e190-0402-4048-bc2c-89dd54343cdc" // of the document
	require.Equal(t, 1, slot[first])
	require.Len(t, log, w.count()+1-len(slot), "nothing but what was committed, each once on one side")
	require.Greater(t, len(slot), 1)
	require.NotEmpty(t, log)
	for number, ids := range w.committed {
		moved := false
		for i, id := range ids {
			require.Equal(t, 1, slot[id]+log[id], "event %d of writer %d: by the slot %d times, in the log %d times", i, number, slot[id], log[id])
			require.False(t, moved && slot[id] > 0, "event %d of writer %d is on the old side behind one on the new", i, number)
			moved = moved || log[id] > 0
		}
		require.True(t, moved, "writer %d has written after the switch", number)
	}
}

// seenBySlot reads what pgoutput publishes: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
func seenBySlot(t *testing.T, conn *pgx.Conn) map[string]int {
	t.Helper()
	rows, err := conn.Query(t.Context(), `SELECT data FROM pg_logical_slot_get_binary_changes('debezium', NULL, NULL,
		'proto_version', '1', 'publication_names', 'dbz_publication')`)
	require.NoError(t, err)
	messages, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	require.NoError(t, err)
	seen := map[string]int{}
	// Insert: 'I', relation (4), 'N', columns (2), then of the first one 't', length (4).
	const before, uuid = 1 + 4 + 1 + 2 + 1 + 4, 36
	for _, m := range messages {
		if m[0] != 'I' {
			continue
		}
		require.Greater(t, len(m), before+uuid)
		seen[string(m[before:before+uuid])]++
	}
	return seen
}

func inLog(t *testing.T, conn *pgx.Conn) map[string]int {
	t.Helper()
	rows, err := conn.Query(t.Context(), `SELECT headers->>'id' FROM outbox.event`)
	require.NoError(t, err)
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	seen := map[string]int{}
	for _, id := range ids {
		seen[id]++
	}
	return seen
}
