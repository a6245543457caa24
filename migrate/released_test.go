package migrate_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/migrate"
)

// released are the migrations of the previous release, which databases out there have
// run. They stay as they are: a change of the tables is a migration of its own. With a
// release this list grows, and docs/upgrading.md with it.
var released = map[string]string{
	"inbox/001_inbox.sql":   "14ad06e9a6bef1ee8cdf9eaf0e38d7cb30ef0c99faece8c77f69221f6dfbc125",
	"outbox/001_outbox.sql": "6ec8eaac126cb3e37d4a17937ff7fb9051d149b929223875c4ff4ca622fcb13f",
}

// releasedVersion is the version of a schema that the previous release made.
func releasedVersion(kind string) (n int32) {
	for file := range released {
		if strings.HasPrefix(file, kind+"/") {
			n++
		}
	}
	return n
}

// contracted are parts of the contract that a migration takes away although the
// previous release has them, each with the reason why nobody uses them. See "Expand,
// then contract" in docs/upgrading.md.
var contracted = map[string]string{}

func TestReleasedMigrationsAreFrozen(t *testing.T) {
	t.Parallel()
	for file, want := range released {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		sum := sha256.Sum256(text)
		require.Equalf(t, want, hex.EncodeToString(sum[:]), "%s has been released: databases that ran it would lack the change. Make a new migration", file)
	}
	for _, kind := range []string{"inbox", "outbox"} {
		files, err := filepath.Glob(kind + "/*.sql")
		require.NoError(t, err)
		slices.Sort(files)
		for _, file := range files[:releasedVersion(kind)] {
			require.Containsf(t, released, file, "%s stands before released migrations", file)
		}
	}
}

// TestMigrationsExpand: what the previous release's writers, relays and consumers use
// is still there after all migrations, and nothing refuses what they write.
func TestMigrationsExpand(t *testing.T) {
	t.Parallel()
	for _, set := range []migrate.Set{migrate.Outbox(""), migrate.Inbox("")} {
		before, after := connect(t, pgtest.URL(t)), connect(t, pgtest.URL(t))
		require.NoError(t, set.Up(t.Context(), after))
		require.NoError(t, set.Up(t.Context(), before))
		require.NoError(t, set.Down(t.Context(), before, releasedVersion(set.Schema())))
		for _, broken := range readContract(t, before, set.Schema()).broken(readContract(t, after, set.Schema())) {
			require.Containsf(t, contracted, broken, "the previous release does not work on the new tables of %s: %s", set.Schema(), broken)
		}
	}
}

// The check itself: each of these changes would stop a process of the previous release.
func TestContractionsAreFound(t *testing.T) {
	t.Parallel()
	conn := connect(t, pgtest.URL(t))
	require.NoError(t, migrate.Outbox("").Up(t.Context(), conn))
	before := readContract(t, conn, "outbox")
	for sql, want := range map[string]string{
		`ALTER TABLE outbox.event DROP COLUMN causation_id`:                                                                     `gone: column event.causation_id`,
		`ALTER TABLE outbox.event RENAME COLUMN key TO ordering_key`:                                                            `gone: column event.key`,
		`ALTER TABLE outbox.position ALTER COLUMN h TYPE numeric`:                                                               `gone: column position.h bigint`,
		`ALTER TABLE outbox.replay RENAME TO replays`:                                                                           `gone: table replay`,
		`ALTER TABLE outbox.event ALTER COLUMN created_at DROP DEFAULT`:                                                         `gone: default of event.created_at`,
		`ALTER TABLE outbox.event ALTER COLUMN time SET NOT NULL`:                                                               `new: event.time must not be NULL`,
		`ALTER TABLE outbox.event ADD COLUMN tenant text NOT NULL`:                                                              `new: event.tenant must be given`,
		`ALTER TABLE outbox.event ADD CONSTRAINT short CHECK (length(key) < 99)`:                                                `new: event: constraint short`,
		`ALTER DOMAIN outbox.event_topic ADD CONSTRAINT lower CHECK (VALUE = lower(VALUE))`:                                     `new: domain event_topic: constraint lower`,
		`CREATE UNIQUE INDEX one_each ON outbox.parked (pipeline)`:                                                              `new: CREATE UNIQUE INDEX one_each`,
		`DROP INDEX outbox.parked_event_idx`:                                                                                    `gone: CREATE UNIQUE INDEX parked_event_idx`,
		`DROP FUNCTION outbox.uuid_v7() CASCADE`:                                                                                `gone: function uuid_v7()`,
		`ALTER SEQUENCE outbox.slot_seq RENAME TO slots`:                                                                        `gone: sequence slot_seq`,
		`CREATE TRIGGER guard BEFORE INSERT ON outbox.event FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()`: `new: event: trigger guard`,
	} {
		found := before.broken(afterSQL(t, conn, sql))
		require.Truef(t, slices.ContainsFunc(found, func(b string) bool { return strings.HasPrefix(b, want) }), "%s\nwanted %q among %q", sql, want, found)
	}
	for _, sql := range []string{
		`ALTER TABLE outbox.event ADD COLUMN tenant text`,
		`ALTER TABLE outbox.event ADD COLUMN tries int NOT NULL DEFAULT 0`,
		`ALTER TABLE outbox.event ALTER COLUMN source DROP NOT NULL`,
		`CREATE TABLE outbox.tenant (name text PRIMARY KEY CHECK (name <> ''))`,
		`CREATE INDEX ON outbox.event (type)`,
		`CREATE FUNCTION outbox.one() RETURNS int LANGUAGE sql AS 'SELECT 1'`,
	} {
		require.Emptyf(t, before.broken(afterSQL(t, conn, sql)), "%s only expands", sql)
	}
}

// afterSQL is the contract that the statement would leave behind.
func afterSQL(t *testing.T, conn *pgx.Conn, sql string) contract {
	t.Helper()
	tx, err := conn.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), sql)
	require.NoError(t, err, sql)
	c := readContract(t, conn, "outbox")
	require.NoError(t, tx.Rollback(t.Context()))
	return c
}

// contract is what a schema offers to those who use it, and what it demands of them.
type contract struct {
	offers  map[string]bool
	demands map[string]string // with the table or column that they are made for
}

// broken lists what the previous release would miss in the new tables, and what they
// demand of it that the old ones did not.
func (c contract) broken(now contract) (found []string) {
	for offer := range c.offers {
		if !now.offers[offer] {
			found = append(found, "gone: "+offer)
		}
	}
	for demand, of := range now.demands {
		if _, old := c.demands[demand]; !old && c.offers[of] {
			found = append(found, "new: "+demand)
		}
	}
	slices.Sort(found)
	return found
}

func readContract(t *testing.T, conn *pgx.Conn, schema string) contract {
	t.Helper()
	c := contract{offers: map[string]bool{}, demands: map[string]string{}}
	rows, err := conn.Query(t.Context(), contractSQL, schema)
	require.NoError(t, err)
	var what, text, of string
	_, err = pgx.ForEachRow(rows, []any{&what, &text, &of}, func() error {
		switch what {
		case "offer":
			c.offers[text] = true
		case "demand":
			c.demands[text] = of
		default:
			return fmt.Errorf("neither offer nor demand: %s", what)
		}
		return nil
	})
	require.NoError(t, err)
	require.NotEmpty(t, c.offers)
	return c
}

// contractSQL reads the catalogue. Partitions have what their table has.
const contractSQL = `
WITH tab AS (
	SELECT oid, relname FROM pg_class
	WHERE relnamespace = $1::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition AND relname <> 'schema_version'
), col AS (
	SELECT relname, attname, format('%s.%s', relname, attname) AS name, format_type(atttypid, atttypmod) AS type,
		attnotnull, attgenerated <> '' AS generated, atthasdef OR attidentity <> '' AS has_default
	FROM tab JOIN pg_attribute ON attrelid = tab.oid AND attnum > 0 AND NOT attisdropped
), uni AS (
	SELECT relname, pg_get_indexdef(indexrelid) AS def FROM tab JOIN pg_index ON indrelid = tab.oid WHERE indisunique
), dom AS (
	SELECT oid, typname FROM pg_type WHERE typnamespace = $1::regnamespace AND typtype = 'd'
)
SELECT 'offer', 'table ' || relname, '' FROM tab
UNION ALL SELECT 'offer', 'column ' || name, '' FROM col
UNION ALL SELECT 'offer', format('column %s %s', name, type) || CASE WHEN generated THEN ' generated' ELSE '' END, '' FROM col
UNION ALL SELECT 'offer', 'default of ' || name, '' FROM col WHERE has_default
UNION ALL SELECT 'offer', def, '' FROM uni
UNION ALL SELECT 'offer', 'domain ' || typname, '' FROM dom
UNION ALL SELECT 'offer', 'sequence ' || relname, '' FROM pg_class WHERE relnamespace = $1::regnamespace AND relkind = 'S'
UNION ALL SELECT 'offer', format('function %s(%s) %s', proname, pg_get_function_identity_arguments(oid), pg_get_function_result(oid)), ''
	FROM pg_proc WHERE pronamespace = $1::regnamespace
UNION ALL SELECT 'demand', name || ' must not be NULL', 'column ' || name FROM col WHERE attnotnull
UNION ALL SELECT 'demand', name || ' must be given', 'table ' || relname FROM col WHERE attnotnull AND NOT has_default
UNION ALL SELECT 'demand', def, 'table ' || relname FROM uni
UNION ALL SELECT 'demand', format('%s: constraint %s %s', relname, conname, pg_get_constraintdef(c.oid)), 'table ' || relname
	FROM tab JOIN pg_constraint c ON conrelid = tab.oid WHERE contype IN ('c', 'f', 'p', 'u', 'x')
UNION ALL SELECT 'demand', format('domain %s: constraint %s %s', typname, conname, pg_get_constraintdef(c.oid)), 'domain ' || typname
	FROM dom JOIN pg_constraint c ON contypid = dom.oid WHERE contype = 'c'
UNION ALL SELECT 'demand', format('%s: trigger %s', relname, tgname), 'table ' || relname
	FROM tab JOIN pg_trigger ON tgrelid = tab.oid WHERE NOT tgisinternal`
