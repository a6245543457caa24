// Package pgbouncer runs a real PgBouncer in transaction mode for tests, in
// front of a Postgres that can be replaced by another while clients stay
// connected. It needs an installed pgbouncer (Debian's package, for example).
package pgbouncer
