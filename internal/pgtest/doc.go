// Package pgtest gives tests real PostgreSQL databases.
//
// A package that uses it has
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
//
// and its tests call [Pool] or [URL], each time for a new empty database that
// is dropped at the end of the test; they may run in parallel. The databases
// are in the server that $OUTBOXKIT_POSTGRES_URL names, else in one that the
// first call of the test process starts and Main stops.
//
// Transaction ids and snapshots belong to the whole server: a test that holds a
// transaction open for seconds, or needs ids that nobody else draws, takes a
// server to itself with [Own].
package pgtest
