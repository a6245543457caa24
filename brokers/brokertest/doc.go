// Package brokertest is what every adapter of package brokers is held to, and
// what everybody else's tests run on:
//
//   - [Exercise] runs the conformance suite on an adapter, described by a
//     [Harness]. docs/adapters.md says what each subtest protects from.
//   - [Memory] is a broker in the test's own process that passes the suite.
//   - [Faulty] wraps a Publisher and makes chosen messages fail, wait, or lose
//     their answers.
package brokertest
