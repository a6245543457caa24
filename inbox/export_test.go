package inbox

import "time"

// LookEvery sets how often in looks for redriven dead letters.
func LookEvery(in *Inbox, d time.Duration) { in.redrivePoll = d }
