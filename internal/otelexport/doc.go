// Package otelexport sets OpenTelemetry's SDK up for `relay run`: metrics for
// Prometheus always, and what the standard OTEL_* variables ask for.
package otelexport
