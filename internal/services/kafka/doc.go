// Package kafka runs a real Apache Kafka broker for tests: one node in KRaft
// mode, on 127.0.0.1 and free ports, with its own data, that can be crashed and
// restarted. It needs a Java 17 runtime; [Fetch] brings Kafka itself.
package kafka
