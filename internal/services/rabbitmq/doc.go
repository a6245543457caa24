// Package rabbitmq runs a real RabbitMQ server for tests, on 127.0.0.1 and free
// ports, with its own node name, Erlang port mapper and data, that can be
// crashed and restarted beside any other RabbitMQ of the machine. It needs an
// installed rabbitmq-server (Debian's package, for example), not a running one.
package rabbitmq
