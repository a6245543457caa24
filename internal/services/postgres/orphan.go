package postgres

import (
	"fmt"
	"os/exec"
	"strconv"
	"syscall"
)

// orphan waits for the end of its input, which ends with whoever holds the other
// side of the pipe, then ends the server's process group and removes its data.
const orphan = `cat >/dev/null
kill -s QUIT -- "-$1" 2>/dev/null
for i in 1 2 3 4 5 6 7 8 9 10; do kill -s 0 -- "-$1" 2>/dev/null || break; sleep 0.5; done
kill -s KILL -- "-$1" 2>/dev/null
rm -rf -- "$2"`

// CloseWithProcess closes the running server when this process ends in whatever
// way, for callers that have no place to call Close. It holds until then: the
// server must not be stopped and started again.
func (s *Server) CloseWithProcess() error {
	cmd := exec.Command("/bin/sh", "-c", orphan, "outboxkit-orphan", strconv.Itoa(s.Pid()), s.dir)
	// Not in our group: the terminal's Ctrl-C is for us.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the shell that closes the server: %w", err)
	}
	s.orphan = pipe // kept from the garbage collector, which would close it
	return nil
}
