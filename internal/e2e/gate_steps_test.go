//go:build faults

package e2e

import (
	"bytes"
	"encoding/binary"
	"strings"
)

// step reads one message of the process to the server and returns the step of
// the inbox's transaction that it begins, "" for none:
//
//	claim                     the claims
//	effect, handler           the handler's two statements
//	dead, blocked, moving     a dead letter's row, by its state
//	moved                     the row of a dead letter whose copy is confirmed
//	redrive                   a redriven dead letter is locked
//	redriven, promote         it is done, and the next of its key is due
//	commit of <the latest of these>
func (c *gateConn) step(kind byte, body []byte) string {
	var sql string
	var params [][]byte
	switch kind {
	case 'Q':
		sql, _ = text(body)
	case 'P':
		name, rest := text(body)
		c.statements[name], _ = text(rest)
		return ""
	case 'B':
		_, rest := text(body) // portal
		name, rest := text(rest)
		sql, params = c.statements[name], parameters(rest)
	default:
		return ""
	}
	step, event := classify(sql, params)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch step {
	case "":
		return ""
	case "commit", "rollback":
		c.open = false
		return step + " of " + c.last
	}
	c.open, c.last = true, step
	if event != "" || step == "claim" || step == "redrive" || step == "moved" {
		c.event = event // of another message
	}
	return step
}

// classify names a statement's step and, where its parameters say it, the event.
func classify(sql string, params [][]byte) (step, event string) {
	switch {
	case sql == "commit" || sql == "rollback":
		return sql, ""
	case strings.Contains(sql, "INSERT INTO inbox.seen"):
		return "claim", ""
	case strings.HasPrefix(sql, insertEffect):
		return "effect", string(params[2])
	case strings.HasPrefix(sql, inHandler):
		return "handler", string(params[0])
	case strings.HasPrefix(sql, "INSERT INTO inbox.dead"):
		return string(params[2]), string(params[9])
	case strings.HasPrefix(sql, "UPDATE inbox.dead SET state") && strings.HasSuffix(sql, "state = 'moving'"):
		return "moved", ""
	case strings.HasSuffix(sql, "FOR UPDATE SKIP LOCKED") && strings.Contains(sql, "FROM inbox.dead"):
		return "redrive", ""
	case strings.HasPrefix(sql, "UPDATE inbox.dead SET state = 'redriven'"):
		return "redriven", ""
	case strings.HasPrefix(sql, "UPDATE inbox.dead h SET state = 'retrying'"):
		return "promote", ""
	}
	return "", ""
}

// text splits a zero-terminated string off.
func text(b []byte) (string, []byte) {
	i := bytes.IndexByte(b, 0)
	return string(b[:i]), b[i+1:]
}

// parameters are those of a Bind message, after the two names.
func parameters(b []byte) [][]byte {
	short := func() int {
		n := binary.BigEndian.Uint16(b)
		b = b[2:]
		return int(n)
	}
	formats := short()
	b = b[2*formats:]
	params := make([][]byte, short())
	for i := range params {
		n := int32(binary.BigEndian.Uint32(b)) //nolint:gosec // as the protocol has it; -1 is NULL
		b = b[4:]
		if n >= 0 {
			params[i], b = b[:n], b[n:]
		}
	}
	return params
}
