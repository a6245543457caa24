// Package outbox writes events in the caller's own transaction: if it commits,
// they will be published; if it rolls back, they never existed.
//
//	ob, err := outbox.New(ctx, pool, outbox.Config{Source: "/shop/orders", Types: []event.Any{OrderPlacedV1}})
//	…
//	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
//		if _, err := tx.Exec(ctx, `INSERT INTO orders (id) VALUES ($1)`, o.OrderID); err != nil {
//			return err
//		}
//		return ob.Write(ctx, tx, OrderPlacedV1.New(o))
//	})
//
// # Order
//
// Events of one key are published in the order of their INSERTs, provided that
// each transaction holds the key's lock before it writes the event. Updating or
// inserting the aggregate's row first, then writing the event, is that lock. It
// is not held when the event is written before the row is locked (ORMs that
// flush INSERTs first), when the lock is FOR SHARE, when it was taken in a
// savepoint that rolled back, under SERIALIZABLE without row locks, in
// insert-only ledgers, or when the event's key is not the locked row's. For
// those, use [Outbox.WithKeyLock].
//
// # Other languages
//
// A plain INSERT into outbox.event (topic, key, type, source, payload) from any
// language is as good: every other column has a default.
package outbox
