package main

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// dieWithParent makes the death of the parent end us in order: `go run` does
// not pass SIGTERM on to what it runs.
func dieWithParent() {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGTERM), 0, 0, 0); err != nil {
		say("will not notice the death of the parent process: %v", err)
	}
}
