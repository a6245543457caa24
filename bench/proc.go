package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Figures of processes come from Linux's /proc; elsewhere they are left out.

const ticksPerSecond = 100 // USER_HZ, fixed in the kernel's interface

// cpuSeconds is the CPU time of a process so far, with its ended children.
func cpuSeconds(pid int) float64 {
	fields := statFields(pid)
	if len(fields) < 15 {
		return 0
	}
	var ticks float64
	for _, f := range fields[11:15] { // utime, stime, cutime, cstime
		n, _ := strconv.ParseFloat(f, 64)
		ticks += n
	}
	return ticks / ticksPerSecond
}

// statFields returns /proc/pid/stat after the command's name.
func statFields(pid int) []string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
}

// treeSeconds is cpuSeconds of a process and its children that are alive.
func treeSeconds(pid int) float64 {
	total := cpuSeconds(pid)
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		child, _ := strconv.Atoi(filepath.Base(d))
		if f := statFields(child); len(f) > 1 && f[1] == strconv.Itoa(pid) {
			total += cpuSeconds(child)
		}
	}
	return total
}

// peakMiB is the most memory that a process has had resident.
func peakMiB(pid int) float64 {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			var kib float64
			_, _ = fmt.Sscan(rest, &kib)
			return kib / 1024
		}
	}
	return 0
}

// listener finds the process that listens on a local address; 0 if it cannot be
// seen.
func listener(address string) int {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return 0
	}
	inode := listeningInode(port)
	if inode == "" {
		return 0
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && to == "socket:["+inode+"]" {
			pid, _ := strconv.Atoi(strings.Split(l, "/")[2])
			return pid
		}
	}
	return 0
}

func listeningInode(port string) string {
	n, _ := strconv.Atoi(port)
	want := fmt.Sprintf(":%04X", n)
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		data, _ := os.ReadFile(file)
		for line := range strings.Lines(string(data)) {
			if f := strings.Fields(line); len(f) > 9 && strings.HasSuffix(f[1], want) && f[3] == "0A" {
				return f[9]
			}
		}
	}
	return ""
}

func loadAverage() string {
	data, _ := os.ReadFile("/proc/loadavg")
	if f := strings.Fields(string(data)); len(f) > 2 {
		return strings.Join(f[:3], " ")
	}
	return "unknown"
}
