// Command services starts what the tests talk to: Postgres, Kafka, RabbitMQ and
// a schema registry, all real, on 127.0.0.1 and free ports.
//
//	go run ./internal/cmd/services up               until Ctrl-C
//	go run ./internal/cmd/services run -- CMD ARGS  around CMD
//
// It fetches what is missing into a cache outside the checkout, and installs
// missing packages on Debian when it is root. A service whose address is in the
// environment already is used and not started. Nothing it started outlives it.
package main
