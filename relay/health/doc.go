// Package health serves what relays say of themselves over HTTP: for probes and for
// people. It needs no database: its answers come from the process's memory.
//
// A relay that cannot work is hardly ever mended by another start: it waits for
// Postgres and brokers by itself. So [Live] says nothing about them, [Ready] asks
// for Postgres and the lease alone, and [Progress], which tells what stands still
// and why, always answers 200: nobody can make a probe of it that restarts or
// removes what still works.
//
// A service that embeds a relay mounts Progress and leaves its own probes as they
// are: an outage of the broker, or of the outbox's database, is then no reason to
// take the service away.
package health
