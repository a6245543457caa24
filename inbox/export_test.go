package inbox

import "time"

// LookEvery sets how often in looks for redriven dead letters.
func LookEvery(in *Inbox, d time.Duration) { in.redrivePoll = d }

// FollowFor sets how long in keeps a connection for several messages.
func FollowFor(in *Inbox, d time.Duration) { in.followFor = d }

// RedriveStatements are what a redrive runs in the inbox, by name.
func RedriveStatements() map[string]string {
	q := newRedriveQueries("inbox")
	return map[string]string{
		"look": q.keyed, "load": q.load, "lock": q.lock, "done": q.done, "promote": q.promote, "failed": q.failed,
		"commit": "commit after " + q.promote,
	}
}
