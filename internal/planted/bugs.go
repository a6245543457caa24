package planted

// Env is the environment variable that names a process's bug.
const Env = "OUTBOXKIT_PLANT"

// Bug is a planted bug's name.
type Bug string

// The bugs.
const (
	// NoFencing: a relay goes on when its lease is over, and its positions are stored.
	NoFencing Bug = "no-fencing"
	// AckBeforeCommit: an inbox acknowledges a message when it receives it.
	AckBeforeCommit Bug = "ack-before-commit"
	// NoSnapshotFilter: a relay reads by ids alone, and never looks for transactions
	// that commit after later ones.
	NoSnapshotFilter Bug = "no-snapshot-filter"
	// PositionBeforeConfirm: a position counts what has been handed to the publisher.
	PositionBeforeConfirm Bug = "position-before-confirm"
	// NoReturnListener: what RabbitMQ returns as unroutable, and confirms, is published.
	NoReturnListener Bug = "no-return-listener"
	// TruncationWithoutLock: a slot is looked at, and truncated, without a lock before.
	TruncationWithoutLock Bug = "truncation-without-lock"
	// NoIncarnationCheck: a relay trusts its memory after the database's recovery.
	NoIncarnationCheck Bug = "no-incarnation-check"
)

// Bugs returns all of them.
func Bugs() []Bug {
	return []Bug{NoFencing, AckBeforeCommit, NoSnapshotFilter, PositionBeforeConfirm, NoReturnListener, TruncationWithoutLock, NoIncarnationCheck}
}
