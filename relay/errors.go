package relay

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

var (
	// ErrForeignCluster says that the log's transaction ids are not those of this
	// cluster or database: it was dumped and restored, or replicated logically.
	// Positions mean nothing here and would skip events silently. The way out is
	// [Rebase] (on the command line: relay rebase).
	ErrForeignCluster = errors.New("this outbox comes from another cluster or database; run: relay rebase")
	// ErrNotMigrated says that the outbox schema is missing or too old.
	ErrNotMigrated = errors.New("the outbox schema is missing or too old; run: relay migrate up")
	// ErrMissingGrant is what every [GrantError] wraps.
	ErrMissingGrant = errors.New("the relay's role lacks a right")
	// ErrRunning is returned by a second, concurrent Run of the same Relay.
	ErrRunning = errors.New("this relay is already running")
)

// GrantError names a right that the relay's role needs and lacks. A missing right
// found at run time would look like something else ("no partition of relation
// found for row", for one), so all are checked when Run starts.
type GrantError struct {
	Role      string
	Privilege string // for example TRUNCATE
	Object    string // for example "TABLE outbox.event_3"
}

// Error implements error and ends with the statement that helps.
func (e *GrantError) Error() string {
	return fmt.Sprintf("%v: GRANT %s ON %s TO %q", ErrMissingGrant, e.Privilege, e.Object, e.Role)
}

// Unwrap returns [ErrMissingGrant].
func (e *GrantError) Unwrap() error { return ErrMissingGrant }

// Why a session or a tenure ended. None of them reaches the caller of Run.
var (
	errIncarnation = errors.New("the database has been through a recovery: positions in memory are void")
	errLeaseLost   = errors.New("the lease has run out or was taken over")
	errDrained     = errors.New("drain timeout")
	errStuck       = errors.New("shards that others wait for cannot be drained")
	errUnable      = errors.New("shards do not move here: withdrawn, so that others publish them")
	errStandby     = errors.New("the database is a standby in recovery")
)

// fatal tells whether Run should give up: nothing but a person can help.
func fatal(err error) bool {
	return errors.Is(err, ErrForeignCluster) || errors.Is(err, ErrNotMigrated) || errors.Is(err, ErrMissingGrant) ||
		errors.Is(err, ErrFilterChanged)
}

// misuse tells whether the database refused a statement itself (a missing right,
// table or column): the checks at the start of a tenure know what to say.
func misuse(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && strings.HasPrefix(pg.Code, "42")
}
