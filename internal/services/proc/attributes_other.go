//go:build unix && !linux

package proc

import "syscall"

// attributes puts the child into its own process group. Only Linux can end the
// child when the parent dies.
func attributes(syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
