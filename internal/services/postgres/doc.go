// Package postgres runs a real PostgreSQL server for tests and demos, on
// 127.0.0.1 and a free port, as any user including root.
//
// The server programs are fetched once by embedded-postgres, checked against the
// committed SHA256SUMS and kept in the user's cache, so nothing has to be
// installed. A server can be crashed,
// restarted on the same data, followed by a streaming [Server.Standby] and
// replaced by it with [Server.Promote].
package postgres
