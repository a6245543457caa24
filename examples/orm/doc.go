// Package orm shows how services that use GORM, sqlc, ent or bun write events and
// handle them. One file a library.
//
// To write (PlaceWith…), the library begins the transaction and hands it to
// outbox.WriteSQL or, where it speaks pgx, to outbox.Write. To handle
// (RecordWith…), it is the other way round: the inbox has begun the transaction,
// and the library works inside it.
//
// The events are keyed by user, whose row these transactions do not lock: hence
// WithKeyLock, which keeps a user's events in the order of the commits. Where the
// transaction has locked the row of the key before (see examples/demo/orders),
// leave it out.
//
// It is a module of its own, so that outboxkit itself depends on none of them.
package orm

//go:generate go run github.com/sqlc-dev/sqlc/cmd/sqlc@v1.31.1 generate
//go:generate go run entgo.io/ent/cmd/ent@v0.14.5 generate ./ent/schema
