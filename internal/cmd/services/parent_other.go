//go:build !linux

package main

// dieWithParent is possible on Linux only.
func dieWithParent() {}
