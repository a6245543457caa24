// Package inbox handles events once in the consumer's database.
//
//	in, err := inbox.New(pool, inbox.Config{Consumer: "inventory", From: subscriber})
//	inbox.On(in, OrderPlacedV1, func(ctx context.Context, tx pgx.Tx, e inbox.Event[OrderPlaced]) error {
//		_, err := tx.Exec(ctx, `UPDATE stock SET qty = qty-1 WHERE sku = ANY($1)`, e.Data.Items)
//		return err
//	})
//	err = in.Run(ctx)
//
// # The way of a message
//
// Each message takes one transaction: claim (see package dedup), handler,
// commit, and only then the broker's acknowledgement. A message that was handled
// before is acknowledged without effect. So a handler's changes through its
// transaction happen once, however often the broker delivers. What it does
// beside its transaction may happen again: give other people's APIs the event's
// id, and use no second connection of the pool (handlers that hold one and wait
// for another can wait for ever).
//
// Messages of one key are handled one after the other, in the order of their
// delivery; different keys in parallel.
//
// # When handling fails
//
// A handler that fails, panics or takes too long is tried again after a pause,
// in which only its key waits. After Config.Attempts, or at once for a
// [Permanent] error, the message becomes a row in the table dead, in one
// transaction with the claim, and is acknowledged. Bytes that cannot be decoded
// and ids that cannot be told apart go there at once. With Config.BlockKey,
// later messages of that key are stored behind it untried, so that they are not
// handled out of order.
//
// A database that is away counts against no message: consumption pauses until
// it is back. Nothing is acknowledged that is not in the database.
package inbox
