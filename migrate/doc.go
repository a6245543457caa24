// Package migrate holds the database schemas of outboxkit: the outbox (for
// services that write events, and their relay) and the inbox (for services that
// consume them, with its dedup tables). Migrations are embedded, versioned and
// reversible, and two processes may run them at once.
//
//	err := migrate.Outbox("").Up(ctx, conn)
//
// Run them over a direct connection: the lock that keeps two runs apart belongs
// to a session, which a transaction-mode pooler does not keep. The command line
// has the same: relay migrate up|down|status|sql.
package migrate
