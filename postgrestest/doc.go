// Package postgrestest gives tests real PostgreSQL databases, on nothing but Go:
//
//	pool := postgrestest.Pool(t, migrate.Outbox("").Up, migrate.Inbox("").Up, shop.Migrate)
//
// Each call creates a database, which is dropped at the end of the test; tests
// may run in parallel. The databases are in the server that
// $OUTBOXKIT_POSTGRES_URL names (a superuser's URL), else in one that the first
// call of the test process starts, on 127.0.0.1, as any user including root; it
// ends with the process, and so does its data. The first call on a machine
// downloads the server's programs, about 10 MB, into the user's cache folder.
// The server runs with fsync off. It takes Linux or macOS.
//
// It is a package of its own so that whoever has a Postgres for tests already,
// in a container for example, builds none of this: outboxtest and inboxtest take
// any database.
package postgrestest
