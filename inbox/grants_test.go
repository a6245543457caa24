package inbox_test

import (
	"context"
	"net/url"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/dedup"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/migrate"
)

// asRole returns the world as a role sees it that has the printed grants alone,
// and rights on the business table.
func asRole(w *world) *world {
	w.t.Helper()
	role := "consumer_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	w.exec(`CREATE ROLE ` + role + ` LOGIN PASSWORD 'secret'`)
	w.t.Cleanup(func() {
		_, err := w.pool.Exec(context.Background(), `DROP OWNED BY `+role+`; DROP ROLE `+role)
		require.NoError(w.t, err)
	})
	grants, err := migrate.Inbox("").Grants(migrate.Roles{Consumer: role})
	require.NoError(w.t, err)
	w.exec(grants)
	w.exec(`GRANT INSERT ON effect TO ` + role)
	u, err := url.Parse(w.url)
	require.NoError(w.t, err)
	u.User = url.UserPassword(role, "secret")
	narrow := *w
	narrow.pool = connect(w.t, u.String())
	return &narrow
}

// TestConsumerRole walks every statement of the inbox with the printed grants.
func TestConsumerRole(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.established("inventory")
	w.established("wide")
	narrow := asRole(w)
	foreign, old := message("foreign", 1), message("old", 1)
	foreign.ID, old.ID = "1", "018f0000-0000-7000-8000-000000000001"
	bad, behind := message("bad", 1), message("bad", 2)
	w.publish(message("a", 1), foreign, foreign, old, bad, behind)
	cfg, _ := routed(w, &scripted{})
	in := narrow.start(cfg, func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
		if e.Key == "bad" {
			return errBroken
		}
		return insert("inventory")(ctx, tx, e)
	})
	w.settled("inventory")
	require.NoError(t, in.end())
	require.Equal(t, inbox.Stats{Handled: 2, Duplicates: 1, Failures: 3, DeadLettered: 2, Blocked: 1}, in.Stats())
	require.Equal(t, 2, w.count(`SELECT count(*) FROM inbox.dead WHERE state = 'moved'`))

	// Every slot can be claimed in: 31 days back.
	cfg = narrow.config("wide")
	cfg.WindowDays = 31
	in = narrow.start(cfg, insert("wide"))
	var days []brokers.Message
	for day := range 31 {
		days = append(days, withID("/a", v7At(timeDaysAgo(day))))
	}
	w.publish(days...)
	w.settled("wide")
	require.NoError(t, in.end())
	require.Equal(t, 31, w.count(`SELECT count(DISTINCT slot) FROM inbox.seen JOIN inbox.consumer c ON c.id = consumer AND c.name = 'wide'`))

	// Old slots are emptied.
	w.exec(`UPDATE inbox.consumer SET window_days = 7`)
	store, err := dedup.NewPostgres(t.Context(), narrow.pool, dedup.Config{Consumer: "inventory"})
	require.NoError(t, err)
	emptied := 0 // a slot that something else holds, such as autovacuum, is left for the next time
	eventually(t, "the slots of 9 to 30 days before today to be emptied", func() bool {
		n, err := store.Maintain(t.Context())
		emptied += n
		return !assert.NoError(t, err) || emptied >= 22
	})
	require.Equal(t, 22, emptied)

	// And no more than that.
	for _, forbidden := range []string{
		`DELETE FROM inbox.dead`, `UPDATE inbox.dead SET payload = ''`, `DELETE FROM inbox.seen_0`,
		`TRUNCATE inbox.seen_0`, `UPDATE inbox.consumer SET name = 'x'`, `DELETE FROM inbox.seen_foreign`, `CREATE TABLE inbox.x ()`,
	} {
		_, err := narrow.pool.Exec(t.Context(), forbidden)
		require.ErrorContains(t, err, "permission denied", forbidden)
	}
}
