// Package proc runs server programs as children that do not outlive their
// parent: each in its own process group, its output in a log file, stopped by
// signal and then by force, and on Linux ended by the kernel when the parent
// dies without a word.
//
// It also holds what every such server needs around it: a free loopback port, a
// data folder, a cache folder shared by runs, and an unprivileged account for
// programs that refuse to run as root. It works on Linux and macOS.
package proc
