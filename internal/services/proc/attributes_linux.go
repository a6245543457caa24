package proc

import "syscall"

// attributes puts the child into its own process group, out of the reach of the
// terminal's Ctrl-C: the parent stops its servers in order.
func attributes(death syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: death}
}
