// Bench measures what docs/benchmarks.md lists: each figure beside its own
// reference, alternating, in one run on one machine, because rates of different
// days and machines say little.
//
//	make bench-relay                          the relay's figures
//	make bench-consume                        those of consumers
//	make bench-effect                         from commit to effect
//	make bench-peers                          Debezium and watermill beside it
//	BENCH=kafka_drain make bench-relay        those whose name contains it (comma-separated)
//	BENCH_QUICK=1 make bench-relay            fewer events, shorter windows: to try it
//	BENCH_ROUNDS=5 make bench-relay           rounds; default 3
//	JSON=1 make bench-relay                   one object a line
//
// The relay or consumer under test runs in a process of its own, so that its memory and CPU
// are not those of the load.
package main
