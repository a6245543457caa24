package telemetry

import "time"

// WatchEvery shortens the time between looks at a database.
func (t *Telemetry) WatchEvery(d time.Duration) { t.every = d }

// StaleAfter shortens the time for which what a database said is believed.
func (t *Telemetry) StaleAfter(d time.Duration) { t.stale = d }

// Tripped tells of a circuit's state.
var Tripped = tripped

// Written is when an event was written, by its id.
var Written = written
