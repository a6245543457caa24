package relay

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/pgtest"
)

// skip fails where all services are required.
func skip(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("OUTBOXKIT_REQUIRE_SERVICES") == "1" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// restored dumps db and restores it at another URL.
func restored(t *testing.T, db *database, url string) *database {
	t.Helper()
	for _, tool := range []string{"pg_dump", "psql"} {
		if _, err := exec.LookPath(tool); err != nil {
			skip(t, tool+" is not installed (Debian: apt-get install postgresql-client)")
		}
	}
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), roles)
	require.NoError(t, err)
	dump := filepath.Join(t.TempDir(), "dump.sql")
	out, err := exec.CommandContext(t.Context(), "pg_dump", "--dbname", db.url, "--no-owner", "--file", dump).CombinedOutput()
	require.NoError(t, err, string(out))
	out, err = exec.CommandContext(t.Context(), "psql", "--dbname", url, "-v", "ON_ERROR_STOP=1", "-q", "-f", dump).CombinedOutput()
	require.NoError(t, err, string(out))
	return opened(t, url)
}

// A dump that is restored in another cluster, or in another database of the same
// one, is refused; after Rebase what was not published when it was dumped flows,
// and nothing else.
func TestRestoredDump(t *testing.T) {
	t.Parallel()
	for name, target := range map[string]func(t *testing.T) string{
		"another database": func(t *testing.T) string { return pgtest.URL(t) },
		"another cluster":  func(t *testing.T) string { return pgtest.Own(t).URL("postgres") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			late := begin(t, db)
			txWrite(t, late, "late", "late")
			p := &recorder{}
			r := newRelay(t, db.relay, config(p))
			stop := running(t, r)
			for i := range 5 {
				db.write(t, fmt.Sprint("key", i), fmt.Sprint(i))
			}
			eventually(t, func() bool { return len(p.messages()) == 5 && r.caughtUp() }, "published")
			require.NoError(t, stop())
			require.NoError(t, late.Commit(t.Context())) // passed by id, not by snapshot
			for i := range 3 {
				db.write(t, fmt.Sprint("key", i), fmt.Sprint("unpublished ", i))
			}
			db2 := restored(t, db, target(t))
			p2 := &recorder{}
			require.ErrorIs(t, newRelay(t, db2.relay, config(p2)).Run(t.Context()), ErrForeignCluster)
			require.ErrorContains(t, newRelay(t, db2.relay, config(p2)).Run(t.Context()), "relay rebase")

			require.NoError(t, Rebase(t.Context(), db2.admin, ""))
			db2.write(t, "key0", "after")
			r2 := newRelay(t, db2.relay, config(p2))
			stop = running(t, r2)
			eventually(t, func() bool { return len(p2.messages()) >= 5 && r2.caughtUp() }, "flows")
			db2.write(t, "key1", "later")
			eventually(t, func() bool { return len(p2.messages()) >= 6 && r2.caughtUp() }, "flows on")
			require.NoError(t, stop())
			require.Equal(t, []string{"late", "unpublished 0", "unpublished 1", "unpublished 2", "after", "later"}, p2.payloads())
		})
	}
}

// Stored transaction ids ahead of the cluster's are refused even if the identity
// has been forged.
func TestXidsAheadOfTheCluster(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec(t, `INSERT INTO outbox.event (xid, topic, type, source) VALUES (pg_current_xact_id()::text::bigint::text::xid8, 't', 'x', '/s')`)
	r := newRelay(t, db.relay, config(&recorder{}))
	require.NoError(t, r.identify(t.Context()))
	db.exec(t, `UPDATE outbox.event SET xid = (pg_current_xact_id()::text::bigint + 1000000000)::text::xid8`)
	require.ErrorIs(t, r.Run(t.Context()), ErrForeignCluster)
	db.exec(t, `DELETE FROM outbox.event`)
	require.NoError(t, r.identify(t.Context()))
	db.exec(t, `INSERT INTO outbox.pipeline (name) VALUES ('x')`)
	db.exec(t, `INSERT INTO outbox.position (pipeline, shards, owner, s, h, b)
VALUES ('x', '{0}', '', '3:3:', 0, (pg_current_xact_id()::text::bigint + 1000000000)::text::xid8)`)
	require.ErrorIs(t, r.identify(t.Context()), ErrForeignCluster)
}

// Rebase with a live relay beside it, which is against its advice, still loses
// nothing: the relay notices and starts again from the new positions.
func TestRebaseUnderALiveRelay(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	p := &recorder{}
	r := newRelay(t, db.relay, config(p))
	running(t, r)
	db.write(t, "k", "1")
	eventually(t, func() bool { return len(p.messages()) == 1 && r.caughtUp() }, "before")
	first := r.engines[0].session()
	require.NoError(t, Rebase(t.Context(), db.admin, "outbox"))
	db.write(t, "k", "2")
	eventually(t, func() bool { l := p.payloads(); return l[len(l)-1] == "2" }, "after")
	require.NotSame(t, first, r.engines[0].session())
}
