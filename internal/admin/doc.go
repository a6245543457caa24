// Package admin is the listener of a process for its operators: health, metrics,
// pages. It is reachable from the machine itself only, unless TLS and a token or
// client certificates protect it.
package admin
