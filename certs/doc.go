// Package certs keeps TLS certificates in files that may be renewed while the
// program runs: [Files] reads them whenever a connection is made, so that a new
// certificate or authority is used without a restart. Connections that stand go on
// with what they began with.
//
// The adapters take Files in their configuration (kafka.Config.TLSFiles and the
// like); for pools of pgx see package pgcerts.
//
// Servers are verified as Go's crypto/tls does it: chain, dates and host name, always.
package certs
