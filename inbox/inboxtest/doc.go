// Package inboxtest tests a service's handlers without a broker, through the
// real inbox, in a real database.
//
// [Consumer] is what is tested: how the service makes its inbox. Its method
// Deliver hands it events and returns when they are handled; Try does so with
// events that may fail, and tells what became of them.
//
// RequireIdempotent delivers the same events in all the ways that a broker, a
// crash or a second instance can bring about, each time to a new database:
//
//   - in another order across keys (in order within a key), one at a time;
//   - with connections broken at a statement of the handler, and between its end
//     and the commit;
//   - twice, to two instances at once, and all again to a third that then goes on
//     alone;
//   - all of that together.
//
// The state that each of these leaves behind must be the state after delivering
// every event once, in order. It finds handlers that change something outside
// their transaction, end it themselves, remember what was rolled back, depend on
// the order across keys, or overwrite what another key's handler has written,
// and instances that do not know of each other.
//
// [Handle] calls one handler in a transaction of the test's, which
// outboxtest.RequireWritten can then ask for the derived events.
package inboxtest
