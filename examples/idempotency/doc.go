// Package idempotency is an example of package dedup alone: an HTTP command that
// its client may send again takes effect once, by the header Idempotency-Key of
// the IETF draft (draft-ietf-httpapi-idempotency-key-header).
//
// The command's changes, the record that it was handled, and its response commit
// in one Postgres transaction. So whatever is lost, the request, the response or
// the process between the two, the client sends the same request with the same key
// and gets the one answer.
//
//	commands, err := dedup.NewPostgres(ctx, pool, dedup.Config{Consumer: "orders api", Concurrent: dedup.Conflict})
//	http.Handle("POST /orders", &idempotency.Handler{Pool: pool, Store: commands, Scope: user, Do: placeOrder})
//
// What it answers by itself:
//
//	400  no key, or none that can be one
//	409  the first request with this key is running (dedup.Conflict); with
//	     dedup.Wait it waits instead, holding a connection of the pool
//	413  the body is too large to be compared
//	422  the key was used for another request
//	500  not handled: send it again with the same key
//
// Copy it into your service, and call Maintain of the store every ten minutes or
// so, unless an inbox on the same schema does.
package idempotency
