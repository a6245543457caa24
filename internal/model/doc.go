// Package model is a model of what relays share: the log with its transactions and
// snapshots, leases, positions, parked events, slots and the broker. It is small
// enough to be read beside docs/architecture.md, and is nobody's code at run time.
//
// A [World] makes steps ([World.Do]) and judges each. A step that breaks a rule of
// the design, or a promise to users, is a [Breach]. The rules:
//
//   - A position passes only what is confirmed to its writer, parked, or passed by the
//     position before; nothing whose transaction runs; and whatever it does not pass
//     it will find ([Position.Finds]), so that nothing slips through.
//   - A position is stored, and parked events are claimed, only under the lease's
//     present epoch. A lease is taken only from nobody or the dead, under a new epoch.
//   - An event is published by the holder of its lease, when all earlier ones of its
//     key are dealt with and none of them is parked; a parked one in its turn.
//   - An event is parked in the transaction of the position that passes it.
//   - A slot is truncated when every pipeline's stored position has passed all of it.
//
// The promises: what is committed is published or parked when all is quiet; nothing
// else is published; first publications of a key are in the order of writing; an
// event that was discarded comes out only if the operator was told that it might.
//
// Two things drive the same steps, so that the model is neither too lax nor about
// something else:
//
//   - The tests here have the relay's algorithm, mistakes on purpose included, do what
//     comes next in an order chosen at random: transactions that stay open, late
//     statements, relays that freeze and thaw, lost and late publications, crashes of
//     the database that hand out ids again. No order may break anything, and every
//     mistake must be found.
//   - Tests in package relay record what real relays do on a real database, and replay
//     it here: each recorded step must be allowed.
//
// Left out: time (a lease ends whenever it likes, and its holder knows), pages' sizes
// in bytes, filters, topics and circuits, BlockKey = false, registration of pipelines,
// commits that an asynchronous failover forgets, and attempts of unparked events in
// [ParkedRow].Unanswered.
package model
