// Package outboxtest answers, in a service's own tests, what it has written to
// its outbox: which events, in which order, with which data.
//
//	tx, err := pool.Begin(ctx)
//	…
//	require.NoError(t, service.Place(ctx, tx, order))
//	outboxtest.RequireWritten(t, tx, OrderPlacedV1, OrderPlaced{OrderID: "o-1"})
//
// Where a function takes a db, that is one of
//
//   - a pgx.Tx or a *sql.Tx: the events that this transaction has written so
//     far, savepoints included, and no others;
//   - a *pgxpool.Pool, *pgx.Conn, *sql.DB or *sql.Conn: the committed events;
//   - a [Log]: what [Mark] returned, for the events committed after it, or [In],
//     for an outbox in a schema with another name.
//
// Events are read back from the table and decoded as a consumer would decode
// them. The test's role needs SELECT on the tables event and schema, which a
// service's own role does not have: connect as the owner. The database must be
// real: package postgrestest gives one on nothing but Go.
package outboxtest
