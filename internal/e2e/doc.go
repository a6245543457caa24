// Package e2e holds tests of the whole way on real servers: orders written by
// concurrent services, the relay daemon, a real broker, consumers with an inbox,
// while processes are killed and the broker is restarted. An independent checker
// (internal/history) compares what was committed with what took effect.
package e2e
