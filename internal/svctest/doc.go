// Package svctest gives tests brokers and a schema registry: shared ones whose
// addresses `make test` and `make services` put into the environment, or a
// server of their own to crash and restart.
//
// A test that needs a server that is not to be had is skipped and says what to
// do; with OUTBOXKIT_REQUIRE_SERVICES=1 it fails instead. Shared servers are
// used by many tests at once: name topics and queues with [Unique].
package svctest
