// Package apicurio runs a real schema registry for tests: Apicurio, in memory,
// on 127.0.0.1 and a free port, with Confluent's API under /apis/ccompat/v7. It
// needs a Java 17 runtime; [Fetch] brings the registry itself.
package apicurio
