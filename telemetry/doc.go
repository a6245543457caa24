// Package telemetry gives outboxes, relays and inboxes OpenTelemetry metrics and
// traces. It works from outside, with what those packages offer anyway: their
// statistics, a publisher around a publisher, a middleware around handlers, a
// function for the headers of new events. So who does not want OpenTelemetry does
// not get it, and what it costs is paid here.
//
// It imports the API of OpenTelemetry, not its SDK: where metrics and spans go is
// decided by whoever makes the providers. `relay run` exports to Prometheus and by
// OTLP.
//
// # Metrics
//
// [Metrics] lists them all; docs/observability.md is made from it. Names follow the
// semantic conventions where there are some (messaging.*, db.*), the rest begins
// with outboxkit. Attributes have few values: never a key, an event's id or an
// error's text.
//
// # Traces
//
// An event carries the trace of the request that wrote it in its traceparent header
// ([TraceHeaders]). The relay adds a span below that, the consumer another for each
// attempt, and events that a handler writes carry the handler's: one trace from the
// request to the last consumer. The header stays as it was written: a repeated
// publication is the same message, and a trace is whole where the relay has no
// telemetry. Batches have a trace of their own, with a link to each event's.
//
// Only sampled events cost spans: the decision is the writing service's.
package telemetry
