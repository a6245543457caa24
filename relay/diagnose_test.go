package relay

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/pgtest"
)

// findings are those of one check.
func findings(t testing.TB, list []Finding, check string) (found []Finding) {
	t.Helper()
	for _, f := range list {
		if f.Check == check {
			found = append(found, f)
		}
	}
	require.NotEmpty(t, found, "no check %q in %+v", check, list)
	return found
}

// requireFinding wants a verdict and texts in one finding of a check, and a cure.
func requireFinding(t testing.TB, list []Finding, check, verdict string, texts ...string) Finding {
	t.Helper()
	for _, f := range findings(t, list, check) {
		all := f.Verdict == verdict
		for _, text := range texts {
			all = all && strings.Contains(f.Detail+" "+f.Cure, text)
		}
		if all {
			require.NotEmpty(t, f.Cure)
			return f
		}
	}
	require.Failf(t, "no such finding", "%s %q in %+v", verdict, texts, findings(t, list, check))
	return Finding{}
}

// Where nothing is wrong every check says so; then the log's slots, held by one cause
// after the other.
func TestDiagnoseHealthyAndHeldSlots(t *testing.T) {
	t.Parallel()
	db := migrated(t, pgtest.Own(t).URL("postgres")) // others' transactions would be found
	db.exec(t, `GRANT pg_read_all_stats TO outbox_relay`)
	diagnose := func() []Finding {
		return Diagnose(t.Context(), db.relay, DiagnoseConfig{Pipelines: map[string]Filter{"test": {}}, Long: 10 * time.Millisecond})
	}
	p := &recorder{}
	r := newRelay(t, db.relay, config(p))
	r.tune.retainTick = time.Hour
	stop := running(t, r)
	db.write(t, "k", "1")
	eventually(t, func() bool { return len(p.messages()) == 1 && r.caughtUp() }, "published")
	list := Diagnose(t.Context(), db.relay, DiagnoseConfig{Pipelines: map[string]Filter{"test": {}}})
	var names []string
	for _, f := range list {
		require.Equal(t, VerdictOK, f.Verdict, "%+v", f)
		require.NotEmpty(t, f.Detail)
		require.Empty(t, f.Cure)
		names = append(names, f.Check)
	}
	require.Equal(t, []string{
		"postgres", "migrations", "clock", "durability", "grants", "identity", "incarnation", "leases", "pipelines", "transactions",
		"prepared transactions", "replication slots", "log slots", "indexes", "page plan", "sequence", "parked",
	}, names)

	// An event that is written after an open transaction's lies above its id.
	tx := begin(t, db)
	txWrite(t, tx, "late", "late")
	db.write(t, "k", "2")
	eventually(t, func() bool { return len(p.messages()) == 2 && r.caughtUp() }, "published")
	require.NoError(t, stop())
	slot := db.slot(t)
	db.old(t, slot)
	db.exec(t, `SELECT setval('outbox.slot_seq', $1)`, slot+1)
	pid := fmt.Sprintf("pid %d ", tx.Conn().PgConn().PID())
	eventually(t, func() bool { return findings(t, diagnose(), "transactions")[0].Verdict == VerdictWarning }, "old enough")
	list = diagnose()
	requireFinding(t, list, "transactions", VerdictWarning, pid, "outbox_writer", "INSERT INTO outbox.event", "pg_terminate_backend", "no slot of the log")
	requireFinding(t, list, "log slots", VerdictWarning, fmt.Sprintf("slot %d", slot), "pipeline test has not passed it", pid)

	// The transaction has gone, but nobody moves the position.
	require.NoError(t, tx.Rollback(t.Context()))
	requireFinding(t, diagnose(), "log slots", VerdictWarning, "published by nobody", "relay pipeline drop test")

	// All have passed it: somebody should truncate.
	r = newRelay(t, db.relay, config(p))
	r.tune.retainTick = time.Hour
	stop = running(t, r)
	db.write(t, "k", "3")
	eventually(t, func() bool { return len(p.messages()) == 3 && r.caughtUp() }, "published")
	storePast(t, db, r, slot)
	requireFinding(t, diagnose(), "log slots", VerdictWarning, "no relay truncates it")

	// But not while somebody reads it.
	reader, err := db.admin.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	require.NoError(t, err)
	defer func() { _ = reader.Rollback(context.Background()) }()
	_, err = reader.Exec(t.Context(), fmt.Sprintf(`SELECT count(*) FROM outbox.event_%d`, slot))
	require.NoError(t, err)
	eventually(t, func() bool {
		for _, f := range findings(t, diagnose(), "log slots") {
			if strings.Contains(f.Detail, fmt.Sprintf("has it open: pid %d ", reader.Conn().PgConn().PID())) {
				return true
			}
		}
		return false
	}, "the reader")
	require.NoError(t, stop())
}

// The relay's role sees that transactions are open, but not since when.
func TestDiagnoseTransactions(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	tx := begin(t, db)
	txWrite(t, tx, "k", "1")
	list := Diagnose(t.Context(), db.relay, DiagnoseConfig{Long: time.Millisecond})
	found := findings(t, list, "transactions")
	require.Equal(t, VerdictUnknown, found[len(found)-1].Verdict)
	require.Contains(t, found[len(found)-1].Cure, "pg_read_all_stats")

	name := "diagnosed " + db.newID(t)
	conn, err := db.admin.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	for _, statement := range []string{`BEGIN`, `UPDATE outbox.meta SET shards = shards`, `PREPARE TRANSACTION '` + name + `'`} {
		_, err = conn.Exec(t.Context(), statement)
		require.NoError(t, err)
	}
	slot := "diagnosed_" + strings.ReplaceAll(db.newID(t), "-", "")
	db.exec(t, `SELECT pg_create_physical_replication_slot($1, true)`, slot)
	defer func() {
		_, err := db.admin.Exec(context.Background(), `SELECT pg_drop_replication_slot($1)`, slot)
		require.NoError(t, err)
	}()
	eventually(t, func() bool {
		return scan[bool](t, db.admin, `SELECT clock_timestamp() > prepared + interval '2 ms' FROM pg_prepared_xacts WHERE gid = $1`, name)
	}, "old enough")
	list = Diagnose(t.Context(), db.relay, DiagnoseConfig{Long: time.Millisecond})
	requireFinding(t, list, "prepared transactions", VerdictWarning, name, "ROLLBACK PREPARED '"+name+"'")
	requireFinding(t, list, "replication slots", VerdictWarning, slot, "used by nobody", "pg_drop_replication_slot")
	_, err = conn.Exec(t.Context(), `ROLLBACK PREPARED '`+name+`'`)
	require.NoError(t, err)
}

// Each check finds what it is there for.
func TestDiagnoseFinds(t *testing.T) {
	t.Parallel()
	fast := DiagnoseConfig{}
	for name, c := range map[string]struct {
		breaks         string
		cfg            DiagnoseConfig
		check, verdict string
		texts          []string
	}{
		"not migrated":     {`ALTER SCHEMA outbox RENAME TO away`, fast, "migrations", VerdictFailure, []string{"relay migrate up"}},
		"an old migration": {`UPDATE outbox.schema_version SET version = 0`, fast, "migrations", VerdictFailure, []string{"version 0", "relay migrate up"}},
		"a newer one":      {`UPDATE outbox.schema_version SET version = 99`, fast, "migrations", VerdictWarning, []string{"version 99"}},
		"commits may be forgotten": {`ALTER DATABASE {db} SET synchronous_commit = off`,
			fast, "durability", VerdictWarning, []string{"synchronous_commit"}},
		"relay's grants": {`REVOKE TRUNCATE ON outbox.event_3 FROM outbox_relay; REVOKE UPDATE ON SEQUENCE outbox.slot_seq FROM outbox_relay`,
			fast, "grants", VerdictFailure, []string{`GRANT TRUNCATE ON TABLE outbox.event_3 TO "outbox_relay"`, `GRANT UPDATE ON SEQUENCE outbox.slot_seq TO "outbox_relay"`}},
		"writer's grants": {`REVOKE INSERT (headers) ON outbox.event FROM outbox_writer`,
			fast, "grants", VerdictFailure, []string{`GRANT INSERT (headers) ON TABLE outbox.event TO "outbox_writer"`}},
		"a writer with too many": {`GRANT INSERT ON outbox.event TO outbox_writer`,
			fast, "grants", VerdictFailure, []string{"REVOKE INSERT ON outbox.event"}},
		"an unknown writer": {`SELECT`, DiagnoseConfig{Writer: "nobody_at_all"}, "grants", VerdictUnknown, []string{"nobody_at_all"}},
		"another cluster":   {`UPDATE outbox.meta SET system_identifier = 1`, fast, "identity", VerdictFailure, []string{"another cluster", "relay rebase"}},
		"no identity":       {`DELETE FROM outbox.meta`, fast, "identity", VerdictFailure, []string{"relay rebase"}},
		"an earlier cluster": {`INSERT INTO outbox.position (pipeline, shards, owner, s, h, b) VALUES ('x', '{0}', '', '3:3:', 0, '9000000000000')`,
			fast, "identity", VerdictFailure, []string{"ahead of the cluster's"}},
		"a recovery": {`INSERT INTO outbox.instance (name, expires_at) VALUES ('a', clock_timestamp() + interval '1 hour'); TRUNCATE outbox.incarnation`,
			fast, "incarnation", VerdictWarning, []string{"1 running relays"}},
		"a silent relay": {`INSERT INTO outbox.instance (name, beat_at, expires_at) VALUES ('a', clock_timestamp() - interval '1 hour', clock_timestamp() - interval '1 hour')`,
			fast, "leases", VerdictWarning, []string{"relay a has not been heard of"}},
		"nobody runs": {`INSERT INTO outbox.pipeline (name) VALUES ('x'); INSERT INTO outbox.lease (pipeline, shard) SELECT 'x', g FROM generate_series(0, 63) g`,
			fast, "leases", VerdictFailure, []string{"64 of 64 shards of pipeline x", "relay run"}},
		"stale leases": {`INSERT INTO outbox.pipeline (name) VALUES ('x'); INSERT INTO outbox.lease (pipeline, shard, owner) SELECT 'x', g, 'gone' FROM generate_series(0, 63) g;
			INSERT INTO outbox.instance (name, expires_at) VALUES ('a', clock_timestamp() + interval '1 hour')`,
			fast, "leases", VerdictWarning, []string{"64 are still leased to silent relays", "1 relays run"}},
		"a forgotten pipeline":      {`INSERT INTO outbox.pipeline (name) VALUES ('x'), ('y')`, DiagnoseConfig{Pipelines: map[string]Filter{"x": {}}}, "pipelines", VerdictWarning, []string{"relay pipeline drop y"}},
		"a pipeline that never ran": {`SELECT`, DiagnoseConfig{Pipelines: map[string]Filter{"x": {}}}, "pipelines", VerdictWarning, []string{"pipeline x", "relay run"}},
		"another filter": {`INSERT INTO outbox.pipeline (name, filter) VALUES ('x', '{"types": ["a"]}')`, DiagnoseConfig{Pipelines: map[string]Filter{"x": {}}},
			"pipelines", VerdictFailure, []string{`types ["a"]`, "all events", "relay pipeline filter x"}},
		"a lost index": {`DROP INDEX outbox.parked_due_idx`, fast, "indexes", VerdictFailure, []string{"parked_due_idx"}},
		"a lost plan": {`DROP INDEX outbox.event_id_slot_idx; INSERT INTO outbox.event (topic, type, source, payload)
			SELECT 't', 'x', '/', convert_to(repeat('x', 200), 'UTF8') FROM generate_series(1, 40000); ANALYZE outbox.event`,
			fast, "page plan", VerdictWarning, []string{"all of event_", "ANALYZE"}},
		"a cached sequence": {`ALTER SEQUENCE outbox.event_id_seq CACHE 32`, fast, "sequence", VerdictFailure, []string{"CACHE 32"}},
		"dead events": {`INSERT INTO outbox.pipeline (name) VALUES ('x');
			INSERT INTO outbox.parked (pipeline, event_id, topic, destination, key, type, source, time, state, blocks) VALUES ('x', outbox.uuid_v7(), 't', 't', 'k', 'x', '/', now(), 'dead', true)`,
			fast, "parked", VerdictWarning, []string{"1 events of pipeline x are dead", "relay dlq list"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			breaks := strings.ReplaceAll(c.breaks, "{db}", scan[string](t, db.admin, `SELECT current_database()`))
			_, err := db.admin.Exec(t.Context(), breaks, pgx.QueryExecModeSimpleProtocol)
			require.NoError(t, err)
			pool := poolAs(t, db.url, "outbox_relay", 4) // settings count for new sessions
			list := Diagnose(t.Context(), pool, c.cfg)
			requireFinding(t, list, c.check, c.verdict, c.texts...)
		})
	}
}

// fsync is the server's; the shared one of tests runs without.
func TestDiagnoseDurability(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	want := VerdictOK
	if scan[string](t, db.admin, `SHOW fsync`) == "off" {
		want = VerdictFailure
	}
	require.Equal(t, want, findings(t, Diagnose(t.Context(), db.relay, DiagnoseConfig{}), "durability")[0].Verdict)
}

func TestDiagnoseWithoutADatabase(t *testing.T) {
	t.Parallel()
	list := Diagnose(t.Context(), poolAs(t, "postgres://nobody:hunter2@127.0.0.1:1/none", "", 1), DiagnoseConfig{})
	require.Len(t, list, 1)
	requireFinding(t, list, "postgres", VerdictFailure, "does not answer")
	require.NotContains(t, list[0].Detail, "hunter2")
	list = Diagnose(t.Context(), poolAs(t, "postgres://127.0.0.1:1/none", "", 1), DiagnoseConfig{Schema: "No"})
	require.Len(t, list, 1)
	require.Contains(t, list[0].Detail, "is not a schema name")
}

func TestDiagnoseAStandby(t *testing.T) {
	t.Parallel()
	primary := pgtest.Own(t)
	migrated(t, primary.URL("postgres"))
	standby, err := primary.Standby(t.Context(), nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, standby.Close(context.Background())) })
	list := Diagnose(t.Context(), poolAs(t, standby.URL("postgres"), "", 2), DiagnoseConfig{})
	require.Len(t, list, 1)
	requireFinding(t, list, "postgres", VerdictFailure, "standby", "primary")
}

func TestDiagnoseClock(t *testing.T) {
	t.Parallel()
	server := ownClock(t)
	db := migrated(t, server.URL("postgres"))
	for ahead, verdict := range map[time.Duration]string{10 * time.Second: VerdictWarning, 2 * time.Hour: VerdictFailure, -10 * time.Second: VerdictWarning} {
		require.NoError(t, server.SetClock(ahead))
		eventually(t, func() bool {
			off := time.Until(scan[time.Time](t, db.admin, `SELECT clock_timestamp()`))
			return (off - ahead).Abs() < 3*time.Second
		}, "the clock is set")
		requireFinding(t, Diagnose(t.Context(), db.relay, DiagnoseConfig{}), "clock", verdict, "NTP")
	}
}
