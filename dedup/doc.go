// Package dedup answers one question inside a database transaction: has this
// been handled before?
//
//	store, err := dedup.NewPostgres(ctx, pool, dedup.Config{Consumer: "inventory"})
//	…
//	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
//		results, err := store.Claim(ctx, tx, dedup.Key{Source: "/shop/orders", ID: id})
//		if err != nil || results[0] != dedup.Claimed {
//			return err
//		}
//		return handle(ctx, tx) // commits together with the claim, or not at all
//	})
//
// A claim is part of the caller's transaction: it is remembered if that commits
// and forgotten if it rolls back. While it is open, every other claim of the
// same key waits for it, so two never both run. Package inbox does all of this
// for events; use dedup alone for commands, webhooks and the like.
//
// Where a duplicate needs the answer that the first one got, use a [Store]: the
// response is remembered with the key, in the transaction ([Postgres.In]) or in
// memory ([Memory]). Package dedup/deduptest is the suite for stores.
//
// Keys are remembered for a window of days and then forgotten: somebody has to
// call [Postgres.Maintain] now and then; an inbox does.
//
// The transaction must be READ COMMITTED, which is the default: above that a
// duplicate is a serialization failure instead of an answer. The tables are
// created by migrate.Inbox.
package dedup
