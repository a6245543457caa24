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
// # Batches
//
// [OnBatch] registers a handler that takes up to Config.BatchSize events, which
// share a transaction and are claimed by one statement. With one bulk statement
// in the handler that handles several times as many events a second. If it
// fails, each of its events is handled alone. Where the last messages were
// duplicates, or the broker says that it may have delivered them before, many are
// looked up at once, without a transaction.
//
// # Versions of a type
//
// A change of the schema that Avro can resolve (a field with a default added or
// removed) keeps the type's name. During a producer's deployment both schemas
// come on one topic, and one handler reads both: the wire format says which
// schema a message was written with, the codec turns that into its own. The
// consumer must be able to learn the writer's schema: from a registry, or by
// being given every version (avro.SingleObject); bytes of a schema that it cannot
// learn are dead letters.
//
// A change of meaning is a new type: give it a name of its own, for example
// shop.order.placed.v2 beside shop.order.placed, and a handler of its own. Both
// may share a topic, and then share the order of their keys. Deploy the consumer
// first; until then Config.Unknown says what happens to the new type. A producer
// that writes both for one order makes two events, with an effect each.
//
// # Middleware
//
// Config.Middleware goes around every attempt, the first outermost; what [On] is
// given goes inside that, around the attempts of one type. [Log], [Timeout] and
// [Trace] are supplied. Middleware sees the [Attempt] (envelope, origin, number)
// and can run statements in the handler's transaction ([Attempt.Exec]), for
// example for row-level security. A panic, of the handler or of middleware, is a
// [PanicError] for whatever is further out: that needs no middleware.
//
// # Events that follow from events
//
// A handler writes to an outbox with the tx that it was given, so that its
// changes, its events and the claim commit together. The context names the cause:
// outbox.Write fills in CausationID (the handled event's id) and CorrelationID
// (its correlation id or, if it has none, its id). See examples/delivery.
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
// Where a handler fails for one message after the other, not the messages are at
// fault: the circuit of that type opens. Its messages wait, one at a time is
// tried after pauses that grow, and all go on, gradually, when one succeeds. What
// failed meanwhile is forgotten: an outage makes no dead letters. Other types go
// on. If every message of a type is bad this waits for a person: Stats.Circuits
// and the log say so. With few keys in flight, or none but one, nobody can tell a
// bad message from an outage by its failures: a handler that knows returns
// [Unavailable] or [Permanent]. Retries are a fifth of a type's traffic, or one at
// a time.
//
// A message whose handler kills the process, by using up its memory for example,
// is tried alone after a crash, and becomes a dead letter after Config.Attempts of
// them.
//
// A handler that ignores its context keeps its key until it returns, but neither
// its worker nor its connection, and nothing it does in its transaction counts.
//
// # Dead letters
//
// [DeadLetters], [ShowDeadLetter] and [ExportDeadLetters] read them; [Redrive] has
// them handled again and [Discard] gives them up, as relay dlq --inbox does. A redriven
// row is handled by the running inboxes of its consumer, with the handler's time,
// attempts and middleware, beside the messages of the broker (four at once at most):
// first the head of a key, then what is stored behind it, one after the other. The
// row's state changes in the handler's transaction, so it takes effect once, however
// many inboxes look for it and whatever breaks. New messages of the key wait behind.
// Without Config.BlockKey a redriven one may be handled while a new one of its key is.
//
// # Outages
//
// A database that is away counts against no message: consumption pauses until
// it is back. Nothing is acknowledged that is not in the database.
package inbox
