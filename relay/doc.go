// Package relay publishes the events of an outbox to brokers, in order per key
// and at least once, and frees the space of old events.
//
//	r, err := relay.New(pool, relay.Config{Pipelines: []relay.Pipeline{{Name: "kafka", To: publisher}}})
//	err = r.Run(ctx) // blocks; returns nil when ctx has ended and all is flushed
//
// Run it inside the service that writes the events, or in a process of its own
// (command relay): it is the same code with the same leases. Of several running
// instances one works and the others stand by. It works through a
// transaction-mode PgBouncer if the pool's default_query_exec_mode is exec or
// cache_describe.
//
// # How it reads
//
// The outbox is an append-only log and progress is a position in it; no event's
// row is ever changed. Ids are drawn in one order and become visible in another,
// so "everything up to id n" is no position. A position is (S, H, B), taken by
// one statement, the probe: S is the snapshot, H the highest id drawn, B the
// next unassigned transaction id. Passed is what has id <= H and is visible in
// S. A row with id <= H that S does not see belongs to a transaction that had
// its xid before H was read (the table's defaults see to that), hence to xip(S)
// or to [xmax(S), B). So what is left to publish is exactly
//
//   - late rows: those few transactions, once a newer snapshot sees them, and
//   - new rows: id > H.
//
// A batch is the way from one position to the next probe's (S', H', B'): first
// the late rows, then the new ones that S' sees, each in id order, in pages
// bounded by rows and bytes; the cursor c says how far it has come. A long
// transaction costs nothing until it commits, then one index look-up, and it
// delays nobody.
//
// # Who does what
//
// Run holds a tenure: an instance row that a heartbeat keeps alive. Within it
// each pipeline runs a session of four goroutines: the keeper holds a fair share
// of the pipeline's shards, the reader stays up to two pages ahead of the
// publisher, the publisher publishes a page until each event of it is resolved
// and then moves the position in memory, and the flusher appends positions to
// the database a few times a second. A page is resolved before the next one is
// handed to the broker, which keeps the order per key. One goroutine per tenure
// looks after retention. Whatever ends a session throws its memory away and
// starts from the positions in the database.
//
// # Sharing
//
// A shard is published by the owner of its lease row. An instance that has more
// than its share stops reading some shards, resolves what is in flight, stores
// their positions and only then makes their leases nobody's; one that has less
// takes leases that are nobody's or of an instance that is dead, each under a
// higher epoch. Nothing is taken from a live owner. An instance that stops says
// so first, then drains and releases, so that others take over at once.
//
// # When publishing fails
//
// While the broker is away the pipeline's circuit is open: single probes with
// growing pauses, then a growing window. An event that can never be published is
// parked as dead at once; the events of a bad topic are parked after its attempts
// and tried again in the background, in order per key, until they are published
// or, after the policy's attempts or age, dead. Parked events are rows of the
// table parked, each a full copy, stored in one transaction with the position
// past them; later events of the key queue behind them (Pipeline.BlockKey).
//
// # When Postgres forgets
//
// After a crash or a promotion Postgres may hand out xids and ids a second time;
// positions in memory would then skip events, and a pooler can hide the change.
// So every probe, page, load and flush carries the token of an UNLOGGED table
// that recovery empties. A dump restored elsewhere is refused with
// [ErrForeignCluster] until [Rebase].
package relay
